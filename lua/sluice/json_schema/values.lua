-- SPDX-License-Identifier: Apache-2.0
-- Kinds of JSON values, and how errors speak of them.
local equal = require "sluice.json_schema.equal"
local json = require "sluice.json"

local null, is_array = json.null, equal.is_array
local format, type = string.format, type

local values = {}

local KINDS = { string = "string", number = "number", boolean = "boolean" }

---@return string null, boolean, number, string, array or object
function values.kind(value)
  local kind = KINDS[type(value)]
  if kind then return kind end
  if value == null or value == nil then return "null" end
  return is_array(value) and "array" or "object"
end

local NAMES = { null = "null", boolean = "a boolean", number = "a number", string = "a string", array = "an array",
  object = "an object", integer = "an integer" }

-- "a string", of a type's name.
function values.name(kind)
  return NAMES[kind]
end

local SHOWN_BYTES = 40

-- What stands in an error: the value where it is short, else its kind.
function values.shown(value)
  local kind = values.kind(value)
  if kind == "number" then return format("%.14g", value) end
  if kind == "boolean" then return value and "true" or "false" end
  if kind == "string" and #value <= SHOWN_BYTES and not value:find("%c") then return format("%q", value) end
  return NAMES[kind]
end

-- Characters of a text, not bytes.
---@param text string
---@return integer
function values.length(text)
  local _, continuing = text:gsub("[\128-\191]", "")
  return #text - continuing
end

-- Digits behind the point of a number's shortest decimal form.
local function decimals(number)
  local mantissa, exponent = format("%.15g", number):match("^-?([%d.]+)e?(.*)$")
  local fraction = mantissa:match("%.(%d+)$") or ""
  return #fraction - (tonumber(exponent) or 0)
end

local EXACT = 2 ^ 53
local FEW_PARTS = 1e-9

---@return boolean whether `value` is so many times `divisor`, as their decimal forms say
function values.is_multiple(value, divisor)
  if value % 1 == 0 and divisor % 1 == 0 then return value % divisor == 0 end
  local scale = 10 ^ math.max(decimals(value), decimals(divisor), 0)
  local scaled, by = value * scale, divisor * scale
  if math.abs(scaled) < EXACT and math.abs(by) < EXACT then
    return math.floor(scaled + 0.5) % math.floor(by + 0.5) == 0
  end
  local quotient = value / divisor
  if quotient == math.huge or quotient == -math.huge then return math.fmod(value, divisor) == 0 end
  return math.abs(quotient - math.floor(quotient + 0.5)) <= FEW_PARTS * math.max(1, math.abs(quotient))
end

return values
