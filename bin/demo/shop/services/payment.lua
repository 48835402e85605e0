-- SPDX-License-Identifier: Apache-2.0
-- The payment service: the gateway tells it of each order, by HTTP. When it has taken the money it tells the gateway,
-- by HTTP too. It knows neither Kafka nor who listens.
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
  local order = exchange.request:get_body()
  local response, err = tell(exchange, "/shop/payments", { event = "PaymentTaken", order = order.order, cents = 4200 })
  if not response or response.status >= 300 then return 503, { message = err or response.body } end
  return { message = "paid" }
end }
