-- SPDX-License-Identifier: Apache-2.0
-- Edits of named values in a table: members of a JSON object, arguments of a form or query.
local json = require "sluice.json"
local template = require "request-transformer.template"

local members = {}

local text = template.text

local function is_list(value)
  return type(value) == "table" and (value[1] ~= nil or json.is_array(value))
end

-- What is there and the new value become a list; a list of new values is added whole.
function members.append(object, name, value)
  local present = object[name]
  if present == json.null then present = nil end
  if not is_list(present) then
    present = json.array(present ~= nil and { present } or nil)
    object[name] = present
  end
  if not is_list(value) then value = { value } end
  for i = 1, #value do present[#present + 1] = value[i] end
end

local function rename(object, from, to)
  local value = object[from]
  if value == nil or to == "" then return end
  object[from] = nil
  object[to] = value
end

-- In this order, each step on what the one before has left.
function members.edit(edits, object, roots)
  for _, edit in ipairs(edits.remove) do object[edit.name] = nil end
  for _, edit in ipairs(edits.rename) do rename(object, edit.name, text(edit.value, roots)) end
  for _, edit in ipairs(edits.replace) do
    if object[edit.name] ~= nil then object[edit.name] = text(edit.value, roots) end
  end
  for _, edit in ipairs(edits.add) do
    if object[edit.name] == nil then object[edit.name] = text(edit.value, roots) end
  end
  for _, edit in ipairs(edits.append) do members.append(object, edit.name, text(edit.value, roots)) end
end

return members
