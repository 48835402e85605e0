-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults, `cluster`, `key_by_lua` and `queue`. What Kong's fields say of batches and of
-- what waits in memory holds for the queue; see sluice.queue for which goes before which.
local code = require "sluice.code"
local kafka = require "sluice.kafka"
local logging = require "sluice.logging"
local typedefs = require "sluice.typedefs"

local fields = kafka.schema { producer = true }

fields.topic = { type = "string", required = true, match = "^[%w._-]+$", len_max = 249, about = "topic to log to" }
fields.key_by_lua = { type = "string", len_min = 1, custom_validator = code.check,
  about = "Lua code that returns the record's key, so that those of one key stay in order" }
fields.custom_fields_by_lua = logging.custom_fields_by_lua
fields.queue = typedefs.queue_with { max_batch_size = 200, max_coalescing_delay = 1, max_entries = 50000 }
fields.producer_async = { type = "boolean", default = true,
  about = "false: each record goes out at once, and waits for no others" }
fields.producer_async_flush_timeout.about = "older name of `queue.max_coalescing_delay`, in milliseconds"
fields.producer_async_buffering_limits_messages_in_memory.about = "older name of `queue.max_entries`"
fields.producer_request_limits_messages_per_request.about = "older name of `queue.max_batch_size`"

return fields
