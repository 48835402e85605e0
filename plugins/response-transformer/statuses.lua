-- SPDX-License-Identifier: Apache-2.0
-- Lists of statuses: "404" or "500-599" each.

local statuses = {}

local function range(entry)
  local low, high = entry:match("^([1-5]%d%d)%-([1-5]%d%d)$")
  if not low then low = entry:match("^[1-5]%d%d$") end
  return tonumber(low), tonumber(high or low)
end

---@param entry string
---@return boolean|nil
---@return string|nil err
function statuses.check(entry)
  local low, high = range(entry)
  if low and low <= high then return true end
  return nil, "expected a status such as 404, or a range such as 500-599"
end

---@param list string[] an empty one has every status
---@param status integer
---@return boolean
function statuses.has(list, status)
  for _, entry in ipairs(list) do
    local low, high = range(entry)
    if status >= low and status <= high then return true end
  end
  return list[1] == nil
end

return statuses
