-- SPDX-License-Identifier: Apache-2.0
-- What C enters: the function of every pooled coroutine, which runs the plugins of a phase, a balancer's policy or an
-- event, and the protected call around each piece of plugin code.
--
--   C calls (place, kind, numbers, text) -> body -> run -> xpcall(plugin) ... -> returns (code, text) to C
--                                               a call that waits yields nothing -> C resumes (status, number)
--
-- Kept monomorphic and closure-free, so that a phase with its plugins compiles into one trace.

local ffi = require "ffi"
local exchanges = require "sluice.exchanges"
local frame = require "sluice.frame"
local native = require "sluice.ffi"
local phases = require "sluice.phases"

local C, worker, on_error = native.C, native.worker, native.on_error
local board = C.bridge_board(worker)
local yield, xpcall, tostring, type = coroutine.yield, xpcall, tostring, type
local rawget, rawset = rawget, rawset
local EXIT = phases.EXIT
local LOG, STREAM_LOG = phases.numbers.log, phases.numbers["log (stream)"]
local NO_ROUTE = 0
local LAST_ANSWERING = phases.numbers.access

local PHASE, BODY, PICK, EVENT, FRAME = 1, 2, 3, 4, 5 -- enum vm_kind
local DONE, ANSWERED, FAILED = 0, 1, 3                -- enum phase_result
local PLACES = 1048576                                -- of coroutines in vm.c

local runtime = {
  EXIT = EXIT,
  ---@type table<integer, table> by id: plans by route index (0: no route), routes, upstreams; see sluice.generation
  generations = {},
}

local generations = runtime.generations
local jobs = {} -- by place of the coroutine: what it works on

-- ---- Logging ------------------------------------------------------------------------------------------------------

local LEVELS = { debug = 0, info = 1, notice = 2, warn = 3, error = 4, crit = 5 }

-- A fact in the process log: constant message, then keys and values in turn.
---@param level string
---@param message string
---@param ... string
function runtime.log(level, message, ...)
  local count = select("#", ...)
  local texts, pairs_out = {}, ffi.new("const char *[?]", count + 1)
  for i = 1, count do
    texts[i] = tostring((select(i, ...))) -- held here while C reads
    pairs_out[i - 1] = texts[i]
  end
  C.bridge_log(worker, LEVELS[level], message, pairs_out, count / 2)
  return texts
end

-- ---- Which plugin, generation and phase runs ----------------------------------------------------------------------

-- The job of the running coroutine: { generation, phase, exchange }.
function runtime.job()
  return jobs[C.bridge_self(worker) % PLACES]
end

-- The generation that the running code belongs to.
---@return integer id, 0 when none
function runtime.generation()
  local job = jobs[C.bridge_self(worker) % PLACES]
  return job and job.generation or 0
end

-- The place on the board of the plugin whose code runs; 0: none.
---@return integer
function runtime.plugin()
  return board.running
end

-- The running phase, as a number; events and timers may do what init_worker may.
---@return integer|nil
function runtime.phase()
  local job = jobs[C.bridge_self(worker) % PLACES]
  return job and job.phase
end

-- Plugins keep their place on the board for the life of the worker; the last place is shared by what does not fit.
local places = {}

---@param name string
---@return integer place on the board
function runtime.place(name)
  local place = places[name]
  if not place then
    place = math.min(board.plugin_count + 1, C.BOARD_PLUGINS - 1)
    places[name] = place
    ffi.copy(board.plugin_names[place], name:sub(1, C.BOARD_NAME_BYTES - 1))
    board.plugin_count = place
  end
  return place
end

-- ---- Failures -----------------------------------------------------------------------------------------------------

-- "file:line: message\nstack traceback:..." in parts; an error that is no text has no place. Of the traceback, what is
-- below the plugin is the runtime itself.
local function parts(err)
  local text = tostring(err)
  local message, traceback = text:match("^(.-)\n(stack traceback:.*)$")
  message = message or text
  traceback = traceback and (traceback:match("^(.*)\n%s*%[C%]: in function 'xpcall'") or traceback)
  local where, what = message:match("^(.-:%d+): (.*)$")
  return what or message, where or "", traceback or ""
