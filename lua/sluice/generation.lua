-- SPDX-License-Identifier: Apache-2.0
-- Generations: one consistent set of configuration and plugin code. A snapshot is read and built beside the running
-- one, in slices between the events of the loop, and goes live whole or not at all.
--
--   stage PATH: read, reuse -> load plugins -> build the core's side -> compile -> configure, init_worker -> live
--                  any failure: dropped, reported, the running generation as it was
--
-- A record whose bytes are those of the running generation keeps its decoded table, a plugin whose hash is the same
-- keeps its code and state: what did not change costs a look-up.

local buffer = require "string.buffer"
local cjson = require "cjson"
local table_new = require "table.new"
local native = require "sluice.ffi"
local build = require "sluice.build"
local health = require "sluice.balancer.health"
local indexes = require "sluice.indexes"
local plugins = require "sluice.plugins"
local runtime = require "sluice.runtime"
local watch = require "sluice.balancer.watch"

local C, worker = native.C, native.worker
local yield = coroutine.yield

local generation = {}

---@class sluice.generation
---@field id integer as the core knows it
---@field revision number
---@field meta table first record of the snapshot
---@field entities table<string, table[]> by collection ("services", "keyauth_credentials"), in the snapshot's order
---@field indexes table see sluice.indexes
---@field routes table<integer, table> entities by the core's index
---@field services table<integer, table> entities by the core's index
---@field upstreams table<integer, table> policies by the core's index
---@field plans table<integer, table> by the index of the route; 0: no route
---@field plugins table<string, table> loaded plugins in use, by name
---@field records table<string, table> decoded records by their bytes

local ROUTE_STATUS = 4294967295 -- phase.h
local FIRST_SLICE_S, SLICE_S = 0.05, 0.0006 -- without traffic, slices only keep the heartbeat going

local COLLECT_SLICE_S = 0.0004 -- of the collector after an old generation has ended

local live    -- the running generation
local staging -- the build under way
local last_failure
local settled = false -- the collector has been set for the first generation

---@param id number
---@return sluice.generation|nil
function generation.get(id)
  return runtime.generations[id]
end

-- The generation that the running code belongs to; outside of exchanges the live one.
---@return sluice.generation|nil
function generation.current()
  return runtime.generations[runtime.generation()] or live
end

-- ---- Slices -------------------------------------------------------------------------------------------------------

local SUPERSEDED = {} -- raised in a build when a newer one has begun

-- A function that lets the loop run whenever the build has had its slice.
local function pacer(held)
  local slice = live and SLICE_S or FIRST_SLICE_S
  local began = C.bridge_mono_fresh(worker)
  return function()
    if C.bridge_mono_fresh(worker) - began < slice then return end
    if C.bridge_sleep(worker, 0) == C.BRIDGE_AGAIN then yield() end
    if staging ~= held then error(SUPERSEDED, 0) end
    began = C.bridge_mono_fresh(worker)
  end
end

-- ---- Reading ------------------------------------------------------------------------------------------------------

local CHUNK_BYTES = 262144

-- The bytes of the next record, out of a file that is read a chunk at a time; nil at its end.
local function next_record(reader)
  local need = 4
  while true do
    local chunk, at = reader.chunk, reader.at
    if #chunk - at + 1 >= need then
      local a, b, c, d = chunk:byte(at, at + 3)
      local last = at + 3 + a + b * 256 + c * 65536 + d * 16777216
      if last <= #chunk then
        reader.at = last + 1
        return chunk:sub(at + 4, last)
      end
      need = last - at + 1
    end
    local more = reader.file:read(math.max(CHUNK_BYTES, need))
    if not more then
      if at > #chunk then return nil end
      error({ message = "the snapshot is cut short" }, 0)
    end
    reader.chunk, reader.at = chunk:sub(at) .. more, 1
  end
end

-- "service" and "keyauth_credentials" alike to the name of their collection.
local function collection_of(kind)
  return kind:sub(-1) == "s" and kind or kind .. "s"
end

local function prepare(record)
  if record.kind == "plugin" then
    record.config = record.config or {}
    record.config.__plugin_id = record.id -- whose counters, in plugins that keep any
  end
  return record
