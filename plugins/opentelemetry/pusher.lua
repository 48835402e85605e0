-- SPDX-License-Identifier: Apache-2.0
-- Metrics to a collector, now and then. Workers share their metrics, so one of them tells for all.
local counters = require "sluice.counters"
local exporter = require "opentelemetry.exporter"
local log = require "sluice.log"
local metrics = require "sluice.metrics"
local node = require "sluice.node"
local otlp = require "sluice.otlp"
local sleep = require "sluice.sleep"
local time = require "sluice.time"
local timer = require "sluice.timer"

local pusher = {}

local TELLER = 1 -- the worker's number
local SAY_EVERY_S = 10

local running = {} -- by configuration: its timer

-- Since when this gateway's counters count, in microseconds: the same after a worker has been replaced.
local function since_us()
  local key = "opentelemetry.since"
  local since = counters.get(key)
  if since then return since end
  counters.add(key, math.floor(time.now() * 1e6))
  return counters.get(key)
end

local function give_way()
  sleep(0)
end

local function push(state)
  local now_us, entries = math.floor(time.now() * 1e6), {}
  for i, family in ipairs(metrics.families(give_way)) do entries[i] = otlp.metric(family, state.since_us, now_us) end
  local ok, err = exporter.send(state.context, entries)
  if ok then return end
  local now = time.monotonic()
  if now - state.said_at < SAY_EVERY_S then return end
  state.said_at = now
  log.warn("metrics cannot be sent", { error = err })
end

local function start(conf)
  local state = { context = exporter.context(conf, conf.metrics.endpoint, "sluice"), since_us = since_us(),
    said_at = -SAY_EVERY_S }
  return timer.every(conf.metrics.push_interval, push, state)
end

-- From now on these instances push, and no others.
---@param confs table[]
function pusher.configure(confs)
  if node.get_worker_id() ~= TELLER then return end
  local wanted = {}
  for _, conf in ipairs(confs) do
    if conf.metrics and conf.metrics.endpoint then wanted[conf] = true end
  end
  for conf, its_timer in pairs(running) do
    if not wanted[conf] then
      its_timer:cancel()
      running[conf] = nil
    end
  end
  for conf in pairs(wanted) do running[conf] = running[conf] or start(conf) end
end

return pusher
