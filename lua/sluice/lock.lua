-- SPDX-License-Identifier: Apache-2.0
-- One at a time within a worker: of the coroutines that want the same thing, one works and the others wait for it.
--
-- What guards against a holder that never comes back (its client left, its plugin failed): every lock ends by itself.

local core = require "sluice.api.core"
local time = require "sluice.time"

local C, worker = core.C, core.worker
local remove, pcall, error, type, unpack, select = table.remove, pcall, error, type, unpack, select

---@class sluice.lock
local lock = {}

local OK = 0
local HOLD_SECONDS = 30
local SWEEP_EVERY = 1000

-- ---- Mutual exclusion ----

local held = {} -- by key: { ends, waiters = coroutine numbers in order }
local flights = {} -- by key: { ends, waiters, done, results }

-- What ended without a word (its coroutine is gone) is forgotten now and then.
local uses = 0

local function sweep()
  uses = uses + 1
  if uses % SWEEP_EVERY ~= 0 then return end
  local now = time.monotonic()
  for key, it in pairs(held) do
    if it.ends <= now and #it.waiters == 0 then held[key] = nil end
  end
  for key, flight in pairs(flights) do
    if flight.ends <= now then flights[key] = nil end
  end
end

---@class sluice.lock.held
local Held = {}
local held_mt = { __index = Held, __metatable = false }

local function grant(key, ends)
  local mine = setmetatable({ key = key, ends = ends, waiters = {} }, held_mt)
  held[key] = mine
  return mine
end

local function forget_waiter(list, me)
  for i = 1, #list do
    if list[i] == me then return remove(list, i) end
  end
end

-- Takes the lock, waiting in turn while another holds it.
---@param key string
---@param timeout number seconds to wait; 0: not at all
---@param hold? number seconds after which the lock ends by itself, 30 unless told
---@return sluice.lock.held|nil
---@return string|nil err "timeout"
function lock.acquire(key, timeout, hold)
  if type(key) ~= "string" then error("sluice.lock.acquire: key must be a string, got " .. type(key), 2) end
  sweep()
  local deadline = time.monotonic() + timeout
  while true do
    local now = time.monotonic()
    local other = held[key]
    if not other or other.ends <= now then
      local mine = grant(key, now + (hold or HOLD_SECONDS))
      if other then mine.waiters = other.waiters end
      return mine
    end
    if now >= deadline then return nil, "timeout" end
    local me = C.bridge_self(worker)
    local queue = other.waiters
    queue[#queue + 1] = me
    local wait = math.min(deadline, other.ends) - now
    core.wait(C.bridge_wait(worker, wait))
    forget_waiter(queue, me)
  end
end

-- Lets the next one have it. Releasing twice, or one that has ended, is no error.
function Held:release()
  if held[self.key] ~= self then return end
  held[self.key] = nil
  local waiters = self.waiters
  while waiters[1] do
    -- The rest of the queue passes on to whoever gets the lock; until then it belongs to an ended one.
    held[self.key] = setmetatable({ key = self.key, ends = 0, waiters = waiters }, held_mt)
    if C.bridge_wake(worker, waiters[1], OK, 0) == OK then return end
    remove(waiters, 1) -- that coroutine is gone
    held[self.key] = nil
  end
end

local function release_after(mine, ok, ...)
  mine:release()
  if not ok then error((...), 0) end
  return ...
end

-- Runs `fn(...)` while holding the lock.
---@param key string
---@param timeout number seconds to wait for it
---@param fn function
---@return any what `fn` returned; nil when the lock was not had
---@return string|nil err "timeout"
function lock.with(key, timeout, fn, ...)
  local mine, err = lock.acquire(key, timeout)
  if not mine then return nil, err end
  return release_after(mine, pcall(fn, ...))
end

-- ---- Single flight ----

local function land(key, flight, ok, ...)
  flight.done, flight.ok = true, ok
  flight.count = select("#", ...)
  flight.results = { ... }
  if flights[key] == flight then flights[key] = nil end
  for i = 1, #flight.waiters do C.bridge_wake(worker, flight.waiters[i], OK, 0) end
  if not ok then error((...), 0) end
  return ...
end

local function join(flight, timeout)
  local deadline = time.monotonic() + timeout
  while not flight.done do
    local left = math.min(deadline, flight.ends) - time.monotonic()
    if left <= 0 then return nil, "timeout" end
    flight.waiters[#flight.waiters + 1] = C.bridge_self(worker)
    core.wait(C.bridge_wait(worker, left))
  end
  if not flight.ok then return nil, "failed: " .. tostring(flight.results[1]) end
  return unpack(flight.results, 1, flight.count)
end

-- Runs `fn(...)` once for all who ask for the same key meanwhile: they wait and get the same results. When it raises,
-- it raises for the one who ran it, and the others get nil and an error.
---@param key string
---@param timeout number seconds that the others wait, and the work may take
---@param fn function
---@return any
---@return string|nil err
function lock.once(key, timeout, fn, ...)
  if type(key) ~= "string" then error("sluice.lock.once: key must be a string, got " .. type(key), 2) end
  sweep()
  local flight = flights[key]
  local now = time.monotonic()
  if flight and flight.ends > now then return join(flight, timeout) end
  flight = { ends = now + timeout, waiters = {}, done = false }
  flights[key] = flight
  return land(key, flight, pcall(fn, ...))
end

return lock
