-- SPDX-License-Identifier: Apache-2.0
-- Kong's globals `kong` and `ngx`, for code that stands in a configuration: what was written for Kong runs as it is.
-- Functions of `kong` are the methods of the exchange at hand, so they say and refuse what those do; `ngx` is of
-- sluice.pdk_ngx. What has no counterpart is an error.

local error, pairs, rawset, select, setmetatable, tostring, type =
  error, pairs, rawset, select, setmetatable, tostring, type
local concat = table.concat

local pdk_ngx = require "sluice.pdk_ngx"

local pdk = {}

local PARTS = {
  request = function(exchange) return exchange.request end,
  response = function(exchange) return exchange.response end,
  router = function(exchange) return exchange.router end,
}
local SERVICE = {
  request = function(exchange) return exchange.service.request end,
  response = function(exchange) return exchange.service.response end,
}
local WEBSOCKET = {
  client = function(exchange) return exchange.websocket.client end,
  upstream = function(exchange) return exchange.websocket.upstream end,
}
local function service_of(exchange) return exchange.service end
local function client_of(exchange) return exchange.client end
local function tls_of(exchange) return exchange.client.tls end

-- `at_hand` gives the exchange that the code runs for: another one each time that it is called.
local function exchange_of(at_hand)
  return at_hand() or error("kong: no exchange is at hand", 4)
end

-- The methods of a part as functions without it, `kong.request.get_path()`; made when first looked at. The tail call
-- has errors told at the line of the code.
local function part(at_hand, find, fields)
  return setmetatable(fields or {}, { __metatable = false, __index = function(self, name)
    if type(find(exchange_of(at_hand))[name]) ~= "function" then return nil end
    local function call(a, b, c, d)
      local object = find(exchange_of(at_hand))
      return object[name](object, a, b, c, d)
    end
    rawset(self, name, call)
    return call
  end })
end

local function parts(at_hand, finders, into)
  for name, find in pairs(finders) do into[name] = part(at_hand, find) end
  return into
end

-- `shared` is of all plugins, `plugin` of the functions of one configuration.
local function contexts(at_hand)
  local own = {} -- names the table that an exchange keeps for this configuration
  local function plugin_context(exchange)
    local kept = exchange[own]
    if not kept then
      kept = {}
      rawset(exchange, own, kept)
    end
    return kept
  end
  return setmetatable({}, { __metatable = false, __index = function(_, name)
    if name == "shared" then return exchange_of(at_hand).ctx end
    if name == "plugin" then return plugin_context(exchange_of(at_hand)) end
    return nil
  end })
end

local function inspected(json, ...)
  local list = {}
  for i = 1, select("#", ...) do
    local value = select(i, ...)
    list[i] = type(value) == "table" and json.encode(value) or tostring(value)
  end
  return concat(list, " ")
end

local function logger(at_hand, sluice)
  local log, json = sluice.log, sluice.json
  return setmetatable({
    debug = log.debug, info = log.info, notice = log.notice, warn = log.warn, err = log.err, crit = log.crit,
    alert = log.alert, emerg = log.emerg,
    inspect = function(...) log.debug(inspected(json, ...)) end,
    serialize = function() return exchange_of(at_hand):serialize() end,
    set_serialize_value = function(key, value, options)
      return exchange_of(at_hand):set_serialize_value(key, value, options)
    end,
  }, { __metatable = false, __call = function(_, ...) log.notice(...) end })
end

-- What is not there is told at the line of the code.
local function closed(fields, name, others)
  return setmetatable(fields, { __metatable = false, __index = function(_, field)
    local value = others and others(field)
    if value == nil then error(("there is no %s.%s here"):format(name, tostring(field)), 2) end
    return value
  end })
end

---@param require fun(name: string): any the plugin's own
---@param at_hand fun(): sluice.exchange|nil
---@return table
function pdk.kong(require, at_hand)
  local sluice = require "sluice"
  local kong = parts(at_hand, PARTS, {
    service = part(at_hand, service_of, parts(at_hand, SERVICE, {})),
    client = part(at_hand, client_of, { tls = part(at_hand, tls_of) }),
    websocket = parts(at_hand, WEBSOCKET, {}),
    ctx = contexts(at_hand),
    log = logger(at_hand, sluice),
    ip = { is_trusted = sluice.ip.is_trusted },
    node = sluice.node,
    vault = sluice.vault,
    table = { new = require "table.new", clear = require "table.clear", merge = sluice.table.merge },
  })
  return closed(kong, "kong", function(field) return field == "version" and sluice.node.get_version() or nil end)
end

---@param require fun(name: string): any the plugin's own
---@param at_hand fun(): sluice.exchange|nil
---@return table
function pdk.ngx(require, at_hand)
  return pdk_ngx.new(require "sluice", function()
    return at_hand() or error("ngx: no exchange is at hand", 4)
  end)
end

return pdk
