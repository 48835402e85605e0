-- SPDX-License-Identifier: Apache-2.0
-- How many streams are open, over all workers. Each worker counts its own in a shared counter of its own, and the sum
-- is taken when it is asked for: so what a worker that died had counted goes with it.
--
-- A counter's key has the process id of its worker, which is known by the worker's number. Counters end by themselves
-- unless their worker keeps them, so that those of the dead do not fill the table.
local counters = require "sluice.counters"
local node = require "sluice.node"

local open = { REFRESH_SECONDS = 60 }

local TTL_SECONDS = 200
local MOST_WORKERS = 1024
local PROCESS = "connection-limiting\1process\1"

local kept = {} -- keys of this worker's counters that are not 0

local function key_of(key, pid)
  return key .. "\1open\1" .. pid
end

-- Says which process this worker is.
function open.start()
  counters.set(PROCESS .. node.get_worker_id(), node.get_pid())
end

---@param key string
---@return integer
function open.count(key)
  local sum = 0
  for id = 1, MOST_WORKERS do
    local pid = counters.get(PROCESS .. id)
    if not pid then break end
    sum = sum + (counters.get(key_of(key, pid)) or 0)
  end
  return sum
end

---@param key string
---@return integer|nil
---@return string|nil err
function open.add(key)
  local mine = key_of(key, node.get_pid())
  local value, err = counters.add(mine, 1, TTL_SECONDS)
  kept[mine] = value and true or nil
  return value, err
end

---@param key string
function open.remove(key)
  local mine = key_of(key, node.get_pid())
  local value = counters.get(mine)
  if not value or value <= 1 then
    counters.delete(mine)
    kept[mine] = nil
  else
    counters.add(mine, -1)
  end
end

-- Prolongs what is in use.
function open.refresh()
  for mine in pairs(kept) do
    local value = counters.get(mine)
    if value and value > 0 then counters.set(mine, value, TTL_SECONDS) else kept[mine] = nil end
  end
end

return open
