-- SPDX-License-Identifier: Apache-2.0
-- What has been fetched from elsewhere, by key: kept for a time, looked at again behind the scenes when it grows old,
-- fetched once for all who ask meanwhile. While the other side is away what was known stays in use, and nobody waits
-- for it: it is asked again after a pause that doubles.
--
--   known:get(key) --> young:     at once
--                  --> old:       at once; fetched again in a coroutine of its own
--                  --> unknown:   all who ask wait for one fetch
--                  --> refused:   its error, for a while without asking again

local core = require "sluice.api.core"
local log = require "sluice.log"
local time = require "sluice.time"
local timer = require "sluice.timer"

local C, worker = core.C, core.worker
local math_min, pairs, pcall, remove, tostring = math.min, pairs, pcall, table.remove, tostring

local Known = {}
Known.__index = Known

local known = {}

local PAUSE_LEAST_S, PAUSE_MOST_S = 1, 30
local FLIGHTS_MOST = 32

---@class sluice.known.options
---@field name string for the log
---@field fetch fun(key: string): any, string|nil, string|nil, number|nil the value, or nil, an error, a code and ttl
---@field ttl number seconds that a value is young
---@field refused_ttl number seconds that an error other than "unavailable" is
---@field timeout number seconds that `fetch` may take
---@field most integer keys that are kept

---@param options sluice.known.options
function known.new(options)
  return setmetatable({ options = options, entries = {}, count = 0, flights = 0, failures = 0, away_until = 0 }, Known)
end

-- ---- Entries ----

-- The one that was used least recently goes. One that is being fetched stays.
local function evict(self)
  local oldest, key_of
  for key, entry in pairs(self.entries) do
    if not entry.flying and (not oldest or entry.used < oldest.used) then oldest, key_of = entry, key end
  end
  if not oldest then return false end
  self.entries[key_of] = nil
  self.count = self.count - 1
  return true
end

local function entry_for(self, key, now)
  local entry = self.entries[key]
  if not entry then
    if self.count >= self.options.most and not evict(self) then return nil end
    entry = { waiters = {}, used = now, fresh_until = 0 }
    self.entries[key] = entry
    self.count = self.count + 1
  end
  entry.used = now
  return entry
end

-- Keeps a value that came by another way.
function Known:put(key, value, ttl)
  local now = time.monotonic()
  local entry = entry_for(self, key, now)
  if not entry then return end
  entry.value, entry.err, entry.code = value, nil, nil
  entry.fresh_until = now + (ttl or self.options.ttl)
end

-- What is known of a key, without a fetch.
function Known:peek(key)
  local entry = self.entries[key]
  return entry and entry.value
end

-- What was refused is asked for again.
function Known:forget_refusal(key)
  local entry = self.entries[key]
  if entry and not entry.value then entry.fresh_until = 0 end
end

-- ---- Fetching ----

local function away(self, now, err)
  if now < self.away_until then return end
  local pause = math_min(PAUSE_LEAST_S * 2 ^ self.failures, PAUSE_MOST_S)
  self.failures, self.away_until, self.why = self.failures + 1, now + pause, err
  log.warn(self.options.name .. " cannot be asked", { error = err, again_in_s = pause })
end

local function land(self, entry, ok, value, err, code, ttl)
  local now = time.monotonic()
  if not ok then value, err, code = nil, tostring(value), "unavailable" end
  if code == "unavailable" then
    away(self, now, err)
    if entry.value == nil then entry.err, entry.code, entry.fresh_until = err, code, 0 end
  else
    self.failures, self.away_until = 0, 0
    entry.value, entry.err, entry.code = value, err, code
    entry.fresh_until = now + (ttl or (value ~= nil and self.options.ttl or self.options.refused_ttl))
  end
end

-- In a coroutine of its own, so that it goes on when who wanted it has left.
local function fly(self, entry, key)
  land(self, entry, pcall(self.options.fetch, key))
  self.flights, entry.flying = self.flights - 1, nil
  local waiters = entry.waiters
  entry.waiters = {}
  for i = 1, #waiters do C.bridge_wake(worker, waiters[i], 0, 0) end
end

-- Starts a fetch unless one is under way or there is no use. Whether one is.
local function start(self, entry, key, now)
  if entry.flying then return true end
  if now < self.away_until or self.flights >= FLIGHTS_MOST then return false end
  entry.flying, self.flights = true, self.flights + 1
  if timer.at(0, fly, self, entry, key) then return true end
  entry.flying, self.flights = nil, self.flights - 1
  return false
end

local function leave(waiters, me)
  for i = 1, #waiters do
    if waiters[i] == me then return remove(waiters, i) end
  end
end

local function wait(self, entry)
  local deadline, me = time.monotonic() + self.options.timeout + 1, C.bridge_self(worker)
  while entry.flying do
    local left = deadline - time.monotonic()
    if left <= 0 then return end
    entry.waiters[#entry.waiters + 1] = me
    core.wait(C.bridge_wait(worker, left))
    leave(entry.waiters, me)
  end
end

-- The value of a key. May wait.
---@param key string
---@return any value
---@return string|nil err
---@return string|nil code of `fetch`; "unavailable": it could not be asked
function Known:get(key)
  local now = time.monotonic()
  local entry = entry_for(self, key, now)
  if not entry then return nil, "too much is asked for at once", "unavailable" end
  if entry.fresh_until > now then return entry.value, entry.err, entry.code end
  local flying = start(self, entry, key, now)
  if entry.value ~= nil then return entry.value end
  if flying then
    wait(self, entry)
    if entry.value ~= nil or entry.err then return entry.value, entry.err, entry.code end
    return nil, "timeout", "unavailable"
  end
  if entry.code and entry.code ~= "unavailable" then return nil, entry.err, entry.code end
  return nil, now < self.away_until and self.why or "too many fetches at once", "unavailable"
end

return known
