-- SPDX-License-Identifier: Apache-2.0
-- Has the core watch the targets of an upstream that has health checks, a slow start, or a policy that goes by load.
-- An upstream with none of them costs nothing.

local ffi = require "ffi"
local bit = require "bit"
local native = require "sluice.ffi"

local C, worker = native.C, native.worker

local watch = {}

local function is_on(limits)
  return limits.successes > 0 or limits.tcp_failures > 0 or limits.http_failures > 0 or limits.timeouts > 0
end

local function limits_of(checks)
  local healthy, unhealthy = checks.healthy or {}, checks.unhealthy or {}
  return {
    successes = healthy.successes or 0, tcp_failures = unhealthy.tcp_failures or 0,
    http_failures = unhealthy.http_failures or 0, timeouts = unhealthy.timeouts or 0,
  }
end

-- The two intervals of active checks in seconds; 0: targets in that state are not checked.
---@param upstream table
---@return number healthy
---@return number unhealthy
function watch.intervals(upstream)
  local active = upstream.healthchecks and upstream.healthchecks.active or {}
  return (active.healthy or {}).interval or 0, (active.unhealthy or {}).interval or 0
end

-- Whether anything finds out how the targets are.
---@param upstream table
---@return boolean
function watch.has_checks(upstream)
  local passive = upstream.healthchecks and upstream.healthchecks.passive
  local healthy, unhealthy = watch.intervals(upstream)
  return healthy > 0 or unhealthy > 0 or (passive ~= nil and is_on(limits_of(passive)))
end

-- Every scalar below `value`, in an order of its own.
local function write_down(value, out)
  if type(value) ~= "table" then
    out[#out + 1] = tostring(value)
    return
  end
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do
    out[#out + 1] = tostring(key) .. "="
    write_down(value[key], out)
  end
  out[#out + 1] = ";"
end

-- A number that tells this configuration of checks from another; never 0.
local function number_of(checks)
  local out, hash = {}, 5381
  write_down(checks, out)
  local text = table.concat(out, " ")
  for i = 1, #text do hash = bit.tobit(hash * 33 + text:byte(i)) end
  return hash ~= 0 and hash % 4294967296 or 1
end

local function statuses(list)
  local cells = ffi.new("uint16_t[?]", #list + 1)
  for i, status in ipairs(list) do cells[i - 1] = status end
  return cells, #list
end

-- For checks of type tcp any answer will do: a connection was made.
local function any_status()
  local list = {}
  for status = 100, 999 do list[#list + 1] = status end
  return list
end

local function fill_passive(conf, passive)
  local limits, healthy, unhealthy = limits_of(passive), (passive.healthy or {}).http_statuses or {},
    (passive.unhealthy or {}).http_statuses or {}
  if passive.type == "tcp" then limits.http_failures, healthy, unhealthy = 0, any_status(), {} end
  conf.passive = limits
  local good, good_count = statuses(healthy)
  local bad, bad_count = statuses(unhealthy)
  conf.healthy, conf.healthy_count = good, good_count
  conf.unhealthy, conf.unhealthy_count = bad, bad_count
  return { good, bad } -- borrowed until the core has read them
end

local SPREADS = { load = "SPREAD_LOAD", latency = "SPREAD_LATENCY", hash = "SPREAD_HASH" }

-- `policy.spread`: see sluice.balancer.
---@param generation integer
---@param index integer of the upstream in it
---@param upstream table
---@param policy table
---@return integer status
function watch.start(generation, index, upstream, policy)
  local checked = watch.has_checks(upstream)
  local slow_start = upstream.slow_start or 0
  if not (checked or policy.spread or slow_start > 0) then return C.BRIDGE_OK end
  local conf, alive = ffi.new("struct upstream_watch"), nil
  conf.heeds = checked and bit.bor(C.REASON_BREAKER, C.REASON_CHECKS) or C.REASON_BREAKER
  conf.spread = policy.spread and C[SPREADS[policy.spread]] or C.SPREAD_TURNS
  conf.slow_start_s = slow_start
  if checked then
    local checks = upstream.healthchecks
    conf.checks, conf.threshold = number_of(checks), checks.threshold or 0
    conf.active = limits_of(checks.active or {})
    alive = fill_passive(conf, checks.passive or {})
  end
  return C.bridge_gen_watch(worker, generation, index, conf), alive
end

return watch
