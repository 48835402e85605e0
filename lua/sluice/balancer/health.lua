-- SPDX-License-Identifier: Apache-2.0
-- What is known of targets, for `sluice status`, metrics and plugins: of each target of each upstream whether it takes
-- requests, and of each of its addresses, as all workers see them.

local bit = require "bit"
local ffi = require "ffi"
local address = require "sluice.config.address"
local json = require "sluice.json"
local native = require "sluice.ffi"
local watch = require "sluice.balancer.watch"

local C, worker = native.C, native.worker

local health = {}

local REASONS = { [1] = "checks", [2] = "breaker" } -- enum endpoint_reason

local function reasons_of(mask)
  local names = {}
  for _, one in ipairs { 1, 2 } do
    if bit.band(mask, one) ~= 0 then names[#names + 1] = REASONS[one] end
  end
  return names
end

local info = ffi.new("struct endpoint_info[1]")

local function describe(endpoint)
  if C.bridge_endpoint_info(worker, endpoint, info) ~= C.BRIDGE_OK then return nil end
  local it = info[0]
  return {
    endpoint = endpoint, upstream = ffi.string(it.upstream), target = ffi.string(it.target),
    address = ffi.string(it.address), takes_requests = it.out == 0, reasons = reasons_of(it.out), since_s = it.since_s,
    in_flight = it.in_flight, latency_ms = it.latency_us > 0 and it.latency_us / 1000 or nil,
  }
end

-- The endpoints of an upstream, or of all.
---@param upstream? string name
---@param pause? fun() called now and then
---@return table[]
function health.endpoints(upstream, pause)
  local list, cursor = {}, ffi.new("double[1]")
  local name = upstream or ""
  while true do
    local endpoint = C.bridge_endpoint_next(worker, name, #name, cursor)
    if endpoint == 0 then return list end
    list[#list + 1] = describe(endpoint)
    if pause then pause() end
  end
end

local function by_target(pause)
  local found = {}
  for _, endpoint in ipairs(health.endpoints(nil, pause)) do
    local key = endpoint.upstream .. " " .. endpoint.target
    found[key] = found[key] or {}
    table.insert(found[key], endpoint)
  end
  return found
end

-- "healthy" with an address that takes requests; "unchecked" where nothing finds out.
local function verdict(checked, addresses, unresolved)
  local takes, out = false, false
  for _, one in ipairs(addresses) do
    takes, out = takes or one.takes_requests, out or not one.takes_requests
  end
  if out and not takes then return "unhealthy" end
  if unresolved and not takes then return "dns_error" end
  return checked and "healthy" or "unchecked"
end

local function address_state(one)
  return { address = one.address, health = one.takes_requests and "healthy" or "unhealthy", reasons = one.reasons,
    since_s = one.since_s, in_flight = one.in_flight, latency_ms = one.latency_ms }
end

-- The targets of a generation, at most `most`.
---@param generation sluice.generation|nil
---@param most? integer
---@param pause? fun() called now and then
---@return table[] { upstream, target, weight, health, addresses }
function health.targets(generation, most, pause)
  local upstreams, states, known = {}, {}, by_target(pause)
  for _, upstream in ipairs(generation and generation.entities.upstreams or {}) do upstreams[upstream.id] = upstream end
  for i, target in ipairs(generation and generation.entities.targets or {}) do
    if most and i > most then break end
    local upstream = upstreams[target.upstream]
    local host, port = address.split(target.target)
    local text = address.join(host, port or 8000)
    local addresses = known[upstream.name .. " " .. text] or {}
    local unresolved = generation.unresolved and generation.unresolved[upstream.name .. " " .. text]
    local state = { upstream = upstream.name, target = target.target, weight = target.weight,
      health = verdict(watch.has_checks(upstream), addresses, unresolved), addresses = {} }
    table.sort(addresses, function(a, b) return a.address < b.address end)
    for n, one in ipairs(addresses) do state.addresses[n] = address_state(one) end
    states[i] = state
    if pause then pause() end
  end
  return states
end

local WORDS = { healthy = "HEALTHY", unhealthy = "UNHEALTHY", dns_error = "DNS_ERROR", unchecked = "HEALTHCHECKS_OFF" }

local function kong_address(one, weight)
  local ip, port = address.split(one.address)
  return { ip = ip, port = port, health = WORDS[one.health], weight = weight, reasons = one.reasons }
end

-- As Kong's Admin API tells it at /upstreams/NAME/health; nil: there is no such upstream.
---@param generation sluice.generation|nil
---@param wanted string name or id
---@param pause? fun() called now and then
---@return table[]|nil
function health.of_upstream(generation, wanted, pause)
  local found
  for _, upstream in ipairs(generation and generation.entities.upstreams or {}) do
    if upstream.name == wanted or upstream.id == wanted then found = upstream end
  end
  if not found then return nil end
  local data = json.array {}
  for i, state in ipairs(health.targets(generation, nil, pause)) do
    if state.upstream == found.name then
      local target = generation.entities.targets[i]
      local addresses = json.array {}
      for n, one in ipairs(state.addresses) do addresses[n] = kong_address(one, target.weight) end
      data[#data + 1] = { id = target.id, target = target.target, weight = target.weight, tags = target.tags,
        created_at = target.created_at, upstream = { id = found.id }, health = WORDS[state.health],
        data = { addresses = addresses } }
    end
  end
  return data
end

return health
