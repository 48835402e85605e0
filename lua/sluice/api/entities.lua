-- SPDX-License-Identifier: Apache-2.0
-- The configuration's entities as an exchange sees them: always those of the generation that it began with.
--
-- Look-ups other than by index go through indexes built once per generation, at the first use of that field.

local core = require "sluice.api.core"
local runtime = require "sluice.runtime"

local E = core.E
local entities = {}

---@param exchange table
---@return table|nil the generation
function entities.generation(exchange)
  local generation = exchange.generation
  if generation == nil then
    local number = core.number(exchange.handle, E.NUMBER_GENERATION)
    generation = number and runtime.generations[number]
    exchange.generation = generation
  end
  return generation
end

---@return table|nil route
function entities.route(exchange)
  local generation = entities.generation(exchange)
  local index = core.number(exchange.handle, E.NUMBER_ROUTE)
  return generation and index and generation.routes[index] or nil
end

---@return table|nil service
function entities.service(exchange)
  local generation = entities.generation(exchange)
  local index = core.number(exchange.handle, E.NUMBER_SERVICE)
  return generation and index and generation.services[index] or nil
end

local function build_index(list, field)
  local index = {}
  for i = 1, #list do
    local value = list[i][field]
    if value ~= nil then index[value] = list[i] end
  end
  return index
end

local function build_groups(list, field)
  local index = {}
  for i = 1, #list do
    local value = list[i][field]
    if type(value) == "table" then value = value.id end
    if value ~= nil then
      local group = index[value]
      if not group then
        group = {}
        index[value] = group
      end
      group[#group + 1] = list[i]
    end
  end
  return index
end

local function index_of(exchange, kind, field, build, mark)
  local generation = entities.generation(exchange)
  local list = generation and generation.entities[kind]
  if not list then return nil end
  local indexes = generation.indexes
  if not indexes then
    indexes = {}
    generation.indexes = indexes
  end
  local key = mark .. kind .. "." .. field
  local index = indexes[key]
  if not index then
    index = build(list, field)
    indexes[key] = index
  end
  return index
end

-- The entity of a kind whose field has that value.
---@param exchange table
---@param kind string such as "consumers" or "keyauth_credentials"
---@param field string such as "id" or "key"
---@param value any
---@return table|nil
function entities.find(exchange, kind, field, value)
  local index = index_of(exchange, kind, field, build_index, "=")
  return index and index[value] or nil
end

-- All entities of a kind whose field (a reference: its id) has that value, in the configuration's order.
---@return table[]
function entities.all(exchange, kind, field, value)
  local index = index_of(exchange, kind, field, build_groups, "*")
  return index and index[value] or {}
end

return entities
