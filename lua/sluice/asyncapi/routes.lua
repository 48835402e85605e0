-- SPDX-License-Identifier: Apache-2.0
-- The routes of a configuration that carry events, each with the instances of plugins that run for everybody there.
local routes = {}

local function id_of(reference)
  if type(reference) == "table" then return reference.id end
  return reference or nil
end

local function is_on(entity)
  return entity ~= nil and entity.enabled ~= false
end

-- How special an instance is to a route; nil: it is not for it, or for some consumers only.
local function rank_of(instance, route)
  if not is_on(instance) or id_of(instance.consumer) or id_of(instance.consumer_group) then return nil end
  local its_route, its_service = id_of(instance.route), id_of(instance.service)
  if its_route and its_route ~= route.id then return nil end
  if its_service and its_service ~= id_of(route.service) then return nil end
  return (its_route and 2 or 0) + (its_service and 1 or 0)
end

local function plugins_of(instances, route)
  local confs, ranks = {}, {}
  for _, instance in ipairs(instances) do
    local rank = rank_of(instance, route)
    if rank and rank >= (ranks[instance.name] or 0) then
      confs[instance.name], ranks[instance.name] = instance.config or {}, rank
    end
  end
  return confs
end

local function has_tag(route, wanted)
  if not wanted or not wanted[1] then return true end
  for _, tag in ipairs(type(route.tags) == "table" and route.tags or {}) do
    for _, one in ipairs(wanted) do
      if tag == one then return true end
    end
  end
  return false
end

local function carries_events(confs, describers)
  for name in pairs(confs) do
    if describers[name] then return true end
  end
  return false
end

local function by_name(a, b)
  return (a.route.name or a.route.id or "") < (b.route.name or b.route.id or "")
end

---@param entities table<string, table[]> routes, services, plugins
---@param describers table<string, function> by the names of plugins that carry events
---@param tags? string[] of routes; all unless told
---@return { route: table, plugins: table<string, table> }[] by name
function routes.of(entities, describers, tags)
  local services, list = {}, {}
  for _, service in ipairs(entities.services or {}) do services[service.id] = service end
  for _, route in ipairs(entities.routes or {}) do
    local service = id_of(route.service)
    if has_tag(route, tags) and (not service or is_on(services[service])) then
      local confs = plugins_of(entities.plugins or {}, route)
      if carries_events(confs, describers) then list[#list + 1] = { route = route, plugins = confs } end
    end
  end
  table.sort(list, by_name)
  return list
end

return routes
