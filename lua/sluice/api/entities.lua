-- SPDX-License-Identifier: Apache-2.0
-- The configuration's entities as an exchange sees them: always those of the generation that it began with.
--
-- Look-ups other than by number go through sluice.indexes.

local core = require "sluice.api.core"
local indexes = require "sluice.indexes"
local runtime = require "sluice.runtime"

local E = core.E
local entities = {}

---@param exchange table
---@return table|nil the generation
function entities.generation(exchange)
  local generation = exchange.generation
  if not generation then
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

-- The entity of a kind whose field has that value.
---@param exchange table
---@param kind string such as "consumers" or "keyauth_credentials"
---@param field string such as "id" or "key"
---@param value any
---@return table|nil
function entities.find(exchange, kind, field, value)
  local generation = entities.generation(exchange)
  return generation and indexes.find(generation, kind, field, value)
end

-- All entities of a kind whose field (a reference: its id) has that value, in the configuration's order.
---@return table[]
function entities.all(exchange, kind, field, value)
  local generation = entities.generation(exchange)
  return generation and indexes.all(generation, kind, field, value) or {}
end

return entities
