-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults.
local typedefs = require "sluice.typedefs"

local PROTOCOLS = { "grpc", "grpcs", "http", "https" }

return {
  name = "request-size-limiting",
  fields = {
    { consumer_group = typedefs.no_consumer_group },
    { protocols = { type = "set", required = true, default = PROTOCOLS,
      elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { allowed_payload_size = { type = "integer", default = 128,
        about = "how large the body of a request may be, in `size_unit`" } },
      { size_unit = { type = "string", required = true, default = "megabytes",
        one_of = { "megabytes", "kilobytes", "bytes" }, about = "a megabyte is 1,048,576 bytes, a kilobyte 1,024" } },
      { require_content_length = { type = "boolean", required = true, default = false,
        about = "refuse requests that do not say how large they are" } },
    } } },
  },
}
