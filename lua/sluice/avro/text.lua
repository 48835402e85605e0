-- SPDX-License-Identifier: Apache-2.0
-- Texts: what is UTF-8, and bytes in JSON, where a character up to U+00FF stands for each (as Avro's specification
-- has it).

local ffi = require "ffi"

local byte, char, find, gsub = string.byte, string.char, string.find, string.gsub
local cast = ffi.cast

local text = {}

-- Where a text has a byte beyond ASCII, from 0; its length when none.
local function first_wide(data, len)
  for i = 0, len - 1 do
    if data[i] >= 128 then return i end
  end
  return len
end

-- How many bytes the character has whose first byte is this one; the second's bounds.
local function shape(c)
  if c < 0xC2 or c > 0xF4 then return 0, 0, 0 end
  if c < 0xE0 then return 2, 0x80, 0xBF end
  if c < 0xF0 then return 3, c == 0xE0 and 0xA0 or 0x80, c == 0xED and 0x9F or 0xBF end
  return 4, c == 0xF0 and 0x90 or 0x80, c == 0xF4 and 0x8F or 0xBF
end

local function follows(data, from, to)
  for i = from, to do
    if data[i] < 0x80 or data[i] > 0xBF then return false end
  end
  return true
end

-- UTF-8 as RFC 3629 has it: nothing overlong, no halves of pairs.
---@param value string
---@return boolean
function text.is_utf8(value)
  local data, len = cast("const uint8_t *", value), #value
  local i = first_wide(data, len)
  while i < len do
    local c = data[i]
    if c < 128 then
      i = i + 1
    else
      local count, low, high = shape(c)
      if count == 0 or i + count > len or data[i + 1] < low or data[i + 1] > high then return false end
      if not follows(data, i + 2, i + count - 1) then return false end
      i = i + count
    end
  end
  return true
end

local WIDE = {}
for c = 128, 255 do WIDE[char(c)] = char(c < 192 and 0xC2 or 0xC3, c < 192 and c or c - 64) end

-- Bytes as JSON shows them.
---@param raw string
---@return string
function text.from_bytes(raw)
  if first_wide(cast("const uint8_t *", raw), #raw) == #raw then return raw end
  return (gsub(raw, "[\128-\255]", WIDE))
end

local function narrow(pair)
  local c = byte(pair, 2)
  return char(byte(pair, 1) == 0xC3 and c + 64 or c)
end

-- The bytes that a text of JSON stands for; nil: it has a character beyond U+00FF.
---@param value string
---@return string|nil
function text.to_bytes(value)
  if first_wide(cast("const uint8_t *", value), #value) == #value then return value end
  if find(value, "[\196-\255]") or find(value, "[\192\193]") then return nil end
  local raw, pairs_found = gsub(value, "[\194\195][\128-\191]", narrow)
  local _, wide = gsub(value, "[\128-\255]", "")
  if wide ~= 2 * pairs_found then return nil end
  return raw
end

return text
