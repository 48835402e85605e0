-- SPDX-License-Identifier: Apache-2.0
local typedefs = require "sluice.typedefs"

local PROTOCOLS = { "grpc", "grpcs", "http", "https", "ws", "wss" }

return {
  name = "key-auth",
  fields = {
    { consumer = typedefs.no_consumer },
    { consumer_group = typedefs.no_consumer_group },
    { protocols = { type = "set", default = PROTOCOLS, elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { key_names = { type = "array", required = true, default = { "apikey" }, elements = typedefs.header_name,
        about = "names under which a key is looked for, in this order" } },
      { key_in_header = { type = "boolean", required = true, default = true, about = "look in the header" } },
      { key_in_query = { type = "boolean", required = true, default = true, about = "look in the query" } },
      { key_in_body = { type = "boolean", required = true, default = false,
        about = "look in the body: a form, JSON or multipart/form-data" } },
      { hide_credentials = { type = "boolean", required = true, default = false,
        about = "the service does not see the key" } },
      { anonymous = { type = "string",
        about = "consumer (id or user name) that requests without a good key count as; without it they get 401" } },
      { realm = { type = "string", about = "realm of the `WWW-Authenticate` field of a 401" } },
      { run_on_preflight = { type = "boolean", required = true, default = true,
        about = "authenticate `OPTIONS` requests too; false: they pass" } },
    } } },
  },
}
