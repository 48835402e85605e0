-- SPDX-License-Identifier: Apache-2.0
-- So many requests in windows of any length, several at once, fixed or sliding. While Redis is away, requests are
-- counted in this gateway.
local limits = require "sluice.limits"
local log = require "sluice.log"
local random = require "sluice.random"
local time = require "sluice.time"

local rate_limiting_advanced = { version = "1.0.0", priority = 910 }

local TOO_MANY = 429
local COMPLAIN_EVERY_S = 10

-- What windows are called that have a name; others by their seconds.
local NAMES = { [1] = "Second", [60] = "Minute", [3600] = "Hour", [86400] = "Day", [2592000] = "Month",
  [31536000] = "Year" }

local plans = setmetatable({}, { __mode = "k" }) -- by configuration

-- ---- What is made once ----

local function limits_of(conf)
  local list = {}
  for i, seconds in ipairs(conf.window_size) do
    local name = NAMES[seconds] or ("%.14g"):format(seconds)
    list[i] = { name = name, seconds = seconds, most = conf.limit[i], text = ("%.14g"):format(conf.limit[i]),
      limit_field = "X-RateLimit-Limit-" .. name, remaining_field = "X-RateLimit-Remaining-" .. name }
  end
  table.sort(list, function(a, b) return a.seconds < b.seconds end)
  return list
end

local function status_of(conf)
  local status = conf.error_code
  if status % 1 == 0 and status >= 100 and status <= 599 then return status end
  log.warn("config.error_code is no HTTP status: 429 stands for it", { error_code = status })
  return TOO_MANY
end

-- Redis is asked each time (0), told now and then, or has nothing to do with it (-1).
local function plan_of(conf)
  local rate = conf.strategy == "redis" and conf.sync_rate or -1
  local sliding = conf.window_type == "sliding"
  return limits.plan {
    prefix = "rla:" .. (conf.namespace or conf.__plugin_id or "") .. ":", limits = limits_of(conf),
    policy = rate >= 0 and "redis" or "local", redis = conf.redis, sync_rate = rate > 0 and rate or nil,
    sliding = sliding, penalty = sliding and not conf.disable_penalty,
    status = status_of(conf), complains = limits.seldom(COMPLAIN_EVERY_S),
  }
end

function rate_limiting_advanced.configure(confs)
  for _, conf in ipairs(confs or {}) do plans[conf] = plan_of(conf) end
end

-- ---- Each request ----

local function subject_of(conf, exchange)
  local compound = conf.compound_identifier
  if not compound or not compound[1] then return limits.subject_by(conf.identifier, conf, exchange) end
  local parts = {}
  for i = 1, #compound do
    local part = limits.subject_by(compound[i], conf, exchange)
    parts[i] = #part .. ":" .. part -- so that nobody's is another's and more
  end
  return table.concat(parts, ",")
end

local function refuse(plan, conf, response, reset)
  if reset then
    local jitter = conf.retry_after_jitter_max
    if jitter > 0 then reset = reset + math.floor(random() * (jitter + 1)) end
    response:set_header("Retry-After", reset)
  end
  if plan.status >= 400 then response:error(plan.status, conf.error_message) end
  response:exit(plan.status, { message = conf.error_message })
end

local function take(plan, who, now)
  local used, full = plan.take(plan, who, now)
  if used or plan.policy == "local" then return used, full end
  if plan.complains() then log.err("redis cannot count: this gateway does meanwhile", { error = full }) end
  used, full = limits.take_here(plan, who, now)
  return used, full
end

function rate_limiting_advanced.access(conf, exchange)
  local plan, now = plans[conf], time.now()
  local used, full = take(plan, subject_of(conf, exchange), now)
  if not used then
    limits.note_uncounted("rate-limiting-advanced")
    if plan.complains() then log.err("requests cannot be counted", { error = full }) end
    return
  end
  local reset
  if not conf.hide_client_headers then reset = limits.announce(plan, exchange.response, used, full, now) end
  if full then refuse(plan, conf, exchange.response, reset) end
end

return rate_limiting_advanced
