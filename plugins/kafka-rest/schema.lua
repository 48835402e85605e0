-- SPDX-License-Identifier: Apache-2.0
-- Which cluster, where the API stands, and the bounds of what clients may have.
local kafka = require "sluice.kafka"
local serde = require "sluice.serde"

local fields = kafka.schema { consumer = true }

fields.schema_registry = serde.fields.record()
fields.prefix = { type = "string", match = "^/", about = "path that the API stands below, such as `/kafka`; the "
  .. "longest path of the route that the request begins with, unless told" }
fields.advertised_url = { type = "string", match = "^https?://[^%s?#]+$",
  about = "URL in the links of answers, with the prefix; scheme, host and port of the request unless told" }
fields.operations = { type = "set", default = { "read", "produce", "consume", "admin" },
  elements = { type = "string", one_of = { "read", "produce", "consume", "admin" } },
  about = "what clients may do: look at the cluster, produce records, have consumer instances, change the cluster" }
fields.timeout = { type = "integer", default = 10000, between = { 1, 300000 },
  about = "milliseconds to wait for the cluster" }
fields.record_bytes_max = { type = "integer", default = 4194304, between = { 1024, 67108864 },
  about = "bytes of one record's JSON in a stream of records" }
fields.body_bytes_max = { type = "integer", default = 16777216, between = { 1024, 268435456 },
  about = "bytes of a body that is read as a whole, such as v2's produce requests" }
fields.batch_records_max = { type = "integer", default = 10, between = { 1, 1000 },
  about = "entries of one `records:batch` request" }

fields.consumers_max = { type = "integer", default = 32, between = { 0, 10000 },
  about = "consumer instances that each worker may have" }
fields.consumer_idle_timeout = { type = "integer", default = 300000, between = { 1000, 86400000 },
  about = "milliseconds after which an instance that nobody uses is ended" }
fields.consumer_request_timeout = { type = "integer", default = 30000, between = { 0, 300000 },
  about = "milliseconds that a request for records may wait at most" }
fields.consumer_bytes_max = { type = "integer", default = 8388608, between = { 1024, 67108864 },
  about = "bytes of keys and values in one answer" }

return fields
