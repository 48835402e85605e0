-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults, `ssl_verify` and `queue`.
local logging = require "sluice.logging"
local typedefs = require "sluice.typedefs"

return {
  name = "tcp-log",
  fields = {
    { protocols = typedefs.protocols },
    { consumer_group = typedefs.no_consumer_group },
    { config = { type = "record", required = true, fields = {
      { host = typedefs.host { required = true, about = "where lines are sent" } },
      { port = typedefs.port { required = true, about = "and to which port" } },
      { timeout = { type = "number", default = 10000,
        about = "milliseconds for connecting, and for each batch of lines" } },
      { keepalive = { type = "number", default = 60000,
        about = "milliseconds that the connection may lie idle before it is closed" } },
      { tls = { type = "boolean", required = true, default = false, about = "whether TLS is spoken" } },
      { tls_sni = { type = "string", about = "server name to ask for, and to verify; `host` unless told" } },
      { ssl_verify = { type = "boolean", default = false, about = "whether the server's certificate must be good" } },
      { queue = typedefs.queue_with { max_batch_size = 200, max_coalescing_delay = 0.1 } },
      { custom_fields_by_lua = logging.custom_fields_by_lua },
    } } },
  },
}
