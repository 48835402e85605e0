-- SPDX-License-Identifier: Apache-2.0
-- A configuration's lists of "name:value" as lists of { name, value }, each value a text or a compiled template.
local template = require "request-transformer.template"

local edits = {}

local STEPS = { "remove", "rename", "replace", "add", "append" }

-- A value may hold colons itself; without one, it is nil.
---@param entry string
---@return string|nil name
---@return string|nil value
function edits.split(entry)
  local name, value = entry:match("^([^:]+):*(.-)$")
  if value == "" then value = nil end
  return name, value
end

local function list_of(entries, uses, with_value)
  local list = {}
  for _, entry in ipairs(entries or {}) do
    local name, value = edits.split(entry)
    if name and (value or not with_value) then
      list[#list + 1] = { name = name, value = value and template.value(value, uses) }
    end
  end
  return list
end

-- nil when there is nothing to edit in that part of the request.
---@param conf table
---@param part "headers"|"querystring"|"body"
---@param uses table see template.compile
---@return table|nil lists by step
function edits.compile(conf, part, uses)
  local made, any = {}, false
  for _, step in ipairs(STEPS) do
    made[step] = list_of(conf[step][part], step ~= "remove" and uses or {}, step ~= "remove")
    any = any or made[step][1] ~= nil
  end
  return any and made or nil
end

return edits
