-- SPDX-License-Identifier: Apache-2.0
-- What becomes of tunnels (WebSockets above all) whose route a new generation has changed or no longer has:
-- `gateway.websocket.on_reload`. A route has changed when its entity, its service or what its plugins do has; others
-- stay open whatever else the configuration says.

local native = require "sluice.ffi"
local phases = require "sluice.phases"
local runtime = require "sluice.runtime"

local C, worker = native.C, native.worker

local tunnels = {}

local function same_confs(one, other)
  for id, conf in pairs(one) do
    if other[id] ~= conf then return false end
  end
  for id in pairs(other) do
    if one[id] == nil then return false end
  end
  return true
end

local function same_levels(one, other)
  if one == other then return true end
  if not one or not other or #one ~= #other then return false end
  for i = 1, #one do
    if one[i].group ~= other[i].group or not same_confs(one[i].confs, other[i].confs) then return false end
  end
  return true
end

local function same_list(one, other)
  if one == other then return true end
  if not one or not other or #one ~= #other then return false end
  for i = 1, #one do
    local a, b = one[i], other[i]
    if a.run ~= b.run or a.conf ~= b.conf or not same_levels(a.levels, b.levels) then return false end
  end
  return true
end

local function same_plan(one, other)
  if one == other then return true end
  for phase = 0, #phases.names do
    if not same_list(one[phase], other[phase]) then return false end
  end
  return true
end

local function services_by_id(held)
  local found = {}
  for _, service in pairs(held.services) do found[service.id] = service end
  return found
end

local function indexes_by_id(held)
  local found = {}
  for index, route in pairs(held.routes) do found[route.id] = index end
  return found
end

-- Marks the routes of `old` that `live` does not have as they were.
local function compare(old, live, pace)
  local indexes, old_services, services = indexes_by_id(live), services_by_id(old), services_by_id(live)
  for index, route in pairs(old.routes) do
    local now = indexes[route.id]
    local same = now and live.routes[now] == route
      and (not route.service or services[route.service] == old_services[route.service])
      and same_plan(old.plans[index], live.plans[now])
    if not same then C.bridge_gen_route_ended(worker, old.id, index) end
    pace()
  end
end

-- After `live` has gone live.
---@param live sluice.generation
---@param pace fun() lets the loop run
function tunnels.settle(live, pace)
  local gateway = live.meta.gateway
  local on_reload = gateway and gateway.websocket and gateway.websocket.on_reload
  if not on_reload or on_reload == "keep" then return end
  for id, old in pairs(runtime.generations) do
    if id ~= live.id and C.bridge_gen_tunnels(worker, id) > 0 then
      compare(old, live, pace)
      C.bridge_gen_end_tunnels(worker, id)
    end
  end
end

return tunnels
