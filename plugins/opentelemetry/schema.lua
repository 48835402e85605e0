-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults, and `spans` and `ssl_verify`.
local logging = require "sluice.logging"
local propagation = require("sluice.tracing").propagation
local typedefs = require "sluice.typedefs"

local function url(about)
  return typedefs.url { referenceable = true, about = about }
end

local function milliseconds(default, about)
  return typedefs.timeout { default = default, about = about }
end

return {
  name = "opentelemetry",
  fields = {
    { protocols = typedefs.protocols_http },
    { consumer_group = typedefs.no_consumer_group },
    { config = { type = "record", required = true,
      shorthand_fields = {
        { endpoint = typedefs.url { about = "older name of `traces_endpoint`",
          func = function(value) return { traces_endpoint = value } end } },
      },
      fields = {
        { traces_endpoint = url "where spans are sent (OTLP over HTTP)" },
        { logs_endpoint = url "where log lines are sent that plugins write while they work on a request" },
        { access_logs = { type = "record", about = "a log record for each request", fields = {
          { endpoint = url "where these are sent" },
          { custom_attributes_by_lua = logging.custom_fields_by_lua },
        } } },
        { metrics = { type = "record", about = "the metrics that the status listener shows", fields = {
          { endpoint = url "where these are sent" },
          { push_interval = { type = "number", default = 60, between = { 0.1, 86400 },
            about = "seconds from one time to the next" } },
        } } },
        { headers = { type = "map", keys = typedefs.header_name, values = { type = "string", referenceable = true },
          about = "more fields of these requests, such as a token" } },
        { resource_attributes = { type = "map", keys = { type = "string", required = true },
          values = { type = "string", required = true, len_min = 1 },
          about = "attributes of the gateway, such as `service.name` (`sluice` unless told)" } },
        { queue = typedefs.queue { default = { max_batch_size = 200 } } },
        { batch_span_count = { type = "integer", about = "older name of `queue.max_batch_size`",
          deprecation = { message = "use queue.max_batch_size in place of batch_span_count" } } },
        { batch_flush_delay = { type = "integer", about = "older name of `queue.max_coalescing_delay`",
          deprecation = { message = "use queue.max_coalescing_delay in place of batch_flush_delay" } } },
        { connect_timeout = milliseconds(1000, "milliseconds to connect in") },
        { send_timeout = milliseconds(5000, "milliseconds to send in") },
        { read_timeout = milliseconds(5000, "milliseconds to wait for the answer") },
        { ssl_verify = { type = "boolean", default = false,
          about = "whether the server's certificate must be good, for https" } },
        { http_response_header_for_traceid = typedefs.header_name {
          about = "field of responses that gets the trace's id" } },
        { header_type = { type = "string", required = true, default = "preserve",
          one_of = propagation.header_types, about = "older way to say `propagation`, which goes before it" } },
        { sampling_rate = { type = "number", between = { 0, 1 },
          about = "share of the requests that are traced, 0.01 unless told" } },
        { sampling_strategy = { type = "string", default = "parent_drop_probability_fallback",
          one_of = { "parent_drop_probability_fallback", "parent_probability_fallback" },
          about = "what the caller's decision counts: one not to trace holds, or either; else the rate decides" } },
        { propagation = propagation.field "w3c" },
        { spans = { type = "set", elements = { type = "string", one_of = { "phases", "plugins" } },
          about = "what else gets a span of its own: each phase, each plugin in each phase" } },
      },
      entity_checks = {
        { at_least_one_of = { "traces_endpoint", "logs_endpoint", "access_logs.endpoint", "metrics.endpoint" } },
      },
    } },
  },
}