end

local function decode(bytes)
  local known = live and live.records[bytes]
  return known or prepare(buffer.decode(bytes))
end

-- Made as large as it will be, for a table that grows moves all it holds at once.
local function records_for(meta)
  local total = 0
  for _, count in pairs(type(meta.counts) == "table" and meta.counts or {}) do total = total + count end
  return table_new(0, total + 16)
end

local function keep(held, record)
  if record.kind == "meta" then
    held.meta, held.revision, held.records = record, record.revision, records_for(record)
  elseif record.kind == "plugin_code" then
    held.code[record.name] = record
  else
    local collection = collection_of(record.kind)
    local list = held.entities[collection]
    if not list then
      list = {}
      held.entities[collection] = list
    end
    list[#list + 1] = record
  end
end

local function read_snapshot(held, path, pace)
  local file, why = io.open(path, "rb")
  if not file then error({ message = why }, 0) end
  local ok, err = pcall(function()
    for bytes in next_record, { file = file, chunk = "", at = 1 } do
      local record = decode(bytes)
      keep(held, record)
      held.records[bytes] = record
      pace()
    end
  end)
  file:close()
  if not ok then error(err, 0) end
end

-- ---- Plugins ------------------------------------------------------------------------------------------------------

local function load_plugin(code)
  local known = live and live.plugins[code.name]
  if known and known.hash == code.hash and known.trusted == (code.trusted == true) then return known end
  local stand_in = { name = code.name, version = "", place = runtime.place(code.name) }
  local plugin, err = plugins.load(code, {
    trusted = code.trusted,
    call = function(chunk) return runtime.call(stand_in, runtime.generation(), "load", chunk) end,
  })
  if not plugin then error(err, 0) end
  plugin.place, plugin.loaded_at = stand_in.place, C.bridge_now(worker)
  return plugin
end

-- Only what an enabled instance uses is loaded.
local function load_plugins(held, pace)
  for _, instance in ipairs(held.entities.plugins or {}) do
    local name = instance.name
    if instance.enabled ~= false and not held.plugins[name] then
      local code = held.code[name]
      if not code then error({ entity = "plugin " .. name, message = "there is no code of this plugin" }, 0) end
      held.plugins[name] = load_plugin(code)
    end
    pace()
  end
end

local function confs_by_plugin(held)
  local confs = {}
  for _, instance in ipairs(held.entities.plugins or {}) do
    if instance.enabled ~= false then
      local list = confs[instance.name] or {}
      confs[instance.name] = list
      list[#list + 1] = instance.config
    end
  end
  return confs
end

local function message_of(err)
  return (tostring(err):gsub("\nstack traceback:.*", ""))
end

local function configure(held, pace)
  local confs = confs_by_plugin(held)
  for name, plugin in pairs(held.plugins) do
    local fn = plugin.handler.configure
    if fn then
      local ok, err = runtime.call(plugin, held.id, "configure", fn, confs[name])
      if not ok then error({ plugin = name, phase = "configure", message = message_of(err) }, 0) end
      held.configured = true
      pace()
    end
  end
end

-- Derived state belongs to the plugin's code, which generations share: a build that fails after it has changed that
-- state puts it back.
local function configure_again()
  if live then pcall(configure, live, function() end) end
end

-- Each plugin's init_worker runs in a coroutine of its own, for it may wait, and once per load of its code. What it
-- does before it first waits is done before the generation goes live.
local function init_workers(held, pace)
  local timer = require "sluice.timer"
  local started, wanted, failure = 0, 0, nil
  for name, plugin in pairs(held.plugins) do
    local fn = plugin.handler.init_worker
    if fn and not plugin.initialised then
      wanted = wanted + 1
      timer.bind(plugin).at(0, function()
        started = started + 1
        local ok, err = runtime.call(plugin, held.id, "init_worker", fn)
        if not ok then failure = { plugin = name, phase = "init_worker", message = message_of(err) } end
      end)
    end
  end
  while started < wanted do
    if C.bridge_sleep(worker, 0) == C.BRIDGE_AGAIN then yield() end
    pace()
  end
  if failure then error(failure, 0) end
  for _, plugin in pairs(held.plugins) do plugin.initialised = true end
end

-- ---- Stages -------------------------------------------------------------------------------------------------------

local function status_plan()
  local item = { name = "status", version = "", place = 0, conf = {}, run = function(_, exchange)
    require("sluice.status_api").handle(exchange)
  end }
  return { [require("sluice.phases").numbers.access] = { item } }
end

local function new_held()
  return {
    entities = {}, indexes = {}, code = {}, records = {}, routes = {}, services = {}, upstreams = {}, plugins = {},
    plans = { [ROUTE_STATUS] = status_plan() },
  }
end

local function build_core(held, pace)
  held.id = C.bridge_gen_new(worker, held.revision)
  if held.id <= 0 then error({ message = "the core has no room for another generation" }, 0) end
  runtime.generations[held.id] = held
  build.settings(held)
  build.certificates(held, pace)
  build.upstreams(held, pace)
  local services = build.services(held, pace)
  build.breakers(held, services)
  build.planner(held, live, pace)
  build.routes(held, services, pace)
  build.compile(held, pace)
end

local function report(line)
  C.bridge_report(worker, line, #line)
end

local function stop_timers(plugin)
  require("sluice.timer").stop(plugin)
end

-- Stops what belongs to plugins that no generation uses any more.
local function retire(gone)
  for _, plugin in pairs(gone.plugins) do
    local used = false
    for _, other in pairs(runtime.generations) do used = used or other.plugins[plugin.name] == plugin end
    if not used then stop_timers(plugin) end
  end
end

-- Kafka clusters are the worker's, not the generation's: records in flight outlive it. Loaded only where there are any.
local function configure_kafka(held)
  local clusters = held.meta.gateway and held.meta.gateway.kafka or {}
  local kafka = package.loaded["sluice.kafka"] or (next(clusters) and require "sluice.kafka")
  if kafka then kafka.configure(clusters) end
end

-- Loaded only where something is checked.
local function start_checks(before, held)
  local checks = package.loaded["sluice.balancer.checks"]
  for _, policy in pairs(held.upstreams) do
    if not checks and watch.has_checks(policy.upstream) then checks = require "sluice.balancer.checks" end
  end
  if not checks then return end
  checks.forget(before, held)
  checks.start(held)
end

local function go_live(held)
  configure_kafka(held)
  local before = live
  if C.bridge_gen_live(worker, held.id) ~= C.BRIDGE_OK then error({ message = build.reason() }, 0) end
  held.code = nil
  held.live_at = C.bridge_now(worker)
  live, staging, runtime.live, last_failure = held, nil, held.id, nil
  for _, plugin in pairs(held.plugins) do
    for _, warning in ipairs(plugin.warnings) do
      if not plugin.warned then runtime.log("warn", "plugin looks wrong", "plugin", plugin.name, "why", warning) end
    end
    plugin.warned = true
  end
  start_checks(before, held)
  build.mend_targets(held)
  report(("live %.0f"):format(held.revision))
end

local function run_stage(held, path)
  local pace = pacer(held)
  read_snapshot(held, path, pace)
  if not held.revision then error({ message = path .. " has no meta record" }, 0) end
  load_plugins(held, pace)
  build_core(held, pace)
  if live then indexes.carry(live, held, pace) end
  configure(held, pace)
  init_workers(held, pace)
  go_live(held)
end

local function drop(held)
  if held.id then
    C.bridge_gen_drop(worker, held.id)
    runtime.generations[held.id] = nil
  end
  retire(held)
  if held.configured then configure_again() end
end

-- Errors of ours are tables with a message; anything else is a bug, and keeps its text.
local function failure_of(err)
  if type(err) == "table" and err.message then return err end
  return { message = message_of(err) }
end

local function on_stage(revision, path)
  local held = new_held()
  staging = held
  local ok, err = xpcall(run_stage, function(raised)
    return type(raised) == "table" and raised or debug.traceback(tostring(raised), 2)
  end, held, path)
  if ok then return end
  drop(held)
  if err == SUPERSEDED then return end
  staging = nil
  if type(err) ~= "table" then runtime.log("error", "stage failed", "path", path, "error", err) end
  last_failure = failure_of(err)
  report(("failed %.0f "):format(held.revision or revision) .. cjson.encode(last_failure))
end

-- ---- The end, and status ------------------------------------------------------------------------------------------

-- Leads the collector through a whole cycle in slices, so that a generation's memory does not wait for traffic.
local function collect()
  local began = C.bridge_mono_fresh(worker)
  while not collectgarbage("step", 0) do
    if C.bridge_mono_fresh(worker) - began > COLLECT_SLICE_S then
      if C.bridge_sleep(worker, 0) == C.BRIDGE_AGAIN then yield() end
      began = C.bridge_mono_fresh(worker)
    end
  end
end

local SLACK_KB, LEAST_PAUSE = 4096, 200 -- of the collector; percent of what lives

-- By default a cycle begins when as much garbage has come as there is life, which for a small configuration is soon.
local function give_slack()
  local pause = 100 + 100 * SLACK_KB / collectgarbage("count")
  collectgarbage("setpause", math.max(LEAST_PAUSE, math.floor(pause)))
end

local function on_end(id)
  local gone = runtime.generations[id]
  runtime.generations[id] = nil
  if gone then retire(gone) end
end

-- A handler of its own, that nothing on its stack holds the generation any more.
local function after_end()
  collect()
  give_slack()
end

-- Loaded plugins as `sluice status` and `sluice plugin list` show them.
local function plugin_states()
  local states = {}
  for _, plugin in pairs(live and live.plugins or {}) do
    states[#states + 1] = {
      name = plugin.name, version = plugin.version, hash = plugin.hash, priority = plugin.priority, dir = plugin.dir,
      loaded_at = plugin.loaded_at, trusted = plugin.trusted,
    }
  end
  table.sort(states, function(a, b) return a.name < b.name end)
  return states
end

local MOST_TARGETS = 500 -- of one answer

local function circuit_states()
  local circuit = package.loaded["sluice.circuit"]
  return live and circuit and circuit.list(live) or nil
end

local function function_states()
  local stats = package.loaded["sluice.function_stats"]
  return stats and stats.list() or nil
end

-- Of this worker, and in `all` of all workers.
local function kafka_state()
  local kafka = package.loaded["sluice.kafka"]
  local list = type(kafka) == "table" and kafka.status and kafka.status() or nil
  local totals = list and list[1] and require("sluice.kafka.totals").by_cluster()
  for _, cluster in ipairs(list or {}) do cluster.all = totals[cluster.name] end
  return list
end

-- What this worker knows of itself.
---@return table
function generation.status()
  local held = 0
  for _ in pairs(runtime.generations) do held = held + 1 end
  return {
    worker = C.bridge_worker_id(worker), revision = live and live.revision, live_at = live and live.live_at,
    generations = held, building = staging ~= nil, last_failure = last_failure, plugins = plugin_states(),
    lua_bytes = collectgarbage("count") * 1024, targets = health.targets(live, MOST_TARGETS), kafka = kafka_state(),
    circuits = circuit_states(), functions = function_states(),
  }
end

local function on_status(request)
  report(("status %.0f "):format(request) .. cjson.encode(generation.status()))
end

-- A handler of its own, for the build is over: whatever stops this one, the generation is live.
local function settle_tunnels()
  if staging or not live or live.settled_tunnels then return end
  live.settled_tunnels = true
  local began = C.bridge_mono_fresh(worker)
  require("sluice.tunnels").settle(live, function()
    if C.bridge_mono_fresh(worker) - began < SLICE_S then return end
    if C.bridge_sleep(worker, 0) == C.BRIDGE_AGAIN then yield() end
    began = C.bridge_mono_fresh(worker)
  end)
end

-- The first generation leaves the garbage of the start; those that follow are followed by an end.
local function after_stage()
  if settled or not live then return end
  settled = true
  after_end()
end

runtime.on("stage", on_stage)
runtime.on("stage", settle_tunnels)
runtime.on("stage", after_stage)
runtime.on("generation_end", on_end)
runtime.on("generation_end", after_end)
runtime.on("status", on_status)
runtime.on("timer", function(id) require("sluice.timer").fire(id) end)

return generation
