-- SPDX-License-Identifier: Apache-2.0
local typedefs = require "sluice.typedefs"

local PROTOCOLS = { "grpc", "grpcs", "http", "https" }
local ALL = { "grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp", "ws", "wss" }

local function switch(about)
  return { type = "boolean", default = false, about = about }
end

return {
  name = "prometheus",
  fields = {
    { consumer_group = typedefs.no_consumer_group },
    { protocols = { type = "set", default = PROTOCOLS, elements = { type = "string", one_of = ALL } } },
    { config = { type = "record", required = true, fields = {
      { per_consumer = switch "label requests and bytes with the consumer" },
      { status_code_metrics = switch "count requests by status: `sluice_http_requests_total`" },
      { latency_metrics = switch
        "histograms of `sluice_request_latency_ms`, `sluice_upstream_latency_ms` and `sluice_kong_latency_ms`" },
      { bandwidth_metrics = switch "count bytes: `sluice_bandwidth_bytes`" },
      { upstream_health_metrics = switch
        "tell the health of targets, of all upstreams: `sluice_upstream_target_health`" },
      { ai_metrics = switch "accepted, without effect in this version" },
      { wasm_metrics = { type = "boolean", default = false, eq = false,
        about = "only false: there are no Wasm filters" } },
    } } },
  },
}
