-- SPDX-License-Identifier: Apache-2.0
-- What the status listener answers: /status and /upstreams/NAME/health in Kong's shape, /metrics for Prometheus. Called
-- with an exchange in access, like a plugin.

local buffer = require "string.buffer"
local core = require "sluice.api.core"
local health = require "sluice.balancer.health"
local json = require "sluice.json"
local metrics = require "sluice.metrics"
local node = require "sluice.node"
local node_metrics = require "sluice.node_metrics"
local peers = require "sluice.peers"
local sleep = require "sluice.sleep"
local vitals = require "sluice.vitals"

local C, worker = core.C, core.worker

jit.off(true, true) -- as in exposition.lua

local status_api = {}

local function configuration_hash()
  local generation = require("sluice.generation").current()
  return generation and ("%032x"):format(generation.revision) or ("0"):rep(32)
end

local function server()
  local totals = vitals.totals()
  local open, busy = totals.connections_open, totals.requests_open
  return {
    connections_accepted = totals.connections, connections_handled = totals.connections, connections_active = open,
    connections_reading = 0, connections_writing = busy, connections_waiting = math.max(open - busy, 0),
    total_requests = totals.requests,
  }
end

local function status(exchange)
  return exchange.response:exit(200, {
    server = server(),
    memory = node.get_memory_stats("m"),
    configuration_hash = configuration_hash(),
    node = { id = node.get_id(), hostname = node.get_hostname() },
  })
end

-- Answers of any length are made and sent in pieces, and others have their turn between them.
local SLICE_S, PIECE_BYTES = 0.0001, 16384

-- A function that lets the loop run whenever the work has had its slice.
local function pacer()
  local began = 0 -- what this turn has done so far counts too
  return function()
    if C.bridge_mono_fresh(worker) - began < SLICE_S then return end
    sleep(0)
    began = C.bridge_mono_fresh(worker)
  end
end

local function metrics_text(exchange)
  local stream = exchange.response:stream(200, { ["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8" })
  local out, pace = buffer.new(), pacer()
  local function pause()
    if #out >= PIECE_BYTES then stream:send(out:get()) end
    pace()
  end
  node_metrics.put(out, pause)
  metrics.put(out, pause)
  stream:send(out:get())
  stream:finish()
end

-- Kong's Admin API: the health of an upstream's targets.
local function upstream_health(exchange, name)
  local data = health.of_upstream(require("sluice.generation").current(), name, pacer())
  if not data then return exchange.response:exit(404, { message = "Not found" }) end
  return exchange.response:exit(200, { data = data, next = json.null, node_id = node.get_id() })
end

local ROUTES = { ["/status"] = status, ["/metrics"] = metrics_text }

---@param exchange sluice.exchange
function status_api.handle(exchange)
  if peers.is_asked(exchange) then return peers.handle(exchange) end
  local path = exchange.request:get_path()
  local upstream = path:match("^/upstreams/([^/]+)/health$")
  local route = upstream and upstream_health or ROUTES[path]
  if not route then return exchange.response:exit(404, { message = "Not found" }) end
  local method = exchange.request:get_method()
  if method ~= "GET" and method ~= "HEAD" then
    return exchange.response:exit(405, { message = "Method not allowed" }, { Allow = "GET, HEAD" })
  end
  return route(exchange, upstream)
end

return status_api
