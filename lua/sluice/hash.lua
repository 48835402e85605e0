-- SPDX-License-Identifier: Apache-2.0
-- A fast, even hash of texts, the same in every process and version: for shares and places, never for secrets.

local bit = require "bit"

local band, bxor, rshift, tobit = bit.band, bit.bxor, bit.rshift, bit.tobit
local byte = string.byte

local hash = {}

-- a * b modulo 2^32, in halves, for a double holds 53 bits.
local function times(a, b)
  local low, high = band(a, 0xffff), rshift(a, 16)
  return tobit(low * b + band(high * b, 0xffff) * 65536)
end

-- FNV-1a, then murmur's finish, which makes neighbours differ in every bit.
---@param text string
---@return number from 0 up to 2^32 - 1
function hash.number(text)
  local value = tobit(0x811c9dc5)
  for i = 1, #text do value = times(bxor(value, byte(text, i)), 0x01000193) end
  value = times(bxor(value, rshift(value, 16)), 0x85ebca6b)
  value = times(bxor(value, rshift(value, 13)), 0xc2b2ae35)
  value = bxor(value, rshift(value, 16))
  return value < 0 and value + 4294967296 or value
end

-- The same as a number from 0 up to, but not including, 1.
---@param text string
---@return number
function hash.unit(text)
  return hash.number(text) / 4294967296
end

return hash
