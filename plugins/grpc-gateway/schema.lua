-- SPDX-License-Identifier: Apache-2.0
-- Kong's field `proto`, and what Sluice adds.
local grpc = require "sluice.grpc"
local rules = require "grpc-gateway.rules"

local PROTOCOLS = { "grpc", "grpcs", "http", "https" }

local fields = grpc.fields()
for _, field in ipairs {
  { stream_format = { type = "string", default = "auto", one_of = { "auto", "ndjson", "sse" },
    about = "how several messages are sent: one JSON text a line, or server-sent events; auto: events to clients whose "
      .. "`Accept` names `text/event-stream`" } },
  { field_names = { type = "string", default = "proto", one_of = { "proto", "json" },
    about = "names in answers: as in the .proto file, or in lowerCamelCase; requests may have either" } },
  { emit_defaults = { type = "boolean", default = true,
    about = "fields without a value are written with their default" } },
  { enum_numbers = { type = "boolean", default = false, about = "enums are written as numbers" } },
  { reject_unknown_fields = { type = "boolean", default = false,
    about = "a field or argument that the message has not is a 400; false: it is passed over" } },
} do fields[#fields + 1] = field end

return {
  name = "grpc-gateway",
  fields = {
    { protocols = { type = "set", required = true, default = PROTOCOLS,
      elements = { type = "string", len_min = 1, one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = fields } },
  },
  prepare = function(config, files)
    local schema, fault = grpc.prepare(config, files)
    if not schema then return fault end
    local field = config.descriptor_set and "descriptor_set" or "proto"
    local compiled, err = rules.compile(schema)
    if not compiled then return { field = field, expected = "HTTP rules that can be served", found = err } end
    if compiled.count == 0 then
      return { field = field, expected = "methods with google.api.http annotations", found = "none" }
    end
  end,
}
