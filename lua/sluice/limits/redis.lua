-- SPDX-License-Identifier: Apache-2.0
-- Counts in Redis, for all gateways that use it: one script a request, so that looking and counting are one step there.
-- All counters of one subject have a hash tag in common, which keeps them in one slot of a cluster.
--
-- A server that does not answer in time costs the requests that wait for it that time, once: for the next second it is
-- taken to be away without asking, and then one request finds out whether it is back.
local redis = require "sluice.redis"
local time = require "sluice.time"
local windows = require "sluice.limits.windows"

local ceil, floor = math.ceil, math.floor
local format, type = string.format, type

local policy = {}

local SPARE_SECONDS = 1
local AWAY_SECONDS = 1

-- ---- Whether it is there ----

local servers = {} -- by name: { until_s = monotonic time until which it is taken to be away, err }

-- What plans that use the same server know of it together.
---@param name string
function policy.server(name)
  local server = servers[name]
  if not server then
    server = { until_s = 0, err = nil }
    servers[name] = server
  end
  return server
end

local function note(server, err, away)
  if away then
    server.until_s, server.err = time.monotonic() + AWAY_SECONDS, err
  else
    server.until_s = 0
  end
end

local function run(plan, script, keys, arguments)
  local server, now = plan.server, time.monotonic()
  if server.until_s > 0 then
    if now < server.until_s then return nil, server.err end
    server.until_s = now + plan.redis.deadline + AWAY_SECONDS -- this one asks, the others do not wait for it
  end
  local reply, err, away = redis.eval(plan.redis, script, keys, arguments)
  note(server, err, away)
  if err then return nil, err end
  if type(reply) ~= "table" then return nil, "redis gave no numbers" end
  return reply
end

-- ---- Keys ----

local function key_of(plan, limit, who, from)
  return format("ratelimit:{%s%s}:%s:%.14g", plan.prefix, who, limit.label, from)
end

-- What the window of limit `i` is counted under, and when that ends.
---@return string key
---@return number ends seconds since 1970
function policy.place(plan, i, who, now)
  local limit = windows.turn(plan, i, now)
  if plan.sliding then return key_of(plan, limit, who, limit.from), now + windows.life(limit, now) end
  return key_of(plan, limit, who, limit.from), limit.to + SPARE_SECONDS
end

-- ---- Fixed windows ----

