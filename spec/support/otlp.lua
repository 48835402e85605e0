-- SPDX-License-Identifier: Apache-2.0
-- Reads what goes to OpenTelemetry collectors, by OpenTelemetry's own definitions of its format: a set of descriptors
-- out of its Go module (`make tools`), and libprotobuf.
require "sluice.spec"
local json = require "sluice.json"
local process = require "spec.support.process"
local protobuf = require "sluice.protobuf"

local otlp = {}

local schema

local function load_schema()
  local status, set, err = process.run { ".cache/bin/otlp-descriptors" }
  assert(status == 0, err)
  schema = assert(protobuf.load(set))
end

local TYPES = {
  traces = "opentelemetry.proto.trace.v1.TracesData", logs = "opentelemetry.proto.logs.v1.LogsData",
  metrics = "opentelemetry.proto.metrics.v1.MetricsData",
}

-- A body of a request to a collector as a table with the names of the .proto files in lowerCamelCase. The requests have
-- the same fields as these messages.
---@param kind "traces"|"logs"|"metrics"
---@param body string
---@return table
function otlp.decode(kind, body)
  if not schema then load_schema() end
  local text = assert(schema:to_json(TYPES[kind], body))
  return assert(json.decode(text))
end

-- Attributes as a map; integers are texts, as JSON of protocol buffers has them.
function otlp.attributes(list)
  local map = {}
  for _, one in ipairs(list or {}) do
    local value = one.value
    map[one.key] = value.stringValue or value.intValue or value.doubleValue
    if value.boolValue ~= nil then map[one.key] = value.boolValue end
  end
  return map
end

-- Hex digits of an id, which JSON has in base64.
function otlp.hex(base64)
  local crypto = require "sluice.crypto"
  return (crypto.base64_decode(base64):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

-- All spans of a body, with attributes as maps and ids in hex.
function otlp.spans(body)
  local list = {}
  for _, resource in ipairs(otlp.decode("traces", body).resourceSpans) do
    for _, scope in ipairs(resource.scopeSpans) do
      for _, span in ipairs(scope.spans) do
        span.attributes = otlp.attributes(span.attributes)
        span.traceId, span.spanId = otlp.hex(span.traceId), otlp.hex(span.spanId)
        span.parentSpanId = span.parentSpanId and otlp.hex(span.parentSpanId)
        span.resource = otlp.attributes(resource.resource.attributes)
        span.scope = scope.scope
        list[#list + 1] = span
      end
    end
  end
  return list
end

return otlp
