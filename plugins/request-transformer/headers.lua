-- SPDX-License-Identifier: Apache-2.0
-- Edits of request header fields. Host names the service's virtual host: it can be replaced, and nothing else.
local template = require "request-transformer.template"

local headers = {}

local text = template.text

local function is_host(name)
  return #name == 4 and name:lower() == "host"
end

-- Several fields of one name keep their order.
local function rename(read, write, from, to)
  local value = read:get_header(from)
  if value == nil or to == "" or is_host(from) then return end
  local values = {}
  while value do
    values[#values + 1] = value
    value = read:get_header(from, #values + 1)
  end
  write:clear_header(from)
  write:set_header(to, values)
end

local function remove(write, list)
  for i = 1, #list do
    -- In any spelling that a service may take for it: it is often removed so that no client can forge it.
    if not is_host(list[i].name) then write:clear_alike(list[i].name) end
  end
end

-- In this order, each step on what the one before has left.
function headers.edit(edits, exchange, roots)
  local read, write = exchange.request, exchange.service.request
  remove(write, edits.remove)
  local list = edits.rename
  for i = 1, #list do rename(read, write, list[i].name, text(list[i].value, roots)) end
  list = edits.replace
  for i = 1, #list do
    local edit = list[i]
    if read:get_header(edit.name) ~= nil or is_host(edit.name) then
      write:set_header(edit.name, text(edit.value, roots))
    end
  end
  list = edits.add
  for i = 1, #list do
    local edit = list[i]
    if read:get_header(edit.name) == nil and not is_host(edit.name) then
      write:set_header(edit.name, text(edit.value, roots))
    end
  end
  list = edits.append
  for i = 1, #list do
    if not is_host(list[i].name) then write:add_header(list[i].name, text(list[i].value, roots)) end
  end
end

return headers
