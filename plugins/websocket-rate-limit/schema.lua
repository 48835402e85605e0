-- SPDX-License-Identifier: Apache-2.0
local MOST = 2147483647

return {
  name = "websocket-rate-limit",
  fields = {
    { protocols = { type = "set", default = { "http", "https", "ws", "wss" },
      elements = { type = "string", one_of = { "http", "https", "ws", "wss" } } } },
    { config = { type = "record",
      fields = {
        { second = { type = "integer", between = { 1, MOST }, about = "messages that a client may send in a second" } },
        { minute = { type = "integer", between = { 1, MOST }, about = "messages that a client may send in a minute" } },
        { limit_by = { type = "string", default = "ip", one_of = { "ip", "consumer", "connection" },
          about = "who counts as one client; a consumer that is not known counts by its address" } },
        { action = { type = "string", default = "close", one_of = { "close", "drop" },
          about = "what becomes of a message too many: it closes the WebSocket with 1008, or goes no further" } },
        { message = { type = "string", default = "Too many messages", len_max = 123,
          about = "reason that the client is told in the close" } },
        { count_control = { type = "boolean", default = false, about = "count pings and pongs too" } },
      },
      entity_checks = { { at_least_one_of = { "second", "minute" } } },
    } },
  },
}
