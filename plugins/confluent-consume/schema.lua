-- SPDX-License-Identifier: Apache-2.0
-- The fields of kafka-consume, with Confluent Cloud's login, and where Kong has this plugin begin.
local kafka = require "sluice.kafka"

local fields = kafka.confluent(require "kafka-consume.schema", { consumer = true })

fields.auto_offset_reset.default = "earliest"

return fields
