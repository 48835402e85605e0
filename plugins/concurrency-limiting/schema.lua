-- SPDX-License-Identifier: Apache-2.0
local typedefs = require "sluice.typedefs"

local PROTOCOLS = { "grpc", "grpcs", "http", "https", "ws", "wss" }

local function needs(value, then_field)
  return { conditional = { if_field = "limit_by", if_match = { eq = value }, then_field = then_field,
    then_match = { required = true } } }
end

return {
  name = "concurrency-limiting",
  fields = {
    { protocols = { type = "set", required = true, default = PROTOCOLS,
      elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { requests = { type = "integer", required = true, between = { 1, 1000000 },
        about = "requests of one subject that may be in flight at the same time" } },
      { limit_by = { type = "string", required = true, default = "consumer",
        one_of = { "consumer", "credential", "ip", "service", "route", "header", "path", "consumer-group" },
        about = "whose requests are counted together; where there is none of it, the client's address" } },
      { header_name = typedefs.header_name { about = "of `limit_by: header`" } },
      { path = typedefs.path { about = "of `limit_by: path`" } },
      { error_code = { type = "integer", required = true, default = 429, between = { 400, 599 },
        about = "status of a refusal" } },
      { error_message = { type = "string", required = true, default = "Too many requests at the same time",
        about = "message of a refusal" } },
      { retry_after = { type = "integer", between = { 0, 86400 },
        about = "seconds that a refused client is told to wait, in Retry-After; not told unless set" } },
      { fault_tolerant = { type = "boolean", required = true, default = true,
        about = "requests that cannot be counted, for want of room, pass; false: they get 500" } },
    }, entity_checks = { needs("header", "header_name"), needs("path", "path") } } },
  },
}
