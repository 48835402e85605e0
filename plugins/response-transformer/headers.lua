-- SPDX-License-Identifier: Apache-2.0
-- Edits of response header fields: lists made once, walked for each response.
local pairs_of = require "response-transformer.pairs"
local statuses = require "response-transformer.statuses"

local headers = {}

local STEPS = { "remove", "rename", "replace", "add", "append" }

-- What is to be done to the fields of an answer with that status; nil: any. false when there is nothing.
local function edits_of(conf, status)
  local edits, any = {}, false
  for _, step in ipairs(STEPS) do
    local own = conf[step]
    local meant = not status or statuses.has(own.if_status, status)
    edits[step] = meant and pairs_of(own.headers, step ~= "remove") or {}
    any = any or edits[step][1] ~= nil
  end
  return any and edits
end

---@param conf table
---@return boolean
function headers.has_work(conf)
  return edits_of(conf) and true or false
end

-- For each status that comes what is to be done, made when it comes for the first time.
---@param conf table
---@return table by status
function headers.compile(conf)
  return setmetatable({}, { __index = function(by_status, status)
    local edits = edits_of(conf, status)
    by_status[status] = edits
    return edits
  end })
end

-- Several fields of one name keep their order.
local function rename(response, from, to)
  local value = response:get_header(from)
  if value == nil then return end
  local values = {}
  while value do
    values[#values + 1] = value
    value = response:get_header(from, #values + 1)
  end
  response:clear_header(from)
  response:set_header(to, values)
end

-- In this order, each step on what the one before has left.
function headers.edit(edits, response)
  local list = edits.remove
  for i = 1, #list do response:clear_header(list[i].name) end
  list = edits.rename
  for i = 1, #list do rename(response, list[i].name, list[i].value) end
  list = edits.replace
  for i = 1, #list do
    local edit = list[i]
    if response:get_header(edit.name) ~= nil then response:set_header(edit.name, edit.value) end
  end
  list = edits.add
  for i = 1, #list do
    local edit = list[i]
    if response:get_header(edit.name) == nil then response:set_header(edit.name, edit.value) end
  end
  list = edits.append
  for i = 1, #list do response:add_header(list[i].name, list[i].value) end
end

return headers
