-- SPDX-License-Identifier: Apache-2.0
local typedefs = require "sluice.typedefs"

local PROTOCOLS = { "grpc", "grpcs", "http", "https", "ws", "wss" }

return {
  name = "basic-auth",
  fields = {
    { consumer = typedefs.no_consumer },
    { consumer_group = typedefs.no_consumer_group },
    { protocols = { type = "set", default = PROTOCOLS, elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { anonymous = { type = "string",
        about = "consumer (id or user name) that requests without good credentials count as; without it they get 401"
      } },
      { hide_credentials = { type = "boolean", required = true, default = false,
        about = "the service does not see the password" } },
      { realm = { type = "string", required = true, default = "service",
        about = "realm of the `WWW-Authenticate` field of a 401" } },
    } } },
  },
}
