-- SPDX-License-Identifier: Apache-2.0
-- Several things at once that wait, such as calls of other servers: each runs in a coroutine of its own, and whoever
-- started them takes the results as they come.
--
--   local group = together.new()
--   group:start("a", http.get, "http://a.example/")
--   group:start("b", http.get, "http://b.example/")
--   local name, response, err = group:next(5)         -- of whichever is done first; nil and "timeout"

local core = require "sluice.api.core"
local check = require "sluice.api.check"
local native = require "sluice.ffi"
local timer = require "sluice.timer"

local C, worker = core.C, core.worker
local on_error = native.on_error
local remove, select, unpack, xpcall = table.remove, select, unpack, xpcall

---@class sluice.together
local together = {}

---@class sluice.together.options
---@field memory? integer bytes that Lua's memory may grow by while one of them runs, garbage included
---@field on_end? fun(key: any, result: any, err: any) called with each that is done, awaited or not

---@class sluice.together.group
local Group = {}
local group_mt = { __index = Group, __metatable = false }

local function runtime()
  return require "sluice.runtime"
end

local function apply(call)
  call.result, call.err = call.fn(unpack(call, 1, call.count))
end

-- In a coroutine of its own. What it raises is its error, with a traceback; budgets end here, too. Where it was started
-- for an exchange, what it logs and traces is of that exchange.
local function run(group, call)
  local job = runtime().job()
  job.exchange, job.route = call.exchange, call.route
  if group.memory then C.bridge_limit_memory(worker, math.ceil(group.memory / 1024)) end
  local ok, raised = xpcall(apply, on_error, call)
  if group.memory then C.bridge_limit_memory(worker, 0) end
  job.exchange, job.route = nil, nil
  if not ok then call.result, call.err = nil, raised end
  group.running = group.running - 1
  group.done[#group.done + 1] = call
  if group.on_end then group.on_end(call.key, call.result, call.err) end
  if group.waiter then C.bridge_wake(worker, group.waiter, 0, 0) end
end

-- Runs `fn(...)`, which gives a result, or nil and an error.
---@param key any what `next` calls it
---@param fn function may wait
---@return boolean|nil true
---@return string|nil err
function Group:start(key, fn, ...)
  check.callable("together:start", "fn", fn)
  local job = runtime().job()
  local ok, err = self.at(0, run, self, { key = key, fn = fn, count = select("#", ...), exchange = job and job.exchange,
    route = job and job.route, ... })
  if not ok then return nil, err end
  self.running = self.running + 1
  return true
end

local function first_done(group)
  local call = remove(group.done, 1)
  return call.key, call.result, call.err
end

-- Waits for the next one to be done.
---@param seconds number
---@return any key nil: none is done in that time, or none runs
---@return any result nil: it failed
---@return any err "timeout" or "nothing runs" without a key
function Group:next(seconds)
  if self.done[1] then return first_done(self) end
  if self.running == 0 then return nil, nil, "nothing runs" end
  self.waiter = C.bridge_self(worker)
  local status = C.bridge_wait(worker, seconds)
  if status == 1 then runtime().yield() end
  self.waiter = nil
  if self.done[1] then return first_done(self) end
  return nil, nil, "timeout"
end

-- The same for one plugin: what runs counts as its, and has its budget.
---@param owner table|nil
---@return sluice.together
function together.bind(owner)
  local at = timer.bind(owner).at
  return {
    ---@param options? sluice.together.options
    ---@return sluice.together.group
    new = function(options)
      options = options or {}
      return setmetatable({ at = at, running = 0, done = {}, memory = options.memory, on_end = options.on_end },
        group_mt)
    end,
  }
end

together.new = together.bind(nil).new

return together