end

local function id_of(exchange)
  return exchange.id
end

-- The id of an exchange that may have ended while the plugin waited.
local function request_id(exchange)
  local ok, id = pcall(id_of, exchange or {})
  return ok and id or ""
end

-- Kept out of the path that works. `owner` is the plugin, or its item in a plan.
local function plugin_failed(owner, phase_name, job, err)
  local place = owner.place
  board.running = 0
  board.plugin_errors[place] = board.plugin_errors[place] + 1
  local message, where, traceback = parts(err)
  local held = generations[job.generation]
  local route = held and job.route and held.routes[job.route]
  runtime.log("error", "plugin failed", "plugin", owner.name, "version", owner.version, "phase", phase_name,
    "route", route and (route.name or route.id) or "", "at", where, "error", message, "traceback", traceback,
    "request_id", request_id(job.exchange))
end

-- Runs a function of a plugin under its name and CPU budget: what a timer or another callback is for. A failure is
-- logged and counted here.
---@param owner table the plugin, as plugins.load gave it
---@param generation integer from `runtime.generation` when the function was handed over
---@param phase_name string what the log calls it, such as "timer"
---@param fn function
---@return boolean ok
---@return any first result, or the error
function runtime.call(owner, generation, phase_name, fn, a, b, c)
  local job = runtime.job()
  local outer, outer_generation, outer_phase, place = board.running, job.generation, job.phase, owner.place
  job.generation, job.phase = generation, phases.numbers[phase_name] or phases.numbers.init_worker
  board.plugin_calls[place] = board.plugin_calls[place] + 1
  board.running = place
  local ok, result = xpcall(fn, on_error, a, b, c)
  board.running = outer
  if not ok then plugin_failed(owner, phase_name, job, result) end
  job.generation, job.phase = outer_generation, outer_phase
  return ok, result
end

-- ---- Waiting -------------------------------------------------------------------------------------------------------

local RUNTIME_SOURCE = "^@" .. native.home:gsub("%p", "%%%0") .. "/lua/sluice/"

-- The level of the first function on the stack that is not the runtime's own, as `error` counts from its caller.
local function plugin_level()
  for level = 2, 40 do
    local info = debug.getinfo(level, "S")
    if not info then break end
    if info.what ~= "C" and not info.source:find(RUNTIME_SOURCE) then return level - 1 end
  end
  return 1
end

