-- SPDX-License-Identifier: Apache-2.0
-- Where requests are counted. A policy takes (plan, who, now) and counts one request in all windows of the plan or,
-- when one of them is full, in none. It gives how many each window has counted, and the number of a full one; nil and
-- why when it could not count.
local counters = require "sluice.counters"
local redis = require "sluice.redis"
local windows = require "rate-limiting.windows"

local add, get = counters.add, counters.get
local ceil, floor = math.ceil, math.floor

local policies = {}

local SPARE_SECONDS = 1 -- that a counter outlives its window

local function turn(plan, limit, now)
  limit.from, limit.to = windows.around(limit.name, now)
  limit.key = ("%s%s:%d:"):format(plan.prefix, limit.name, limit.from)
end

-- The limit, its key that of the window in which `now` lies.
local function at(plan, i, now)
  local limit = plan.limits[i]
  if now >= limit.to or now < limit.from then turn(plan, limit, now) end
  return limit
end

-- ---- local: all workers of this gateway ----

-- Takes back what was counted in the windows before number `full`, and in that one; tells what they hold without it.
local function take_back(plan, full, who, now)
  local used = plan.used
  for i = 1, #plan.limits do
    local limit = at(plan, i, now)
    if i < full then
      used[i] = used[i] - 1
      add(limit.key, -1, limit.to - now + SPARE_SECONDS, who)
    elseif i == full then
      used[i] = limit.most
      add(limit.key, -1, limit.to - now + SPARE_SECONDS, who)
    else
      used[i] = get(limit.key .. who) or 0
    end
  end
  return used, full
end

-- Counts first and looks then: of requests that come at once to several workers, exactly as many pass as may.
policies["local"] = function(plan, who, now)
  local used = plan.used -- one table for all requests: nothing here waits
  for i = 1, #plan.limits do
    local limit = at(plan, i, now)
    local count, err = add(limit.key, 1, limit.to - now + SPARE_SECONDS, who)
    if not count then return nil, err end
    if count > limit.most then return take_back(plan, i, who, now) end
    used[i] = count
  end
  return used
end

-- ---- redis: all gateways that use it ----

-- KEYS: a counter for each window; ARGV: what each may hold, then how many seconds each lives.
local SCRIPT = [[
local used, full = {}, 0
for i, key in ipairs(KEYS) do
  used[i] = tonumber(redis.call("GET", key) or "0")
  if full == 0 and used[i] + 1 > tonumber(ARGV[i]) then full = i end
end
if full == 0 then
  for i, key in ipairs(KEYS) do
    used[i] = redis.call("INCR", key)
    if used[i] == 1 then redis.call("EXPIRE", key, ARGV[#KEYS + i]) end
  end
end
used[#used + 1] = full
return used
]]

local function run(client, keys, arguments)
  return client:eval(SCRIPT, keys, arguments)
end

function policies.redis(plan, who, now)
  local keys, arguments, count = {}, {}, #plan.limits
  for i = 1, count do
    local limit = at(plan, i, now)
    -- The braces have a cluster keep all counters of one client in one place.
    keys[i] = ("ratelimit:{%s%s}:%s:%d"):format(plan.prefix, who, limit.name, limit.from)
    arguments[i], arguments[count + i] = floor(limit.most), ceil(limit.to - now) + SPARE_SECONDS
  end
  local used, err = redis.use(plan.redis, run, keys, arguments)
  if type(used) ~= "table" then return nil, err or "redis gave no numbers" end
  local full = used[count + 1]
  return used, full > 0 and full or nil
end

return policies
