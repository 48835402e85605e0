-- SPDX-License-Identifier: Apache-2.0
-- Counts in this gateway's memory and tells Redis every so often: a request waits for nobody, and several gateways
-- together may let pass what they count between two such moments.
--
-- Each worker keeps what it has counted since it last told Redis, by key of Redis:
--
--   request:   present += 1, untold += 1 (shared by all workers); mine[key] += 1
--   telling:   untold -= mine[key]; total = Redis adds mine[key]; present = max(present, total + untold)
--
-- `untold` goes down before Redis hears of it, so nothing is counted twice; `present` only grows, as a window does.
-- What is told has a number, and is told again under that number until it is known to have arrived; what is counted
-- meanwhile waits for its turn.
local counters = require "sluice.counters"
local here = require "sluice.limits.local"
local log = require "sluice.log"
local remote = require "sluice.limits.redis"
local sleep = require "sluice.sleep"
local time = require "sluice.time"
local timer = require "sluice.timer"
local uuid = require "sluice.uuid"

local add, get = counters.add, counters.get
local max = math.max

local sync = {}

local SHORTEST_SECONDS = 0.02
local MOST_KEYS = 50000 -- that a worker has not told of; what comes then is counted in Redis at once
local BATCH = 500
local COMPLAIN_EVERY_S = 10
local SPARE_SECONDS = 1
local FLUSH_SECONDS = 5

local groups = {} -- by name: what is told together
local me -- how Redis knows this worker
local number = 0 -- of what was told last

---@param name string what plans of one server and rate have in common
---@param options sluice.redis.options
---@param seconds number from one telling to the next
function sync.group(name, options, seconds)
  local group = groups[name]
  if not group then
    group = { untold = {}, sealed = {}, count = 0, timer = false, telling = false, complained_at = -COMPLAIN_EVERY_S }
    groups[name] = group
  end
  group.options, group.seconds = options, max(seconds, SHORTEST_SECONDS)
  return group
end

-- ---- Telling ----

local function complain(group, err, now)
  if now - group.complained_at < COMPLAIN_EVERY_S then return end
  group.complained_at = now
  log.err("redis has not been told what was counted", { error = err, keys = group.count })
end

-- Brings what this gateway knows up to what Redis has counted for all.
local function learn(entry, total)
  local life = entry.ends - time.now()
  if life <= 0 then return end
  local untold = get(entry.untold_key) or 0
  for _ = 1, 4 do
    local present = get(entry.key)
    if not present then return counters.set(entry.key, total + untold, life) end
    if present >= total + untold then return end
    if counters.compare_set(entry.key, present, total + untold) then return end
  end
end

-- What has been counted so far gets a number, and is told from now on.
local function seal(group)
  local now, sealed = time.now(), {}
  for _, entry in pairs(group.untold) do
    add(entry.untold_key, -entry.amount, max(entry.ends - now, SPARE_SECONDS))
    number = number + 1
    entry.number = number
    sealed[#sealed + 1] = entry
  end
  group.untold, group.sealed = {}, sealed
end

local function tell_batch(group, batch)
  me = me or uuid.v4()
  return remote.tell(group.options, me, batch, function(entry, total)
    entry.arrived = true
    learn(entry, total)
  end)
end

-- What is left of what was sealed: it has not arrived, and its window is not over.
local function left_of(sealed)
  local now, left = time.now(), {}
  for _, entry in ipairs(sealed) do
    if not entry.arrived and entry.ends > now then left[#left + 1] = entry end
  end
  return left
end

local function tell_sealed(group)
  local batch, err = {}, nil
  for i, entry in ipairs(group.sealed) do
    batch[#batch + 1] = entry
    if #batch == BATCH or i == #group.sealed then
      err = tell_batch(group, batch)
      if err then break end
      batch = {}
    end
  end
  local told = #group.sealed
  group.sealed = left_of(group.sealed)
  group.count = group.count - told + #group.sealed
  return err
end

local tell_later

-- One at a time.
local function tell(group)
  group.timer = false
  if group.telling then return end
  group.telling = true
  if #group.sealed == 0 then seal(group) end
  local ok, err = pcall(tell_sealed, group)
  group.telling = false
  if not ok then error(err, 0) end
  if err then complain(group, err, time.monotonic()) end
  if group.count > 0 then tell_later(group) end
end

function tell_later(group)
  if group.timer or group.telling then return end
  group.timer = timer.at(group.seconds, tell, group) or false
end

-- A worker that goes tells what it still has.
function sync.flush()
  for _, group in pairs(groups) do
    local until_s = time.monotonic() + FLUSH_SECONDS
    while group.telling and time.monotonic() < until_s do sleep(SHORTEST_SECONDS) end
    for _ = 1, 2 do -- what is told already, and what came meanwhile
      if group.count > 0 then tell(group) end
    end
  end
end

-- ---- Counting ----

local function put_down(plan, i, who, now)
  local group = plan.group
  local key, ends = remote.place(plan, i, who, now)
  key = key .. ":told"
  local entry = group.untold[key]
  if entry then
    entry.amount = entry.amount + 1
  else
    local limit = plan.limits[i]
    entry = { redis_key = key, key = limit.key .. who, untold_key = "u" .. limit.key .. who, amount = 1, ends = ends }
    group.untold[key] = entry
    group.count = group.count + 1
    tell_later(group)
  end
  add(entry.untold_key, 1, ends - now)
end

local function take(plan, who, now, policy, at_once)
  if plan.group.count >= MOST_KEYS then return at_once(plan, who, now) end
  local used, full = policy(plan, who, now)
  if used and (plan.penalty or not full) then
    for i = 1, #plan.limits do put_down(plan, i, who, now) end
  end
  return used, full
end

function sync.fixed(plan, who, now)
  local used, full = take(plan, who, now, here.fixed, remote.fixed)
  return used, full
end

function sync.sliding(plan, who, now)
  local used, full = take(plan, who, now, here.sliding, remote.sliding)
  return used, full
end

function sync.penalty(plan, who, now)
  local used, full = take(plan, who, now, here.penalty, remote.penalty)
  return used, full
end

return sync
