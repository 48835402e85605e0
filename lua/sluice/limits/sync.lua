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
local counters = require "sluice.counters"
local here = require "sluice.limits.local"
local log = require "sluice.log"
local remote = require "sluice.limits.redis"
local time = require "sluice.time"
local timer = require "sluice.timer"

local add, get = counters.add, counters.get
local max = math.max

local sync = {}

local SHORTEST_SECONDS = 0.02
local MOST_KEYS = 50000 -- that a worker has not told of; what comes then is counted in Redis at once
local BATCH = 500
local COMPLAIN_EVERY_S = 10
local SPARE_SECONDS = 1

local groups = {} -- by name: what is told together

---@param name string what plans of one server and rate have in common
---@param options sluice.redis.options
---@param seconds number from one telling to the next
function sync.group(name, options, seconds)
  local group = groups[name]
  if not group then
    group = { untold = {}, count = 0, timer = false, complained_at = -COMPLAIN_EVERY_S }
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

-- What Redis did not take is told the next time, unless its window is over by then.
local function keep(group, entry, now)
  if entry.ends <= now then return end
  local newer = group.untold[entry.redis_key]
  add(entry.untold_key, entry.amount, entry.ends - now)
  if newer then
    newer.amount = newer.amount + entry.amount
  else
    group.untold[entry.redis_key] = entry
    group.count = group.count + 1
  end
end

local function tell_batch(group, batch)
  local keys, amounts, ends = {}, {}, {}
  for i, entry in ipairs(batch) do
    add(entry.untold_key, -entry.amount, max(entry.ends - time.now(), SPARE_SECONDS))
    keys[i], amounts[i], ends[i] = entry.redis_key, entry.amount, entry.ends
  end
  local totals, err, failed_at = remote.add_all(group.options, keys, amounts, ends)
  if totals then
    for i, entry in ipairs(batch) do learn(entry, totals[i]) end
    return true
  end
  local now = time.now()
  for i = failed_at, #batch do keep(group, batch[i], now) end
  return nil, err
end

local tell_later

local function tell(group)
  local entries, batch = group.untold, {}
  group.untold, group.count, group.timer = {}, 0, false
  local err
  for _, entry in pairs(entries) do
    batch[#batch + 1] = entry
    if #batch == BATCH then
      local ok, why = tell_batch(group, batch)
      if not ok then err = why end
      batch = {}
    end
  end
  if batch[1] then
    local ok, why = tell_batch(group, batch)
    if not ok then err = why end
  end
  if err then complain(group, err, time.monotonic()) end
  if group.count > 0 then tell_later(group) end
end

function tell_later(group)
  if group.timer then return end
  group.timer = timer.at(group.seconds, tell, group) or false
end

-- A worker that goes tells what it still has.
function sync.flush()
  for _, group in pairs(groups) do
    if group.count > 0 then tell(group) end
  end
end

-- ---- Counting ----

local function put_down(plan, i, who, now)
  local group = plan.group
  local key, ends = remote.place(plan, i, who, now)
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
  if used and not full then
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

return sync
