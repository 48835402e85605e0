-- SPDX-License-Identifier: Apache-2.0
-- Endpoints: the addresses of targets whose upstream is watched, as all workers see them. For plugins that take some
-- of them out of use; the core watches what a plugin with `breaks_targets` in its handler is there for.

local ffi = require "ffi"
local core = require "sluice.api.core"

local C, E, worker = core.C, core.E, core.worker

---@class sluice.endpoints
local endpoints = {}

local OK = 0
local info = ffi.new("struct endpoint_info[1]")
local tried = ffi.new("struct try_info[1]")

-- Where the last try goes, until its response is whole.
---@param exchange sluice.exchange
---@return integer 0: none, or nobody watches it
function endpoints.of(exchange)
  return (C.bridge_endpoint(worker, exchange.handle))
end

-- A try of the exchange: those that failed, from 0, then the one that did not.
---@param exchange sluice.exchange
---@param index integer
---@return integer|nil endpoint 0: none; nil: there is no such try
---@return integer|nil status that the client would have been told, when it failed
---@return number|nil began seconds since 1970
function endpoints.of_try(exchange, index)
  if C.bridge_try(worker, exchange.handle, index, tried) ~= OK then return nil end
  local it = tried[0]
  return it.endpoint, it.status > 0 and it.status or nil, it.begun_us / 1e6
end

---@param endpoint integer
---@return string|nil upstream
---@return string|nil address "10.0.0.1:80"
function endpoints.name(endpoint)
  if C.bridge_endpoint_info(worker, endpoint, info) ~= OK then return nil end
  return ffi.string(info[0].upstream), ffi.string(info[0].address)
end

-- Those of an upstream.
---@param upstream string
---@return integer[]
function endpoints.list(upstream)
  local list, cursor = {}, ffi.new("double[1]")
  while true do
    local endpoint = C.bridge_endpoint_next(worker, upstream, #upstream, cursor)
    if endpoint == 0 then return list end
    list[#list + 1] = endpoint
  end
end

-- How many addresses an upstream has, as far as is known: of a target whose name nobody has asked for yet, one.
---@param upstream string
---@return integer
function endpoints.size(upstream)
  local count, targets = #endpoints.list(upstream), 0
  local runtime = require "sluice.runtime" -- which the checker, that loads plugins too, has not
  local generation = runtime.generations[runtime.generation()]
  for _, policy in pairs(generation and generation.upstreams or {}) do
    if policy.name == upstream then targets = #policy.targets end
  end
  return math.max(count, targets)
end

-- Takes it out of use for so many seconds; behind them it gets one request in each `probe` seconds, until it is mended
-- or broken again.
---@param endpoint integer
---@param seconds number
---@param probe number
---@param why string
function endpoints.break_off(endpoint, seconds, probe, why)
  C.bridge_endpoint_break(worker, endpoint, seconds, probe, why)
end

---@param endpoint integer
---@param why string
function endpoints.mend(endpoint, why)
  C.bridge_endpoint_set(worker, endpoint, E.REASON_BREAKER, false, 0, why)
end

return endpoints