local function waiting_phases()
  local names = {}
  for number = 0, #phases.names do
    if phases.may_wait(number) then names[#names + 1] = phases.names[number] end
  end
  return table.concat(names, ", ")
end

-- What every call that waits yields by: in a phase that may not wait it raises instead, at the plugin's line.
function runtime.yield(...)
  local job = runtime.job()
  if job and job.phase and not phases.may_wait(job.phase) then
    error("a call that waits cannot be made in phase " .. phases.names[job.phase] .. "; it can in " .. waiting_phases(),
      plugin_level())
  end
  return yield(...)
end

-- ---- Phases -------------------------------------------------------------------------------------------------------

local new_exchange

-- Gives the constructor of exchange objects (sluice.api's), which needs this module itself.
function runtime.construct_with(constructor)
  new_exchange = constructor
end

local function object_of(handle)
  local exchange = exchanges.find(handle)
  if exchange then return exchange end
  exchange = new_exchange(handle)
  exchanges.keep(handle, exchange)
  return exchange
end

-- Whether the condition of an instance holds: asked once, when the instance is first to run for an exchange.
local function condition_holds(item, conf, exchange)
  local condition = item.conditions[conf]
  if not condition then return true end
  local known = rawget(exchange, "conditions")
  if not known then
    known = {}
    rawset(exchange, "conditions", known)
  end
  local holds = known[conf]
  if holds == nil then
    holds = condition(exchange)
    known[conf] = holds
  end
  return holds
end

-- Kong's precedence among the instances of one plugin; levels are in that order, made by sluice.plan.
local function most_specific(item, exchange)
  local consumer, groups = exchange.consumer, exchange.consumer_group_ids
  local levels = item.levels
  for i = 1, #levels do
    local level = levels[i]
    if not level.group then
      local conf = consumer and level.confs[consumer.id]
      if conf then return conf end
    elseif groups then
      for g = 1, #groups do
        local conf = level.confs[groups[g]]
        if conf then return conf end
      end
    end
  end
  return item.conf
end

-- The configuration that a plugin runs with for an exchange; nil: it does not run.
local function scoped_conf(item, exchange)
  local conf = most_specific(item, exchange)
  if conf and item.conditions and not condition_holds(item, conf, exchange) then return nil end
  return conf
end

-- The same for whoever finds the item in a plan.
---@return table|nil conf
function runtime.conf_of(item, exchange)
  if not item.levels then return item.conf end
  return scoped_conf(item, exchange)
end

-- What a failed call means for the phase; nil: go on (a failing logger must not silence the others).
local function after_failure(job, item, phase, err)
  if err == EXIT then return ANSWERED end
  plugin_failed(item, phases.names[phase], job, err)
  if phase ~= LOG and phase ~= STREAM_LOG then return FAILED end
end

-- One plugin of a phase. Gives what ends the phase, or nil.
local function run_item(job, item, exchange, phase)
  local conf = item.conf
  if item.levels then conf = scoped_conf(item, exchange) end
  if not conf then return nil end
  local place = item.place
  board.plugin_calls[place] = board.plugin_calls[place] + 1
  board.running = place
  local ok, err = xpcall(item.run, on_error, conf, exchange)
  board.running = 0
  if not ok then return after_failure(job, item, phase, err) end
  -- A plugin may have answered, and caught the mark that ends it.
  if exchange.answered and phase <= LAST_ANSWERING then return ANSWERED end
end

-- A loop over a handful of plugins is compiled by itself and keeps the phase around it from being compiled whole, so
-- for each length of the list there is a function that names its items one by one.
local runners = {}

local function runner_for(length)
  local lines = { "local run_item, DONE = ...", "return function(job, list, exchange, phase)", "  local result" }
  for i = 1, length do
    lines[#lines + 1] = ("  result = run_item(job, list[%d], exchange, phase)"):format(i)
    lines[#lines + 1] = "  if result then return result end"
  end
  lines[#lines + 1] = "  return DONE\nend"
  return assert(loadstring(table.concat(lines, "\n"), "=runner"))(run_item, DONE)
end

local function run_list(job, list, exchange, phase)
  local length = #list
  local runner = runners[length]
  if not runner then
    runner = runner_for(length)
    runners[length] = runner
  end
  return runner(job, list, exchange, phase)
end

-- The same where a tracer wants to know how long each plugin takes.
local function run_timed(job, list, exchange, phase)
  local result = require("sluice.tracing").run_timed(run_item, job, list, exchange, phase)
  return result
end

local function list_of(generation, route, phase)
  local held = generations[generation]
  local plan = held and held.plans[route]
  return plan and plan[phase]
end

local function run_phase(job, handle, generation, route, phase)
  local held = generations[generation]
  local plan = held and held.plans[route]
  local list = plan and plan[phase]
  if not list then return DONE end
  local exchange = object_of(handle)
  -- What plugins would like to see in the log is not gathered where nobody writes one.
  if route == NO_ROUTE or plan[LOG] or plan[STREAM_LOG] then exchange.logged = true end
  exchange.generation = held
  local outer = exchanges.enter(exchange, phase)
  job.generation, job.route, job.phase, job.exchange = generation, route, phase, exchange
  local result = (plan.timed and run_timed or run_list)(job, list, exchange, phase)
  exchanges.leave(exchange, outer)
  job.exchange = nil
  return result
end

local BODY_FILTER = phases.numbers.body_filter

local function filter_chunk(job, list, exchange, chunk, last)
  for i = 1, #list do
    local item = list[i]
    local conf = item.conf
    if item.levels then conf = scoped_conf(item, exchange) end
    if conf then
      local place = item.place
      board.plugin_calls[place] = board.plugin_calls[place] + 1
      board.running = place
      exchange.chunk, exchange.last, exchange.taken = chunk, last, false -- for response:get_raw_body, set_raw_body
      local ok, out = xpcall(item.run, on_error, conf, exchange, chunk, last)
      board.running = 0
      if not ok then return after_failure(job, item, BODY_FILTER, out) end
      -- nil: nothing of it goes on now; a plugin that gathers the body hands it over with the last chunk.
      chunk = type(out) == "string" and out or exchange.taken or ""
    end
  end
  return DONE, chunk
end

local function run_body(job, handle, generation, route, last, chunk)
  local list = list_of(generation, route, BODY_FILTER)
  if not list then return DONE, chunk end
  local exchange = object_of(handle)
  local outer = exchanges.enter(exchange, BODY_FILTER)
  job.generation, job.route, job.phase, job.exchange = generation, route, BODY_FILTER, exchange
  local result, out = filter_chunk(job, list, exchange, chunk, last)
  exchanges.leave(exchange, outer)
  job.exchange = nil
  return result, out
end

local CLIENT_FRAME, UPSTREAM_FRAME = phases.numbers.ws_client_frame, phases.numbers.ws_upstream_frame

local function pass_frame(job, list, exchange, phase, message)
  for i = 1, #list do
    local item = list[i]
    local conf = item.conf
    if item.levels then conf = scoped_conf(item, exchange) end
    if conf then
      local place = item.place
      board.plugin_calls[place] = board.plugin_calls[place] + 1
      board.running = place
      local ok, err = xpcall(item.run, on_error, conf, exchange, message)
      board.running = 0
      if not ok then
        plugin_failed(item, phases.names[phase], job, err)
        return FAILED
      end
      if frame.is_over(message) then break end
    end
  end
  return frame.verdict(message)
end

-- One message of a WebSocket. While a plugin waits, those of the other direction go on: so the exchange may be in both
-- phases at once, and what is left of them when one ends is the other.
local function run_frame(job, handle, generation, route, phase, opcode, payload)
  local list = list_of(generation, route, phase)
  if not list then return DONE end
  local exchange = object_of(handle)
  local message = frame.new(opcode, payload)
  local frames = phase == CLIENT_FRAME and frame.client or frame.upstream
  frame.keep(frames, handle, message)
  exchanges.enter(exchange, phase)
  job.generation, job.route, job.phase, job.exchange = generation, route, phase, exchange
  local result, out = pass_frame(job, list, exchange, phase, message)
  frame.keep(frames, handle, nil)
  local left = frame.current(frame.client, handle) and CLIENT_FRAME
    or frame.current(frame.upstream, handle) and UPSTREAM_FRAME or 0
  exchanges.leave(exchange, left)
  job.exchange = nil
  -- The next message may be hours away: an object that holds nothing of plugins' is made anew then.
  if left == 0 and not rawget(exchange, "ctx") and not exchange.consumer and not exchange.credential
    and not exchange.serialize_changes and not rawget(exchange, "conditions") then
    exchanges.keep(handle, nil)
  end
  return result, out
end

local function run_pick(job, handle, generation, upstream)
  local held = generations[generation]
  local policy = held and held.upstreams[upstream]
  if not policy then return 0 end
  job.generation, job.phase = generation, phases.numbers.balancer
  local ok, target = xpcall(policy.pick, on_error, policy, handle)
  if ok then return target or 0 end
  runtime.log("error", "balancer policy failed", "upstream", policy.name, "error", target)
  return 0
end

-- ---- Records ------------------------------------------------------------------------------------------------------

-- The plugins that a route has for a phase of records; nil: none. Asked inside one of the exchange's phases.
---@param phase integer produce or consume
---@return table[]|nil
function runtime.record_list(phase)
  local job = jobs[C.bridge_self(worker) % PLACES]
  return job and job.route and list_of(job.generation, job.route, phase)
end

-- The same for a route.
function runtime.record_list_at(generation, route, phase)
  return list_of(generation, route, phase)
end

local function pass_record(job, list, exchange, phase, record)
  local name = phases.names[phase]
  for i = 1, #list do
    local item = list[i]
    local conf = item.conf
    if item.levels then conf = scoped_conf(item, exchange) end
    if conf then
      local outer, place = board.running, item.place
      board.plugin_calls[place] = board.plugin_calls[place] + 1
      board.running = place
      local ok, out = xpcall(item.run, on_error, conf, exchange, record)
      board.running = outer
      if ok and out ~= nil and type(out) ~= "table" then
        ok, out = false, "expected the record or nil, returned a " .. type(out)
      end
      if not ok then
        if out ~= EXIT then
          plugin_failed(item, name, job, out)
          board.running = outer
        end
        return nil, out
      end
      if out == nil then return nil end
      record = out
    end
  end
  return record
end

-- Runs a phase of records for a route, in an exchange that runs none: nobody's request brought the record.
---@param generation integer
---@param route integer
---@param handle number of the exchange
---@return table|nil record
---@return any failure
function runtime.run_record_at(generation, route, phase, handle, record)
  local job = jobs[C.bridge_self(worker) % PLACES]
  local outer_generation, outer_route, outer_exchange = job.generation, job.route, job.exchange
  local exchange = object_of(handle)
  exchange.generation = generations[generation]
  job.generation, job.route, job.exchange = generation, route, exchange
  local out, failure = runtime.run_record(list_of(generation, route, phase), phase, exchange, record)
  job.generation, job.route, job.exchange = outer_generation, outer_route, outer_exchange
  return out, failure
end

-- One record through the plugins of a list. nil: one dropped it. With a second result one failed, which has been
-- logged; or it answered the exchange, which is EXIT.
---@param list table[] from runtime.record_list
---@param phase integer
---@param exchange sluice.exchange
---@param record table
---@return table|nil record
---@return any failure
function runtime.run_record(list, phase, exchange, record)
  local job = jobs[C.bridge_self(worker) % PLACES]
  local outer_phase = job.phase
  local outer = exchanges.enter(exchange, phase)
  job.phase = phase
  local out, failure = pass_record(job, list, exchange, phase, record)
  job.phase = outer_phase
  exchanges.enter(exchange, outer)
  return out, failure
end

-- ---- Events -------------------------------------------------------------------------------------------------------

-- enum phase_event
local EVENTS = { [0] = "start", "stage", "generation_end", "timer", "status", "stop", "kafka_token" }
local handlers = { start = {}, stage = {}, generation_end = {}, timer = {}, status = {}, stop = {},
  kafka_token = {} }

-- Has `fn(number, text)` called at an event: "start", "stage", "generation_end", "timer", "status", "stop" or
-- "kafka_token". It may wait. Handlers run in the order of their registration, one after the other.
---@param event string
---@param fn fun(number: number, text: string)
function runtime.on(event, fn)
  local list = handlers[event]
  list[#list + 1] = fn
end

local function run_event(job, event, number, text)
  job.generation, job.phase, job.exchange, job.route = runtime.live or 0, phases.numbers.init_worker, nil, nil
  local name = EVENTS[event]
  for _, fn in ipairs(handlers[name]) do
    local ok, err = xpcall(fn, on_error, number, text)
    if not ok then
      local message, where, traceback = parts(err)
      runtime.log("error", "event failed", "event", name, "at", where, "error", message, "traceback", traceback)
    end
  end
  return DONE
end

-- ---- The coroutine ------------------------------------------------------------------------------------------------

local function new_job(place)
  local job = { generation = 0 }
  jobs[place] = job
  return job
end

-- One job, in a pooled coroutine.
---@param place integer of the coroutine in the pool
---@return integer code
---@return string|nil text
function runtime.body(place, kind, a, b, c, d, e, text)
  local job = jobs[place] or new_job(place)
  if kind == PHASE then return (run_phase(job, a, b, c, d)) end
  if kind == BODY then return run_body(job, a, b, c, d == 1, text) end
  if kind == FRAME then return run_frame(job, a, b, c, d, e, text) end
  if kind == PICK then return (run_pick(job, a, b, c)) end
  if kind == EVENT then return (run_event(job, a, b, text)) end
  return FAILED
end

return runtime
