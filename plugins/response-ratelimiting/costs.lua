-- SPDX-License-Identifier: Apache-2.0
-- What a service says that its response cost: "videos=2, images=5", in one field or several.

local costs = {}

local MOST = 1e9 -- of one response: more is a slip of whoever wrote it

local function read(text, limits, into)
  for name, amount in text:gmatch("([^,=]+)=([^,=]+)") do
    name = name:match("^%s*(.-)%s*$")
    local number = tonumber(amount)
    if limits[name] and number and number >= 0 and number <= MOST and number % 1 == 0 then into[name] = number end
  end
end

-- By the names of limits; what has none, or is no whole number of at least 0, is passed over.
---@param said string|string[]|false|nil values of the field
---@param limits table<string, table>
---@return table<string, integer>
function costs.of(said, limits)
  local cost = {}
  if type(said) == "string" then said = { said } end
  for _, text in ipairs(said or {}) do read(text, limits, cost) end
  return cost
end

return costs
