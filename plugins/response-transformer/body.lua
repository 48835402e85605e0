-- SPDX-License-Identifier: Apache-2.0
-- Edits of a JSON object's members. What is no object stays as it is.
local json = require "sluice.json"
local pairs_of = require "response-transformer.pairs"

local body = {}

local CASTS = {
  number = tonumber,
  boolean = function(text) return text == "true" end,
  string = function(text) return text end,
}

-- Types belong to the entries by place; an entry without one is a string, a "number" that is none is left out.
local function values_of(edits)
  local list = {}
  for _, pair in ipairs(pairs_of(edits.json, true)) do
    local value = CASTS[(edits.json_types or {})[pair.at] or "string"](pair.value)
    if value ~= nil then list[#list + 1] = { name = pair.name, value = value } end
  end
  return list
end

-- nil when there is nothing to edit.
---@param conf table
---@return table|nil
function body.compile(conf)
  local edits = {
    remove = pairs_of(conf.remove.json), rename = pairs_of(conf.rename.json, true), replace = values_of(conf.replace),
    add = values_of(conf.add), append = values_of(conf.append),
  }
  for _, list in pairs(edits) do
    if list[1] then return edits end
  end
end

---@param content_type string|nil
---@return boolean
function body.is_json(content_type)
  if not content_type then return false end
  for one in content_type:gmatch("[^,]+") do
    if one:match("^%s*([^;%s]*)"):lower() == "application/json" then return true end
  end
  return false
end

local function appended(present, value)
  if present == nil or present == json.null then return json.array { value } end
  if type(present) ~= "table" or (present[1] == nil and not json.is_array(present)) then
    return json.array { present, value }
  end
  present[#present + 1] = value
  return present
end

local function edit_members(edits, object)
  for _, edit in ipairs(edits.remove) do object[edit.name] = nil end
  for _, edit in ipairs(edits.rename) do
    local value = object[edit.name]
    if value ~= nil then
      object[edit.name] = nil
      object[edit.value] = value
    end
  end
  for _, edit in ipairs(edits.replace) do
    if object[edit.name] ~= nil then object[edit.name] = edit.value end
  end
  for _, edit in ipairs(edits.add) do
    if object[edit.name] == nil then object[edit.name] = edit.value end
  end
  for _, edit in ipairs(edits.append) do object[edit.name] = appended(object[edit.name], edit.value) end
end

local SIXTEEN_DIGITS = ("%d"):rep(16)

-- Doubles would change integers beyond 2^53; decoding them exactly costs more, so only where there may be one.
local function decode(text)
  return json.decode(text, text:find(SIXTEEN_DIGITS) and { exact = true } or nil)
end

---@param edits table from `compile`
---@param text string
---@return string|nil edited; the text itself when it is no object
---@return string|nil err
function body.edit(edits, text)
  if text == "" then return text end
  local object, err = decode(text)
  if err then return nil, err end
  if type(object) ~= "table" or object[1] ~= nil or json.is_array(object) then return text end
  edit_members(edits, object)
  return json.encode(object)
end

return body
