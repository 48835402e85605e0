-- SPDX-License-Identifier: Apache-2.0
-- One coroutine waits until another one of the same worker has something for it.
--
--   local bell = require("sluice.bell").new()
--   if bell:wait(5) then ... end        -- in the one
--   bell:ring()                         -- in the other
--
-- A ring that nobody waits for is kept: the next wait returns at once. So whoever looks first and waits then misses
-- nothing.

local core = require "sluice.api.core"
local check = require "sluice.api.check"
local time = require "sluice.time"

local C, worker = core.C, core.worker
local remove = table.remove

---@class sluice.bell
local bell = {}

local OK = 0
local RESOLUTION_S = 1e-6 -- of the core's timers

---@class sluice.bell.object
local Bell = {}
local bell_mt = { __index = Bell, __metatable = false }

---@return sluice.bell.object
function bell.new()
  return setmetatable({ rung = false, waiters = {} }, bell_mt)
end

-- Whoever waits goes on, all of them.
function Bell:ring()
  self.rung = true
  local waiters = self.waiters
  for i = 1, #waiters do C.bridge_wake(worker, waiters[i], OK, 0) end
end

local function forget(waiters, me)
  for i = 1, #waiters do
    if waiters[i] == me then return remove(waiters, i) end
  end
end

-- Waits for a ring.
---@param seconds number
---@return boolean rung false: it was not, in that time
function Bell:wait(seconds)
  check.number("bell:wait", "seconds", seconds)
  local deadline = time.monotonic() + seconds
  while not self.rung do
    local left = deadline - time.monotonic()
    if left < RESOLUTION_S then return false end
    local me = C.bridge_self(worker)
    self.waiters[#self.waiters + 1] = me
    core.wait(C.bridge_wait(worker, left))
    forget(self.waiters, me)
  end
  if #self.waiters == 0 then self.rung = false end
  return true
end

return bell
