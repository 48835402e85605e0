-- SPDX-License-Identifier: Apache-2.0
local MOST = 33554432

return {
  name = "websocket-size-limit",
  fields = {
    { protocols = { type = "set", default = { "ws", "wss" },
      elements = { type = "string", one_of = { "http", "https", "ws", "wss" } } } },
    { config = { type = "record",
      fields = {
        { client_max_payload = { type = "integer", between = { 1, MOST },
          about = "bytes that a message of the client may have" } },
        { upstream_max_payload = { type = "integer", between = { 1, MOST },
          about = "bytes that a message of the service may have" } },
      },
      entity_checks = { { at_least_one_of = { "client_max_payload", "upstream_max_payload" } } },
    } },
  },
}
