-- SPDX-License-Identifier: Apache-2.0
-- Edits of a JSON object's members. What is no object stays as it is.
local json = require "sluice.json"
local json_edits = require "sluice.json_edits"
local pairs_of = require "response-transformer.pairs"
local statuses = require "response-transformer.statuses"

local body = {}

local CASTS = {
  number = tonumber,
  boolean = function(text) return text == "true" end,
  string = function(text) return text end,
}

-- The value of an entry as JSON. Types belong to the entries by place; one without is a string, and a "number" that is
-- none is left out.
local function value_of(types, entry)
  local value = CASTS[(types or {})[entry.at] or "string"](entry.value)
  return value ~= nil and json.encode(value) or nil
end

local VALUE = {
  remove = function() return "" end,
  rename = function(_, entry) return entry.value end,
}

local function add_step(list, conf, step, status)
  local own = conf[step]
  if status and not statuses.has(own.if_status, status) then return end
  local value = VALUE[step] or value_of
  for _, entry in ipairs(pairs_of(own.json, step ~= "remove")) do
    local text = value(own.json_types, entry)
    local path = conf.dots_in_keys and { entry.name } or json_edits.path(entry.name)
    if text then list[#list + 1] = { step, path, text } end
  end
end

-- What is to be done to the JSON of an answer with that status; nil: any. nil when there is nothing.
local function list_of(conf, status)
  local list = {}
  for _, step in ipairs { "remove", "rename", "replace", "add", "append" } do add_step(list, conf, step, status) end
  if conf.allow.json then list[#list + 1] = { "allow", conf.allow.json } end
  return list[1] and list
end

-- Whether bodies are read, which none can be that is compressed.
---@param conf table
---@return boolean
function body.reads(conf)
  return list_of(conf) and true or false
end

---@param conf table
---@return boolean
function body.has_work(conf)
  return (conf.replace.body or list_of(conf)) and true or false
end

-- For each status that comes what is to be done: { text = , edits = }, made when it comes for the first time.
---@param conf table
---@return table by status
function body.compile(conf)
  return setmetatable({}, { __index = function(by_status, status)
    local list = list_of(conf, status)
    local made = { edits = list and json_edits.new(list),
      text = statuses.has(conf.replace.if_status, status) and conf.replace.body or nil }
    by_status[status] = made
    return made
  end })
end

---@param content_type string|nil
---@return boolean
function body.is_json(content_type)
  if not content_type then return false end
  if content_type == "application/json" then return true end -- of most answers
  for one in content_type:gmatch("[^,]+") do
    if one:match("^%s*([^;%s]*)"):lower() == "application/json" then return true end
  end
  return false
end

---@param edits sluice.json_edits
---@param text string
---@return string|nil edited; the text itself when it is no object
---@return string|nil err
function body.edit(edits, text)
  local edited, err = text, nil
  if text ~= "" then edited, err = edits:run(text) end
  if not edited or json_edits.is_object(text) then return edited, err end
  return text
end

return body
