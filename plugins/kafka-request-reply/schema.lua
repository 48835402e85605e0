-- SPDX-License-Identifier: Apache-2.0
-- Where requests go and replies come from, how the two know each other, and what a reply becomes.
local kafka = require "sluice.kafka"
local template = require "sluice.template"

local fields = kafka.schema { consumer = true }

local TOPIC, TOPIC_BYTES = "^[%w._-]+$", 249
local FIELD_NAME = "^[%w!#$%%&'*+.^_`|~-]+$"

local function record_header(default, about)
  return { type = "string", default = default, len_min = 1, len_max = 256, about = about }
end

local function field_names(default, about)
  return { type = "array", default = default, about = about, elements = { type = "string", match = FIELD_NAME } }
end

fields.topic = { type = "string", required = true, match = TOPIC, len_max = TOPIC_BYTES,
  about = "topic that requests go to" }
fields.reply_topic = { type = "string", required = true, match = TOPIC, len_max = TOPIC_BYTES,
  about = "topic that replies come from; several gateways may share one" }
fields.timeout = { type = "integer", default = 10000, between = { 1, 3600000 },
  about = "milliseconds to wait for the reply; a client may ask for less by `Prefer: wait=SECONDS`" }
fields.correlation_id_header = record_header("correlation-id",
  "record header that carries the id, and comes back with the reply")
fields.reply_topic_header = record_header("reply-topic", "record header that tells where the reply is to go")
fields.key = { type = "string", custom_validator = template.check,
  about = "the record's key; may hold expressions; none unless told" }
fields.value = { type = "string", custom_validator = template.check,
  about = "the record's value; may hold expressions; the request's body unless told" }
fields.record_headers = { type = "map", keys = { type = "string", len_min = 1, len_max = 256 },
  values = { type = "string" }, custom_validator = template.check,
  default = { method = "$(method)", path = "$(path)" },
  about = "further headers of the record; may hold expressions" }
fields.forward_headers = field_names({ "content-type" }, "fields of the request that become headers of the record")
fields.respond_async = { type = "string", default = "prefer", one_of = { "prefer", "always", "never" },
  about = "answer 202 and where the reply will be: to clients that `Prefer: respond-async`, to all, to none" }
fields.location = { type = "string", match = "^[/%w][^%s%c?#]*$",
  about = "path or URL that the status resources stand below; the request's path and `/replies` unless told" }
fields.secret = { type = "string", len_min = 16, referenceable = true, encrypted = true,
  about = "signs the locations of status resources; the same in all gateways that are to answer for each other" }
fields.expire = { type = "integer", default = 86400, between = { 1, 31536000 },
  about = "seconds after which a status resource without a reply answers 410" }
fields.status_header = record_header("status", "record header of a reply that is the response's status")
fields.response_headers = field_names({ "content-type" }, "headers of a reply that become fields of the response")
fields.content_type = { type = "string", default = "application/json",
  about = "of a response whose reply does not tell one" }
fields.keep_replies = { type = "integer", default = 16777216, between = { 65536, 1073741824 },
  about = "bytes of replies that each worker keeps in memory, so that status resources need not look in the topic" }

return fields
