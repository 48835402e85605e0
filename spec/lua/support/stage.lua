-- SPDX-License-Identifier: Apache-2.0
-- The runtime's Lua side on a stand-in for the core that notes what is built, with a clock and a loop of its own: for
-- specs of what becomes of a snapshot. Whether the core then does as it was told is shown against the real one.
--
--   local world = stage.new()
--   world:snapshot(1, { { kind = "service", ... } })   -> path
--   world:stage(path)                                  -> reports so far

local buffer = require "string.buffer"
local ffi = require "ffi"

local stage = {}

local EVENT = 4 -- enum vm_kind
local EVENTS = { start = 0, stage = 1, generation_end = 2, timer = 3, status = 4, stop = 5 }
local MODULES = { "ffi", "runtime", "generation", "build", "timer", "log", "api.core", "balancer" }

local function cdef_bridge()
  local known, size = pcall(ffi.sizeof, "struct board")
  if known and size then return end
  local file = assert(io.open("core/bridge.h"))
  local text = file:read("*a")
  file:close()
  ffi.cdef((text:gsub("#[^\n]*\n", "\n")))
end

local function forget_modules()
  for _, name in ipairs(MODULES) do package.loaded["sluice." .. name] = nil end
end

-- Calls that answer with the index of what they added, or with the failure that a spec asked for.
local function core_of(world)
  local C = {}

  local function counted(name)
    C[name] = function(_, gen, what)
      local list = world.built[gen][name] or {}
      world.built[gen][name] = list
      list[#list + 1] = what
      if world.refuse == name then return -2 end
      return #list
    end
  end
  for _, name in ipairs { "service", "route", "upstream", "certificate" } do counted("bridge_gen_" .. name) end

  local function noted(name)
    C[name] = function(_, gen, ...)
      local list = world.built[gen][name] or {}
      world.built[gen][name] = list
      local texts = {}
      for i = 1, select("#", ...) do
        local value = select(i, ...)
        texts[i] = type(value) == "cdata" and tonumber(value) or value
      end
      list[#list + 1] = texts
      return world.refuse == name and -2 or 0
    end
  end
  for _, name in ipairs { "route_match", "target", "schedule", "sni", "phases", "setting", "trusted_ip", "compile",
    "live", "drop" } do
    noted("bridge_gen_" .. name)
  end

  function C.bridge_gen_new()
    world.generations = world.generations + 1
    world.built[world.generations] = {}
    return world.generations
  end
  function C.bridge_error() return "refused for the spec" end
  function C.bridge_board() return world.board end
  function C.bridge_self() return world.place end
  function C.bridge_now() return world.now end
  function C.bridge_mono_fresh()
    world.now = world.now + world.tick
    return world.now
  end
  function C.bridge_worker_id() return 1 end
  function C.bridge_endpoint_next() return 0 end
  function C.bridge_sleep()
    world.sleeps = world.sleeps + 1
    return 1
  end
  function C.bridge_timer(_, id)
    world.timers[#world.timers + 1] = id
    return 0
  end
  function C.bridge_timer_cancel(_, id)
    world.cancelled[id] = true
    return 0
  end
  function C.bridge_log(_, _, message, pairs_in, count)
    local fact = { message = message }
    for i = 0, count - 1 do fact[ffi.string(pairs_in[2 * i])] = ffi.string(pairs_in[2 * i + 1]) end
    world.log[#world.log + 1] = fact
  end
  function C.bridge_report(_, line)
    world.reports[#world.reports + 1] = line
    return 0
  end
  return setmetatable(C, { __index = ffi.C })
end

local World = {}
World.__index = World

-- A world with modules of its own; `close` gives the old ones back.
function stage.new()
  cdef_bridge()
  forget_modules()
  local world = setmetatable({
    built = {}, generations = 0, now = 1000, tick = 0, sleeps = 0, timers = {}, cancelled = {}, log = {}, reports = {},
    files = {}, revisions = {}, place = 0, places = 0, idle = {}, board = ffi.new("struct board"),
  }, World)
  package.loaded["sluice.ffi"] = { C = core_of(world), worker = ffi.cast("struct worker *", 1),
    on_error = function(err) return err end, home = "." }
  package.loaded["sluice.balancer"] = { new = function(upstream, targets)
    return { name = upstream.name, targets = targets, schedule = function() return { 1 } end }
  end }
  world.runtime = require "sluice.runtime"
  world.generation = require "sluice.generation"
  return world
end

function World:close()
  for _, path in ipairs(self.files) do os.remove(path) end
  forget_modules()
end

-- ---- Snapshots ------------------------------------------------------------------------------------------------------

local function with_length(bytes)
  local n = #bytes
  return string.char(n % 256, math.floor(n / 256) % 256, math.floor(n / 65536) % 256, 0) .. bytes
end

-- Writes a snapshot; each record is encoded once, so that equal tables of a spec give equal bytes.
function World:snapshot(revision, records)
  local path = os.tmpname()
  self.files[#self.files + 1] = path
  self.revisions[path] = revision
  local parts = { with_length(buffer.encode { kind = "meta", revision = revision, gateway = self.gateway or {},
    counts = {} }) }
  self.bytes = self.bytes or {}
  for i, record in ipairs(records) do
    self.bytes[record] = self.bytes[record] or buffer.encode(record)
    parts[i + 1] = with_length(self.bytes[record])
  end
  local file = assert(io.open(path, "wb"))
  file:write(table.concat(parts))
  file:close()
  return path
end

-- The record of a plugin whose handler.lua is `text`.
function World.code(_, name, text, files)
  local all = { ["handler.lua"] = text }
  for path, its_text in pairs(files or {}) do all[path] = its_text end
  return { kind = "plugin_code", name = name, dir = "/p/" .. name, files = all,
    hash = require("sluice.plugins").hash(all), trusted = false }
end

-- ---- The loop -------------------------------------------------------------------------------------------------------

local function take(world)
  local one = table.remove(world.idle)
  if one then return one end
  world.places = world.places + 1
  return { place = world.places }
end

-- True: the job has ended; false: it waits.
local function go_on(world, one, ...)
  world.place = one.place
  local ok, code = coroutine.resume(one.thread, ...)
  world.place = 0
  assert(ok, code)
  if coroutine.status(one.thread) == "suspended" then return false end
  world.idle[#world.idle + 1] = one
  return true
end

-- Begins an event; gives a function that goes on with it and says whether it has ended.
function World:begin(event, number, text)
  local one = take(self)
  one.thread = coroutine.create(self.runtime.body)
  local ended = go_on(self, one, one.place, EVENT, EVENTS[event], number or 0, 0, 0, 0, text or "")
  return function()
    if not ended then ended = go_on(self, one, 0, 0) end
    return ended
  end
end

-- Fires the timers that are due now, as a turn of the loop does.
function World:turn()
  local due = self.timers
  self.timers = {}
  for _, id in ipairs(due) do
    if not self.cancelled[id] then self:event("timer", id) end
  end
end

-- An event to its end.
function World:event(event, number, text)
  local step = self:begin(event, number, text)
  local turns = 0
  while not step() do
    self:turn()
    turns = turns + 1
    assert(turns < 10000, event .. " does not end")
  end
end

function World:stage(path)
  self:event("stage", self.revisions[path], path)
  return self.reports[#self.reports]
end

return stage
