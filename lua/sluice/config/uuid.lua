-- SPDX-License-Identifier: Apache-2.0
-- Identifiers that follow from what they name (RFC 9562, version 5), so an entity keeps its id from load to load.
local bit = require "bit"
local ffi = require "ffi"
local band, bor, bxor, rol, tobit, tohex = bit.band, bit.bor, bit.bxor, bit.rol, bit.tobit, bit.tohex
local lshift, rshift, byte = bit.lshift, bit.rshift, string.byte

local uuid = {}

local words = ffi.new("int32_t[80]")

local function load_block(text, at)
  for i = 0, 15 do
    local a, b, c, d = byte(text, at + i * 4, at + i * 4 + 3)
    words[i] = bor(lshift(a, 24), lshift(b, 16), lshift(c, 8), d)
  end
  for i = 16, 79 do
    words[i] = rol(bxor(words[i - 3], words[i - 8], words[i - 14], words[i - 16]), 1)
  end
end

local function rounds(a, b, c, d, e)
  local f
  for i = 0, 19 do
    f = bxor(d, band(b, bxor(c, d)))
    a, b, c, d, e = tobit(rol(a, 5) + f + e + words[i] + 0x5A827999), a, rol(b, 30), c, d
  end
  for i = 20, 39 do
    f = bxor(b, c, d)
    a, b, c, d, e = tobit(rol(a, 5) + f + e + words[i] + 0x6ED9EBA1), a, rol(b, 30), c, d
  end
  for i = 40, 59 do
    f = bor(band(b, c), band(d, bor(b, c)))
    a, b, c, d, e = tobit(rol(a, 5) + f + e + words[i] + 0x8F1BBCDC), a, rol(b, 30), c, d
  end
  for i = 60, 79 do
    f = bxor(b, c, d)
    a, b, c, d, e = tobit(rol(a, 5) + f + e + words[i] + 0xCA62C1D6), a, rol(b, 30), c, d
  end
  return a, b, c, d, e
end

local function padded(text)
  local bits = #text * 8
  local tail = string.char(0, 0, 0, 0, band(rshift(bits, 24), 255), band(rshift(bits, 16), 255),
    band(rshift(bits, 8), 255), band(bits, 255))
  return text .. "\128" .. ("\0"):rep((55 - #text) % 64) .. tail
end

-- SHA-1 as five 32-bit numbers. In Lua because the configuration is read without the core; a hundred short names take
-- a fraction of a millisecond.
local function sha1(text)
  local a, b, c, d, e = 0x67452301, tobit(0xEFCDAB89), tobit(0x98BADCFE), 0x10325476, tobit(0xC3D2E1F0)
  text = padded(text)
  for at = 1, #text, 64 do
    load_block(text, at)
    local a2, b2, c2, d2, e2 = rounds(a, b, c, d, e)
    a, b, c, d, e = tobit(a + a2), tobit(b + b2), tobit(c + c2), tobit(d + d2), tobit(e + e2)
  end
  return a, b, c, d, e
end

-- SHA-1 of a text as 40 hex digits.
function uuid.sha1_hex(text)
  local a, b, c, d, e = sha1(text)
  return tohex(a) .. tohex(b) .. tohex(c) .. tohex(d) .. tohex(e)
end

-- The text is put together here, so that one string is made and not ten: ten thousand entities have ids.
local HEX = "0123456789abcdef"
local digits = ffi.new("char[36]")
local places = ffi.new("uint8_t[32]") -- of each digit in the text, whose dashes stand at 8, 13, 18 and 23
for i = 0, 31 do
  places[i] = i + (i >= 8 and 1 or 0) + (i >= 12 and 1 or 0) + (i >= 16 and 1 or 0) + (i >= 20 and 1 or 0)
end
for _, dash in ipairs { 8, 13, 18, 23 } do digits[dash] = byte("-") end

local function put_hex(first, word)
  for i = 0, 7 do
    local nibble = band(rshift(word, 28 - i * 4), 15)
    digits[places[first + i]] = byte(HEX, nibble + 1)
  end
end

local NAMESPACE = "\x5b\x1f\x0c\x7e\x3d\x52\x4a\x0b\x9c\x61\x2e\x8f\x47\xa0\xd3\x19"

-- The identifier that `name` always has.
function uuid.from_name(name)
  local a, b, c, d = sha1(NAMESPACE .. name)
  b = bor(band(b, 0xFFFF0FFF), 0x5000)
  c = bor(band(c, 0x3FFFFFFF), 0x80000000)
  put_hex(0, a)
  put_hex(8, b)
  put_hex(16, c)
  put_hex(24, d)
  return ffi.string(digits, 36)
end

function uuid.is_valid(text)
  return #text == 36 and text:find("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$") ~= nil
end

return uuid
