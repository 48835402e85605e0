-- SPDX-License-Identifier: Apache-2.0
-- Counts exchanges by service and route; the status listener shows it at /metrics, under Kong's names with `sluice_`
-- for `kong_`, among what the gateway tells of itself without this plugin.
local metrics = require "sluice.metrics"

local prometheus = { version = "1.0.0", priority = 13 }

local WORKSPACE = "default" -- Kong's label: there is one

local GATEWAY_MS = { 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000 }
local SERVICE_MS = { 25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10000, 30000, 60000 }

local requests = metrics.counter("sluice_http_requests_total",
  "HTTP status codes per consumer/service/route", { "service", "route", "code", "source", "workspace", "consumer" })
local bandwidth = metrics.counter("sluice_bandwidth_bytes",
  "Total bandwidth (ingress/egress) throughput in bytes", { "service", "route", "direction", "workspace", "consumer" })

local sessions = metrics.counter("sluice_stream_sessions_total",
  "TCP and TLS streams per service/route", { "service", "route", "code", "source", "workspace" })

local function latency(name, help, buckets)
  return metrics.histogram(name, help, { "service", "route", "workspace" }, { buckets = buckets })
end

local request_ms = latency("sluice_request_latency_ms",
  "Total latency incurred during requests for each service/route", SERVICE_MS)
local gateway_ms = latency("sluice_kong_latency_ms",
  "Latency added by the gateway and enabled plugins for each service/route", GATEWAY_MS)
local upstream_ms = latency("sluice_upstream_latency_ms",
  "Latency added by upstream response for each service/route", SERVICE_MS)

local session_ms = latency("sluice_session_duration_ms",
  "How long TCP and TLS streams lasted for each service/route", SERVICE_MS)

function prometheus.needs(conf)
  return { log = conf.status_code_metrics or conf.bandwidth_metrics or conf.latency_metrics }
end

local function consumer_of(exchange)
  local consumer = exchange.client:get_consumer()
  return consumer and (consumer.username or consumer.custom_id or consumer.id) or ""
end

local function observe_latencies(exchange, service, route)
  local whole, gateway, upstream, receive = exchange:get_latencies()
  request_ms:observe(whole, service, route, WORKSPACE)
  gateway_ms:observe(gateway + (receive or 0), service, route, WORKSPACE)
  if upstream then upstream_ms:observe(upstream, service, route, WORKSPACE) end
end

local STREAM = { tcp = true, tls = true, tls_passthrough = true }

local function log_stream(conf, exchange, service, route)
  local response = exchange.response
  if conf.status_code_metrics or conf.bandwidth_metrics then
    sessions:increment(service, route, response:get_status(), response:get_source(), WORKSPACE)
  end
  if conf.bandwidth_metrics then
    bandwidth:add(exchange.request:get_size(), service, route, "ingress", WORKSPACE, "")
    bandwidth:add(response:get_size(), service, route, "egress", WORKSPACE, "")
  end
  if conf.latency_metrics then session_ms:observe((exchange:get_latencies()), service, route, WORKSPACE) end
end

function prometheus.log(conf, exchange)
  local service, route = exchange.router:get_service(), exchange.router:get_route()
  local streams = route and route.protocols and STREAM[route.protocols[1]]
  service = service and (service.name or service.host) or ""
  route = route and (route.name or route.id) or ""
  local consumer = conf.per_consumer and consumer_of(exchange) or ""
  local response = exchange.response
  if streams then return log_stream(conf, exchange, service, route) end
  if conf.status_code_metrics then
    requests:increment(service, route, response:get_status(), response:get_source(), WORKSPACE, consumer)
  end
  if conf.bandwidth_metrics then
    bandwidth:add(exchange.request:get_size(), service, route, "ingress", WORKSPACE, consumer)
    bandwidth:add(response:get_size(), service, route, "egress", WORKSPACE, consumer)
  end
  if conf.latency_metrics then observe_latencies(exchange, service, route) end
end

return prometheus
