-- SPDX-License-Identifier: Apache-2.0
-- Requests here; streams in spec/gateway/stream_plugins_spec.lua.
local spec = require "sluice.spec"

describe("ip-restriction", function()
  local function start(config, gateway)
    return spec.gateway { plugins = { { name = "ip-restriction", config = config } }, gateway = gateway }
  end

  local function status(config, ip)
    return start(config):request({ path = "/", client_ip = ip }).status
  end

  it("refuses addresses and ranges that are denied", function()
    local config = { deny = { "10.0.0.1", "192.168.0.0/16", "2001:db8::/32" } }
    for ip, expected in pairs { ["10.0.0.1"] = 403, ["10.0.0.2"] = 200, ["192.168.9.9"] = 403, ["192.169.0.1"] = 200,
      ["2001:db8:1::1"] = 403, ["2001:db9::1"] = 200, ["::ffff:10.0.0.1"] = 403 } do
      assert.equal(expected, status(config, ip), ip)
    end
  end)

  it("lets in only who is allowed", function()
    local config = { allow = { "10.0.0.0/8", "::1" } }
    for ip, expected in pairs { ["10.1.2.3"] = 200, ["11.0.0.1"] = 403, ["::1"] = 200, ["::2"] = 403 } do
      assert.equal(expected, status(config, ip), ip)
    end
  end)

  it("denies who is both allowed and denied", function()
    local config = { allow = { "10.0.0.0/8" }, deny = { "10.0.0.9" } }
    assert.equal(200, status(config, "10.0.0.8"))
    assert.equal(403, status(config, "10.0.0.9"))
  end)

  it("takes the lists by their names of before Kong 3", function()
    assert.equal(403, status({ blacklist = { "10.0.0.1" }, whitelist = {} }, "10.0.0.1"))
    assert.equal(403, status({ whitelist = { "10.0.0.1" } }, "10.0.0.2"))
  end)

  it("says whom it refuses, and calls no service", function()
    local gateway = start { deny = { "10.0.0.1" } }
    local response = gateway:request { path = "/", client_ip = "10.0.0.1" }
    assert.equal("IP address not allowed: 10.0.0.1", response.json.message)
    assert.equal(0, #gateway:requests())
  end)

  it("answers with its own status and message", function()
    local response = start({ deny = { "10.0.0.1" }, status = 404, message = "nothing here" })
      :request { path = "/", client_ip = "10.0.0.1" }
    assert.same({ 404, "nothing here" }, { response.status, response.json.message })
    assert.equal(204, status({ deny = { "10.0.0.1" }, status = 204 }, "10.0.0.1"))
  end)

  it("looks behind trusted proxies, and believes nobody else", function()
    local gateway = start({ deny = { "203.0.113.9" } }, { trusted_ips = { "10.0.0.0/8" } })
    local headers = { ["X-Forwarded-For"] = "203.0.113.9" }
    assert.equal(403, gateway:request({ path = "/", client_ip = "10.0.0.1", headers = headers }).status)
    assert.equal(200, gateway:request({ path = "/", client_ip = "11.0.0.1", headers = headers }).status)
  end)

  describe("refuses a configuration", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "ip-restriction", config = config } } })
    end

    it("with neither list", function()
      assert.matches("at least one of allow or deny", problem {}, 1, true)
    end)

    it("with what is no address", function()
      assert.matches("config.allow[1]", problem { allow = { "10.0.0.1", "10.0.0.0/33" } }, 1, true)
      assert.matches("config.deny[0]", problem { deny = { "example.com" } }, 1, true)
    end)
  end)
end)
