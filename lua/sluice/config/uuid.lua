-- SPDX-License-Identifier: Apache-2.0
-- Identifiers that follow from what they name (RFC 9562, version 5), so an entity keeps its id from load to load.
local bit = require "bit"
local band, bor, bxor, rol, tobit, tohex = bit.band, bit.bor, bit.bxor, bit.rol, bit.tobit, bit.tohex

local uuid = {}

local words = {}

local function load_block(text, at)
  for i = 0, 15 do
    local a, b, c, d = text:byte(at + i * 4, at + i * 4 + 3)
    words[i] = bor(bit.lshift(a, 24), bit.lshift(b, 16), bit.lshift(c, 8), d)
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
  local tail = string.char(0, 0, 0, 0, band(bit.rshift(bits, 24), 255), band(bit.rshift(bits, 16), 255),
    band(bit.rshift(bits, 8), 255), band(bits, 255))
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

local NAMESPACE = "\x5b\x1f\x0c\x7e\x3d\x52\x4a\x0b\x9c\x61\x2e\x8f\x47\xa0\xd3\x19"

-- The identifier that `name` always has.
function uuid.from_name(name)
  local a, b, c, d = sha1(NAMESPACE .. name)
  b = bor(band(b, 0xFFFF0FFF), 0x5000)
  c = bor(band(c, 0x3FFFFFFF), 0x80000000)
  local x, y, z = tohex(b), tohex(c), tohex(d)
  return tohex(a) .. "-" .. x:sub(1, 4) .. "-" .. x:sub(5) .. "-" .. y:sub(1, 4) .. "-" .. y:sub(5) .. z
end

function uuid.is_valid(text)
  return #text == 36 and text:find("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$") ~= nil
end

return uuid
