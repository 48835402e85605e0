-- SPDX-License-Identifier: Apache-2.0
-- The payment service: the gateway tells it of each order, by HTTP. When it has taken the money it tells the gateway,
-- by HTTP too. It knows neither Kafka nor who listens.
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
  local order = exchange.request:get_body()
  local response, err = tell(exchange, "/shop/payments", { event = "PaymentTaken", order = order.order, cents = 4200 })
  if not response or response.status >= 300 then return 503, { message = err or response.body } end
  return { message = "paid" }
end }
