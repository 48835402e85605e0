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
fields.mode = { type = "string", default = "http-get", one_of = { "server-sent-events", "websocket", "http-get" },
  about = "events are sent in mode server-sent-events, in the others when Accept asks for text/event-stream" }
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
fields.enable_dlq = { type = "boolean", about = "not offered by this version", custom_validator = function(value)
  if value then return nil, "enable_dlq is not offered by this version" end
  return true
end }
fields.dlq_topic = { type = "string", about = "for enable_dlq" }
fields.schema_registry = not_offered("schema_registry")
fields.event = { type = "string", default = "value", one_of = { "value", "record" },
  about = "data of an event: the record's value, or a JSON object with the whole record" }
fields.heartbeat = { type = "integer", default = 15000, between = { 100, 3600000 },
  about = "milliseconds without a record after which a comment is sent" }

return fields
