-- SPDX-License-Identifier: Apache-2.0
-- The fields of kafka-upstream, with Confluent Cloud's login.
local kafka = require "sluice.kafka"

return kafka.confluent(require "kafka-upstream.schema", {})
