-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults, and `ssl_verify`.
local logging = require "sluice.logging"
local typedefs = require "sluice.typedefs"

return {
  name = "http-log",
  fields = {
    { protocols = typedefs.protocols },
    { consumer_group = typedefs.no_consumer_group },
    { config = { type = "record", required = true, fields = {
      { http_endpoint = typedefs.url { required = true, encrypted = true, referenceable = true,
        about = "where entries are sent; `user:password@` in it becomes an Authorization field" } },
      { method = { type = "string", default = "POST", one_of = { "POST", "PUT", "PATCH" },
        about = "method of these requests" } },
      { content_type = { type = "string", default = "application/json",
        one_of = { "application/json", "application/json; charset=utf-8" }, about = "their Content-Type" } },
      { timeout = { type = "number", default = 10000, about = "milliseconds that one of them may take" } },
      { keepalive = { type = "number", default = 60000,
        about = "milliseconds that a connection may lie idle before it is closed" } },
      { headers = { type = "map", about = "more fields of these requests",
        keys = typedefs.header_name { match_none = {
          { pattern = "^[Hh][Oo][Ss][Tt]$", err = "cannot contain 'Host' header" },
          { pattern = "^[Cc][Oo][Nn][Tt][Ee][Nn][Tt]%-[Ll][Ee][Nn][Gg][Tt][Hh]$",
            err = "cannot contain 'Content-Length' header" },
          { pattern = "^[Cc][Oo][Nn][Tt][Ee][Nn][Tt]%-[Tt][Yy][Pp][Ee]$",
            err = "cannot contain 'Content-Type' header" },
        } },
        values = { type = "string", referenceable = true } } },
      { ssl_verify = { type = "boolean", default = false,
        about = "whether the server's certificate must be good, for https" } },
      { queue = typedefs.queue },
      { custom_fields_by_lua = logging.custom_fields_by_lua },
      { retry_count = { type = "integer", about = "without effect, see `queue`",
        deprecation = { message = "retry_count does nothing, see queue.max_retry_time" } } },
      { queue_size = { type = "integer", about = "older name of `queue.max_batch_size`",
        deprecation = { message = "use queue.max_batch_size in place of queue_size" } } },
      { flush_timeout = { type = "number", about = "older name of `queue.max_coalescing_delay`",
        deprecation = { message = "use queue.max_coalescing_delay in place of flush_timeout" } } },
    } } },
  },
}
