-- SPDX-License-Identifier: Apache-2.0
-- Exchanges that a plugin breaks off, as clients on real sockets see them.
local gateway = require "spec.support.gateway"
local process = require "spec.support.process"

local CONFIG = [[
_format_version: "3.0"
routes:
- name: nothing
  paths: [/nothing]
  plugins:
  - { name: fault-injection, config: { reset: {} } }
- name: answer
  paths: [/answer]
  plugins:
  - { name: fault-injection, config: { reset: { after_bytes: 3 } } }
  - { name: request-termination, config: { status_code: 200, message: "more than three bytes" } }
- name: well
  paths: [/well]
  plugins:
  - { name: request-termination, config: { status_code: 200, message: "well" } }
]]

local STREAM_ERROR = 92 -- curl's exit codes; of a connection that was closed or reset without a word:
local BROKEN = { [52] = true, [55] = true, [56] = true }

describe("an exchange that is broken off", function()
  local gw

  setup(function()
    gw = gateway.start(CONFIG, { http2 = true })
  end)
  teardown(function()
    if gw then gw:stop() end
  end)

  local function curl(...)
    local status, out = process.run { "curl", "-s", "-m", "10", ... }
    return status, out
  end

  for _, path in ipairs { "/nothing", "/answer" } do
    it("closes a connection of HTTP/1.1 without a response: " .. path, function()
      local status, out = curl(("http://127.0.0.1:%d%s"):format(gw.port, path))
      assert.is_true(BROKEN[status], status)
      assert.equal("", out)
    end)

    it("resets a stream of HTTP/2: " .. path, function()
      local base = ("http://127.0.0.1:%d"):format(gw.port)
      assert.equal(STREAM_ERROR, (curl("--http2-prior-knowledge", base .. path)))
      local _, out = curl("--http2-prior-knowledge", base .. "/well")
      assert.equal('{"message":"well"}', out)
    end)
  end

  it("does not end a request whose body is on its way any other way", function()
    local body = ("x"):rep(200000)
    local status = curl("-d", body:sub(1, 100000), ("http://127.0.0.1:%d/nothing"):format(gw.port))
    assert.is_true(BROKEN[status], status)
  end)
end)
