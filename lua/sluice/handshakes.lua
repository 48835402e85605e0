-- SPDX-License-Identifier: Apache-2.0
-- Phase certificate of plugins that are configured for routes and services: a handshake comes before there is a route,
-- so the instances that run in it are those of the routes which its server name leaves possible. A route without `snis`
-- is possible with any name, and with none.

local bit = require "bit"
local phases = require "sluice.phases"

local handshakes = {}

local CERTIFICATE = phases.numbers.certificate
local SECURE = { https = true, grpcs = true, wss = true }

local function id_of(reference)
  if type(reference) == "table" then return reference.id end
  return reference or nil
end

local function is_secure(protocols)
  if type(protocols) ~= "table" then return true end
  for _, name in ipairs(protocols) do
    if SECURE[name] then return true end
  end
  return false
end

-- Routes by their own id and by that of their service.
local function routes_by_owner(held)
  local found = {}
  local function add(id, route)
    local list = found[id] or {}
    found[id] = list
    list[#list + 1] = route
  end
  for _, route in ipairs(held.entities.routes or {}) do
    if is_secure(route.protocols) then
      add(route.id, route)
      if route.service then add(id_of(route.service), route) end
    end
  end
  return found
end

local function add_conf(names, name, conf)
  local list = names[name] or {}
  names[name] = list
  for i = 1, #list do
    if list[i] == conf then return end
  end
  list[#list + 1] = conf
end

-- The configurations of one plugin by server name; "" stands for any.
local function names_of(instances, routes)
  local names
  for _, instance in ipairs(instances) do
    local route, service = id_of(instance.route), id_of(instance.service)
    for _, one in ipairs(routes[route or service] or {}) do
      if not route or not service or id_of(one.service) == service then
        names = names or {}
        local snis = one.snis
        for _, name in ipairs(snis and snis[1] and snis or { "" }) do add_conf(names, name:lower(), instance.config) end
      end
    end
  end
  return names
end

local function run_each(fn, confs, exchange)
  for i = 1, #(confs or {}) do fn(confs[i], exchange) end
end

-- The function of phase certificate for all of these.
local function runner(fn, names)
  return function(_, exchange)
    local name = exchange.client.tls:get_server_name()
    run_each(fn, names[""], exchange)
    if not name then return end
    run_each(fn, names["*"], exchange)
    run_each(fn, names[name], exchange)
    local rest, start = name:match("%..*$"), name:match("^(.*%.)")
    if rest then run_each(fn, names["*" .. rest], exchange) end
    if start then run_each(fn, names[start .. "*"], exchange) end
  end
end

-- Instances for a route or a service of plugins that have the phase, by plugin.
local function scoped_instances(held)
  local found = {}
  for _, instance in ipairs(held.entities.plugins or {}) do
    local plugin = held.plugins[instance.name]
    if plugin and plugin.handler.certificate and instance.enabled ~= false and (instance.route or instance.service) then
      local list = found[instance.name] or {}
      found[instance.name] = list
      list[#list + 1] = instance
    end
  end
  return found
end

local function by_priority(a, b)
  if a.priority ~= b.priority then return a.priority > b.priority end
  return a.name < b.name
end

-- The plan for exchanges without a route, with what instances for routes and services do in phase certificate.
---@param held sluice.generation
---@param globals table plan
---@return table plan the same one where there is nothing to add
function handshakes.extend(held, globals)
  local items, routes
  for name, instances in pairs(scoped_instances(held)) do
    routes = routes or routes_by_owner(held)
    local names, plugin = names_of(instances, routes), held.plugins[name]
    if names then
      items = items or {}
      items[#items + 1] = { run = runner(plugin.handler.certificate, names), place = plugin.place, conf = names,
        name = name, version = plugin.version, priority = plugin.priority }
    end
  end
  if not items then return globals end
  for _, item in ipairs(globals[CERTIFICATE] or {}) do
    local priority = held.plugins[item.name].priority
    items[#items + 1] = setmetatable({ priority = priority }, { __index = item })
  end
  table.sort(items, by_priority)
  local extended = {}
  for key, value in pairs(globals) do extended[key] = value end
  extended[CERTIFICATE] = items
  extended.mask = bit.bor(globals.mask, bit.lshift(1, CERTIFICATE))
  return extended
end

return handshakes
