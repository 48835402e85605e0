-- SPDX-License-Identifier: Apache-2.0
local PROTOCOLS = { "grpc", "grpcs", "http", "https", "ws", "wss" }

return {
  name = "bulkhead",
  fields = {
    { protocols = { type = "set", default = PROTOCOLS, elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { scope = { type = "string", required = true, default = "service", one_of = { "service", "route" },
        about = "what a bulkhead is for: all requests to a service, or those of a route" } },
      { max_concurrent_calls = { type = "integer", required = true, default = 25, between = { 1, 1000000 },
        about = "requests in flight at the same time, over all workers" } },
      { max_wait_duration = { type = "number", required = true, default = 0, between = { 0, 60 },
        about = "seconds that a request waits for its turn when there are as many; 0: it does not" } },
      { max_waiting_calls = { type = "integer", required = true, default = 100, between = { 1, 100000 },
        about = "requests that wait at the same time, over all workers" } },
      { status = { type = "integer", required = true, default = 503, between = { 400, 599 },
        about = "status of a request that gets no turn" } },
      { message = { type = "string", required = true, default = "Too many requests are in flight",
        about = "its message" } },
      { retry_after = { type = "integer", between = { 0, 86400 },
        about = "seconds that its client is told to wait, in Retry-After; not told unless set" } },
    } } },
  },
}
