-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields, and what Sluice adds: descriptor_set, include_dirs, max_message_bytes.
local grpc = require "sluice.grpc"

local PROTOCOLS = { "grpc", "grpcs", "http", "https" }

local fields = grpc.fields()
for _, field in ipairs {
  { pass_stripped_path = { type = "boolean",
    about = "the service gets the path without what the route strips; false: the whole path" } },
  { allow_origin_header = { type = "string", default = "*", about = "value of `Access-Control-Allow-Origin`" } },
} do fields[#fields + 1] = field end

return {
  name = "grpc-web",
  fields = {
    { protocols = { type = "set", required = true, default = PROTOCOLS,
      elements = { type = "string", len_min = 1, one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = fields } },
  },
  prepare = function(config, files)
    local _, fault = grpc.prepare(config, files)
    return fault
  end,
}
