-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults, and what Sluice adds: cluster, event, heartbeat. What would change the records
-- and is not offered yet is refused rather than left out.
local kafka = require "sluice.kafka"

local fields = kafka.schema { consumer = true }

local function not_offered(what)
  return { type = "any", about = "not offered by this version",
    custom_validator = function() return nil, what .. " is not offered by this version" end }
end

fields.topics = { type = "array", required = true, len_min = 1, len_max = 1, about = "the topic to read",
  elements = { type = "record", fields = {
    { name = { type = "string", required = true, match = "^[%w._-]+$", len_max = 249, about = "its name" } },
    { schema_registry = not_offered("schema_registry") },
  } } }
fields.mode = { type = "string", default = "http-get",
  one_of = { "server-sent-events", "websocket", "http-get", "ndjson" },
  about = "what a client gets that does not ask by Accept for text/event-stream or application/x-ndjson" }
fields.auto_offset_reset = { type = "string", default = "latest", one_of = { "latest", "earliest" },
  about = "where a client without Last-Event-ID begins" }
fields.enforce_latest_offset_reset = { type = "boolean", default = false,
  about = "accepted, has no effect: latest is always the end of the topic" }
fields.commit_strategy = { type = "string", default = "auto", one_of = { "auto", "off" },
  about = "accepted, has no effect: the position is the client's, in the event's id" }
fields.consumer_group = { type = "record", about = "accepted, has no effect: every client gets every record", fields = {
  { mode = { type = "string", default = "random", one_of = { "random", "manual", "kong_consumer" }, about = "mode" } },
  { consumer_group_id = { type = "string", about = "id" } },
} }
fields.error_handling = { type = "record", about = "accepted, has no effect: errors always say why", fields = {
  { return_error_message = { type = "boolean", default = false, about = "details in errors" } },
} }
fields.message_deserializer = { type = "string", default = "noop", one_of = { "json", "noop" },
  about = "json: with event record, a value that is JSON is shown as such" }
fields.message_by_lua_functions = { type = "array", elements = { type = "string" },
  about = "Lua code of functions that take a record and return it, changed; nil drops it" }
fields.enable_dlq = { type = "boolean", about = "a record that a function fails with is copied to dlq_topic" }
fields.dlq_topic = { type = "string", match = "^[%w._-]+$", len_max = 249,
  about = "where such records go, with the error in header dlq.error" }
fields.filter = { type = "record", about = "which records clients get: those that meet all that is set", fields = {
  { keys = { type = "array", elements = { type = "string" }, len_min = 1, about = "keys, one of which it must have" } },
  { key_prefix = { type = "string", about = "what the key must begin with" } },
  { headers = { type = "map", keys = { type = "string" },
    values = { type = "array", elements = { type = "string" }, len_min = 1 },
    about = "headers that it must have, each with one of these values" } },
} }
fields.key_argument = { type = "string", len_min = 1,
  about = "argument of the query by which a client says that it wants records of that key only" }
fields.slow_clients = { type = "string", default = "catch up", one_of = { "catch up", "skip", "disconnect" },
  about = "of a stream whose client does not take the events as fast as they come: it gets them all, later; it loses "
    .. "some, and is told by an event `gap`; it is disconnected, to come back with Last-Event-ID" }
fields.schema_registry = not_offered("schema_registry")
fields.event = { type = "string", default = "value", one_of = { "value", "record" },
  about = "data of an event: the record's value, or a JSON object with the whole record" }
fields.heartbeat = { type = "integer", default = 15000, between = { 100, 3600000 },
  about = "milliseconds without a record after which a comment is sent" }

return fields
