-- SPDX-License-Identifier: Apache-2.0
-- So many requests in a second, minute, hour, day, month or year, and no more.
local log = require "sluice.log"
local time = require "sluice.time"
local policies = require "rate-limiting.policies"
local windows = require "rate-limiting.windows"

local now_of, ceil, max = time.now, math.ceil, math.max

local rate_limiting = { version = "1.0.0", priority = 910 }

local TOO_MANY = 429
local COMPLAIN_EVERY_S = 10

local plans = setmetatable({}, { __mode = "k" }) -- by configuration

-- ---- What is made once ----

local function limits_of(conf)
  local limits = {}
  for _, name in ipairs(windows.names) do
    if conf[name] then
      local title = name:sub(1, 1):upper() .. name:sub(2)
      limits[#limits + 1] = {
        name = name, most = conf[name], text = ("%.14g"):format(conf[name]), from = 0, to = 0,
        limit_field = "X-RateLimit-Limit-" .. title, remaining_field = "X-RateLimit-Remaining-" .. title,
      }
    end
  end
  return limits
end

local function present(text)
  return text ~= "" and text or nil
end

local function redis_of(conf)
  return {
    host = conf.host, port = conf.port, database = conf.database, timeout = conf.timeout / 1000,
    username = present(conf.username), password = present(conf.password),
    tls = conf.ssl and { verify = conf.ssl_verify, name = conf.server_name } or nil,
  }
end

local function status_of(conf)
  local status = conf.error_code
  if status % 1 == 0 and status >= 100 and status <= 599 then return status end
  log.warn("config.error_code is no HTTP status: 429 stands for it", { error_code = status })
  return TOO_MANY
end

local identify = {}

local function plan_of(conf)
  return {
    prefix = "rl:" .. (conf.__plugin_id or "") .. ":", limits = limits_of(conf), used = {},
    take = policies[conf.policy], redis = conf.policy == "redis" and redis_of(conf.redis) or nil,
    who = identify[conf.limit_by], status = status_of(conf), complained_at = -COMPLAIN_EVERY_S,
  }
end

function rate_limiting.configure(confs)
  for _, conf in ipairs(confs or {}) do plans[conf] = plan_of(conf) end
end

-- ---- Who is counted ----

function identify.consumer(_, exchange)
  local who = exchange.client:get_consumer() or exchange.client:get_credential()
  return who and who.id
end

identify["consumer-group"] = function(_, exchange)
  local group = exchange.client:get_consumer_group()
  return group and group.id
end

function identify.credential(_, exchange)
  local credential = exchange.client:get_credential()
  return credential and credential.id
end

function identify.service(_, exchange)
  local service = exchange.router:get_service()
  return service and service.id
end

-- With a letter in front, for a client must not pass for another's address.
function identify.header(conf, exchange)
  local value = exchange.request:get_header(conf.header_name)
  return value and "h" .. value
end

function identify.path(conf, exchange)
  return exchange.request:get_path() == conf.path and conf.path or nil
end

function identify.ip()
  return nil
end

-- ---- What clients are told ----

-- Gives in how many seconds the window ends that has least left (of several, the longest).
local function announce(plan, response, used, now)
  local limits = plan.limits
  local tightest, least
  for i = 1, #limits do
    local limit = limits[i]
    local left = max(0, limit.most - used[i])
    response:set_header(limit.limit_field, limit.text)
    response:set_header(limit.remaining_field, left)
    if not tightest or left <= least then tightest, least = limit, left end
  end
  local reset = max(1, ceil(tightest.to - now))
  response:set_header("RateLimit-Limit", tightest.text)
  response:set_header("RateLimit-Remaining", least)
  response:set_header("RateLimit-Reset", reset)
  return reset
end

local function refuse(plan, conf, response, reset)
  if reset then response:set_header("Retry-After", reset) end
  if plan.status >= 400 then response:error(plan.status, conf.error_message) end
  response:exit(plan.status, { message = conf.error_message })
end

-- ---- When it cannot be counted ----

local function complain(plan, err, now)
  if now - plan.complained_at < COMPLAIN_EVERY_S and now >= plan.complained_at then return end
  plan.complained_at = now
  log.err("requests cannot be counted", { error = err })
end

local function go_on_or_fail(plan, conf, exchange, err, now)
  complain(plan, err, now)
  if not conf.fault_tolerant then exchange.response:error(500, "An unexpected error occurred") end
end

function rate_limiting.access(conf, exchange)
  local plan, now = plans[conf], now_of()
  local who = plan.who(conf, exchange) or exchange.client:get_forwarded_ip()
  local used, full = plan.take(plan, who, now)
  if not used then return go_on_or_fail(plan, conf, exchange, full, now) end
  local reset
  if not conf.hide_client_headers then reset = announce(plan, exchange.response, used, now) end
  if full then refuse(plan, conf, exchange.response, reset) end
end

return rate_limiting
