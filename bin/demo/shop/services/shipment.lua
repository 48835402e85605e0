-- SPDX-License-Identifier: Apache-2.0
-- The shipment service: it is told of payments, for what is not paid is not sent. It knows neither Kafka nor the
-- payment service: the gateway tells it, and it tells the gateway.
local json = require "sluice.json"
local sluice = require "sluice"

local function tell(exchange, path, event)
  local request, span = exchange.request, sluice.tracing.start_span("tell of it", { kind = "client" })
  local response, err = sluice.http.request {
    url = ("http://127.0.0.1:%d%s"):format(request:get_port(), path), method = "POST", body = json.encode(event),
    headers = { ["Content-Type"] = "application/json", ["Correlation-Id"] = request:get_header("correlation-id"),
      traceparent = span:traceparent() or request:get_header("traceparent") },
  }
  span:finish()
  return response, err
end

return { POST = function(exchange)
  local payment = exchange.request:get_body()
  local response, err = tell(exchange, "/shop/shipments", { event = "ParcelSent", order = payment.order, by = "bike" })
  if not response or response.status >= 300 then return 503, { message = err or response.body } end
  return { message = "sent" }
end }
