-- SPDX-License-Identifier: Apache-2.0
-- So many requests in a second, minute, hour, day, month or year, and no more.
local limits = require "sluice.limits"
local log = require "sluice.log"
local time = require "sluice.time"

local now_of, subject_of, announce = time.now, limits.subject_of, limits.announce

local rate_limiting = { version = "1.1.0", priority = 910 }

local TOO_MANY = 429
local COMPLAIN_EVERY_S = 10

local plans = setmetatable({}, { __mode = "k" }) -- by configuration

-- ---- What is made once ----

local function limits_of(conf)
  local list = {}
  for _, name in ipairs(limits.windows) do
    if conf[name] then
      local title = name:sub(1, 1):upper() .. name:sub(2)
      list[#list + 1] = {
        name = name, most = conf[name], text = ("%.14g"):format(conf[name]),
        limit_field = "X-RateLimit-Limit-" .. title, remaining_field = "X-RateLimit-Remaining-" .. title,
      }
    end
  end
  return list
end

local function status_of(conf)
  local status = conf.error_code
  if status % 1 == 0 and status >= 100 and status <= 599 then return status end
  log.warn("config.error_code is no HTTP status: 429 stands for it", { error_code = status })
  return TOO_MANY
end

local function plan_of(conf)
  return limits.plan {
    prefix = "rl:" .. (conf.__plugin_id or "") .. ":", limits = limits_of(conf), policy = conf.policy,
    redis = conf.redis, sync_rate = conf.sync_rate, sliding = conf.window_type == "sliding",
    status = status_of(conf), complains = limits.seldom(COMPLAIN_EVERY_S),
  }
end

function rate_limiting.configure(confs)
  for _, conf in ipairs(confs or {}) do plans[conf] = plan_of(conf) end
end

local function refuse(plan, conf, response, reset)
  if reset then response:set_header("Retry-After", reset) end
  if plan.status >= 400 then response:error(plan.status, conf.error_message) end
  response:exit(plan.status, { message = conf.error_message })
end

-- ---- When it cannot be counted ----

local function go_on_or_fail(plan, conf, exchange, err)
  limits.note_uncounted("rate-limiting")
  if plan.complains() then log.err("requests cannot be counted", { error = err }) end
  if not conf.fault_tolerant then exchange.response:error(500, "An unexpected error occurred") end
end

function rate_limiting.access(conf, exchange)
  local plan, now = plans[conf], now_of()
  local used, full = plan.take(plan, subject_of(conf, exchange), now)
  if not used then return go_on_or_fail(plan, conf, exchange, full) end
  local reset
  if not conf.hide_client_headers then reset = announce(plan, exchange.response, used, full, now) end
  if full then refuse(plan, conf, exchange.response, reset) end
end

return rate_limiting
