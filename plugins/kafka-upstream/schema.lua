-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults, and what Sluice adds.
local code = require "sluice.code"
local kafka = require "sluice.kafka"
local schema_registry = require "sluice.schema_registry"
local template = require "sluice.template"

local fields = kafka.schema { producer = true }

local TOPIC = "^[%w._-]+$"
local FIELD_NAME = "^[%w!#$%%&'*+.^_`|~-]+$"

local function source(about)
  return { type = "string", len_min = 1, custom_validator = template.check, about = about }
end

local function lua_functions(about)
  return { type = "array", elements = { type = "string", custom_validator = code.check }, about = about }
end

fields.topic = { type = "string", required = true, len_max = 1024, about = "topic to produce to; may hold $(...)",
  custom_validator = function(topic)
    if topic:find("%$%b()") then return template.check(topic) end
    if #topic > 249 then return nil, "length must be at most 249" end
    if topic:find(TOPIC) then return true end
    return nil, "expected letters, digits, '.', '_' and '-', or a template with $(...)"
  end }
fields.topics_query_arg = { type = "string", len_min = 1,
  about = "argument of the query that names topics, with commas between, in place of `topic`" }
fields.allowed_topics = { type = "array", elements = { type = "string", match = TOPIC, len_max = 249 },
  about = "the only topics that a request may name, beside `topic`" }

fields.forward_method = { type = "boolean", default = false, about = "the method goes into the message" }
fields.forward_uri = { type = "boolean", default = false, about = "path and query go into the message" }
fields.forward_headers = { type = "boolean", default = false, about = "the request's fields go into the message" }
fields.forward_body = { type = "boolean", default = true, about = "the body goes into the message" }
fields.value = { type = "string", default = "message", len_min = 1,
  about = "`message`: JSON with what the forward_ fields choose; `body`: the body as it is; else a template",
  custom_validator = function(value)
    if value == "message" or value == "body" then return true end
    if value:find("%$%b()") then return template.check(value) end
    return nil, "expected message, body, or a template with $(...)"
  end }
fields.message_by_lua_functions = lua_functions("Lua code of functions, each given the message as a table; what it "
  .. "returns is the message, nil drops it")

fields.batch = { type = "string", default = "none", one_of = { "none", "array", "lines", "auto" },
  about = "`array`: the body is a JSON array, whose elements are records; `lines`: each line is one, and each is "
    .. "answered by a line; `auto`: what its type says" }
fields.batch_at = { type = "string", len_min = 1,
  about = "where in the body the array stands: names of members with dots between" }
fields.batch_most = { type = "integer", default = 10000, between = { 1, 1000000 }, about = "elements of one batch" }
fields.batch_line_most = { type = "integer", default = 1048576, between = { 1, 67108864 },
  about = "bytes of a line" }

fields.key = source("the record's key, with $(...)")
fields.key_header = { type = "string", match = FIELD_NAME, about = "request field whose value is the record's key" }
fields.key_query_arg = { type = "string", len_min = 1, about = "argument of the query that is the record's key" }
fields.partition = { type = "any", about = "number of the partition, or a template; by the key unless told",
  custom_validator = function(value)
    if type(value) == "number" and value >= 0 and value % 1 == 0 and value < 2 ^ 31 then return true end
    if type(value) ~= "string" or not value:find("%$%b()") then
      return nil, "expected a whole number from 0, or a template with $(...)"
    end
    return template.check(value)
  end }
fields.timestamp = source("time of the record, with $(...): milliseconds since 1970, or RFC 3339; now unless told")
fields.headers = { type = "map", keys = { type = "string", len_min = 1 }, values = source("value"),
  about = "headers of the record, with $(...); one without a value is left out" }
fields.trace_headers = { type = "boolean", default = true,
  about = "traceparent and tracestate of the request become headers of the record" }
fields.record_by_lua_functions = lua_functions("Lua code of functions, each given the record and the exchange; what it "
  .. "returns is the record, nil drops it")

fields.cloudevents = { type = "record", about = "requests are CloudEvents, and so are their records", fields = {
  { mode = { type = "string", default = "binary", one_of = { "binary", "structured" },
    about = "content mode of the records: attributes as headers, or the whole event as JSON" } },
  { required = { type = "boolean", default = true,
    about = "what is no event is refused, unless `type` and `source` make it one; false: it goes on as it is" } },
  { type = source("type of the event that another request becomes, with $(...)") },
  { source = source("its source") },
  { subject = source("its subject") },
  { id = source("its id; a new one unless told") },
}, entity_checks = { { mutually_required = { "type", "source" } } } }

fields.idempotency = { type = "record", about = "a request whose key came before is answered as it was", fields = {
  { header = { type = "string", default = "Idempotency-Key", match = FIELD_NAME, about = "field with the key" } },
  { required = { type = "boolean", default = false, about = "a request without a key is refused" } },
  { ttl = { type = "number", default = 86400, gt = 0, about = "seconds that an answer is remembered" } },
} }

fields.dead_letter_topic = { type = "string", match = TOPIC, len_max = 249,
  about = "where requests and records go that cannot go where they should; not when Kafka is away" }
fields.dead_letter_status = { type = "integer", between = { 200, 599 },
  about = "status of the answer to one that was set aside there; that of the failure unless told" }

fields.schema_registry = schema_registry.fields.record { schemas = true }

fields.wait = { type = "boolean", default = true,
  about = "answer after the broker's acknowledgement, with partition and offset; false: answer 202 at once" }

local FORWARDS = { "forward_method", "forward_uri", "forward_headers", "forward_body" }

local function check_forwards(conf)
  for _, name in ipairs(FORWARDS) do
    if conf[name] then return true end
  end
  return nil, "at least one of forward_method, forward_uri, forward_headers, forward_body must be true"
end

local function check_functions(conf)
  if conf.value == "message" or not (conf.message_by_lua_functions or {})[1] then return true end
  return nil, "message_by_lua_functions: expected value: message, for they change that; record_by_lua_functions "
    .. "change whole records"
end

local function check_batch(conf)
  if conf.batch == "none" or conf.forward_body then return true end
  return nil, "batch: expected forward_body: true, for the records are in the body"
end

local function check_events(conf)
  if not conf.cloudevents or conf.value == "message" or conf.value == "body" then return true end
  return nil, "value: expected none beside cloudevents, for the event's data is the value"
end

local function check_idempotency(conf)
  if not conf.idempotency or conf.batch ~= "lines" then return true end
  return nil, "idempotency: expected batch other than lines, for the answer to a stream is not remembered"
end

fields.entity_checks = {
  { custom_entity_check = { field_sources = FORWARDS, fn = check_forwards } },
  { custom_entity_check = { field_sources = { "value", "message_by_lua_functions" }, fn = check_functions } },
  { custom_entity_check = { field_sources = { "batch", "forward_body" }, fn = check_batch } },
  { custom_entity_check = { field_sources = { "cloudevents", "value" }, fn = check_events } },
  { custom_entity_check = { field_sources = { "idempotency", "batch" }, fn = check_idempotency } },
  { mutually_exclusive = { "key", "key_header", "key_query_arg" } },
}

return fields
