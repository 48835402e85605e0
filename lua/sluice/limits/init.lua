-- SPDX-License-Identifier: Apache-2.0
-- What plugins that limit have in common: whose requests are counted together, in which windows, where.
--
--   local plan = limits.plan { prefix = "rl:ID:", policy = "local", limits = { { name = "minute", most = 20 } } }
--   local used, full = plan.take(plan, limits.subject_of(conf, exchange), time.now())

local core = require "sluice.api.core"
local metrics = require "sluice.metrics"
local subjects = require "sluice.limits.subjects"
local sync = require "sluice.limits.sync"
local time = require "sluice.time"
local windows = require "sluice.limits.windows"
local redis_schema = require "sluice.limits.redis_schema"

local ceil, max = math.ceil, math.max

---@class sluice.limits
local limits = { windows = windows.names, in_order = windows.in_order,
  redis_schema = redis_schema.record, redis_schema_advanced = redis_schema.advanced,
  redis_options = redis_schema.options,
  redis_shorthands = redis_schema.shorthands, redis_checks = redis_schema.checks }

local policies = { ["local"] = require "sluice.limits.local", redis = require "sluice.limits.redis" }

-- Whose request it is, by `conf.limit_by`; the client's address where there is nobody.
---@param conf table with limit_by, header_name, path
---@param exchange sluice.exchange
---@return string
function limits.subject_of(conf, exchange)
  return subjects[conf.limit_by](conf, exchange) or exchange.client:get_forwarded_ip()
end

-- The same by another name than `limit_by`.
---@param kind string
---@return string
function limits.subject_by(kind, conf, exchange)
  return subjects[kind](conf, exchange) or exchange.client:get_forwarded_ip()
end

-- ---- Plans ----

---@class sluice.limits.limit
---@field name string of a window: second, minute, hour, day, month or year; any where it has `seconds`
---@field seconds? number its length
---@field most number
---@field label? string what tells its counter from others of the plan; the name unless told
---@field from number when its present window begins, set by the policy
---@field to number when that ends

---@class sluice.limits.plan
---@field prefix string of the keys of its counters
---@field limits sluice.limits.limit[]
---@field policy "local"|"redis"
---@field redis? table the plugin's option `redis`
---@field sync_rate? number seconds between two tellings of Redis; below 0 or nil: each request is counted there
---@field sliding? boolean
---@field penalty? boolean of sliding windows: refused requests count too
---@field take fun(plan, who: string, now: number): number[]|nil, integer|string|nil counts a request in all windows or,
---when one is full, in none: what each has counted, number of a full one; nil, why it could not count
---@field peek fun(plan, who: string, now: number): integer[]|nil, string|nil
---@field add fun(plan, who: string, now: number, amounts: integer[]): boolean|nil, string|nil

-- Completes a plan: once, in `configure`.
---@param plan sluice.limits.plan
---@return sluice.limits.plan
function limits.plan(plan)
  local kind, policy = plan.sliding and (plan.penalty and "penalty" or "sliding") or "fixed", policies[plan.policy]
  for _, limit in ipairs(plan.limits) do
    limit.label = limit.label or limit.name
    limit.from, limit.to, limit.present, limit.before = 0, 0, 0, 0
  end
  plan.used, plan.take, plan.peek, plan.add = {}, policy[kind], policy.peek, policy.add
  if plan.policy ~= "redis" then return plan end
  plan.redis = redis_schema.options(plan.redis)
  local name = redis_schema.name(plan.redis)
  plan.server = policy.server(name)
  if plan.sync_rate and plan.sync_rate >= 0 then
    plan.group = sync.group(name .. " " .. plan.sync_rate, plan.redis, plan.sync_rate)
    plan.take = sync[kind]
  end
  return plan
end

-- Counts in this gateway where Redis cannot: `take` of a plan that is to go on without it.
---@return number[]|nil used
---@return integer|string|nil full
function limits.take_here(plan, who, now)
  local here = policies["local"][plan.sliding and (plan.penalty and "penalty" or "sliding") or "fixed"]
  local used, full = here(plan, who, now)
  return used, full
end

-- ---- What clients are told ----

-- The fields of each limit of a plan, and those of the one with least left (of several, the longest). Limits have
-- `text`, `limit_field` and `remaining_field` besides.
---@param plan sluice.limits.plan
---@param response sluice.response
---@param used number[]
---@param full integer|nil
---@param now number
---@return integer seconds until that window ends or, where a request was refused by one that slides, until one fits
function limits.announce(plan, response, used, full, now)
  local list = plan.limits
  local tightest, least
  for i = 1, #list do
    local limit = list[i]
    local left = max(0, limit.most - used[i])
    response:set_header(limit.limit_field, limit.text)
    response:set_header(limit.remaining_field, left)
    if not tightest or left <= least then tightest, least = limit, left end
  end
  local wait = tightest.to - now
  if full and plan.sliding then wait = windows.wait(plan, list[full], now) end
  local reset = max(1, ceil(wait))
  response:set_header("RateLimit-Limit", tightest.text)
  response:set_header("RateLimit-Remaining", least)
  response:set_header("RateLimit-Reset", reset)
  return reset
end

-- ---- Failures ----

-- A function that is true when it has not been for so long: for lines of the log that would come with each request.
---@param seconds number
---@return fun(): boolean
function limits.seldom(seconds)
  local last = -seconds
  return function()
    local now = time.monotonic()
    if now - last < seconds then return false end
    last = now
    return true
  end
end

local uncounted

-- Counts, for the metrics, a request that a plugin could not count.
---@param plugin string
function limits.note_uncounted(plugin)
  uncounted = uncounted or metrics.counter("sluice_limits_uncounted_total",
    "Requests that a plugin could not count against its limits", { "plugin" })
  uncounted:increment(plugin)
end

-- A worker that ends tells what it has still to tell.
if core.worker ~= nil then require("sluice.runtime").on("stop", sync.flush) end

return limits
