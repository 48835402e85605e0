-- SPDX-License-Identifier: Apache-2.0
-- The request's Prefer (RFC 7240), as far as it is of use here: respond-async, and wait=SECONDS.
local prefer = {}

-- { async = boolean, wait = seconds or nil }. Of a preference that is given twice the first one counts.
---@param exchange sluice.exchange
function prefer.of(exchange)
  local found, nth = { async = false, wait = nil }, 1
  local field = exchange.request:get_header("prefer", nth)
  while field do
    for part in field:gmatch("[^,]+") do
      local name, value = part:match("^%s*([%w!#$%%&'*+.^_`|~-]+)%s*=?%s*\"?([^;\"%s]*)")
      name = name and name:lower()
      if name == "respond-async" then
        found.async = true
      elseif name == "wait" and not found.wait and value:find("^%d+$") and #value < 10 then
        found.wait = tonumber(value)
      end
    end
    nth = nth + 1
    field = exchange.request:get_header("prefer", nth)
  end
  return found
end

return prefer
