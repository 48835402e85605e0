-- SPDX-License-Identifier: Apache-2.0
-- Edits of response header fields: lists made once, walked for each response.
local pairs_of = require "response-transformer.pairs"

local headers = {}

-- nil when there is nothing to edit.
---@param conf table
---@return table|nil
function headers.compile(conf)
  local edits = {
    remove = pairs_of(conf.remove.headers), rename = pairs_of(conf.rename.headers, true),
    replace = pairs_of(conf.replace.headers, true), add = pairs_of(conf.add.headers, true),
    append = pairs_of(conf.append.headers, true),
  }
  for _, list in pairs(edits) do
    if list[1] then return edits end
  end
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
