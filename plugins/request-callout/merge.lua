-- SPDX-License-Identifier: Apache-2.0
-- What came of the callouts, into the request that goes to the service.
local json = require "sluice.json"
local template = require "sluice.template"

local merge = {}

-- Groups of the route's regex by number and name.
function merge.captures(exchange)
  local captures, all = exchange.request:get_uri_captures(), {}
  for group, value in pairs(captures.unnamed) do all[group] = value end
  for name, value in pairs(captures.named) do all[name] = value end
  return all
end

local function decoded(raw)
  local value = json.decode(raw)
  return type(value) == "table" and value or nil
end

local function client_body(exchange)
  local raw, err = exchange.request:get_raw_body()
  if not raw then error("request-callout: " .. err, 0) end
  return raw ~= "" and raw or nil
end

-- The body that `given` (forward, decode) and the custom members make; nil: none. A table is to be sent as JSON.
function merge.body(exchange, given, custom)
  local raw = given.forward and client_body(exchange) or nil
  local body = raw and (given.decode or custom) and decoded(raw) or nil
  if not custom then return body or raw end
  body = body or {}
  for name, value in pairs(custom) do body[name] = value end
  return body
end

local function merge_headers(given, custom, exchange, values)
  local request = exchange.service.request
  if not given.forward then
    for name in pairs((exchange.request:get_headers(1000))) do request:clear_header(name) end
  end
  for name, value in pairs(custom and custom(values) or {}) do request:set_header(name, template.text(value)) end
end

local function merge_query(given, custom, exchange, values)
  if given.forward and not custom then return end
  local args = given.forward and exchange.request:get_query(1000) or {}
  for name, value in pairs(custom and custom(values) or {}) do
    args[name] = type(value) == "boolean" and value or template.text(value)
  end
  exchange.service.request:set_query(args)
end

local function merge_body(given, custom, exchange, values)
  if given.forward and not custom then return end
  local request = exchange.service.request
  local body = merge.body(exchange, given, custom and custom(values))
  if type(body) == "table" then
    request:set_raw_body(assert(json.encode(body)))
    request:set_header("Content-Type", "application/json")
  else
    request:set_raw_body(body or "")
  end
end

---@param given table `upstream` of the configuration
---@param plan table its templates
---@param exchange sluice.exchange
---@param values table what templates see
function merge.upstream(given, plan, exchange, values)
  merge_query(given.query, plan.query, exchange, values)
  merge_body(given.body, plan.body, exchange, values)
  merge_headers(given.headers, plan.headers, exchange, values)
end

return merge
