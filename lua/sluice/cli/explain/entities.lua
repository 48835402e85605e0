-- SPDX-License-Identifier: Apache-2.0
-- The entities to explain: of files, or of the running gateway's snapshot, both read from the same records.
local cjson = require "cjson"
local gateway = require "sluice.cli.gateway"
local snapshot = require "sluice.snapshot"
local suggest = require "sluice.config.suggest"

local entities = {}

local PATIENCE_S = 3
local LISTS = { services = "service", routes = "route", upstreams = "upstream", targets = "target", plugins = "plugin",
  consumers = "consumer", consumer_groups = "consumer_group", consumer_group_consumers = "consumer_group_consumer" }

local function without_nulls(value)
  for key, item in pairs(value) do
    if item == cjson.null then
      value[key] = nil
    elseif type(item) == "table" then
      without_nulls(item)
    end
  end
  return value
end

local function empty(source)
  local known = { source = source, by_id = {}, code = {} }
  for list in pairs(LISTS) do known[list] = {} end
  return known
end

local function add(known, record)
  without_nulls(record)
  if record.kind == "plugin_code" then known.code[record.name] = record end
  for list, kind in pairs(LISTS) do
    if record.kind == kind or record.kind == list then table.insert(known[list], record) end
  end
  if record.id then known.by_id[record.id] = record end
end

-- Gives the entities of a loaded configuration (see sluice.config).
function entities.of_configuration(loaded, source)
  local known = empty(source)
  for _, bytes in ipairs(loaded:records(0)) do add(known, snapshot.decode(bytes)) end
  return known
end

local function of_snapshot(path, source)
  local reader, why = snapshot.open(path)
  if not reader then return nil, why end
  local known = empty(source)
  for bytes in function() return reader:next() end do add(known, reader.decode(bytes)) end
  return known
end

local function of_files(files)
  local loaded, errors = require("sluice.config").load(files)
  if loaded then return entities.of_configuration(loaded, table.concat(files, ", ")) end
  local lines = {}
  for i, err in ipairs(errors) do lines[i] = err.text end
  return nil, "the configuration is wrong:\n" .. table.concat(lines, "\n")
end

local function of_running(host, files)
  local state, why = gateway.ask(host, files, "status", PATIENCE_S)
  if not state then return nil, why end
  local path = ("%s/snapshots/%d"):format(state.state_dir, state.generation)
  return of_snapshot(path, ("generation %d of the running gateway"):format(state.generation))
end

-- A consumer as a request may have one: by user name, custom id or id.
---@param known table
---@param name string
---@return { entity: table, groups: table[] }|nil groups by name
---@return string|nil why
function entities.consumer(known, name)
  for _, consumer in ipairs(known.consumers) do
    if consumer.username == name or consumer.custom_id == name or consumer.id == name then
      local groups = {}
      for _, member in ipairs(known.consumer_group_consumers) do
        if member.consumer == consumer.id then groups[#groups + 1] = known.by_id[member.consumer_group] end
      end
      table.sort(groups, function(a, b) return a.name < b.name end)
      return { entity = consumer, groups = groups }
    end
  end
  local names = {}
  for i, consumer in ipairs(known.consumers) do names[i] = consumer.username or consumer.custom_id end
  return nil, ("there is no consumer %s%s"):format(name, suggest.phrase(name, names))
end

-- The files when they are given; else what runs here, or would run.
---@param files string[]|nil
---@param host table
---@return table|nil known { source, services, routes, upstreams, targets, plugins, consumers, by_id, code }
---@return string|nil why
function entities.read(files, host)
  if files then return of_files(files) end
  local default = { "./sluice.yml" }
  return of_running(host, default) or of_files(default)
end

return entities
