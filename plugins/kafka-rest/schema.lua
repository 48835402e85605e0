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

return fields
