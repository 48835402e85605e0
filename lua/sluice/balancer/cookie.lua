-- SPDX-License-Identifier: Apache-2.0
-- Cookies that policies choose by: what the client sent, and what it is told to send from now on.

local ffi = require "ffi"
local native = require "sluice.ffi"

local C, worker = native.C, native.worker
local find, sub = string.find, string.sub

local cookie = {}

local OK = 0
local MOST = 256 -- bytes of a value that is looked at
local bytes = ffi.new("struct bytes[1]")

-- The value of a cookie in the text of a field Cookie, without quotes around it.
---@param text string
---@param name string
---@return string|nil
function cookie.value(text, name)
  local from = 1
  while from <= #text do
    local stop = find(text, ";", from, true) or #text + 1
    local start = find(text, "[^ \t]", from)
    if start and start < stop and sub(text, start, start + #name) == name .. "=" then
      local value = sub(text, start + #name + 1, stop - 1):match("^%s*(.-)%s*$")
      return value:match('^"(.*)"$') or value
    end
    from = stop + 1
  end
end

-- What the client sent under that name; nil: nothing that could be a value.
---@param exchange number
---@param name string
---@return string|nil
function cookie.sent(exchange, name)
  local nth = 0
  while C.bridge_header_get(worker, exchange, C.MESSAGE_REQUEST, "Cookie", 6, nth, bytes) == OK do
    local value = cookie.value(ffi.string(bytes[0].data, bytes[0].len), name)
    if value and value ~= "" and #value <= MOST then return value end
    nth = nth + 1
  end
end

-- What an earlier try of the exchange has told the client.
---@param exchange number
---@param name string
---@return string|nil
function cookie.told(exchange, name)
  local nth, start = 0, name .. "="
  while C.bridge_header_get(worker, exchange, C.MESSAGE_RESPONSE, "Set-Cookie", 10, nth, bytes) == OK do
    local text = ffi.string(bytes[0].data, bytes[0].len)
    if sub(text, 1, #start) == start then return (text:match("=([^;]*)")) end
    nth = nth + 1
  end
end

local function add(exchange, text)
  C.bridge_header_add(worker, exchange, C.MESSAGE_RESPONSE, "Set-Cookie", 10, text, #text)
end

-- Takes back what an earlier try has told of this cookie; those of plugins stay.
local function take_back(exchange, start)
  local others, nth = {}, 0
  while C.bridge_header_get(worker, exchange, C.MESSAGE_RESPONSE, "Set-Cookie", 10, nth, bytes) == OK do
    local text = ffi.string(bytes[0].data, bytes[0].len)
    if sub(text, 1, #start) ~= start then others[#others + 1] = text end
    nth = nth + 1
  end
  C.bridge_header_clear(worker, exchange, C.MESSAGE_RESPONSE, "Set-Cookie", 10)
  for _, text in ipairs(others) do add(exchange, text) end
end

---@param exchange number
---@param name string
---@param value string
---@param attributes string such as "; Path=/"
function cookie.tell(exchange, name, value, attributes)
  if cookie.told(exchange, name) then take_back(exchange, name .. "=") end
  add(exchange, name .. "=" .. value .. attributes)
end

return cookie
