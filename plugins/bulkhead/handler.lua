-- SPDX-License-Identifier: Apache-2.0
-- So many requests in flight to one service, and no more: one that is slow cannot have all there is to have. Those in
-- flight are leases (sluice.leases), which end with their exchange; those that wait hold leases of another kind.
local leases = require "sluice.leases"
local limits = require "sluice.limits"
local lock = require "sluice.lock"
local log = require "sluice.log"
local metrics = require "sluice.metrics"
local sleep = require "sluice.sleep"
local time = require "sluice.time"

local now_of = time.monotonic
local min = math.min

local bulkhead = { version = "1.0.0", priority = 7 }

local LOOK_EVERY_S = 0.005 -- for a turn, of the first in a worker's queue
local COMPLAIN_EVERY_S = 10

local refused = metrics.counter("sluice_bulkhead_refused_total", "Requests that got no turn", { "kind", "name" })
local waited = metrics.counter("sluice_bulkhead_waited_total", "Requests that got one after they had waited",
  { "kind", "name" })

local by_conf = setmetatable({}, { __mode = "k" }) -- what is made once of each entity, by configuration
local complain = limits.seldom(COMPLAIN_EVERY_S)

function bulkhead.configure(confs)
  for _, conf in ipairs(confs or {}) do by_conf[conf] = setmetatable({}, { __mode = "k" }) end
end

local function new_hold(conf, entity)
  local key = ("bulkhead:%s:%s"):format(conf.scope, entity.id)
  local hold = { key = key, waiting = key .. ":waiting", name = entity.name or entity.id,
    most = conf.max_concurrent_calls }
  by_conf[conf][entity] = hold
  return hold
end

local function refuse(conf, exchange, hold)
  refused:increment(conf.scope, hold.name)
  if conf.retry_after then exchange.response:set_header("Retry-After", conf.retry_after) end
  exchange.response:error(conf.status, conf.message)
end

-- The first of the queue looks for a turn, until there is one.
local function look(exchange, hold, deadline)
  while true do
    if leases.take(exchange, hold.key, hold.most) ~= false then return true end
    local left = deadline - now_of()
    if left <= 0 then return false end
    sleep(min(LOOK_EVERY_S, left))
  end
end

-- In a worker those that wait have their turns in order; between workers chance decides.
local function wait(conf, exchange, hold)
  if leases.take(exchange, hold.waiting, conf.max_waiting_calls) ~= true then return false end
  local deadline = now_of() + conf.max_wait_duration
  local first = lock.acquire(hold.key, conf.max_wait_duration, conf.max_wait_duration + 1)
  local got = first and look(exchange, hold, deadline) or false
  if first then first:release() end
  leases.give_back(exchange, hold.waiting)
  if got then waited:increment(conf.scope, hold.name) end
  return got
end

function bulkhead.access(conf, exchange)
  local entity
  if conf.scope == "route" then entity = exchange.router:get_route() else entity = exchange.router:get_service() end
  if not entity then return end
  local hold = by_conf[conf][entity] or new_hold(conf, entity)
  local taken, err = leases.take(exchange, hold.key, hold.most)
  if taken then return end
  if taken == nil then
    if complain() then log.warn("requests in flight cannot be counted", { error = err }) end
    return
  end
  if conf.max_wait_duration > 0 and wait(conf, exchange, hold) then return end
  refuse(conf, exchange, hold)
end

return bulkhead
