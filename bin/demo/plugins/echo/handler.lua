-- SPDX-License-Identifier: Apache-2.0
-- echo/handler.lua: the demo's upstream. Answers every request with what has arrived, as JSON.
local echo = { version = "1.0.0", priority = 1 }

function echo.access(_, exchange)
  local request = exchange.request
  exchange.response:exit(200, {
    method = request:get_method(),
    path = request:get_path(),
    headers = request:get_headers(),
  })
end

return echo
