-- SPDX-License-Identifier: Apache-2.0
local PROTOCOLS = { "grpc", "grpcs", "http", "https", "ws", "wss" }

return {
  name = "retry-budget",
  fields = {
    { protocols = { type = "set", default = PROTOCOLS, elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { retry_ratio = { type = "number", required = true, default = 0.2, between = { 0, 100 },
        about = "retries for each request of the last `ttl` seconds: 0.2 is one for five" } },
      { min_retries_per_second = { type = "number", required = true, default = 10, between = { 0, 1000000 },
        about = "retries a second besides, so that a service with few requests has some" } },
      { ttl = { type = "number", required = true, default = 10, between = { 1, 3600 },
        about = "seconds for which a request counts" } },
    } } },
  },
}
