-- SPDX-License-Identifier: Apache-2.0
-- Edits of named values in a table: members of a JSON object, arguments of a form or query.
local json = require "sluice.json"
local json_edits = require "sluice.json_edits"
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

local CASTS = {
  number = function(value) return tonumber(value) end,
  boolean = function(value) return value == "true" end,
  string = function(value) return value end,
}

-- The value of an edit as JSON; nil for a "number" that is none.
local function json_of(edit, value)
  local cast = CASTS[edit.type or "string"](value)
  return cast ~= nil and json.encode(cast) or nil
end

local STEPS = { "remove", "rename", "replace", "add", "append" }

-- One list of edits for JSON: those whose values are known now for good, others with a template to ask each time.
local function list_of(edits, roots)
  local list = {}
  for _, step in ipairs(STEPS) do
    for _, edit in ipairs(edits[step]) do
      local value = edit.value and text(edit.value, roots) or ""
      if step ~= "remove" and step ~= "rename" then value = json_of(edit, value) end
      if value and not (step == "rename" and value == "") then list[#list + 1] = { step, edit.path, value } end
    end
  end
  if edits.allow then list[#list + 1] = { "allow", edits.allow } end
  return list
end

-- Edits the text of an object.
---@return string|nil
---@return string|nil err
function members.edit_json(edits, raw, roots)
  local made = edits.made
  if not made then
    made = json_edits.new(list_of(edits, roots))
    if edits.constant then edits.made = made end
  end
  local edited, err = made:run(raw)
  return edited, err
end

local function keep(object, names)
  local kept = {}
  for _, name in ipairs(names) do kept[name] = object[name] end
  for name in pairs(object) do
    if kept[name] == nil then object[name] = nil end
  end
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
  if edits.allow then keep(object, edits.allow) end
end

return members
