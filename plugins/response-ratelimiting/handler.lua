-- SPDX-License-Identifier: Apache-2.0
-- Limits of things that only the service knows the cost of: it says in a field of its response how much of which limit
-- that took. Requests are let in while something is left; a response that costs more of what is used up already becomes
-- a refusal.
local costs = require "response-ratelimiting.costs"
local limits = require "sluice.limits"
local log = require "sluice.log"
local time = require "sluice.time"

local max, now_of = math.max, time.now

local response_ratelimiting = { version = "1.0.0", priority = 900 }

local TOO_MANY = 429
local COMPLAIN_EVERY_S = 10
local CTX = "response-ratelimiting"

local plans = setmetatable({}, { __mode = "k" }) -- by configuration

-- ---- What is made once ----

local function title(name)
  return name:sub(1, 1):upper() .. name:sub(2)
end

-- The windows of one limit, behind those that are there; gives the place of the first and the last.
local function put_windows(list, name, of)
  local first = #list + 1
  for _, window in ipairs(limits.windows) do
    if of[window] then
      local tail = title(name) .. "-" .. title(window)
      list[#list + 1] = { name = window, label = name .. "." .. window, most = of[window],
        text = ("%.14g"):format(of[window]), limit_field = "X-RateLimit-Limit-" .. tail,
        remaining_field = "X-RateLimit-Remaining-" .. tail }
    end
  end
  return first, #list
end

local function plan_of(conf)
  local names, groups, list = {}, {}, {}
  for name in pairs(conf.limits) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    local first, last = put_windows(list, name, conf.limits[name])
    groups[i] = { name = name, first = first, last = last, service_field = "X-RateLimit-Remaining-" .. title(name) }
  end
  return limits.plan {
    prefix = "rrl:" .. (conf.__plugin_id or "") .. ":", limits = list, groups = groups, policy = conf.policy,
    redis = conf.redis, complains = limits.seldom(COMPLAIN_EVERY_S),
  }
end

function response_ratelimiting.needs(conf)
  return { access = true, header_filter = true, log = conf.policy ~= "local" }
end

function response_ratelimiting.configure(confs)
  for _, conf in ipairs(confs or {}) do plans[conf] = plan_of(conf) end
end

-- ---- When it cannot be counted ----

local function complain(plan, err)
  limits.note_uncounted("response-ratelimiting")
  if plan.complains() then log.err("responses cannot be counted", { error = err }) end
end

-- ---- Before the service ----

-- What is left of a limit, in the window that has least.
local function left_of(plan, group, used)
  local least
  for i = group.first, group.last do
    local left = max(0, plan.limits[i].most - used[i])
    if not least or left < least then least = left end
  end
  return least
end

function response_ratelimiting.access(conf, exchange)
  local plan, now, who = plans[conf], now_of(), limits.subject_of(conf, exchange)
  local used, err = plan.peek(plan, who, now)
  if not used then
    complain(plan, err)
    if not conf.fault_tolerant then exchange.response:error(500, "An unexpected error occurred") end
    return
  end
  for _, group in ipairs(plan.groups) do
    local left = left_of(plan, group, used)
    if conf.block_on_first_violation and left <= 0 then
      exchange.response:error(TOO_MANY, "API rate limit exceeded for '" .. group.name .. "'")
    end
    exchange.service.request:set_header(group.service_field, left)
  end
  exchange.ctx[CTX] = { who = who, now = now, used = used }
end

-- ---- Behind it ----

-- How much the response adds to each window, and whether it asks for more of what is used up.
local function weigh(plan, used, cost)
  local amounts, refused = {}, false
  for _, group in ipairs(plan.groups) do
    local amount = cost[group.name] or 0
    for i = group.first, group.last do
      amounts[i] = amount
      refused = refused or (amount > 0 and used[i] >= plan.limits[i].most)
    end
  end
  return amounts, refused
end

local function announce(plan, response, used, amounts, refused)
  for i, limit in ipairs(plan.limits) do
    local left = max(0, limit.most - used[i] - (refused and 0 or amounts[i]))
    response:set_header(limit.limit_field, limit.text)
    response:set_header(limit.remaining_field, left)
  end
end

function response_ratelimiting.header_filter(conf, exchange)
  local response, plan, state = exchange.response, plans[conf], exchange.ctx[CTX]
  local said = response:get_source() == "service" and exchange.service.response:get_headers()[conf.header_name:lower()]
  if said then response:clear_header(conf.header_name) end
  if not state then return end
  local is_local = conf.policy == "local"
  -- What others have used meanwhile is seen where looking does not wait.
  local used = is_local and plan.peek(plan, state.who, now_of()) or state.used
  local amounts, refused = weigh(plan, used, costs.of(said, conf.limits))
  if not conf.hide_client_headers then announce(plan, response, used, amounts, refused) end
  if refused then response:exit(TOO_MANY) end
  if not is_local then
    state.amounts = amounts -- Redis is told in log, where it may be waited for
    return
  end
  local ok, err = plan.add(plan, state.who, now_of(), amounts)
  if not ok then complain(plan, err) end
end

function response_ratelimiting.log(conf, exchange)
  local plan, state = plans[conf], exchange.ctx[CTX]
  if not state or not state.amounts then return end
  local ok, err = plan.add(plan, state.who, state.now, state.amounts)
  if not ok then complain(plan, err) end
end

return response_ratelimiting
