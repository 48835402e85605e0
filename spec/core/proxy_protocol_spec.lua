-- SPDX-License-Identifier: Apache-2.0
-- The PROXY protocol: what is read, what is refused, and that what is written is read again.
local bit = require "bit"
local ffi = require "ffi"
local core = require "spec.support.core"

require("spec.support.system").declare_addresses()
local C = core.load("proxy_protocol.h")

local MORE, BAD = 0, -1
local SIGNATURE = "\r\n\r\n\0\r\nQUIT\n"

local function text_of(address)
  local out = ffi.new("char[46]")
  return ffi.string(C.address_text(address.socket.base, out)) .. " " .. C.address_port(address.socket.base)
end

local function read(data)
  local header = ffi.new("struct proxy_header")
  local copy = ffi.new("char[?]", math.max(#data, 1)) -- of its exact size, for the sanitizer
  ffi.copy(copy, data, #data)
  local used = C.proxy_protocol_read(copy, #data, header)
  if used <= 0 then return used end
  return used, header.known and text_of(header.source) or nil, header.known and text_of(header.destination) or nil
end

local function number16(value)
  return string.char(bit.rshift(value, 8), bit.band(value, 255))
end

local function v2(command, family, body)
  return SIGNATURE .. string.char(command, family) .. number16(#body) .. body
end

local V4 = "\192\0\2\1" .. "\192\0\2\2" .. number16(56324) .. number16(443)
local V6 = "\32\1\13\184" .. ("\0"):rep(11) .. "\1" .. "\32\1\13\184" .. ("\0"):rep(11) .. "\2" .. number16(1)
  .. number16(65535)

describe("the PROXY protocol, version 1", function()
  it("tells both ends", function()
    local line = "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"
    assert.same({ #line, "192.0.2.1 56324", "192.0.2.2 443" }, { read(line .. "GET / HTTP/1.1\r\n") })
    line = "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"
    assert.same({ #line, "2001:db8::1 1", "2001:db8::2 65535" }, { read(line) })
  end)

  it("may not know them", function()
    assert.same({ 15 }, { read("PROXY UNKNOWN\r\n") })
    local line = "PROXY UNKNOWN ffff::1 ffff::2 1 2 and whatever\r\n"
    assert.same({ #line }, { read(line) })
  end)

  it("is waited for as long as it can become one", function()
    local line = "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"
    for len = 0, #line - 1 do assert.equal(MORE, (read(line:sub(1, len))), "after " .. len .. " bytes") end
  end)

  it("is refused at its first wrong byte", function()
    for _, data in ipairs { "G", "PROXX", "PROXYT", "\22\3\1", "PROXY\r", "\rX" } do assert.equal(BAD, (read(data))) end
  end)

  it("is refused when it is not written as it has to be", function()
    for _, rest in ipairs {
      "", "TCP4", "tcp4 1.2.3.4 1.2.3.4 1 2", "TCP5 1.2.3.4 1.2.3.4 1 2", "TCP4 1.2.3.4 1.2.3.4 1",
      "UDP4 1.2.3.4 1.2.3.4 1 2",
      "TCP4 1.2.3.4  1.2.3.4 1 2", "TCP4  1.2.3.4 1.2.3.4 1 2", "TCP4 1.2.3.4 1.2.3.4 1 2 ",
      "TCP4 1.2.3.4 1.2.3.4 1 2 3",
      "TCP4 1.2.3 1.2.3.4 1 2", "TCP4 01.2.3.4 1.2.3.4 1 2", "TCP4 ::1 ::1 1 2", "TCP6 1.2.3.4 1.2.3.4 1 2",
      "TCP4 1.2.3.4 1.2.3.4 65536 2", "TCP4 1.2.3.4 1.2.3.4 01 2", "TCP4 1.2.3.4 1.2.3.4 -1 2",
      "TCP4 1.2.3.4 1.2.3.4 1 +2",
      "TCP4 1.2.3.4\0 1.2.3.4 1 2", "TCP4 1.2.3.4 1.2.3.4 1 2\r", "TCP6 ::1%lo ::1 1 2",
    } do
      assert.equal(BAD, (read("PROXY " .. rest .. "\r\n")), rest)
    end
    assert.equal(BAD, (read("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\n")))
  end)

  it("ends within 107 bytes", function()
    assert.equal(107, (read("PROXY UNKNOWN " .. ("x"):rep(91) .. "\r\n")))
    assert.equal(BAD, (read("PROXY UNKNOWN " .. ("x"):rep(92) .. "\r\n")))
    assert.equal(BAD, (read("PROXY UNKNOWN " .. ("x"):rep(93))))
  end)
end)

describe("the PROXY protocol, version 2", function()
  it("tells both ends", function()
    assert.same({ 28, "192.0.2.1 56324", "192.0.2.2 443" }, { read(v2(0x21, 0x11, V4) .. "more") })
    assert.same({ 52, "2001:db8::1 1", "2001:db8::2 65535" }, { read(v2(0x21, 0x21, V6)) })
  end)

  it("may speak for the proxy itself, with whatever stands behind it", function()
    assert.same({ 16 }, { read(v2(0x20, 0, "")) })
    assert.same({ 28 }, { read(v2(0x20, 0x11, V4)) })
    assert.same({ 19 }, { read(v2(0x20, 0xff, "abc")) })
  end)

  it("may not know the ends, or know them as files", function()
    assert.same({ 16 }, { read(v2(0x21, 0, "")) })
    assert.same({ 16 + 216 }, { read(v2(0x21, 0x31, ("\0"):rep(216))) })
  end)

  it("passes over whole fields behind the addresses", function()
    local fields = "\4" .. number16(0) .. "\2" .. number16(5) .. "a.com"
    assert.same({ 28 + #fields, "192.0.2.1 56324", "192.0.2.2 443" }, { read(v2(0x21, 0x11, V4 .. fields)) })
    for len = 1, #fields - 1 do
      local used = read(v2(0x21, 0x11, V4 .. fields:sub(1, len)))
      assert.equal(len == 3 and 31 or BAD, used, len .. " bytes of fields")
    end
  end)

  it("holds its checksum, when it has one", function()
    local sum
    local function with(bytes) return v2(0x21, 0x11, V4 .. "\3" .. number16(4) .. bytes) end
    local function crc(data)
      local value = 0xffffffff
      for i = 1, #data do
        value = bit.bxor(value, data:byte(i))
        for _ = 1, 8 do
          local low = bit.band(value, 1)
          value = bit.rshift(value, 1)
          if low == 1 then value = bit.bxor(value, 0x82f63b78) end
        end
      end
      return bit.bnot(value)
    end
    assert.equal(bit.tobit(0xe3069283), crc "123456789") -- the check value of CRC32c
    local good = crc(with "\0\0\0\0")
    sum = string.char(bit.band(bit.rshift(good, 24), 255), bit.band(bit.rshift(good, 16), 255),
      bit.band(bit.rshift(good, 8), 255), bit.band(good, 255))
    assert.equal(35, (read(with(sum))))
    assert.equal(BAD, (read(with "\0\0\0\1")))
    assert.equal(BAD, (read(v2(0x21, 0x11, V4 .. "\3" .. number16(3) .. sum:sub(1, 3)))))
  end)

  it("is waited for as long as it can become one", function()
    local whole = v2(0x21, 0x21, V6 .. "\4" .. number16(100) .. ("x"):rep(100))
    for len = 0, #whole - 1 do assert.equal(MORE, (read(whole:sub(1, len))), "after " .. len .. " bytes") end
    assert.equal(#whole, (read(whole)))
  end)

  it("is refused with another version, command or family, or without room for its addresses", function()
    for _, data in ipairs {
      v2(0x11, 0x11, V4), v2(0x31, 0x11, V4), v2(0x22, 0x11, V4), v2(0x21, 0x12, V4), v2(0x21, 0x13, V4),
      v2(0x21, 0x41, V4), v2(0x21, 0x11, V4:sub(1, 11)), v2(0x21, 0x21, V6:sub(1, 35)), v2(0x21, 0x31, ("\0"):rep(215)),
    } do
      assert.equal(BAD, (read(data)))
    end
    assert.equal(BAD, (read(SIGNATURE .. "\1"))) -- before the rest has come
  end)

  it("has at most 4096 bytes", function()
    local filler = ("x"):rep(4096 - 16 - 12 - 3)
    assert.equal(4096, (read(v2(0x21, 0x11, V4 .. "\4" .. number16(#filler) .. filler))))
    assert.equal(BAD, (read(SIGNATURE .. "\33\17" .. number16(4081))))
    assert.equal(BAD, (read(SIGNATURE .. "\33\17\255\255")))
  end)
end)

describe("writing the PROXY protocol", function()
  local function address(host, port)
    local out = ffi.new("struct address")
    assert.is_true(C.address_parse(ffi.new("struct slice", { host, #host }), port, out))
    return out
  end

  local function write(version, source, destination)
    local out = ffi.new("char[128]")
    return ffi.string(out, C.proxy_protocol_write(version, source, destination, out))
  end

  it("is read again", function()
    for version = 1, 2 do
      assert.same({ "10.0.0.1 5", "10.0.0.2 80" },
        { select(2, read(write(version, address("10.0.0.1", 5), address("10.0.0.2", 80)))) })
      assert.same({ "2001:db8::1 65535", "::1 0" },
        { select(2, read(write(version, address("2001:db8::1", 65535), address("::1", 0)))) })
    end
    assert.equal("PROXY TCP4 10.0.0.1 10.0.0.2 5 80\r\n", write(1, address("10.0.0.1", 5), address("10.0.0.2", 80)))
  end)

  it("tells nothing where there is no pair of one family", function()
    assert.equal("PROXY UNKNOWN\r\n", write(1, address("10.0.0.1", 5), address("::1", 80)))
    assert.equal(v2(0x20, 0, ""), write(2, address("10.0.0.1", 5), ffi.new("struct address")))
  end)
end)

describe("reading the PROXY protocol", function()
  it("never reads past what has come, nor takes more than there is", function()
    math.randomseed(7)
    local seeds = { "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", v2(0x21, 0x11, V4),
      v2(0x21, 0x21, V6 .. "\4\0\1x") }
    for _ = 1, 20000 do
      local data = seeds[math.random(#seeds)]
      for _ = 1, math.random(0, 3) do
        local at = math.random(#data)
        data = data:sub(1, at - 1) .. string.char(math.random(0, 255)) .. data:sub(at + 1)
      end
      data = data:sub(1, math.random(0, #data))
      local used = read(data)
      assert.is_true(used >= BAD and used <= #data)
    end
  end)
end)
