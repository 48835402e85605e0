-- SPDX-License-Identifier: Apache-2.0
-- The plugins of a route as its plan has them, with the configurations that may apply.
local phases = require "sluice.phases"
local plan = require "sluice.plan"
local plugin_code = require "sluice.plugins"
local schema = require "sluice.schema"

local plugins = {}

local HIDDEN = "(hidden)"
-- What a plan does not hold: it runs for no request.
local OUTSIDE = { init_worker = true, configure = true }

local function load_all(known)
  local loaded = {}
  for _, instance in ipairs(known.plugins) do
    local name = instance.name
    local code = known.code[name]
    if instance.enabled ~= false and not loaded[name] then
      if not code then return nil, ("there is no code of plugin %s"):format(name) end
      local plugin, err = plugin_code.load(code, { trusted = code.trusted })
      if not plugin then return nil, ("plugin %s: %s"):format(name, err.message) end
      plugin.place = 0
      loaded[name] = plugin
    end
  end
  return loaded
end

-- ---- What is shown of a configuration -----------------------------------------------------------------------------

local function field_list(field)
  return type(field) == "table" and field.fields or {}
end

-- Secrets do not belong on a screen: fields that the schema calls encrypted are hidden.
local function shown(config, fields)
  local copy = {}
  for name, value in pairs(config) do
    if name:sub(1, 2) ~= "__" then copy[name] = value end -- the others are the gateway's own
  end
  for _, entry in ipairs(fields) do
    local name, field = next(entry)
    if copy[name] ~= nil and field.encrypted then
      copy[name] = HIDDEN
    elseif type(copy[name]) == "table" and field.type == "record" then
      copy[name] = shown(copy[name], field_list(field))
    end
  end
  return copy
end

local function config_fields(plugin)
  if plugin.schema == nil then return {} end
  local normal = schema.normalise(plugin.schema)
  for _, entry in ipairs(field_list(normal)) do
    local name, field = next(entry)
    if name == "config" then return field_list(field) end
  end
  return {}
end

local function scope_of(known, instance)
  local parts = {}
  for _, kind in ipairs { "route", "service", "consumer", "consumer_group" } do
    local entity = instance[kind] and known.by_id[instance[kind]]
    if entity then
      parts[#parts + 1] = ("%s %s"):format(kind:gsub("_", " "), entity.name or entity.username or entity.id)
    end
  end
  return #parts > 0 and "of " .. table.concat(parts, " and ") or "of all routes"
end

local function instances_by_config(known)
  local found = {}
  for _, instance in ipairs(known.plugins) do
    instance.config = instance.config or {}
    found[instance.config] = instance
  end
  return found
end

-- "before key-auth, acl in access" for each thing that `ordering` asks for.
local function orders_of(ordering)
  local texts = {}
  for _, side in ipairs { "before", "after" } do
    local asked = ordering and ordering[side] or {}
    if asked[1] then texts[#texts + 1] = side .. " " .. table.concat(asked, ", ") end
    for phase = 0, #phases.names do
      local names = asked[phases.names[phase]]
      if names and names[1] then
        texts[#texts + 1] = ("%s %s in %s"):format(side, table.concat(names, ", "), phases.names[phase])
      end
    end
  end
  return texts
end

local function use(known, instance, plugin)
  return { instance = instance, scope = scope_of(known, instance), when = instance.when, tags = instance.tags,
    ordering = orders_of(instance.ordering), config = shown(instance.config, config_fields(plugin)) }
end

local function uses_of_level(known, level, plugin, by_config)
  local uses = {}
  for id, config in pairs(level.confs) do
    local one = use(known, by_config[config], plugin)
    one[level.group and "group" or "consumer"] = id
    uses[#uses + 1] = one
  end
  table.sort(uses, function(a, b) return a.scope < b.scope end)
  return uses
end

-- In the order of their precedence: the first that applies to a request is the one that runs.
local function uses_of(known, item, plugin, by_config)
  local uses = {}
  for _, level in ipairs(item.levels or {}) do
    for _, one in ipairs(uses_of_level(known, level, plugin, by_config)) do uses[#uses + 1] = one end
  end
  if item.conf then uses[#uses + 1] = use(known, by_config[item.conf], plugin) end
  return uses
end

-- Marks the use that runs for a consumer. Of several groups on one level the first by name counts, and levels are told
-- apart by their kind alone: within one, scopes are the same.
local function mark(uses, levels, consumer)
  local at = 0
  for _, level in ipairs(levels or {}) do
    local count = 0
    for _ in pairs(level.confs) do count = count + 1 end
    local ids = level.group and consumer.groups or { consumer.entity }
    for _, entity in ipairs(ids) do
      for i = at + 1, at + count do
        if uses[i].group == entity.id or uses[i].consumer == entity.id then
          uses[i].runs = true
          return
        end
      end
    end
    at = at + count
  end
  local plain = uses[at + 1]
  if plain then plain.runs = true end
end

-- ---- The list -----------------------------------------------------------------------------------------------------

-- In the order in which they first run.
---@param known table
---@param route table
---@param consumer? table from sluice.cli.explain.entities: whose uses are marked
---@return { name: string, version: string, priority: number, phases: string[], uses: table[] }[]|nil
---@return string|nil why
function plugins.list(known, route, consumer)
  local loaded, why = load_all(known)
  if not loaded then return nil, why end
  local by_config = instances_by_config(known)
  local planner = plan.new(loaded, nil, nil, plan.is_stream(route.protocols))
  for _, instance in ipairs(known.plugins) do planner:add(instance) end
  local made, err = planner:plan(route.id, route.service)
  if not made then return nil, err end
  local list, by_name = {}, {}
  for phase = 0, #phases.names do
    for _, item in ipairs(not OUTSIDE[phases.names[phase]] and made[phase] or {}) do
      local one = by_name[item.name]
      if not one then
        local plugin = loaded[item.name]
        one = { name = item.name, version = item.version, priority = plugin.priority, phases = {},
          uses = uses_of(known, item, plugin, by_config) }
        if consumer then mark(one.uses, item.levels, consumer) end
        by_name[item.name] = one
        list[#list + 1] = one
      end
      table.insert(one.phases, phases.names[phase])
    end
  end
  return list
end

local function is_for_streams(instance)
  for _, protocol in ipairs(instance.protocols or {}) do
    if plan.is_stream { protocol } then return true end
  end
  return false
end

local function is_for_http(instance)
  for _, protocol in ipairs(instance.protocols or { "http" }) do
    if not plan.is_stream { protocol } then return true end
  end
  return false
end

local function why_idle(instance, streams)
  if instance.enabled == false then return "it is disabled" end
  if streams and not is_for_streams(instance) or not streams and not is_for_http(instance) then
    return "it is for " .. table.concat(instance.protocols, ", ")
  end
  return "more specific ones take its place"
end

-- Instances that stand where the route could use them, and that run for none of its requests.
---@param known table
---@param route table
---@param list table[] from plugins.list
---@return { name: string, scope: string, why: string }[]
function plugins.idle(known, route, list)
  local used, idle = {}, {}
  for _, one in ipairs(list) do
    for _, its_use in ipairs(one.uses) do used[its_use.instance] = true end
  end
  for _, instance in ipairs(known.plugins) do
    local fits = (not instance.route or instance.route == route.id)
      and (not instance.service or instance.service == route.service)
    if fits and not used[instance] then
      idle[#idle + 1] = { name = instance.name, scope = scope_of(known, instance),
        why = why_idle(instance, plan.is_stream(route.protocols)) }
    end
  end
  return idle
end

return plugins
