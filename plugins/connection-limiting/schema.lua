-- SPDX-License-Identifier: Apache-2.0
local typedefs = require "sluice.typedefs"

local PROTOCOLS = { "tcp", "tls", "tls_passthrough" }

local function count(about)
  return { type = "integer", gt = 0, about = about }
end

return {
  name = "connection-limiting",
  fields = {
    { consumer = typedefs.no_consumer },
    { consumer_group = typedefs.no_consumer_group },
    { protocols = { type = "set", required = true, default = PROTOCOLS,
      elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { connections = count "streams that may be open at the same time" },
      { second = count "new streams in one second" },
      { minute = count "new streams in one minute" },
      { hour = count "new streams in one hour" },
      { limit_by = { type = "string", default = "ip", one_of = { "ip", "service", "route" },
        about = "whose streams are counted together: those of a client's address, to a service, or of a route" } },
      { message = { type = "string", default = "connection limit exceeded",
        about = "what the log gets of a refusal" } },
    }, entity_checks = { { at_least_one_of = { "connections", "second", "minute", "hour" } } } } },
  },
}
