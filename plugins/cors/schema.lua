-- SPDX-License-Identifier: Apache-2.0
local regex = require "sluice.regex"
local typedefs = require "sluice.typedefs"

local METHODS = { "GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT" }
local PROTOCOLS = { "grpc", "grpcs", "http", "https" }

local function is_origin(value)
  if value == "*" then return true end
  local compiled, err = regex.new(value)
  if compiled then return true end
  return nil, 'expected "*", an origin or a regular expression (' .. err .. ")"
end

return {
  name = "cors",
  fields = {
    { consumer = typedefs.no_consumer },
    { consumer_group = typedefs.no_consumer_group },
    { protocols = { type = "set", required = true, default = PROTOCOLS,
      elements = { type = "string", len_min = 1, one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { origins = { type = "array", elements = { type = "string", custom_validator = is_origin },
        about = "who may: origins such as `https://example.com`, regular expressions for the whole origin (or, without "
          .. "a `:` in them, for its host), `*`; nothing: everybody" } },
      { methods = { type = "array", default = METHODS, elements = { type = "string", one_of = METHODS },
        about = "value of `Access-Control-Allow-Methods`" } },
      { headers = { type = "array", elements = { type = "string" },
        about = "value of `Access-Control-Allow-Headers`; nothing: what the browser asks for" } },
      { exposed_headers = { type = "array", elements = { type = "string" },
        about = "value of `Access-Control-Expose-Headers`" } },
      { max_age = { type = "number", about = "seconds that a browser may remember the answer to a preflight" } },
      { credentials = { type = "boolean", required = true, default = false,
        about = "requests may carry cookies and the like: `Access-Control-Allow-Credentials: true`" } },
      { private_network = { type = "boolean", required = true, default = false,
        about = "public sites may use a private network: `Access-Control-Allow-Private-Network: true` to who asks" } },
      { preflight_continue = { type = "boolean", required = true, default = false,
        about = "the service answers preflight requests" } },
      { allow_origin_absent = { type = "boolean", required = true, default = true,
        about = "answer as well to requests without an `Origin`; false: those get no fields" } },
    } } },
  },
}
