-- SPDX-License-Identifier: Apache-2.0
-- Spares a service that fails, and its clients the wait: while its circuit is open requests are answered at once.
-- The circuit itself is sluice.circuit; here is what a request has to do with it.
local circuit = require "sluice.circuit"
local log = require "sluice.log"

local ceil, max = math.ceil, math.max

-- Behind plugins that answer by themselves (caches, mocks): what they answer needs no service.
local breaker = { version = "1.0.0", priority = 6 }

local CLIENT_LEFT = 499
local UNREACHED = { [502] = true, [503] = true, [504] = true } -- what clients are told of a service that failed
local SLOTS = 1048576                                          -- of exchanges in their handles

local plans = setmetatable({}, { __mode = "k" }) -- by configuration

-- By slot of the exchange: the permit of a call that nothing is known of yet; its circuit, when its response has begun
-- well; false.
local held = {}

-- ---- What is made once ----

local function set_of(list)
  local set = {}
  for _, value in ipairs(list) do set[value] = true end
  return set
end

local function settings_of(conf)
  return {
    consecutive_failures = conf.consecutive_failures, failure_rate = conf.failure_rate_threshold,
    slow_call_rate = conf.slow_call_rate_threshold, window = conf.sliding_window_size,
    minimum_calls = conf.minimum_number_of_calls, wait = conf.wait_duration_in_open_state,
    wait_multiplier = conf.wait_duration_multiplier, wait_jitter = conf.wait_duration_jitter,
    wait_most = max(conf.max_wait_duration_in_open_state, conf.wait_duration_in_open_state),
    probes = conf.permitted_number_of_calls_in_half_open_state,
    probe_seconds = conf.max_wait_duration_in_half_open_state,
  }
end

local function plan_of(conf)
  local grpc = set_of(conf.failure_grpc_statuses)
  return {
    settings = settings_of(conf), circuits = setmetatable({}, { __mode = "k" }), by_route = conf.scope == "route",
    failures = set_of(conf.failure_statuses), grpc = next(grpc) ~= nil and grpc or nil,
    slow_ms = conf.slow_call_rate_threshold and conf.slow_call_duration_threshold * 1000,
  }
end

function breaker.configure(confs)
  for _, conf in ipairs(confs or {}) do plans[conf] = plan_of(conf) end
end

-- ---- Whose circuit ----

local function new_circuit(plan, entity)
  local found = circuit.new(plan.by_route and "route" or "service", entity.name or entity.id, plan.settings)
  if not found then log.warn("no room for the state of a circuit", { name = entity.name or entity.id }) end
  plan.circuits[entity] = found or false
  return found
end

local function circuit_of(plan, exchange)
  local entity
  if plan.by_route then entity = exchange.router:get_route() else entity = exchange.router:get_service() end
  if not entity then return nil end -- the route has no service
  local found = plan.circuits[entity]
  if found == nil then return (new_circuit(plan, entity)) end
  return found
end

-- ---- While it is open ----

-- Whether the request goes elsewhere.
local function divert(fallback, exchange)
  local service = exchange.service
  if fallback.host then
    service:set_target(fallback.host, fallback.port)
    return true
  end
  local ok, err
  if fallback.service then ok, err = service:set_service(fallback.service) end
  if fallback.upstream then ok, err = service:set_upstream(fallback.upstream) end
  if err then log.warn("no fallback", { error = err }) end
  return ok
end

local function refuse(conf, exchange, seconds)
  local fallback = conf.fallback
  if fallback and fallback.status then
    exchange.response:exit(fallback.status, fallback.body, fallback.headers)
  elseif fallback and divert(fallback, exchange) then
    return
  end
  exchange.response:set_header("Retry-After", max(1, ceil(seconds)))
  exchange.response:error(conf.status, conf.message)
end

function breaker.access(conf, exchange)
  local found = circuit_of(plans[conf], exchange)
  if not found then return end
  local permit, seconds = found:admit()
  if not permit then return refuse(conf, exchange, seconds) end
  held[exchange.handle % SLOTS + 1] = permit
end

-- ---- What came of the call ----

local function is_grpc_failure(plan, response)
  local status = plan.grpc and response:get_grpc_status()
  return status and plan.grpc[status] or false
end

-- Gives whether it failed.
local function record_response(plan, permit, exchange)
  local response = exchange.service.response
  local failed = plan.failures[response:get_status()] or is_grpc_failure(plan, response)
  local slow = plan.slow_ms and response:get_latency() >= plan.slow_ms
  permit.circuit:record(permit, failed, slow)
  return failed
end

-- An answer of the gateway's own counts only where the service was to blame for it.
local function record_answer(permit, exchange)
  local blamed = exchange.response:get_source() == "error" and UNREACHED[exchange.response:get_status()]
  if blamed and exchange.service:get_tries()[1] then
    permit.circuit:record(permit, true, false)
  else
    permit.circuit:cancel(permit)
  end
end

function breaker.header_filter(conf, exchange)
  local slot = exchange.handle % SLOTS + 1
  local permit = held[slot]
  if not permit or not permit.circuit then return end
  held[slot] = false
  if exchange.response:get_source() ~= "service" then
    record_answer(permit, exchange)
  elseif not record_response(plans[conf], permit, exchange) then
    held[slot] = permit.circuit
  end
end

-- The client has left before there was a response: if the service was slow by then, it may well be why.
local function record_lost(plan, permit, exchange)
  local whole, before = exchange:get_latencies()
  if plan.slow_ms and exchange.response:get_status() == CLIENT_LEFT and whole - before >= plan.slow_ms then
    permit.circuit:record(permit, false, true)
  else
    permit.circuit:cancel(permit)
  end
end

function breaker.log(conf, exchange)
  local slot = exchange.handle % SLOTS + 1
  local it = held[slot]
  if not it then return end
  held[slot] = false
  if it.circuit then return record_lost(plans[conf], it, exchange) end
  -- The head looked good, but what followed may not.
  local response = exchange.service.response
  if response:is_broken() or is_grpc_failure(plans[conf], response) then it:fail_late() end
end

return breaker
