-- SPDX-License-Identifier: Apache-2.0
-- So many requests at the same time, over all workers, and no more. A request holds its lease until its response is
-- whole, a WebSocket until it is closed; see sluice.leases for why none can leak.
local leases = require "sluice.leases"
local limits = require "sluice.limits"
local log = require "sluice.log"

local concurrency_limiting = { version = "1.0.0", priority = 908 }

local COMPLAIN_EVERY_S = 10

local prefixes = setmetatable({}, { __mode = "k" }) -- of keys, by configuration
local complain = limits.seldom(COMPLAIN_EVERY_S)

function concurrency_limiting.configure(confs)
  for _, conf in ipairs(confs or {}) do prefixes[conf] = ("cl:%s:"):format(conf.__plugin_id or "") end
end

local function refuse(conf, exchange)
  local response = exchange.response
  if conf.retry_after then response:set_header("Retry-After", conf.retry_after) end
  response:error(conf.error_code, conf.error_message)
end

function concurrency_limiting.access(conf, exchange)
  local key = prefixes[conf] .. limits.subject_of(conf, exchange)
  local taken, why = leases.take(exchange, key, conf.requests)
  if taken then return end
  if taken == false then return refuse(conf, exchange) end
  limits.note_uncounted("concurrency-limiting")
  if complain() then log.err("requests cannot be counted", { error = why }) end
  if not conf.fault_tolerant then exchange.response:error(500, "An unexpected error occurred") end
end

return concurrency_limiting
