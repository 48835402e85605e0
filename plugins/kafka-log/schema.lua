-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults, and `cluster`.
local kafka = require "sluice.kafka"

local fields = kafka.schema { producer = true }

fields.topic = { type = "string", required = true, match = "^[%w._-]+$", len_max = 249, about = "topic to log to" }
fields.custom_fields_by_lua = { type = "map", keys = { type = "string", len_min = 1 },
  values = { type = "string", len_min = 1 },
  about = "more fields, each by Lua code that returns its value (the exchange is its argument)" }

return fields
