-- SPDX-License-Identifier: Apache-2.0
-- Helpers for tables, as Kong's kong.table has them.

local new, clear = require "table.new", require "table.clear"

local tables = {}

---@type fun(array_size: integer, hash_size: integer): table
tables.new = new
---@type fun(t: table)
tables.clear = clear

-- A new table with the fields of both; those of `b` win.
---@param a table|nil
---@param b table|nil
---@return table
function tables.merge(a, b)
  local merged = {}
  for key, value in pairs(a or {}) do merged[key] = value end
  for key, value in pairs(b or {}) do merged[key] = value end
  return merged
end

-- A copy to any depth; a table that occurs twice is copied once.
---@param value any
---@return any
function tables.copy(value, seen)
  if type(value) ~= "table" then return value end
  seen = seen or {}
  if seen[value] then return seen[value] end
  local fresh = setmetatable({}, getmetatable(value))
  seen[value] = fresh
  for key, item in pairs(value) do fresh[tables.copy(key, seen)] = tables.copy(item, seen) end
  return fresh
end

-- Whether both are the same, tables to any depth.
---@param a any
---@param b any
---@return boolean
function tables.equal(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not tables.equal(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

return tables
