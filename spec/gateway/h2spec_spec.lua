-- SPDX-License-Identifier: Apache-2.0
-- h2spec, the conformance tests of HTTP/2 and HPACK, its strict cases as well.
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local tls = require "spec.support.tls"
local upstream = require "spec.support.upstream"

local CASES = 146

describe("h2spec", function()
  local folder, up, gw

  setup(function()
    folder = posix.temporary_directory()
    up = upstream.start()
    local made = tls.make_certificate(folder, { name = "a.test" })
    gw = gateway.start({
      _format_version = "3.0",
      services = { { name = "up", url = up:url(), routes = { { name = "all", paths = { "/" } } } } },
      certificates = { { cert = made.certificate_pem, key = made.key_pem, snis = { { name = "*" } } } },
    }, { http2 = true })
  end)

  teardown(function()
    assert.equal(0, gw:stop()) -- nothing of all that is left behind, which would hold up the end
    up:stop()
    process.remove(folder)
  end)

  -- Cases in the report, and what h2spec says of those that did not pass.
  local function run(...)
    local report = folder .. "/report.xml"
    local status, out, err = process.run({ ".cache/bin/h2spec", "--strict", "--timeout", 2 * process.slowness,
      "--junit-report", report, "--host", "127.0.0.1", ... }, { seconds = 200 })
    local _, cases = process.read_file(report):gsub("<testcase ", "")
    return cases, status == 0 and "" or ((out:match("Failures:.*") or out) .. err)
  end

  it("passes all cases over cleartext", function()
    local cases, failures = run("--port", gw.port)
    assert.equal("", failures)
    assert.equal(CASES, cases)
  end)

  it("passes all cases over TLS", function()
    local cases, failures = run("--port", gw.tls_port, "--tls", "--insecure")
    assert.equal("", failures)
    assert.equal(CASES, cases)
  end)
end)
