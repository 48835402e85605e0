-- SPDX-License-Identifier: Apache-2.0
-- When JSON values are the same: numbers by what they are worth, objects whatever the order of their members.
local json = require "sluice.json"

local null, is_marked = json.null, json.is_array
local concat, format, sort, tostring, type, pairs = table.concat, string.format, table.sort, tostring, type, pairs

local equal = {}

---@return boolean whether a table is an array, not an object
function equal.is_array(value)
  return value[1] ~= nil or is_marked(value)
end

local is_array = equal.is_array

-- A text that two values have in common just when they are the same.
---@param value any
---@return string
function equal.key(value)
  local kind = type(value)
  if kind == "string" then return "s" .. #value .. ":" .. value end
  if kind == "number" then return "n" .. format("%.17g", value == 0 and 0 or value) end
  if value == null then return "null" end
  if kind ~= "table" then return tostring(value) end
  local parts = {}
  if is_array(value) then
    for i = 1, #value do parts[i] = equal.key(value[i]) end
    return "[" .. concat(parts, ",") .. "]"
  end
  for name, member in pairs(value) do parts[#parts + 1] = equal.key(name) .. "=" .. equal.key(member) end
  sort(parts)
  return "{" .. concat(parts, ",") .. "}"
end

---@return boolean
function equal.same(a, b)
  if a == b then return true end
  if type(a) ~= "table" or type(b) ~= "table" then return false end
  return equal.key(a) == equal.key(b)
end

return equal
