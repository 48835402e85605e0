-- SPDX-License-Identifier: Apache-2.0
-- Takes targets out of use that fail, are slow or do worse than the others, and lets single requests find out when they
-- are well again. Each address of a target has a circuit (sluice.circuit); the core keeps requests from those that are
-- open.
local circuit = require "sluice.circuit"
local counters = require "sluice.counters"
local endpoints = require "sluice.endpoints"
local log = require "sluice.log"
local metrics = require "sluice.metrics"
local time = require "sluice.time"
local timer = require "sluice.timer"

local now_of = time.now
local floor, max, min, sqrt = math.floor, math.max, math.min, math.sqrt

local detection = { version = "1.0.0", priority = 5, breaks_targets = true }

local FORGET_EVERY_S = 60 -- circuits by endpoint, whose places the core gives to other addresses in time
local CLIENT_LEFT = 499
local FAILED = 500        -- from here on, statuses that a try failed with are the target's fault

local ejections = metrics.counter("sluice_outlier_ejections_total", "Times that a target was taken out of use",
  { "upstream", "target" })
local overflow = metrics.counter("sluice_outlier_ejections_overflow_total",
  "Times that one was not, for as many as may be were out already", { "upstream" })

local plans = setmetatable({}, { __mode = "k" }) -- by configuration

-- ---- What is made once ----

local function set_of(list)
  local set = {}
  for _, value in ipairs(list) do set[value] = true end
  return set
end

local function settings_of(conf)
  local compares = conf.success_rate_stdev_factor ~= nil
  return {
    consecutive_failures = conf.consecutive_5xx and conf.consecutive_5xx > 0 and conf.consecutive_5xx or nil,
    -- 200 percent are never reached: counted for the comparison alone.
    failure_rate = conf.failure_percentage_threshold or compares and 200 or nil,
    slow_call_rate = conf.slow_call_rate_threshold, window = conf.interval, minimum_calls = conf.request_volume,
    wait = conf.base_ejection_time, wait_multiplier = conf.ejection_time_multiplier,
    wait_most = max(conf.max_ejection_time, conf.base_ejection_time), wait_jitter = conf.ejection_time_jitter,
    probes = conf.probes, probe_seconds = conf.probe_interval,
  }
end

local function plan_of(conf)
  local grpc = set_of(conf.failure_grpc_statuses)
  return {
    conf = conf, settings = settings_of(conf), circuits = {}, upstreams = {}, forgot_at = 0,
    failures = set_of(conf.failure_statuses), grpc = next(grpc) ~= nil and grpc or nil,
    slow_ms = conf.slow_call_rate_threshold and conf.slow_call_duration_threshold * 1000,
  }
end

-- ---- Circuits of endpoints ----

local function new_circuit(plan, endpoint)
  local upstream, address = endpoints.name(endpoint)
  local found = upstream and circuit.new("target", upstream .. " " .. address, plan.settings) or false
  if found then
    found.endpoint, found.upstream, found.address = endpoint, upstream, address
    plan.upstreams[upstream] = true
  elseif upstream then
    log.warn("no room for the state of a target", { upstream = upstream, address = address })
  end
  plan.circuits[endpoint] = found
  return found
end

local function circuit_of(plan, endpoint)
  local found = plan.circuits[endpoint]
  if found == nil then return (new_circuit(plan, endpoint)) end
  return found
end

