-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults.
local typedefs = require "sluice.typedefs"

local ALL = { "grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp", "ws", "wss" }

local function ranges(about)
  return { type = "array", elements = typedefs.ip_or_cidr, about = about }
end

return {
  name = "ip-restriction",
  fields = {
    { protocols = { type = "set", required = true, default = { "grpc", "grpcs", "http", "https", "tcp", "tls" },
      elements = { type = "string", one_of = ALL } } },
    { config = { type = "record", required = true, fields = {
      { allow = ranges "addresses and ranges that may come in; everybody else may not" },
      { deny = ranges "addresses and ranges that may not, whatever `allow` says" },
      { status = { type = "number", between = { 200, 599 }, about = "status of the answer; 403 unless told" } },
      { message = { type = "string",
        about = "message of the answer; `IP address not allowed: ` and the address unless told" } },
    }, shorthand_fields = typedefs.formerly { whitelist = "allow", blacklist = "deny" },
      entity_checks = { { at_least_one_of = { "allow", "deny" } } } } },
  },
}
