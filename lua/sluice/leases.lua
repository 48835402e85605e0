-- SPDX-License-Identifier: Apache-2.0
-- How many exchanges use something at the same time, over all workers, and no more than may. A lease belongs to the
-- exchange that took it and ends with its response (of a tunnel or stream: when that is closed) unless it is ended
-- before. One of a worker that died ends when the master has noticed, which is at once. So none can leak.
--
-- In any phase: nothing here waits.

local ffi = require "ffi"
local core = require "sluice.api.core"
local check = require "sluice.api.check"

local C, worker = core.C, core.worker

---@class sluice.leases
local leases = {}

local OK, NONE, STALE = 0, 2, -1
local FULL_TEXT = "the table of shared counters is full"
local held = ffi.new("double[1]")

-- Takes one of `most` leases of that key. Never are more held; of several who want the last one at the very same
-- moment, it may happen that none gets it.
---@param exchange sluice.exchange
---@param key string
---@param most integer
---@return boolean|nil taken false: all are in use; nil: they cannot be counted
---@return integer|string held how many are in use, this one included; or why not
function leases.take(exchange, key, most)
  check.string("sluice.leases.take", "key", key)
  check.number("sluice.leases.take", "most", most)
  local status = C.bridge_lease_take(worker, exchange.handle, key, #key, most, held)
  if status == OK then return true, held[0] end
  if status == NONE then return false, held[0] end
  if status == STALE then error("sluice.leases.take: the exchange has ended", 2) end
  return nil, FULL_TEXT
end

-- Ends a lease before its exchange ends.
---@param exchange sluice.exchange
---@param key string
---@return boolean done false: the exchange holds none of that key
function leases.give_back(exchange, key)
  check.string("sluice.leases.give_back", "key", key)
  return C.bridge_lease_end(worker, exchange.handle, key, #key) == OK
end

---@param key string
---@return integer leases in use, by all workers
function leases.count(key)
  check.string("sluice.leases.count", "key", key)
  return (C.bridge_lease_count(worker, key, #key))
end

return leases
