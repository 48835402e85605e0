-- SPDX-License-Identifier: Apache-2.0
-- Cookies of a request (RFC 6265 5.4 as servers read it), and the text of a Set-Cookie.

local core = require "sluice.api.core"

local find, match, sub = string.find, string.match, string.sub
local MESSAGE_REQUEST = core.E.MESSAGE_REQUEST

local cookie = {}

-- The value of a cookie in a Cookie field; of several the first.
---@param field string
---@param name string
---@return string|nil
function cookie.find(field, name)
  local from = 1
  while from <= #field do
    local stop = find(field, ";", from, true) or #field + 1
    local equals = find(field, "=", from, true)
    if equals and equals < stop and match(sub(field, from, equals - 1), "^%s*(.-)%s*$") == name then
      return match(sub(field, equals + 1, stop - 1), '^%s*"?(.-)"?%s*$')
    end
    from = stop + 1
  end
  return nil
end

-- The same of the request of an exchange. (HTTP/2 lets a client split its cookies over several fields.)
---@param handle number
---@param name string
---@return string|nil
function cookie.of_handle(handle, name)
  local nth = 0
  local field = core.header(handle, MESSAGE_REQUEST, "cookie", 0)
  while field do
    local value = cookie.find(field, name)
    if value then return value end
    nth = nth + 1
    field = core.header(handle, MESSAGE_REQUEST, "cookie", nth)
  end
  return nil
end

return cookie
