-- SPDX-License-Identifier: Apache-2.0
-- The exchange object: one small table per exchange, its parts made when a plugin first touches them.
--
-- The runtime makes it with `api.new(handle)` and sets `exchange.phase` before each phase. What crosses to C is the
-- handle, a number, so an exchange kept for too long gives an error and never a crash.

local core = require "sluice.api.core"
local phases = require "sluice.phases"
local request = require "sluice.api.request"
local response = require "sluice.api.response"
local service = require "sluice.api.service"
local client = require "sluice.api.client"
local router = require "sluice.api.router"
local serializer = require "sluice.api.serializer"
local websocket = require "sluice.api.websocket"

local E = core.E
local setmetatable, rawset = setmetatable, rawset

local api = {}

---@class sluice.exchange
---@field handle number
---@field phase integer number of the running phase
---@field id string request id, 32 hex digits
---@field ctx table shared by the plugins of this exchange
---@field request sluice.request
---@field response sluice.response
---@field service sluice.service
---@field client sluice.client
---@field router sluice.router
---@field websocket { client: sluice.websocket.side, upstream: sluice.websocket.side }
local methods = {}

-- What the log plugins write about an exchange: Kong's log format.
---@return table
function methods:serialize()
  core.check_phase(serializer.PHASES, self.handle, "exchange:serialize")
  return (serializer.serialize(self))
end

local MEASURED = phases.mask("heads", "body_filter", "response", "log", "log (stream)")

local function ms(handle, what)
  local us = core.number(handle, what)
  return us and us / 1000
end

-- How long the exchange took, or has taken so far, in milliseconds: all in all, in the gateway, until the service's
-- response began, and while it came; the last two are nil when no service answered.
---@return number whole
---@return number in_gateway
---@return number|nil to_service
---@return number|nil receiving
function methods:get_latencies()
  core.check_phase(MEASURED, self.handle, "exchange:get_latencies")
  local handle = self.handle
  return ms(handle, E.NUMBER_ELAPSED_US), ms(handle, E.NUMBER_GATEWAY_US), ms(handle, E.NUMBER_SERVICE_US),
    ms(handle, E.NUMBER_RECEIVE_US)
end

-- Changes what `exchange:serialize()` gives: dots in `key` go into tables, nil removes.
---@param key string such as "request.headers.cookie"
---@param value string|number|boolean|table|nil
---@param options? { mode: "set"|"add"|"replace" } add: only when absent; replace: only when present
function methods:set_serialize_value(key, value, options)
  serializer.set_value(self, key, value, options)
end

-- Kept on the exchange from the first look on.
local lasting = {
  consumer_group_ids = client.group_ids,
  ctx = function() return {} end,
  id = function(exchange) return core.text(exchange.handle, E.TEXT_ID) end,
}

local parts = {
  request = request, response = response, service = service, client = client.part, router = router,
  websocket = websocket,
}

local exchange_mt = { __metatable = false } -- one plugin must not change what another calls
function exchange_mt.__index(self, key)
  local part = parts[key]
  if part then return (part(self.handle)) end
  local method = methods[key]
  if method then return method end
  local make = lasting[key]
  if not make then return nil end
  local value = make(self)
  rawset(self, key, value)
  return value
end

-- The fields that each exchange gets are here from the beginning, so that the table has room for them and compiled code
-- finds each in its place; with one more for what a plugin may keep, eight.
---@param handle number
---@return sluice.exchange
function api.new(handle)
  return (setmetatable({
    handle = handle, phase = 0, answered = false, generation = false, consumer = false, credential = false,
    logged = false, -- what exchange:set_serialize_value is told is wanted
  }, exchange_mt))
end

return api
