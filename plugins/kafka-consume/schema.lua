-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults, and what Sluice adds: cluster, event, heartbeat. What would change the records
-- and is not offered yet is refused rather than left out.
local kafka = require "sluice.kafka"
local serde = require "sluice.serde"

local fields = kafka.schema { consumer = true }

fields.topics = { type = "array", required = true, len_min = 1, len_max = 64, about = "the topics to read",
  elements = { type = "record", fields = {
    { name = { type = "string", required = true, match = "^[%w._-]+$", len_max = 249, about = "its name" } },
    { schema_registry = serde.fields.record { decodes = true } },
  } } }
fields.mode = { type = "string", default = "http-get",
  one_of = { "server-sent-events", "websocket", "http-get", "ndjson", "newest" },
  about = "what a client gets that does not ask by Accept for text/event-stream or application/x-ndjson" }
fields.auto_offset_reset = { type = "string", default = "latest", one_of = { "latest", "earliest" },
  about = "where a client without Last-Event-ID begins" }
fields.enforce_latest_offset_reset = { type = "boolean", default = false,
  about = "a group that has committed nothing begins with the earliest record, also where auto_offset_reset is "
    .. "`latest`, unless this is set" }
fields.commit_strategy = { type = "string", default = "auto", one_of = { "auto", "off" },
  about = "whether a group's positions are committed: behind what was answered, sent, or acknowledged" }
fields.consumer_group = { type = "record", about = "the group that clients read in, each record for one of them",
  fields = {
    { mode = { type = "string", default = "random", one_of = { "random", "manual", "kong_consumer" },
      about = "whose name it has: its own, `consumer_group_id`, or the consumer's. Streams and WebSockets have a group "
        .. "in the latter two only: else each client gets all records" } },
    { consumer_group_id = { type = "string", len_min = 1, about = "name for mode `manual`" } },
  } }
fields.error_handling = { type = "record", about = "errors of the cluster", fields = {
  { return_error_message = { type = "boolean", default = false, about = "clients are told what the cluster said" } },
} }
fields.message_deserializer = { type = "string", default = "noop", one_of = { "json", "noop" },
  about = "json: with event record, a value that is JSON is shown as such" }
fields.message_by_lua_functions = { type = "array", elements = { type = "string" },
  about = "Lua code of functions that take a record and return it, changed; nil drops it" }
fields.enable_dlq = { type = "boolean", about = "a record that a function fails with is copied to dlq_topic" }
fields.dlq_topic = { type = "string", match = "^[%w._-]+$", len_max = 249,
  about = "where such records go, with the cause in headers dead-letter-..." }
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
fields.schema_registry = serde.fields.record { decodes = true }
fields.event = { type = "string", default = "value", one_of = { "value", "record", "cloudevent" },
  about = "data of an event: the record's value, a JSON object with the whole record, or the CloudEvent that it is" }
fields.websocket = { type = "record", required = true, about = "WebSockets", fields = {
  { acknowledge = { type = "boolean", default = false,
    about = "clients acknowledge records; a group goes on behind what was acknowledged" } },
  { max_unacknowledged = { type = "integer", default = 1000, between = { 1, 100000 },
    about = "records on their way to a client that acknowledges" } },
} }
fields.newest = { type = "record", required = true, about = "mode `newest`", fields = {
  { key_capture = { type = "string", about = "capture of the route's path that is the key; else see `key_argument`" } },
  { content_type = { type = "string", default = "application/json", about = "of the values" } },
  { max_keys = { type = "integer", default = 100000, between = { 1, 10000000 },
    about = "keys that a worker keeps; a topic with more is answered with 503" } },
  { max_bytes = { type = "integer", default = 67108864, gt = 0, about = "the same in bytes" } },
} }
fields.max_records = { type = "integer", default = 500, between = { 1, 10000 },
  about = "records of one answer to http-get" }
fields.max_wait = { type = "integer", default = 30000, between = { 0, 600000 },
  about = "milliseconds that a client may wait for an answer by `Prefer: wait` or `?wait`" }
fields.heartbeat = { type = "integer", default = 15000, between = { 100, 3600000 },
  about = "milliseconds without a record after which a comment is sent" }

return fields
