-- SPDX-License-Identifier: Apache-2.0
-- A real worker inside a spec: loop and VM without sockets or a master. Plugins are given as the text of their
-- handler.lua; phases are run through the very door that the core uses.
--
--   local w = worker.new { budget_ms = 50 }
--   w:stage { plugins = { hello = "..." } }      -- each with one global instance
--   w:run("access")                              -- "done", "answered", "waiting", "failed"
local core = require "spec.support.core"
local ffi = require "ffi"
local phases = require "sluice.phases"
local plugins = require "sluice.plugins"
local posix = require "spec.support.posix"
local snapshot = require "sluice.snapshot"

local registry = debug.getregistry()
local C = core.load("process.h", "phase.h", "vm.h")
if not registry["sluice.spec.worker"] then
  registry["sluice.spec.worker"] = true
  ffi.cdef [[
    struct worker *worker_new(const struct worker_options *options, struct error *error);
    void worker_free(struct worker *worker);
    void worker_turn(struct worker *worker, bool block);
    struct loop *worker_loop(struct worker *worker);
  ]]
end

local RESULTS = { [0] = "done", "answered", "waiting", "failed" }
local EVENT_STAGE, EVENT_STATUS, EVENT_STOP = 1, 4, 5
local SLOTS = 1048576

local worker = {}
worker.__index = worker

local function limits(self, options)
  self.limits = ffi.new("struct limit[1]")
  ffi.copy(self.limits[0].name, "plugin_cpu_budget_ms")
  self.limits[0].value = options.budget_ms or 1000
  return self.limits
end

---@param options? { budget_ms: number }
function worker.new(options)
  options = options or {}
  local self = setmetatable({ dir = posix.temporary_directory(), board = ffi.new("struct board"), serial = 0,
    revision = 0 }, worker)
  self.log_path = self.dir .. "/log"
  self.log_file = assert(io.open(self.log_path, "w"))
  self.log_file:setvbuf("no")
  local raw = ffi.new("struct worker_options", { id = 1, worker_count = 1, control_fd = -1, home = ".",
    state_dir = self.dir, board = self.board, limits = limits(self, options), limit_count = 1 })
  raw.log.fd, raw.log.level = self:log_fd(), 0
  ffi.copy(raw.log.source, "worker 1")
  self.options = raw
  local err = ffi.new("struct error")
  self.raw = C.worker_new(raw, err)
  if self.raw == nil then error(ffi.string(err.text)) end
  return self
end

function worker:log_fd()
  ffi.cdef "int sys_fileno(void *) __asm__(\"fileno\");"
  return ffi.C.sys_fileno(self.log_file)
end

function worker:close()
  C.worker_free(self.raw)
  self.log_file:close()
  os.execute("rm -rf '" .. self.dir .. "'")
end

-- The log so far.
function worker:log()
  local file = assert(io.open(self.log_path))
  local text = file:read("*a")
  file:close()
  return text
end

local function slice(text)
  return ffi.new("struct slice", { text, #text })
end

function worker:event(event, number, text)
  C.phase_event(self.raw, event, number, slice(text or ""))
end

-- Turns the loop until `condition` holds.
function worker:turn_until(condition, seconds)
  local deadline = posix.now() + (seconds or 5)
  while not condition() do
    if posix.now() > deadline then error("nothing happened in the worker; its log:\n" .. self:log(), 2) end
    C.worker_turn(self.raw, false)
    posix.pause(0.001)
  end
end

local function records_of(setup, revision)
  local records = { { kind = "meta", revision = revision, gateway = setup.gateway or {}, counts = {} } }
  local instances = {}
  for name, text in pairs(setup.plugins or {}) do
    local files = { ["handler.lua"] = text }
    records[#records + 1] = { kind = "plugin_code", name = name, dir = "/plugins/" .. name, files = files,
      hash = plugins.hash(files), trusted = setup.trusted == true }
    instances[#instances + 1] = { kind = "plugin", id = name, name = name, enabled = true,
      config = setup.config and setup.config[name] or {} }
  end
  for _, record in ipairs(setup.entities or {}) do records[#records + 1] = record end
  for _, record in ipairs(instances) do records[#records + 1] = record end
  return records
end

-- Writes a snapshot and stages it; true once it is live.
---@param setup { plugins: table<string, string>, config?: table, entities?: table[], trusted?: boolean,
---  gateway?: table }
function worker:begin_stage(setup)
  self.revision = self.revision + 1
  local encoded = {}
  for i, record in ipairs(records_of(setup, self.revision)) do encoded[i] = snapshot.encode(record) end
  local path = assert(snapshot.write(assert(snapshot.folder(self.dir)), self.revision, encoded))
  self:event(EVENT_STAGE, self.revision, path)
  return self.revision
end

function worker:stage(setup)
  local revision = self:begin_stage(setup)
  self:turn_until(function() return self.board.generation == revision end)
  self.generation = (self.generation or 0) + 1 -- the worker numbers them as it begins them
end

-- A handle as the core makes them; no such exchange exists, so only what needs none may be called.
function worker:new_exchange(slot)
  self.serial = self.serial + 1
  return self.serial * SLOTS + (slot or 0)
end

---@param phase string
---@param exchange? number
---@param route? integer
function worker:run(phase, exchange, route)
  return RESULTS[tonumber(C.phase_run(self.raw, exchange or self:new_exchange(), self.generation, route or 0,
    phases.numbers[phase]))]
end

function worker:body(chunk, last, exchange)
  local out = ffi.new("struct slice[1]")
  local result = C.phase_body(self.raw, exchange or self:new_exchange(), self.generation, 0, slice(chunk), last, out)
  return ffi.string(out[0].data, out[0].len), RESULTS[tonumber(result)]
end

function worker:forget(exchange)
  C.phase_forget(self.raw, exchange)
end

-- The place of a plugin on the board.
function worker:place(name)
  for i = 1, self.board.plugin_count do
    if ffi.string(self.board.plugin_names[i]) == name then return i end
  end
end

worker.EVENT_STATUS, worker.EVENT_STOP = EVENT_STATUS, EVENT_STOP

return worker
