-- SPDX-License-Identifier: Apache-2.0
-- Refuses requests with too large a body: by Content-Length at once, else when the limit is passed.
local limiting = { version = "1.0.0", priority = 951 }

local UNITS = { bytes = 1, kilobytes = 1024, megabytes = 1024 * 1024 }
local TOO_LARGE, NO_LENGTH = "Request size limit exceeded", "A valid Content-Length header is required"

-- Who waits for leave to send its body is told that it will not get it.
local function refuse(exchange)
  local expect = exchange.request:get_header("expect")
  exchange.response:error(expect and expect:lower() == "100-continue" and 417 or 413, TOO_LARGE)
end

function limiting.access(conf, exchange)
  local request = exchange.request
  local most = conf.allowed_payload_size * UNITS[conf.size_unit]
  local length = tonumber(request:get_header("content-length"))
  if length then
    if length > most then refuse(exchange) end
    return
  end
  if conf.require_content_length then exchange.response:error(411, NO_LENGTH) end
  -- A limit of nothing is passed by the first byte.
  if most < 1 and request:get_raw_body() ~= "" or most >= 1 and not request:limit_body(most) then refuse(exchange) end
end

return limiting
