-- SPDX-License-Identifier: Apache-2.0
-- Bounds the messages of a WebSocket, those of its client and those of its service.
local websocket_size_limit = { version = "1.0.0", priority = 1003 }

function websocket_size_limit.access(conf, exchange)
  local websocket = exchange.websocket
  if conf.client_max_payload then websocket.client:set_max_payload_size(conf.client_max_payload) end
  if conf.upstream_max_payload then websocket.upstream:set_max_payload_size(conf.upstream_max_payload) end
end

return websocket_size_limit
