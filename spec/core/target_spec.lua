-- SPDX-License-Identifier: Apache-2.0
local core = require "spec.support.core"
local ffi = require "ffi"

require("spec.support.system").declare_addresses()
local C = core.load("target.h", "dns.h", "error.h")

local INET, INET6, UNIX = 2, 10, 1

local kept = {}
local function slice(text)
  kept[#kept + 1] = text
  return ffi.new("struct slice", ffi.cast("const char *", text), #text)
end

local function parse(text, port)
  local out = ffi.new("struct address")
  if not C.address_parse(slice(text), port or 80, out) then return nil end
  return out
end

local function show(address)
  return ffi.string(C.address_text(address.socket.base, ffi.new("char[46]"))), C.address_port(address.socket.base)
end

describe("an address", function()
  it("is read in all its forms and shown in one", function()
    for text, shown in pairs { ["10.0.0.1"] = "10.0.0.1", ["::1"] = "::1", ["[::1]"] = "::1",
      ["2001:DB8::0:1"] = "2001:db8::1", ["::ffff:10.0.0.1"] = "10.0.0.1" } do
      assert.same({ shown, 8080 }, { show(parse(text, 8080)) })
    end
    assert.equal(INET, parse("1.2.3.4").socket.base.sa_family)
    assert.equal(INET6, parse("::").socket.base.sa_family)
  end)

  it("is no name and nothing else", function()
    for _, text in ipairs { "", "localhost", "10.0.0", "10.0.0.256", "[10.0.0.1", "[]", "::1]", "10.0.0.1:80",
      "1.2.3.4.", "10.0.0.1\0", ("1"):rep(100) } do
      assert.is_nil(parse(text), text)
    end
  end)

  it("of a socket file is this machine", function()
    local address = ffi.new("struct address")
    address.socket["local"].sun_family = UNIX
    assert.same({ "127.0.0.1", 0 }, { show(address) })
  end)

  it("comes out of an answer of DNS, with the port of its record or else the target's", function()
    local records = ffi.new("struct dns_address[2]")
    records[0].family, records[1].family, records[1].port = 4, 6, 9090
    ffi.copy(records[0].bytes, "\10\0\0\1", 4)
    records[1].bytes[15] = 1
    local query = ffi.new("struct dns_query", { addresses = records, count = 2 })
    local out = ffi.new("struct address[16]")
    assert.equal(2, C.addresses_take(out, query, 80))
    assert.same({ "10.0.0.1", 80 }, { show(out[0]) })
    assert.same({ "::1", 9090 }, { show(out[1]) })
  end)

  it("is of a record with the best priority, and comes first as often as its weight says", function()
    local records = ffi.new("struct dns_address[4]")
    for index = 0, 3 do
      records[index].family, records[index].port, records[index].priority = 4, 80 + index, index < 3 and 1 or 2
    end
    local query = ffi.new("struct dns_query", { addresses = records, count = 4 })
    assert.equal(3, C.addresses_take(ffi.new("struct address[16]"), query, 80))
    local function first(turn, random) return C.addresses_first(query, 3, turn, random) end
    assert.same({ 0, 1, 2, 0 }, { first(0, 7), first(1, 7), first(2, 7), first(3, 7) })
    records[0].weight, records[2].weight = 3, 1
    assert.same({ 0, 0, 0, 2, 0 }, { first(1, 0), first(1, 1), first(1, 2), first(1, 3), first(1, 4) })
    assert.equal(0, C.addresses_first(query, 0, 5, 0))
  end)

  it("is one of sixteen at most", function()
    local records = ffi.new("struct dns_address[64]")
    for index = 0, 63 do records[index].family = 4 end
    local query = ffi.new("struct dns_query", { addresses = records, count = 64 })
    assert.equal(16, C.addresses_take(ffi.new("struct address[16]"), query, 80))
  end)
end)

describe("an upstream", function()
  local arena, upstream

  local function add(host, port, weight)
    return C.upstream_add_target(upstream, arena, slice(host), port, weight or 100)
  end

  local function next_host()
    local target = C.upstream_next(upstream)
    return target ~= nil and ffi.string(target.host.data) or nil
  end

  before_each(function()
    arena, upstream = ffi.new("struct arena"), ffi.new("struct upstream")
    C.arena_init(arena, 1000000)
  end)

  after_each(function() C.arena_close(arena) end)

  it("keeps its targets in order, and knows which are addresses", function()
    for index = 1, 20 do assert.equal(index, add("host" .. index, index)) end
    assert.equal(21, add("10.0.0.1", 8080))
    assert.equal("host7", ffi.string(upstream.targets[6].host.data))
    assert.is_false(upstream.targets[6].literal)
    assert.is_true(upstream.targets[20].literal)
    assert.same({ "10.0.0.1", 8080 }, { show(upstream.targets[20].fixed) })
  end)

  it("goes round its schedule", function()
    for _, host in ipairs { "a", "b", "c" } do add(host, 80) end
    upstream.schedule, upstream.schedule_count = ffi.new("uint32_t[4]", 1, 3, 1, 2), 4
    local schedule = upstream.schedule -- held
    local got = {}
    for index = 1, 6 do got[index] = next_host() end
    assert.same({ "a", "c", "a", "b", "a", "c" }, got)
    assert.is_true(schedule ~= nil)
  end)

  it("without a schedule has a choice only where there is none to make", function()
    assert.is_nil(next_host())
    add("only", 80)
    assert.equal("only", next_host())
    add("second", 80)
    assert.is_nil(next_host())
  end)
end)
