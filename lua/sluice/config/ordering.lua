-- SPDX-License-Identifier: Apache-2.0
-- `ordering` of plugin instances: what it says, and that on no route it leads plugins around in a ring, which the
-- workers would refuse.
local cjson = require "cjson"
local errors = require "sluice.config.errors"
local phases = require "sluice.phases"
local plan = require "sluice.plan"
local snapshot = require "sluice.snapshot"
local suggest = require "sluice.config.suggest"
local words = require "sluice.schema.words"

local null = cjson.null
local ordering = {}

local SHAPE = "a list of plugin names, or a map of such lists by phase, such as { access: [key-auth] }"
local NOT_FOR_REQUESTS = { init_worker = true, configure = true }

local function note(loader, entry, keys, expected, found)
  errors.add(loader.errors, { entry = entry, keys = keys, expected = expected, found = found })
end

local function phase_names()
  local names = {}
  for i = 0, #phases.names do
    local name = phases.names[i]
    if not NOT_FOR_REQUESTS[name] and not name:find(" ", 1, true) then names[#names + 1] = name end
  end
  return names
end

local function is_list(value)
  return type(value) == "table" and (value[1] ~= nil or next(value) == nil)
end

-- A plugin that nobody uses need not be there: what stands before it runs as it would.
local function check_names(loader, entry, keys, list)
  if not is_list(list) then return note(loader, entry, keys, "a list of plugin names", words.kind(list)) end
  for i, name in ipairs(list) do
    local path = { unpack(keys) }
    path[#path + 1] = i
    if type(name) ~= "string" then
      note(loader, entry, path, "the name of a plugin", words.kind(name))
    elseif not loader.registry:get(name) then
      errors.warn(loader.errors, { entry = entry, keys = path, message = ("there is no plugin %s%s"):format(
        words.value(name), suggest.phrase(name, loader.registry.names)) })
    end
  end
end

local function check_side(loader, entry, side, value)
  local keys = { "ordering", side }
  if value == nil or value == null then return end
  if type(value) ~= "table" then return note(loader, entry, keys, SHAPE, words.kind(value)) end
  if is_list(value) then return check_names(loader, entry, keys, value) end
  for phase, list in pairs(value) do
    local number = phases.numbers[phase]
    if not number or NOT_FOR_REQUESTS[phase] then
      local names = phase_names()
      note(loader, entry, { "ordering", side, phase }, "one of " .. words.alternatives(names)
        .. suggest.phrase(tostring(phase), names), words.value(phase))
    elseif list ~= null then
      check_names(loader, entry, { "ordering", side, phase }, list)
    end
  end
end

-- What one instance says.
function ordering.check(loader, entry)
  local said = entry.record.ordering
  if not said then return end
  check_side(loader, entry, "before", said.before)
  check_side(loader, entry, "after", said.after)
end

-- ---- Rings ----------------------------------------------------------------------------------------------------------

-- Of an entry that was taken over from an earlier load, the bytes are all there is.
local function record_of(entry)
  return entry.known and snapshot.decode(entry.bytes) or entry.record
end

local function is_ordered(entry)
  if not entry.known then return entry.record and entry.record.ordering ~= nil end
  return entry.bytes:find("ordering", 1, true) ~= nil and record_of(entry).ordering ~= nil
end

local function first_ordered(loader)
  for _, entry in ipairs(loader.entries.plugins) do
    if is_ordered(entry) then return entry end
  end
end

local ALL_PHASES = setmetatable({}, { __index = function() return true end })

local function needs_all()
  return ALL_PHASES
end

-- Planners as workers have them, for HTTP and for streams; nil when code is missing, as in specs.
local function planners_of(loader)
  local instances, plugins = {}, {}
  for _, entry in ipairs(loader.entries.plugins) do
    local instance = record_of(entry)
    local found = loader.registry:get(instance.name)
    if not found or not found.plugin then return nil end
    found.plugin.place = found.plugin.place or 0
    plugins[instance.name] = found.plugin
    instances[#instances + 1] = instance
  end
  local planners = {}
  for _, streams in ipairs { false, true } do
    local planner = plan.new(plugins, nil, needs_all, streams)
    for _, instance in ipairs(instances) do planner:add(instance) end
    planners[streams] = planner
  end
  return planners
end

local function find_ring(loader, planners)
  local _, ring = planners[false]:plan(nil, nil)
  if ring then return nil, ring end
  for _, entry in ipairs(loader.entries.routes) do
    local route = record_of(entry)
    _, ring = planners[plan.is_stream(route.protocols)]:plan(route.id, route.service)
    if ring then return entry, ring end
  end
end

-- Needs a configuration without errors, and costs nothing where no instance has an order of its own.
function ordering.check_rings(loader)
  if #loader.errors.list > 0 then return end
  local ordered = first_ordered(loader)
  local planners = ordered and planners_of(loader)
  if not planners then return end
  local route, ring = find_ring(loader, planners)
  if ring then errors.add(loader.errors, { entry = route or ordered, message = ring }) end
end

return ordering