local function circuits_in(plan, upstream)
  local list = {}
  for _, endpoint in ipairs(endpoints.list(upstream)) do list[#list + 1] = circuit_of(plan, endpoint) or nil end
  return list
end

-- ---- Taking out, and putting back ----

-- How many may be out of so many.
local function most_of(conf, count)
  return min(count - 1, max(1, floor(count * conf.max_ejection_percent / 100)))
end

-- The circuit has opened; it is closed again when with it too many are out. Workers that open several at once may all
-- see too many, and take all of them back: never are more out.
local function eject(plan, it, seconds)
  local all, out = circuits_in(plan, it.upstream), 0
  for i = 1, #all do
    if all[i]:state() ~= "closed" then out = out + 1 end
  end
  if out > most_of(plan.conf, endpoints.size(it.upstream)) or plan.conf.max_ejection_percent == 0 then
    overflow:increment(it.upstream)
    return it:close(now_of(), "as many as may be are ejected already")
  end
  ejections:increment(it.upstream, it.address)
  endpoints.break_off(it.endpoint, seconds, plan.conf.probe_interval, "its circuit is open")
end

local function act(plan, it, what, seconds)
  local probe = plan.conf.probe_interval
  if what == "open" then
    eject(plan, it, seconds)
  elseif what == "again" then
    endpoints.break_off(it.endpoint, seconds, probe, "a probe failed")
  elseif what == "probe" then
    endpoints.break_off(it.endpoint, 0, probe, "another probe")
  else
    endpoints.mend(it.endpoint, "its probes went well")
    it:close(now_of(), "the probes went well")
  end
end

local function observe(plan, it, failed, slow, began)
  local what, seconds = it:observe(failed, slow, began, now_of())
  if what then act(plan, it, what, seconds) end
end

-- ---- What tries came to ----

-- Those that failed. Gives when the last one began.
local function record_tries(plan, exchange)
  local index, last = 0, nil
  local endpoint, status, began = endpoints.of_try(exchange, index)
  while endpoint do
    local it = endpoint > 0 and status and status >= FAILED and circuit_of(plan, endpoint)
    if it then observe(plan, it, true, false, began) end
    index, last = index + 1, began
    endpoint, status, began = endpoints.of_try(exchange, index)
  end
  return last
end

local function began_of(exchange)
  local index, last = 0, nil
  local endpoint, _, began = endpoints.of_try(exchange, index)
  while endpoint do
    index, last = index + 1, began
    endpoint, _, began = endpoints.of_try(exchange, index)
  end
  return last
end

local function record_response(plan, it, exchange)
  local response = exchange.service.response
  local failed = plan.failures[response:get_status()] or false
  if not failed and plan.grpc then
    local status = response:get_grpc_status()
    failed = status and plan.grpc[status] or false
  end
  local slow = plan.slow_ms and response:get_latency() >= plan.slow_ms or false
  observe(plan, it, failed, slow, not it:is_closed() and began_of(exchange) or nil)
end

function detection.header_filter(conf, exchange)
  local plan, endpoint = plans[conf], endpoints.of(exchange)
  if endpoint == 0 or exchange.service:count_tries() > 1 then record_tries(plan, exchange) end
  if endpoint == 0 or exchange.response:get_source() ~= "service" then return end
  local it = circuit_of(plan, endpoint)
  if it then record_response(plan, it, exchange) end
end

-- The client has left before there was a response: if the target was slow by then, it may well be why.
function detection.log(conf, exchange)
  if exchange.response:get_status() ~= CLIENT_LEFT then return end
  local plan, index, now = plans[conf], 0, now_of()
  local endpoint, status, began = endpoints.of_try(exchange, index)
  while endpoint and status do
    index = index + 1
    endpoint, status, began = endpoints.of_try(exchange, index)
  end
  if not endpoint or endpoint == 0 or (now - began) * 1000 < plan.slow_ms then return end
  local it = circuit_of(plan, endpoint)
  if it then observe(plan, it, false, true, began) end
end

function detection.needs(conf)
  return { header_filter = true, log = conf.slow_call_rate_threshold ~= nil }
end

-- ---- Targets that do worse than the others ----

local function share_of_good(it, now, volume)
  local calls, failures = it:sums(now)
  return calls >= volume and 1 - failures / calls or nil
end

local function compare(plan, upstream, now)
  local conf, shares, total, count = plan.conf, {}, 0, 0
  local all = circuits_in(plan, upstream)
  for i = 1, #all do
    local share = all[i]:is_closed() and share_of_good(all[i], now, conf.request_volume)
    if share then shares[all[i]], total, count = share, total + share, count + 1 end
  end
  if count < conf.success_rate_minimum_hosts then return end
  local mean, squares = total / count, 0
  for _, share in pairs(shares) do squares = squares + (share - mean) ^ 2 end
  local least = mean - conf.success_rate_stdev_factor * sqrt(squares / count)
  for it, share in pairs(shares) do
    local seconds = share < least and it:open(now, "its success rate is below the others'")
    if seconds then act(plan, it, "open", seconds) end
  end
end

-- One worker does so in each interval.
local function compare_all()
  local now = now_of()
  for conf, plan in pairs(plans) do
    if now - plan.forgot_at >= FORGET_EVERY_S then plan.circuits, plan.forgot_at = {}, now end
    local key = ("outlier\1%s\1%d"):format(conf.__plugin_id or "", floor(now / conf.interval))
    if conf.success_rate_stdev_factor and counters.add(key, 1, 2 * conf.interval) == 1 then
      for upstream in pairs(plan.upstreams) do compare(plan, upstream, now) end
    end
  end
end

function detection.configure(confs)
  plans = setmetatable({}, { __mode = "k" })
  for _, conf in ipairs(confs or {}) do plans[conf] = plan_of(conf) end
end

function detection.init_worker()
  timer.every(1, compare_all)
end

return detection
