-- SPDX-License-Identifier: Apache-2.0
-- A configuration's lists of "name:value" as lists of { name, value }, each value a text or a compiled template.
local json_edits = require "sluice.json_edits"
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

local function list_of(conf, step, part, uses)
  local list, with_value = {}, step ~= "remove"
  for at, entry in ipairs(conf[step][part] or {}) do
    local name, value = edits.split(entry)
    if name and (value or not with_value) then
      list[#list + 1] = { name = name, value = with_value and template.value(value, uses) or nil,
        type = part == "body" and (conf[step].json_types or {})[at] or nil,
        path = part == "body" and (conf.dots_in_keys and { name } or json_edits.path(name)) or nil }
    end
  end
  return list
end

-- Whether no value of the lists has to be asked for anew with each request.
local function is_constant(made)
  for _, step in ipairs(STEPS) do
    for _, edit in ipairs(made[step]) do
      if type(edit.value) == "function" then return false end
    end
  end
  return true
end

-- nil when there is nothing to edit in that part of the request.
---@param conf table
---@param part "headers"|"querystring"|"body"
---@param uses table see template.compile
---@return table|nil lists by step
function edits.compile(conf, part, uses)
  local made, any = {}, false
  for _, step in ipairs(STEPS) do
    made[step] = list_of(conf, step, part, uses)
    any = any or made[step][1] ~= nil
  end
  if part == "body" then
    made.allow = conf.allow.body
    made.constant = is_constant(made)
  end
  return (any or made.allow) and made or nil
end

return edits
