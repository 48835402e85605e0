-- SPDX-License-Identifier: Apache-2.0
local typedefs = require "sluice.typedefs"

local PROTOCOLS = { "grpc", "grpcs", "http", "https", "ws", "wss" }
local ALGORITHMS = { "hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512" }

return {
  name = "hmac-auth",
  fields = {
    { consumer = typedefs.no_consumer },
    { consumer_group = typedefs.no_consumer_group },
    { protocols = { type = "set", default = PROTOCOLS, elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { hide_credentials = { type = "boolean", required = true, default = false,
        about = "the service does not see the signature" } },
      { clock_skew = { type = "number", default = 300, gt = 0,
        about = "seconds that `X-Date` or `Date` may differ from the gateway's clock" } },
      { anonymous = { type = "string",
        about = "consumer (id or user name) that requests without a good signature count as; without it they get 401"
      } },
      { validate_request_body = { type = "boolean", required = true, default = false,
        about = "a body has to have the `Digest` that the request names" } },
      { enforce_headers = { type = "array", required = true, default = {}, elements = { type = "string" },
        about = "fields that a signature has to cover, with `@request-target` and `request-line` among them" } },
      { algorithms = { type = "array", default = { "hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512" },
        elements = { type = "string", one_of = ALGORITHMS }, about = "that a client may use" } },
      { realm = { type = "string", about = "realm of the `WWW-Authenticate` field of a 401" } },
    } } },
  },
}