-- KEYS: a counter for each window; ARGV: what each may hold, then how many seconds each lives.
local FIXED = [[
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

function policy.fixed(plan, who, now)
  local keys, arguments, count = {}, {}, #plan.limits
  for i = 1, count do
    local limit = windows.turn(plan, i, now)
    keys[i] = key_of(plan, limit, who, limit.from)
    arguments[i], arguments[count + i] = floor(limit.most), ceil(limit.to - now) + SPARE_SECONDS
  end
  local used, err = run(plan, FIXED, keys, arguments)
  if not used then return nil, err end
  local full = used[count + 1]
  return used, full > 0 and full or nil
end

-- ---- Sliding windows ----

-- KEYS: for each window its counter and that of the one before; ARGV: for each what it may hold, the share of the one
-- before that counts, how many seconds it lives; at last, whether refused requests count too. Gives both counts of
-- each.
local SLIDING = [[
local counts, full = {}, 0
for i = 1, #KEYS / 2 do
  local present = tonumber(redis.call("GET", KEYS[2 * i - 1]) or "0")
  local before = tonumber(redis.call("GET", KEYS[2 * i]) or "0")
  counts[2 * i - 1], counts[2 * i] = present, before
  if full == 0 and present + 1 + before * tonumber(ARGV[3 * i - 1]) > tonumber(ARGV[3 * i - 2]) then full = i end
end
if full == 0 or ARGV[#ARGV] == "1" then
  for i = 1, #KEYS / 2 do
    counts[2 * i - 1] = redis.call("INCR", KEYS[2 * i - 1])
    if counts[2 * i - 1] == 1 then redis.call("EXPIRE", KEYS[2 * i - 1], ARGV[3 * i]) end
  end
end
counts[#counts + 1] = full
return counts
]]

local function slide(plan, who, now, all)
  local keys, arguments, shares, count = {}, {}, {}, #plan.limits
  for i = 1, count do
    local limit = windows.turn(plan, i, now)
    keys[2 * i - 1], keys[2 * i] = key_of(plan, limit, who, limit.from), key_of(plan, limit, who, limit.from_before)
    shares[i] = windows.share(limit, now)
    arguments[3 * i - 2], arguments[3 * i - 1] = limit.most, shares[i]
    arguments[3 * i] = ceil(windows.life(limit, now))
  end
  arguments[3 * count + 1] = all and 1 or 0
  local counts, err = run(plan, SLIDING, keys, arguments)
  if not counts then return nil, err end
  local used, full = {}, counts[2 * count + 1]
  for i = 1, count do
    local limit = plan.limits[i]
    limit.present, limit.before = counts[2 * i - 1], counts[2 * i]
    used[i] = ceil(limit.present + limit.before * shares[i])
  end
  return used, full > 0 and full or nil
end

function policy.sliding(plan, who, now)
  local used, full = slide(plan, who, now, false)
  return used, full
end

function policy.penalty(plan, who, now)
  local used, full = slide(plan, who, now, true)
  return used, full
end

-- ---- Amounts that are known only afterwards ----

local PEEK = [[
local used = redis.call("MGET", unpack(KEYS))
for i = 1, #used do used[i] = tonumber(used[i] or "0") end
return used
]]

function policy.peek(plan, who, now)
  local keys = {}
  for i = 1, #plan.limits do keys[i] = (policy.place(plan, i, who, now)) end
  local used, err = run(plan, PEEK, keys)
  return used, err
end

-- KEYS; ARGV: for each what is added, and when it ends. Gives what each then holds.
local ADD = [[
local used = {}
for i, key in ipairs(KEYS) do
  used[i] = redis.call("INCRBY", key, ARGV[2 * i - 1])
  redis.call("EXPIREAT", key, ARGV[2 * i])
end
return used
]]

function policy.add(plan, who, now, amounts)
  local keys, arguments = {}, {}
  for i = 1, #plan.limits do
    if amounts[i] > 0 then
      local key, ends = policy.place(plan, i, who, now)
      keys[#keys + 1] = key
      arguments[#arguments + 1] = amounts[i]
      arguments[#arguments + 1] = ceil(ends)
    end
  end
  if not keys[1] then return true end
  local used, err = run(plan, ADD, keys, arguments)
  return used and true, err
end

-- ---- What others have counted, told afterwards ----

-- A hash with the sum in `n` and, by the name of each who tells, the number of what he told last: what is told again,
-- for nobody knew whether it had arrived, is not counted again. ARGV: who, number, amount, end. Gives the sum.
local TELL = [[
local last = tonumber(redis.call("HGET", KEYS[1], ARGV[1]) or "0")
if tonumber(ARGV[2]) > last then
  redis.call("HINCRBY", KEYS[1], "n", ARGV[3])
  redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
  redis.call("EXPIREAT", KEYS[1], ARGV[4])
end
return tonumber(redis.call("HGET", KEYS[1], "n"))
]]

local function tell_cluster(options, who, entries, heard)
  for i = 1, #entries do
    local entry = entries[i]
    local total, err = redis.eval(options, TELL, { entry.redis_key },
      { who, entry.number, entry.amount, ceil(entry.ends) })
    if err then return err end
    heard(entry, total)
  end
end

-- Tells entries { redis_key, number, amount, ends }; calls heard(entry, total) for each that has arrived.
---@param options sluice.redis.options
---@param who string
---@return string|nil err
function policy.tell(options, who, entries, heard)
  if options.cluster then return tell_cluster(options, who, entries, heard) end
  local commands = {}
  for i = 1, #entries do
    local entry = entries[i]
    commands[i] = { "EVAL", TELL, 1, entry.redis_key, who, entry.number, entry.amount, ceil(entry.ends) }
  end
  local client, err = redis.connect(options)
  if not client then return err end
  local replies
  replies, err = client:pipeline(commands)
  client:release()
  if not replies then return err end
  for i = 1, #entries do
    local total = replies[i]
    if type(total) == "number" then
      heard(entries[i], total)
    else
      err = type(total) == "table" and total.err or "redis gave no number"
    end
  end
  return err
end

return policy
