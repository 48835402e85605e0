-- SPDX-License-Identifier: Apache-2.0
-- Where tokens are in a request: query, cookies and header fields.
local cookie = require "sluice.cookie"

local tokens = {}

local MOST_ARGUMENTS = 1000

-- `Bearer TOKEN` to the token; the scheme in any case (RFC 9110, 11.1).
---@param value string
---@return string|nil
function tokens.bearer(value)
  local scheme, token = value:match("^%s*(%a+)%s+(%S.-)%s*$")
  if not scheme or scheme:lower() ~= "bearer" then return nil end
  return token
end

-- Keeps a token; one that was found twice is one.
local function add(found, token)
  if type(token) ~= "string" or token == "" then return end
  for i = 1, #found do
    if found[i] == token then return end
  end
  found[#found + 1] = token
end

local function in_query(conf, request, found)
  if request:get_raw_query() == "" then return end
  local arguments = request:get_query(MOST_ARGUMENTS)
  for _, name in ipairs(conf.uri_param_names) do
    local value = arguments[name]
    if type(value) == "table" then
      for _, one in ipairs(value) do add(found, one) end
    else
      add(found, value)
    end
  end
end

local function in_field(request, name, found)
  local nth = 1
  local value = request:get_header(name, nth)
  while value do
    add(found, tokens.bearer(value))
    nth = nth + 1
    value = request:get_header(name, nth)
  end
end

-- All different tokens of a request.
---@param conf table
---@param exchange sluice.exchange
---@return string[]
function tokens.find(conf, exchange)
  local found = {}
  if conf.uri_param_names then in_query(conf, exchange.request, found) end
  for _, name in ipairs(conf.cookie_names or {}) do add(found, cookie.of_handle(exchange.handle, name)) end
  for _, name in ipairs(conf.header_names or {}) do in_field(exchange.request, name, found) end
  return found
end

-- A Cookie field without those of these names; nil: nothing is left of it.
local function without(field, names)
  local kept = {}
  for pair in field:gmatch("[^;]+") do
    if not names[pair:match("^%s*([^=]-)%s*=") or ""] then kept[#kept + 1] = pair:match("^%s*(.-)%s*$") end
  end
  return kept[1] and table.concat(kept, "; ") or nil
end

local function hide_cookies(conf, exchange)
  local request, names = exchange.service.request, {}
  for _, name in ipairs(conf.cookie_names) do names[name] = true end
  local kept, nth = {}, 1
  local field = exchange.request:get_header("cookie", nth)
  while field do
    kept[nth] = without(field, names) or ""
    nth = nth + 1
    field = exchange.request:get_header("cookie", nth)
  end
  request:clear_header("Cookie")
  for _, text in ipairs(kept) do
    if text ~= "" then request:add_header("Cookie", text) end
  end
end

-- Takes the tokens from what the service will see, good ones and others, wherever they may be.
---@param conf table
---@param exchange sluice.exchange
function tokens.hide(conf, exchange)
  local request = exchange.service.request
  for _, name in ipairs(conf.header_names or {}) do
    local found = {}
    in_field(exchange.request, name, found)
    if found[1] then request:clear_alike(name) end
  end
  for _, name in ipairs(conf.uri_param_names or {}) do request:clear_query_arg(name) end
  if conf.cookie_names and conf.cookie_names[1] then hide_cookies(conf, exchange) end
end

return tokens
