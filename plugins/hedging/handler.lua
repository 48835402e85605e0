-- SPDX-License-Identifier: Apache-2.0
-- Asks a second target where the first is slow, and takes what comes first. A budget keeps it from doubling the load.
local budget = require "sluice.budget"
local log = require "sluice.log"
local metrics = require "sluice.metrics"
local percentile = require "hedging.percentile"
local time = require "sluice.time"

local max = math.max
local now_of = time.monotonic

local hedging = { version = "1.0.0", priority = 3 }

local hedged = metrics.counter("sluice_hedges_total",
  "Requests that a second target would have been asked for, by what came of it", { "service", "result" })

local plans = setmetatable({}, { __mode = "k" }) -- by configuration

function hedging.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local methods = {}
    for _, method in ipairs(conf.methods) do methods[method] = true end
    plans[conf] = { methods = methods, services = setmetatable({}, { __mode = "k" }) }
  end
end

function hedging.needs(conf)
  return { access = true, header_filter = conf.percentile ~= nil, log = true }
end

-- What is known of a service.
local function new_state(conf, plan, service)
  local number, err = budget.define(("hedge:%s:%s"):format(conf.__plugin_id or "", service.id), conf.hedge_ratio,
    conf.min_hedges_per_second, conf.ttl)
  if not number then log.warn("second tries have no budget", { service = service.name, error = err }) end
  local state = { budget = number or false, name = service.name or service.id,
    latencies = conf.percentile and percentile.new(conf.percentile) or nil }
  plan.services[service] = state
  return state
end

local function delay_of(conf, state)
  if not state.latencies then return conf.delay end
  local known = state.latencies:get(now_of())
  return known and max(known, conf.min_delay) or conf.initial_delay
end

function hedging.access(conf, exchange)
  local plan, service = plans[conf], exchange.router:get_service()
  if not service or not plan.methods[exchange.request:get_method()] then return end
  local state = plan.services[service] or new_state(conf, plan, service)
  if state.budget then exchange.service:set_hedge(delay_of(conf, state), state.budget) end
end

-- A second try that won says how long the first would have taken at least.
function hedging.header_filter(conf, exchange)
  local plan, service = plans[conf], exchange.router:get_service()
  local state = service and plan.services[service]
  if not state or not plan.methods[exchange.request:get_method()] then return end
  local ms = exchange.service.response:get_latency()
  if not ms then return end
  if exchange.service:get_hedge() == "won" then ms = ms + delay_of(conf, state) * 1000 end
  state.latencies:add(ms, now_of())
end

function hedging.log(conf, exchange)
  local result = exchange.service:get_hedge()
  if not result then return end
  local state = plans[conf].services[exchange.router:get_service()]
  if state then hedged:increment(state.name, result) end
end

return hedging
