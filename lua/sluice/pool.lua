-- SPDX-License-Identifier: Apache-2.0
-- Idle connections of one worker, kept by key for the next who needs one. Bounded per key and in all; the youngest
-- goes out first, so that those no longer needed grow old and are closed.

local time = require "sluice.time"
local timer = require "sluice.timer"

local remove, insert = table.remove, table.insert

---@class sluice.pool
local Pool = {}
Pool.__index = Pool

local SWEEP_SECONDS = 10

---@param max_idle integer in all
---@return sluice.pool
function Pool.new(max_idle)
  return setmetatable({ by_key = {}, count = 0, max_idle = max_idle, sweeping = false }, Pool)
end

local function drop(self, list, at)
  local entry = remove(list, at)
  self.count = self.count - 1
  entry.connection:close()
end

-- An idle connection for that key, or nil.
---@param key string
---@return table|nil connection
function Pool:take(key)
  local list = self.by_key[key]
  if not list then return nil end
  local now = time.monotonic()
  while #list > 0 do
    local entry = remove(list)
    self.count = self.count - 1
    if entry.ends > now and entry.connection:alive() then return entry.connection end
    entry.connection:close()
  end
  self.by_key[key] = nil
  return nil
end

-- Closes what has been idle for too long; goes on while anything is idle.
local function sweep(self)
  local now = time.monotonic()
  for key, list in pairs(self.by_key) do
    while list[1] and (list[1].ends <= now or not list[1].connection:alive()) do drop(self, list, 1) end
    if not list[1] then self.by_key[key] = nil end
  end
  self.sweeping = false
  if self.count > 0 then self:sweep_later() end
end

function Pool:sweep_later()
  if self.sweeping then return end
  self.sweeping = timer.at(SWEEP_SECONDS, sweep, self) ~= nil
end

-- Keeps a connection for the next; closes it when there is no room.
---@param key string
---@param connection { alive: fun(self): boolean, close: fun(self) }
---@param size integer idle ones of this key at most
---@param idle_timeout number seconds
function Pool:put(key, connection, size, idle_timeout)
  local list = self.by_key[key]
  if size < 1 or self.count >= self.max_idle or not connection:alive() then
    connection:close()
    return
  end
  if not list then
    list = {}
    self.by_key[key] = list
  end
  if #list >= size then drop(self, list, 1) end
  insert(list, { connection = connection, ends = time.monotonic() + idle_timeout })
  self.count = self.count + 1
  self:sweep_later()
end

return Pool
