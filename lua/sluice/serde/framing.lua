-- SPDX-License-Identifier: Apache-2.0
-- Confluent's wire format: a zero byte, the schema's id in four bytes, for Protobuf the place of the message in its
-- file, then the value.
--
--   0 | id, highest byte first | count of steps, steps (zigzag; a zero alone is the first message) | value

local bit = require "bit"

local band, bor, bxor, lshift, rshift, arshift = bit.band, bit.bor, bit.bxor, bit.lshift, bit.rshift, bit.arshift
local byte, char, concat = string.byte, string.char, table.concat

local framing = {}

framing.BYTES = 5 -- before the value, or before the steps

local STEPS_MOST = 32
local VARINT_BYTES = 5

---@param id integer
---@return string
function framing.head(id)
  return char(0, band(rshift(id, 24), 255), band(rshift(id, 16), 255), band(rshift(id, 8), 255), band(id, 255))
end

-- The id of the schema; nil and what is wrong.
---@param bytes string
---@return integer|nil
---@return string|nil err
function framing.id(bytes)
  if #bytes < framing.BYTES then return nil, "too short to name a schema" end
  local magic, a, b, c, d = byte(bytes, 1, 5)
  if magic ~= 0 then return nil, "the first byte is not the 0 that names a schema" end
  if a > 127 then return nil, "the schema's id is negative" end
  return a * 16777216 + b * 65536 + c * 256 + d
end

local function put_varint(out, value)
  local zigzag = bxor(lshift(value, 1), arshift(value, 31))
  while zigzag >= 128 do
    out[#out + 1] = char(bor(band(zigzag, 127), 128))
    zigzag = rshift(zigzag, 7)
  end
  out[#out + 1] = char(zigzag)
end

---@param steps integer[] from 0, as sluice.protobuf has them
---@return string
function framing.steps(steps)
  if #steps == 1 and steps[1] == 0 then return "\0" end
  local out = {}
  put_varint(out, #steps)
  for i = 1, #steps do put_varint(out, steps[i]) end
  return concat(out)
end

local function get_varint(bytes, at)
  local value = 0
  for i = 0, VARINT_BYTES - 1 do
    local c = byte(bytes, at + i)
    if not c then return nil end
    value = bor(value, lshift(band(c, 127), 7 * i))
    if c < 128 then return bxor(rshift(value, 1), -band(value, 1)), at + i + 1 end
  end
end

-- The steps of a Protobuf value, and how many bytes stand before the value; nil when they are malformed.
---@param bytes string
---@return integer[]|nil
---@return integer|nil
function framing.steps_of(bytes)
  local count, at = get_varint(bytes, framing.BYTES + 1)
  if not count or count < 0 or count > STEPS_MOST then return nil end
  if count == 0 then return { 0 }, at - 1 end
  local steps = {}
  for i = 1, count do
    steps[i], at = get_varint(bytes, at)
    if not at or steps[i] < 0 then return nil end
  end
  return steps, at - 1
end

return framing
