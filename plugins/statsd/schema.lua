-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults.
local typedefs = require "sluice.typedefs"

local METRICS = { "kong_latency", "latency", "request_count", "request_per_user", "request_size", "response_size",
  "status_count", "status_count_per_user", "unique_users", "upstream_latency", "status_count_per_workspace",
  "status_count_per_user_per_route", "shdict_usage", "cache_datastore_hits_total", "cache_datastore_misses_total" }
local STAT_TYPES = { "counter", "gauge", "histogram", "meter", "set", "timer" }
local SERVICES = { "service_id", "service_name", "service_host", "service_name_or_host" }
local CONSUMERS = { "consumer_id", "custom_id", "username" }
local WORKSPACES = { "workspace_id", "workspace_name" }

local function counter(name)
  return { name = name, stat_type = "counter", sample_rate = 1 }
end

local function timer(name)
  return { name = name, stat_type = "timer" }
end

-- All there is.
local DEFAULT = {
  counter "request_count", timer "latency", counter "request_size", counter "status_count", counter "response_size",
  { name = "unique_users", stat_type = "set" }, counter "request_per_user", timer "upstream_latency",
  timer "kong_latency", counter "status_count_per_user", counter "status_count_per_workspace",
  counter "status_count_per_user_per_route", { name = "shdict_usage", stat_type = "gauge", sample_rate = 1 },
  counter "cache_datastore_hits_total", counter "cache_datastore_misses_total",
}

local function choice(names, default, about)
  return { type = "string", one_of = names, default = default, about = about }
end

local function only(names, stat_type)
  return { conditional = { if_field = "name", if_match = { one_of = names }, then_field = "stat_type",
    then_match = { eq = stat_type } } }
end

return {
  name = "statsd",
  fields = {
    { protocols = typedefs.protocols },
    { consumer_group = typedefs.no_consumer_group },
    { config = { type = "record", required = true, fields = {
      { host = typedefs.host { default = "localhost", about = "where metrics are sent" } },
      { port = typedefs.port { default = 8125, about = "and to which port" } },
      { prefix = { type = "string", default = "kong", about = "first part of each metric's name" } },
      { metrics = { type = "array", default = DEFAULT, about = "what is sent; all there is unless told",
        elements = { type = "record", fields = {
          { name = { type = "string", required = true, one_of = METRICS, about = "what is measured" } },
          { stat_type = { type = "string", required = true, one_of = STAT_TYPES, about = "as what it is sent" } },
          { sample_rate = { type = "number", gt = 0,
            about = "share of the requests for which it is sent; required for counters and gauges" } },
          { consumer_identifier = choice(CONSUMERS, nil, "`consumer_identifier_default` unless told") },
          { service_identifier = choice(SERVICES, nil, "`service_identifier_default` unless told") },
          { workspace_identifier = choice(WORKSPACES, nil, "`workspace_identifier_default` unless told") },
        }, entity_checks = {
          { conditional = { if_field = "stat_type", if_match = { one_of = { "counter", "gauge" } },
            then_field = "sample_rate", then_match = { required = true } } },
          only({ "status_count", "status_count_per_user", "status_count_per_user_per_route", "request_per_user",
            "status_count_per_workspace" }, "counter"),
          only({ "unique_users" }, "set"),
        } } } },
      { allow_status_codes = { type = "array", elements = { type = "string", match = "^[0-9]+%-[0-9]+$",
        err = "a range of statuses such as 200-299" }, about = "status metrics are sent for these statuses; all unless "
        .. "told" } },
      { udp_packet_size = { type = "number", default = 0, between = { 0, 65507 },
        about = "bytes up to which metrics share a datagram; 0: each has its own" } },
      { use_tcp = { type = "boolean", default = false, about = "lines over a TCP connection, no datagrams" } },
      { hostname_in_prefix = { type = "boolean", default = false, about = "the host's name follows the prefix" } },
      { consumer_identifier_default = choice(CONSUMERS, "custom_id", "by what consumers are named") },
      { service_identifier_default = choice(SERVICES, "service_name_or_host", "by what services are named") },
      { workspace_identifier_default = choice(WORKSPACES, "workspace_id", "by what the workspace is named") },
      { tag_style = choice({ "dogstatsd", "influxdb", "librato", "signalfx" }, nil,
        "names have no service and so on, which are tags in this style") },
      { queue = typedefs.queue },
      { retry_count = { type = "integer", about = "without effect, see `queue`",
        deprecation = { message = "retry_count does nothing, see queue.max_retry_time" } } },
      { queue_size = { type = "integer", about = "older name of `queue.max_batch_size`",
        deprecation = { message = "use queue.max_batch_size in place of queue_size" } } },
      { flush_timeout = { type = "number", about = "older name of `queue.max_coalescing_delay`",
        deprecation = { message = "use queue.max_coalescing_delay in place of flush_timeout" } } },
    } } },
  },
}
