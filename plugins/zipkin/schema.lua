-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults, and `ssl_verify`.
local propagation = require("sluice.tracing").propagation
local typedefs = require "sluice.typedefs"

-- Tags that are the gateway's own.
local TAKEN = { "error", "http.method", "http.path", "http.status_code", "kong.balancer.state", "kong.balancer.try",
  "kong.consumer", "kong.credential", "kong.node.id", "kong.route", "kong.service", "lc", "peer.hostname" }

local function milliseconds(default, about)
  return typedefs.timeout { required = true, default = default, about = about }
end

return {
  name = "zipkin",
  fields = {
    { protocols = typedefs.protocols },
    { consumer_group = typedefs.no_consumer_group },
    { config = { type = "record", required = true, fields = {
      { local_service_name = { type = "string", required = true, default = "kong",
        about = "name of the gateway in spans" } },
      { http_endpoint = typedefs.url { referenceable = true,
        about = "where spans are sent: `http://zipkin:9411/api/v2/spans`; without it traces are passed on only" } },
      { sample_ratio = { type = "number", default = 0.001, between = { 0, 1 },
        about = "share of the requests that are traced where the caller has not decided" } },
      { default_service_name = { type = "string", about = "name of services that have none" } },
      { include_credential = { type = "boolean", required = true, default = true,
        about = "whether spans name the credential that the request was authenticated by" } },
      { traceid_byte_count = { type = "integer", required = true, default = 16, one_of = { 8, 16 },
        about = "bytes of the ids of traces that begin here" } },
      { header_type = { type = "string", required = true, default = "preserve", one_of = propagation.header_types,
        about = "older way to say `propagation`, which goes before it" } },
      { default_header_type = { type = "string", required = true, default = "b3", one_of = propagation.formats,
        about = "older name of `propagation.default_format`" } },
      { tags_header = { type = "string", required = true, default = "Zipkin-Tags",
        about = "field of requests whose `a=b; c=d` become tags" } },
      { static_tags = { type = "array", about = "tags of every request's span", elements = { type = "record", fields = {
        { name = { type = "string", required = true, not_one_of = TAKEN, about = "the tag's name" } },
        { value = { type = "string", required = true, about = "its value" } },
      } } } },
      { http_span_name = { type = "string", required = true, default = "method", one_of = { "method", "method_path" },
        about = "name of spans: the method, or with the path behind it" } },
      { connect_timeout = milliseconds(2000, "milliseconds to connect in") },
      { send_timeout = milliseconds(5000, "milliseconds to send in") },
      { read_timeout = milliseconds(5000, "milliseconds to wait for the answer") },
      { ssl_verify = { type = "boolean", default = false,
        about = "whether the server's certificate must be good, for https" } },
      { http_response_header_for_traceid = typedefs.header_name {
        about = "field of responses that gets the trace's id" } },
      { phase_duration_flavor = { type = "string", required = true, default = "annotations",
        one_of = { "annotations", "tags" }, about = "whether spans tell when phases began and ended, or how long "
          .. "they took" } },
      { queue = typedefs.queue },
      { propagation = propagation.field "b3" },
    } } },
  },
}
