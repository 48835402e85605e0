-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults.
local logging = require "sluice.logging"
local typedefs = require "sluice.typedefs"

return {
  name = "udp-log",
  fields = {
    { protocols = typedefs.protocols },
    { consumer_group = typedefs.no_consumer_group },
    { config = { type = "record", required = true, fields = {
      { host = typedefs.host { required = true, about = "where datagrams are sent" } },
      { port = typedefs.port { required = true, about = "and to which port" } },
      { timeout = { type = "number", default = 10000, about = "without effect: a datagram waits for nothing" } },
      { custom_fields_by_lua = logging.custom_fields_by_lua },
    } } },
  },
}
