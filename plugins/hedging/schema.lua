-- SPDX-License-Identifier: Apache-2.0
local PROTOCOLS = { "grpc", "grpcs", "http", "https" }
local METHODS = { "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE" }

return {
  name = "hedging",
  fields = {
    { protocols = { type = "set", default = PROTOCOLS, elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { delay = { type = "number", between = { 0, 3600 },
        about = "seconds without a response after which another target is asked too" } },
      { percentile = { type = "number", between = { 50, 99.9 },
        about = "the same as what so many percent of the requests take; one of both must be given" } },
      { initial_delay = { type = "number", required = true, default = 1, between = { 0, 3600 },
        about = "seconds until a percentile is known" } },
      { min_delay = { type = "number", required = true, default = 0.005, between = { 0, 3600 },
        about = "seconds that a percentile's delay has at least" } },
      { methods = { type = "set", required = true, default = { "GET", "HEAD", "OPTIONS" }, len_min = 1,
        elements = { type = "string", one_of = METHODS }, about = "of requests that may be sent twice" } },
      { hedge_ratio = { type = "number", required = true, default = 0.1, between = { 0, 1 },
        about = "second tries for each request of the last `ttl` seconds: 0.1 is one for ten" } },
      { min_hedges_per_second = { type = "number", required = true, default = 1, between = { 0, 1000000 },
        about = "second tries a second besides" } },
      { ttl = { type = "number", required = true, default = 10, between = { 1, 3600 },
        about = "seconds for which a request counts" } },
    }, entity_checks = { { only_one_of = { "delay", "percentile" } } } } },
  },
}
