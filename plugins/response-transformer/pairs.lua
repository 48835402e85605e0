-- SPDX-License-Identifier: Apache-2.0
-- "name:value" entries of a configuration in parts. A value may hold colons itself.

---@param entries string[]
---@param with_value? boolean leaves out entries without a value
---@return { name: string, value: string|nil, at: integer }[] at: which entry it was
return function(entries, with_value)
  local list = {}
  for at, entry in ipairs(entries or {}) do
    local name, value = entry:match("^([^:]+):*(.-)$")
    if value == "" then value = nil end
    if name and (value or not with_value) then list[#list + 1] = { name = name, value = value, at = at } end
  end
  return list
end
