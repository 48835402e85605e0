-- SPDX-License-Identifier: Apache-2.0
-- Which records go to the service, how, and what becomes of those that it does not take.
local kafka = require "sluice.kafka"
local template = require "sluice.template"
local typedefs = require "sluice.typedefs"

local own = kafka.schema { consumer = true }

local TOPIC, TOPIC_BYTES = "^[%w._-]+$", 249
local FIELD_NAME = "^[%w!#$%%&'*+.^_`|~-]+$"

local function milliseconds(default, most, about)
  return { type = "integer", default = default, between = { 0, most }, about = "milliseconds " .. about }
end

local function topics(about, extra)
  local field = extra or {}
  field.type, field.about = "array", about
  field.len_min, field.elements = 1, { type = "string", match = TOPIC, len_max = TOPIC_BYTES }
  return field
end

local function record_header(default, about)
  return { type = "string", default = default, len_min = 1, len_max = 256, about = about }
end

own.topics = topics("topics to read", { required = true, len_max = 100 })
own.group = { type = "string", required = true, len_min = 1, len_max = 255,
  about = "consumer group: its members, in whatever worker and gateway, share the records" }
own.from = { type = "string", default = "earliest", one_of = { "earliest", "latest" },
  about = "where a group begins that has not come anywhere yet" }
own.method = { type = "string", default = "POST", one_of = { "POST", "PUT", "PATCH" }, about = "of the requests" }
own.path = { type = "string", default = "/", len_min = 1, custom_validator = template.check,
  about = "of the requests, behind the service's own; may hold expressions" }
own.body = { type = "string", default = "value", one_of = { "value", "record" },
  about = "the record's value as it is; or JSON with all of the record, a list of them with `batch_size` above 1" }
own.content_type = { type = "string", default = "application/json",
  about = "of the requests; a record's own header `content-type` comes before it where the body is the value" }
own.headers = { type = "map", keys = typedefs.header_name, values = { type = "string" },
  custom_validator = template.check, about = "further fields of the requests; may hold expressions" }
own.forward_headers = { type = "array", default = {}, elements = { type = "string", match = FIELD_NAME },
  about = "headers of a record that become fields of its request" }
own.timeout = { type = "integer", default = 10000, between = { 1, 3600000 },
  about = "milliseconds that a call may take, the service's retries included" }
own.order = { type = "string", default = "key", one_of = { "key", "partition" },
  about = "what keeps its order: the records of a key (those without one have none), or those of a partition" }
own.concurrency = { type = "integer", default = 8, between = { 1, 1000 }, about = "calls at a time in one worker" }
own.batch_size = { type = "integer", default = 1, between = { 1, 1000 }, about = "records in one request" }
own.batch_delay = milliseconds(50, 60000, "that a batch which is not whole waits for more records")
own.max_pending = { type = "integer", default = 1000, between = { 1, 100000 },
  about = "records that a worker has read and not delivered; then it reads no more" }
own.max_pending_bytes = { type = "integer", default = 16777216, between = { 1, 1073741824 },
  about = "the same in bytes" }
own.max_tries = { type = "integer", default = 10, between = { 1, 1000 },
  about = "calls for one record that failed by its fault, or the service's while it serves others" }
own.backoff_initial = milliseconds(200, 3600000, "until the second try; then twice as long each time")
own.backoff_max = milliseconds(30000, 3600000, "between two tries at most")
own.dead_letter_topic = { type = "string", match = TOPIC, len_max = TOPIC_BYTES,
  about = "topic for records that the service will not take, with the cause in headers" }
own.skip_failed = { type = "boolean", default = false,
  about = "pass over such records, instead of trying them for ever where there is no `dead_letter_topic`" }
own.commit_interval = milliseconds(1000, 3600000, "between two commits of how far the group has come")
own.reply_topics = topics("topics that a record may name for the service's response to be written to")
own.reply_topic_header = record_header("reply-topic", "record header that names the topic of the response")
own.correlation_id_header = record_header("correlation-id", "record header that goes back with the response")
own.status_header = record_header("status", "record header of the response's status")
own.max_reply = { type = "integer", default = 1000000, between = { 1, 104857600 },
  about = "bytes of such a response" }

local function check_batches(config)
  if config.batch_size == 1 then return true end
  if config.body == "value" then return nil, "batch_size above 1 needs body: record" end
  if config.reply_topics then return nil, "reply_topics needs batch_size 1" end
  return true
end

local function check_failed(config)
  if not (config.skip_failed and config.dead_letter_topic) then return true end
  return nil, "skip_failed has no effect with a dead_letter_topic"
end

own.entity_checks = {
  { custom_entity_check = { field_sources = { "batch_size", "body", "reply_topics" }, fn = check_batches } },
  { custom_entity_check = { field_sources = { "skip_failed", "dead_letter_topic" }, fn = check_failed } },
}

local fields, checks = {}, own.entity_checks
own.entity_checks = nil
for name, field in pairs(own) do fields[#fields + 1] = { [name] = field } end
table.sort(fields, function(a, b) return next(a) < next(b) end)

return {
  name = "kafka-sink",
  fields = {
    { service = { type = "foreign", reference = "services", required = true } },
    { route = typedefs.no_route },
    { consumer = typedefs.no_consumer },
    { consumer_group = typedefs.no_consumer_group },
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = fields, entity_checks = checks } },
  },
}
