-- SPDX-License-Identifier: Apache-2.0
-- How long a client is ready to wait: `Prefer: wait=SECONDS` (RFC 7240), or the argument `wait`.
local prefer = {}

---@return number|nil seconds
function prefer.wait(exchange)
  local nth = 1
  while true do
    local field = exchange.request:get_header("prefer", nth)
    if not field then break end
    for part in field:gmatch("[^,;]+") do
      local seconds = part:lower():match("^%s*wait%s*=%s*\"?(%d+)\"?%s*$")
      if seconds then return tonumber(seconds) end
    end
    nth = nth + 1
  end
  local argument = exchange.request:get_query_arg("wait")
  return type(argument) == "string" and tonumber(argument:match("^%d+%.?%d*$")) or nil
end

return prefer
