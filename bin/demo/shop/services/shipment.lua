-- SPDX-License-Identifier: Apache-2.0
-- The shipment service: it is told of payments, for what is not paid is not sent. It knows neither Kafka nor the
-- payment service: the gateway tells it, and it tells the gateway.
local json = require "sluice.json"
local sluice = require "sluice"

local function tell(exchange, path, event)
  local request = exchange.request
  return sluice.http.request {
    url = ("http://127.0.0.1:%d%s"):format(request:get_port(), path), method = "POST", body = json.encode(event),
    headers = { ["Content-Type"] = "application/json", ["Correlation-Id"] = request:get_header("correlation-id"),
      traceparent = request:get_header("traceparent") },
  }
end

return { POST = function(exchange)
  local payment = exchange.request:get_body()
  local response, err = tell(exchange, "/shop/shipments", { event = "ParcelSent", order = payment.order, by = "bike" })
  if not response or response.status >= 300 then return 503, { message = err or response.body } end
  return { message = "sent" }
end }
