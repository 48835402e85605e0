-- SPDX-License-Identifier: Apache-2.0
local typedefs = require "sluice.typedefs"

return {
  name = "correlation-id",
  fields = {
    { consumer_group = typedefs.no_consumer_group },
    { config = { type = "record", required = true, fields = {
      { header_name = typedefs.header_name { default = "Kong-Request-ID",
        about = "field that carries the id; one that the client sends stands" } },
      { generator = { type = "string", required = true, default = "uuid#counter",
        one_of = { "uuid", "uuid#counter", "tracker" },
        about = "`uuid#counter`: a UUID of the worker and a number; `uuid`: one for each request; `tracker`: "
          .. "`ip-port-pid-connection-connection_requests-timestamp`" } },
      { echo_downstream = { type = "boolean", required = true, default = false,
        about = "the client gets the id too" } },
    } } },
  },
}
