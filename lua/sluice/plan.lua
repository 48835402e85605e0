-- SPDX-License-Identifier: Apache-2.0
-- Compiles routes to plans: for each phase the ordered list of (plugin function, configuration).
--
-- Of the instances of one plugin that a route could use, an exchange runs one, the most specific (Kong's precedence).
-- Those that name no consumer are decided here; those that do become levels, which the runtime looks through once
-- the consumer is known. Routes without instances of their own share the plan of their service, services without any
-- share the one of the globals.
--
-- A handler with a function `needs(conf)` says which phases a configuration has work in, as a set of names: where no
-- instance that may run needs a phase, the plugin is left out of it, and the route pays nothing for it. (An instance
-- for a consumer may still be called in a phase that another one needs.) `identity` among them: its responses are
-- read, so the service is asked to use no content coding.
--
-- An instance with a condition (`when`) takes its place among the others as one without; the runtime asks the
-- condition when the instance is first to run in an exchange.
--
--   plan = { [phase] = { item, ... } }, item = { run, place, conf, levels = { { group, confs = { [id] = conf } } },
--     conditions = { [conf] = function } }

local bit = require "bit"
local phases = require "sluice.phases"

local plan = {}

local NUMBER = phases.numbers
local GLOBAL_ONLY = { [NUMBER.rewrite] = true, [NUMBER.certificate] = true }
local NOT_IN_PLANS = { [NUMBER.init_worker] = true, [NUMBER.configure] = true }
local STREAM = { tcp = true, tls = true, tls_passthrough = true }
-- Phases that run before there is a route are the HTTP plans'; a stream's plan has what is left.
local STREAM_PHASES = { preread = NUMBER.preread, balancer = NUMBER["balancer (stream)"],
  log = NUMBER["log (stream)"] }
local NOT_OF_HTTP = { [NUMBER.preread] = true, [STREAM_PHASES.balancer] = true, [STREAM_PHASES.log] = true }

-- Whether an instance is for HTTP and what rests on it, or for streams, or for both.
local function is_for(instance, streams)
  local protocols = instance.protocols
  if type(protocols) ~= "table" then return not streams end
  for _, protocol in ipairs(protocols) do
    if (STREAM[protocol] or false) == streams and protocol ~= "udp" then return true end
  end
  return false
end

---@param protocols string[] of a route
---@return boolean whether it is one of streams
function plan.is_stream(protocols)
  return type(protocols) == "table" and STREAM[protocols[1]] == true
end

local function id_of(reference)
  if type(reference) == "table" then return reference.id end
  return reference or nil
end

-- ---- Instances by scope ---------------------------------------------------------------------------------------------

local NONE = {}

-- "route and service" as one key; a scope that is not given is empty.
local function scope_key(route, service)
  return (route or "") .. "|" .. (service or "")
end

local function child(parent, key)
  local found = parent[key]
  if not found then
    found = {}
    parent[key] = found
  end
  return found
end

-- by_plugin: name -> scope key -> { plain, consumers = {}, groups = {}, ordering }
-- names: scope key -> names of plugins with instances there, each once
local function new_index()
  return { by_plugin = {}, names = {} }
end

local function add_to(index, instance)
  local key = scope_key(id_of(instance.route), id_of(instance.service))
  local scopes = child(index.by_plugin, instance.name)
  if not scopes[key] then
    local names = child(index.names, key)
    names[#names + 1] = instance.name
  end
  local scope = child(scopes, key)
  local consumer, group = id_of(instance.consumer), id_of(instance.consumer_group)
  if consumer then child(scope, "consumers")[consumer] = instance.config
  elseif group then child(scope, "groups")[group] = instance.config
  else scope.plain = instance end
  scope.ordering = scope.ordering or instance.ordering
end

---@class sluice.planner
local planner = {}
planner.__index = planner

-- Collects the plugin instances of one generation.
---@param plugins table<string, table> loaded plugins by name, each with `place` besides what plugins.load gives
---@param previous? sluice.planner of the running generation: its plans are kept where nothing in them changed
---@param needs? fun(plugin: table, conf: table): table what the handler's `needs` says; called once a configuration
---@param streams? boolean plans for routes of streams, not those of HTTP
---@return sluice.planner
function plan.new(plugins, previous, needs, streams)
  return setmetatable({
    plugins = plugins,
    streams = streams or false,
    previous = previous,
    ask = needs or function(plugin, conf) return plugin.handler.needs(conf) end,
    base = new_index(),                     -- instances that name no route
    base_list = {},
    conditions = {},                        -- conf -> function(exchange), of the instances that have one
    own = {},                               -- route id -> instances that name it
    of_service = {},                        -- service id -> true when it has instances of its own
    shared = {},                            -- service id or "" -> plan
    made = {},                              -- route id -> plan of its own
  }, planner)
end

-- Adds an instance; a disabled one, or one for other protocols, is passed over.
---@param instance table plugin entity with defaults: name, config, enabled, protocols, ordering, and its scopes
function planner:add(instance)
  if instance.enabled == false or not is_for(instance, self.streams) then return end
  if instance.when then
    self.conditions[instance.config] = assert(require("sluice.expression").compile(instance.when))
  end
  local route, service = id_of(instance.route), id_of(instance.service)
  if route then
    local own = child(self.own, route)
    own[#own + 1] = instance
    return
  end
  self.base_list[#self.base_list + 1] = instance
  add_to(self.base, instance)
  if service then self.of_service[service] = true end
end

-- Nothing that these instances say has changed: the tables are the same ones, and so is their plugins' code.
local function unchanged(self, list, old_list)
  if not old_list or #list ~= #old_list then return false end
  for i = 1, #list do
    local instance = list[i]
    if instance ~= old_list[i] or self.plugins[instance.name] ~= self.previous.plugins[instance.name] then
      return false
    end
  end
  return true
end

-- All instances have been added: says what can be kept of the previous plans.
function planner:settle()
  local previous = self.previous
  if previous and unchanged(self, self.base_list, previous.base_list) then
    self.shared = previous.shared
  else
    self.previous = nil
  end
end

-- All plans have been asked for: lets go of the previous generation's.
function planner:close()
  self.previous = nil
end

-- ---- One plugin on one route ----------------------------------------------------------------------------------------

-- Kong's precedence among instances that name a consumer or a group: which scope they are looked for in, in turn. The
-- last two are behind an instance that names both route and service.
local function level_keys(route, service)
  local both, r, s, none = scope_key(route, service), scope_key(route), scope_key(nil, service), "|"
  return {
    { both, "consumers" }, { both, "groups" }, { r, "consumers" }, { s, "consumers" }, { r, "groups" },
    { s, "groups" }, { none, "consumers" }, { none, "groups" },
  }
end

-- `scopes(key)` gives what a plugin has in a scope.
local function levels_of(scopes, route, service, plain)
  local levels, seen
  local keys = level_keys(route, service)
  for i = 1, plain and plain.route and plain.service and 6 or 8 do
    local scope = scopes[keys[i][1]]
    local confs = scope and scope[keys[i][2]]
    if confs and not (seen and seen[confs]) then
      levels, seen = levels or {}, seen or {}
      seen[confs] = true
      levels[#levels + 1] = { group = keys[i][2] == "groups", confs = confs }
    end
  end
  return levels
end

-- The most specific scope that has the field: the instance without a consumer, or the order it asks for.
local function most_specific(scopes, route, service, field)
  for _, key in ipairs { scope_key(route, service), scope_key(route), scope_key(nil, service), "|" } do
    if scopes[key] and scopes[key][field] then return scopes[key][field] end
  end
end

-- ---- Phases that a configuration needs ------------------------------------------------------------------------------

-- By configuration, for these tables stay the same from one generation to the next: { plugin = , set = }
local answers = setmetatable({}, { __mode = "k" })

local function needs_of(self, plugin, conf)
  local known = answers[conf]
  if not known or known.plugin ~= plugin then
    known = { plugin = plugin, set = self.ask(plugin, conf) }
    answers[conf] = known
  end
  return known.set
end

local function any_level_needs(self, one, phase_name)
  for _, level in ipairs(one.levels or {}) do
    for _, conf in pairs(level.confs) do
      if needs_of(self, one.plugin, conf)[phase_name] then return true end
    end
  end
  return false
end

-- Whether the plugin is called in the phase, and for which configuration besides those of levels.
local function wanted(self, one, phase_name)
  if not one.plugin.handler[phase_name] then return false end
  if not one.plugin.handler.needs then return true, one.conf end
  local conf = one.conf
  if conf and not needs_of(self, one.plugin, conf)[phase_name] then conf = nil end
  return conf ~= nil or any_level_needs(self, one, phase_name), conf
end

-- ---- Order --------------------------------------------------------------------------------------------------------

-- Names under `ordering.before` for a phase: a list holds for all phases, Kong's form names the phase.
local function ordered_names(ordering, side, phase_name)
  local names = ordering and ordering[side]
  if type(names) ~= "table" then return {} end
  if names[1] ~= nil then return names end
  return type(names[phase_name]) == "table" and names[phase_name] or {}
end

local function by_priority(a, b)
  if a.plugin.priority ~= b.plugin.priority then return a.plugin.priority > b.plugin.priority end
  return a.plugin.name < b.plugin.name
end

-- Edges "x runs before y" that the instances ask for, among the chosen ones.
local function edges_of(chosen, phase_name)
  local present, after = {}, {}
  for _, one in ipairs(chosen) do present[one.plugin.name] = true end
  local function edge(first, second)
    if present[first] and present[second] then child(after, second)[first] = true end
  end
  for _, one in ipairs(chosen) do
    for _, other in ipairs(ordered_names(one.ordering, "before", phase_name)) do edge(one.plugin.name, other) end
    for _, other in ipairs(ordered_names(one.ordering, "after", phase_name)) do edge(other, one.plugin.name) end
  end
  return after
end

local function is_free(one, after, done)
  for first in pairs(after[one.plugin.name] or {}) do
    if not done[first] then return false end
  end
  return true
end

-- By priority, but never before what has to come first. nil and the names in the ring when that is impossible.
local function sorted(chosen, phase_name)
  table.sort(chosen, by_priority)
  local after = edges_of(chosen, phase_name)
  if not next(after) then return chosen end
  local out, done = {}, {}
  while #out < #chosen do
    local before = #out
    for _, one in ipairs(chosen) do
      if not done[one.plugin.name] and is_free(one, after, done) then
        done[one.plugin.name] = true
        out[#out + 1] = one
        break
      end
    end
    if #out == before then
      local ring = {}
      for _, one in ipairs(chosen) do
        if not done[one.plugin.name] then ring[#ring + 1] = one.plugin.name end
      end
      return nil, table.concat(ring, ", ")
    end
  end
  return out
end

-- ---- Plans ----------------------------------------------------------------------------------------------------------

local function collect_names(lists)
  local names, seen = {}, {}
  for _, list in pairs(lists) do
    for _, name in ipairs(list) do
      if not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  end
  return names
end

-- What one plugin has in the scopes of a route: its own, its service's, the globals.
local function scopes_of(self, own, name, service)
  local base, mine = self.base.by_plugin[name] or NONE, own.by_plugin[name] or NONE
  local key = scope_key(nil, service)
  local scopes = { ["|"] = base["|"], [key] = base[key] }
  for its_key, scope in pairs(mine) do scopes[its_key] = scope end
  return scopes
end

local function choose(self, own, route, service)
  local names = self.base.names
  local lists = { names["|"] or NONE, service and names[scope_key(nil, service)] or NONE }
  for _, list in pairs(own.names) do lists[#lists + 1] = list end
  local chosen, ordered = {}, false
  for _, name in ipairs(collect_names(lists)) do
    local scopes = scopes_of(self, own, name, service)
    local plain = most_specific(scopes, route, service, "plain")
    local ordering = most_specific(scopes, route, service, "ordering")
    ordered = ordered or ordering ~= nil
    chosen[#chosen + 1] = {
      plugin = self.plugins[name], conf = plain and plain.config,
      levels = levels_of(scopes, route, service, plain), ordering = ordering,
    }
  end
  table.sort(chosen, by_priority)
  return chosen, ordered
end

-- The conditions of those that may be called for an item, by configuration; nil: none has one.
local function conditions_of(self, one)
  if not next(self.conditions) then return nil end
  local found
  local function look(conf)
    local condition = conf and self.conditions[conf]
    if not condition then return end
    found = found or {}
    found[conf] = condition
  end
  look(one.conf)
  for _, level in ipairs(one.levels or NONE) do
    for _, conf in pairs(level.confs) do look(conf) end
  end
  return found
end

-- Whether an instance that may run says that it needs `what`.
local function any_needs(self, one, what)
  if not one.plugin.handler.needs then return false end
  return one.conf and needs_of(self, one.plugin, one.conf)[what] or any_level_needs(self, one, what)
end

-- The runtime chooses among what has levels; so it does where there is a condition to ask.
local function item_of(self, one, phase_name, conf)
  local conditions = conditions_of(self, one)
  local levels = one.levels or conditions and NONE
  return { run = one.plugin.handler[phase_name], place = one.plugin.place, conf = conf, levels = levels,
    conditions = conditions, name = one.plugin.name, version = one.plugin.version,
    tracer = any_needs(self, one, "tracer") or nil }
end

local function list_for(self, chosen, ordered, phase_name)
  local ring
  if ordered then
    chosen, ring = sorted(chosen, phase_name)
    if not chosen then return nil, ring end
  end
  local list
  for _, one in ipairs(chosen) do
    local called, conf = wanted(self, one, phase_name)
    if called then
      list = list or {}
      list[#list + 1] = item_of(self, one, phase_name, conf)
    end
  end
  return list
end

local of_globals, of_routes = {}, {} -- name -> number of the phases in plans of HTTP
for phase = 0, #phases.names do
  if not NOT_IN_PLANS[phase] and not NOT_OF_HTTP[phase] then
    of_globals[phases.names[phase]] = phase
    if not GLOBAL_ONLY[phase] then of_routes[phases.names[phase]] = phase end
  end
end

local function http_phases(scoped)
  return scoped and of_routes or of_globals
end

-- What else plugins need: responses without a content coding (identity); a tracer, plugins to be timed, log lines to be
-- kept, see sluice.tracing.
local function note_needs(self, made, chosen)
  for _, one in ipairs(chosen) do
    made.identity = made.identity or any_needs(self, one, "identity")
    made.tracer = made.tracer or any_needs(self, one, "tracer")
    made.timed = made.timed or any_needs(self, one, "timings")
    made.lines = made.lines or any_needs(self, one, "lines")
  end
end

local function compile(self, own, route, service)
  local chosen, ordered = choose(self, own, route, service)
  local made, mask = { service = service }, 0
  for name, phase in pairs(self.streams and STREAM_PHASES or http_phases(route or service)) do
    local list, ring = list_for(self, chosen, ordered, name)
    if ring then return nil, "plugins order each other in a ring: " .. ring end
    if list then
      made[phase] = list
      mask = bit.bor(mask, bit.lshift(1, phase))
    end
  end
  made.mask = mask
  note_needs(self, made, chosen)
  return made
end

-- Rewrite and certificate run before there is a route: every plan holds the globals' lists, no route's mask their bits.
local function with_globals(self, made)
  if self.streams then return made end
  local globals = self:shared_plan(nil)
  for phase in pairs(GLOBAL_ONLY) do made[phase] = globals[phase] end
  return made
end

local NO_OWN = new_index()

function planner:shared_plan(service)
  local key = service or ""
  local made = self.shared[key]
  if made then return made end
  local err
  made, err = compile(self, NO_OWN, nil, service)
  if not made then return nil, err end
  self.shared[key] = made
  return service and with_globals(self, made) or made
end

-- The plan that the running generation has for this route, when nothing it was made from has changed.
local function kept(self, route, service)
  local previous = self.previous
  local made = previous and previous.made[route]
  if made and made.service == service and unchanged(self, self.own[route], previous.own[route]) then return made end
end

local function own_plan(self, route, service)
  local made = kept(self, route, service)
  if made then return made end
  local own = new_index()
  for _, instance in ipairs(self.own[route]) do add_to(own, instance) end
  local err
  made, err = compile(self, own, route, service)
  return made and with_globals(self, made), err
end

-- The plan of a route: shared with others as far as its plugins are.
---@param route string|nil id; nil: no route matched
---@param service string|nil id
---@return table|nil plan with `mask` for route_conf.phases
---@return string|nil err plugins that order each other in a ring
function planner:plan(route, service)
  local globals, err = self:shared_plan(nil)
  if not globals then return nil, err end
  if not route then return globals end
  if self.own[route] then
    local made
    made, err = own_plan(self, route, service)
    self.made[route] = made
    return made, err
  end
  return self:shared_plan(service and self.of_service[service] and service or nil)
end

-- The plan of requests that go to a service by no route: its plugins and the globals.
---@param service string id
---@return table|nil plan
---@return string|nil err
function planner:service_plan(service)
  return self:shared_plan(self.of_service[service] and service or nil)
end

local EVERY_EXCHANGE = bit.bor(bit.lshift(1, NUMBER.rewrite), bit.lshift(1, NUMBER.certificate))
local ACCESS = bit.lshift(1, NUMBER.access)
local BALANCER = bit.lshift(1, NUMBER.balancer)

local RECORDS = bit.bor(bit.lshift(1, NUMBER.produce), bit.lshift(1, NUMBER.consume))

-- Phases of a route: rewrite and certificate are the generation's, and those of records are run by plugins.
function plan.route_mask(made)
  return bit.band(made.mask, bit.bnot(bit.bor(EVERY_EXCHANGE, RECORDS)))
end

-- Phases of an exchange without a route: it is answered 404 before access, yet logged and decorated as others are.
function plan.no_route_mask(made)
  return bit.band(made.mask, bit.bnot(bit.bor(ACCESS, BALANCER, RECORDS)))
end

return plan
