-- SPDX-License-Identifier: Apache-2.0
-- Timers of plugins: each runs in a coroutine of its own, may wait, and stops with the generation that set it.
--
-- An owner is whatever the runtime says a timer belongs to (one load of a plugin); `stop(owner)` cancels all of its
-- timers. The core knows numbers only; the runtime hands a due number to `fire`.

local core = require "sluice.api.core"
local check = require "sluice.api.check"

local C, worker = core.C, core.worker
local type, select, unpack = type, select, unpack

local timer = {}

local pending = {}  -- id to timer, of those that are set
local by_owner = setmetatable({}, { __mode = "k" }) -- owner to the set of its timers, set or running
local last_id = 0

local function arm(it)
  last_id = last_id + 1
  it.id = last_id
  local status = C.bridge_timer(worker, it.id, it.seconds)
  if status ~= 0 then return nil, core.reason(status) end
  pending[it.id] = it
  return it
end

local function own(it)
  local timers = by_owner[it.owner]
  if not timers then
    timers = {}
    by_owner[it.owner] = timers
  end
  timers[it] = true
end

local function disown(it)
  local timers = by_owner[it.owner]
  if timers then timers[it] = nil end
end

local function cancel(it)
  it.cancelled = true
  if pending[it.id] ~= it then return end
  pending[it.id] = nil
  C.bridge_timer_cancel(worker, it.id)
end

local Handle = {}
local handle_mt = { __index = Handle, __metatable = false }

-- Cancels the timer; one that is running ends its run.
function Handle:cancel()
  cancel(self.timer)
  disown(self.timer)
end

local function set(owner, seconds, every, fn, ...)
  local runtime = require "sluice.runtime"
  local it = { owner = owner, seconds = seconds, every = every, fn = fn, count = select("#", ...), ... }
  it.generation = runtime.generation()
  local ok, err = arm(it)
  if not ok then return nil, err end
  own(it)
  return setmetatable({ timer = it }, handle_mt)
end

local function check_seconds(name, seconds, least)
  if type(seconds) ~= "number" or not (seconds >= least and seconds < 1e9) then
    check.fail(name, "seconds must be a number of at least " .. least .. ", got " .. tostring(seconds), 4)
  end
end

local GATEWAY = { name = "gateway", version = "", place = 0 } -- no place on the board: no budget

-- Timer functions whose timers belong to `owner`.
---@param owner table with `name` for the log
---@return sluice.timer
function timer.bind(owner)
  owner = owner or GATEWAY
  ---@class sluice.timer
  local bound = {}

  -- Runs `fn(...)` once.
  ---@param seconds number
  ---@param fn function may wait
  ---@return { cancel: fun(self) }|nil
  ---@return string|nil err
  function bound.at(seconds, fn, ...)
    check_seconds("sluice.timer.at", seconds, 0)
    check.callable("sluice.timer.at", "fn", fn)
    return set(owner, seconds, false, fn, ...)
  end

  -- Runs `fn(...)` again and again, `seconds` from the end of one run to the start of the next.
  ---@param seconds number at least 0.001
  ---@param fn function may wait
  ---@return { cancel: fun(self) }|nil
  ---@return string|nil err
  function bound.every(seconds, fn, ...)
    check_seconds("sluice.timer.every", seconds, 0.001)
    check.callable("sluice.timer.every", "fn", fn)
    return set(owner, seconds, true, fn, ...)
  end

  return bound
end

local function run(it)
  it.fn(unpack(it, 1, it.count))
end

-- Called by the runtime, in a coroutine of its own, when the core says that timer `id` is due.
---@param id number
function timer.fire(id)
  local it = pending[id]
  if not it then return end
  pending[id] = nil
  require("sluice.runtime").call(it.owner, it.generation, "timer", run, it)
  if it.cancelled or not it.every or not arm(it) then disown(it) end
end

-- Cancels all timers of an owner; runs under way end, but are not repeated.
---@param owner table
function timer.stop(owner)
  local timers = by_owner[owner]
  if not timers then return end
  by_owner[owner] = nil
  for it in pairs(timers) do cancel(it) end
end

-- How many timers an owner has; all timers without one.
---@param owner? table
---@return integer
function timer.count(owner)
  local count = 0
  for _ in pairs(owner and (by_owner[owner] or {}) or pending) do count = count + 1 end
  return count
end

local gateway = timer.bind(GATEWAY)
timer.at, timer.every = gateway.at, gateway.every

return timer
