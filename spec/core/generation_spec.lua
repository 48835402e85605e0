-- SPDX-License-Identifier: Apache-2.0
local core = require "spec.support.core"
local ffi = require "ffi"

require("spec.support.system").declare_addresses()
local C = core.load("generation.h")

local kept = {}
local function slice(text)
  kept[#kept + 1] = text
  return ffi.new("struct slice", ffi.cast("const char *", text), #text)
end

describe("a generation", function()
  local generation
  local failure = ffi.new("struct error")

  -- Never released: that would tell its worker, and there is none.
  before_each(function() generation = C.generation_new(nil, 1, 1) end)

  local function trusts(address)
    local parsed = ffi.new("struct address")
    assert(C.address_parse(slice(address), 0, parsed))
    return C.generation_trusts(generation, parsed.socket.base)
  end

  it("trusts the addresses of its networks, in both families", function()
    assert.is_false(trusts("10.0.0.1"))
    for _, cidr in ipairs { "10.0.0.0/8", "192.168.1.7", "2001:db8::/33" } do
      assert.equal(0, C.generation_trust(generation, slice(cidr), failure))
    end
    for address, expected in pairs { ["10.255.0.1"] = true, ["11.0.0.1"] = false, ["192.168.1.7"] = true,
      ["192.168.1.6"] = false, ["::ffff:10.0.0.1"] = true,
      ["2001:db8:7fff::1"] = true, ["2001:db8:8000::1"] = false } do
      assert.equal(expected, trusts(address), address)
    end
  end)

  it("refuses what is no network", function()
    for _, text in ipairs { "", "example.com", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8",
      "10.0.0.0/ 8", "10.0.0.0/8x", "::/129", "/8" } do
      assert.is_true(C.generation_trust(generation, slice(text), failure) < 0, text)
    end
    assert.is_false(trusts("10.0.0.1"))
  end)

  it("makes the Host of a service: a port where it is not the usual one, brackets where they belong", function()
    local function host_of(host, port, tls)
      local conf = ffi.new("struct service_conf", { host = host, port = port, tls = tls or false })
      local index = C.generation_service(generation, conf, failure)
      assert(index > 0, ffi.string(failure.text))
      return ffi.string(generation.services[index].host_field.data)
    end
    assert.equal("a.test", host_of("a.test", 80))
    assert.equal("a.test:443", host_of("a.test", 443))
    assert.equal("a.test", host_of("a.test", 443, true))
    assert.equal("[::1]:8080", host_of("::1", 8080))
    assert.equal("[::1]:8080", host_of("[::1]", 8080))
    assert.equal("[2001:db8::1]", host_of("2001:db8::1", 80))
  end)

  it("says which settings it has no use for, and bounds the others", function()
    local function set(name, value) return tonumber(C.generation_setting(generation, slice(name), value)) end
    assert.equal(0, set("client_body_timeout", 1234))
    assert.equal(1234, tonumber(generation.limits.body_timeout_ms))
    assert.equal(tonumber(C.BRIDGE_NONE), set("no_such_setting", 1))
    for _, value in ipairs { -1, 1e16, 0 / 0 } do
      assert.equal(tonumber(C.BRIDGE_INVALID), set("send_timeout", value))
    end
    assert.equal(0, set("max_head_bytes", 1e9))
    assert.is_true(generation.limits.max_head_bytes < 65536) -- a head lies in one chunk
  end)
end)
