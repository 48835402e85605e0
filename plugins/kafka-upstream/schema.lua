-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults, and what Sluice adds: cluster, value, key_header, wait.
local kafka = require "sluice.kafka"

local fields = kafka.schema { producer = true }

fields.topic = { type = "string", required = true, match = "^[%w._-]+$", len_max = 249, about = "topic to produce to" }
fields.forward_method = { type = "boolean", default = false, about = "the method goes into the message" }
fields.forward_uri = { type = "boolean", default = false, about = "path and query go into the message" }
fields.forward_headers = { type = "boolean", default = false, about = "the request's fields go into the message" }
fields.forward_body = { type = "boolean", default = true, about = "the body goes into the message" }
fields.value = { type = "string", default = "message", one_of = { "message", "body" },
  about = "message: JSON with what the forward_ fields choose; body: the body as it is" }
fields.key_header = { type = "string", match = "^[%w!#$%%&'*+.^_`|~-]+$",
  about = "request field whose value is the record's key" }
fields.wait = { type = "boolean", default = true,
  about = "answer after the broker's acknowledgement, with partition and offset; false: answer 202 at once" }

fields.entity_checks = { {
  custom_entity_check = {
    field_sources = { "forward_method", "forward_uri", "forward_headers", "forward_body" },
    fn = function(conf)
      if conf.forward_method or conf.forward_uri or conf.forward_headers or conf.forward_body then return true end
      return nil, "at least one of forward_method, forward_uri, forward_headers, forward_body must be true"
    end,
  },
} }

return fields
