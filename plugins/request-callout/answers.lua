-- SPDX-License-Identifier: Apache-2.0
-- Answers of callouts: what is kept of them for a request, and the cache, which all workers share.
local crypto = require "sluice.crypto"
local json = require "sluice.json"
local log = require "sluice.log"
local store = require "sluice.store"

local answers = {}

-- A text that is the same for equal tables.
local function canonical(value)
  if type(value) ~= "table" then return type(value) .. ":" .. tostring(value) end
  local names, parts = {}, {}
  for name in pairs(value) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  for i, name in ipairs(names) do
    local one = canonical(value[name])
    parts[i] = ("%s=%d:%s"):format(tostring(name), #one, one)
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

local function group_names(exchange)
  local names = {}
  for i, group in ipairs(exchange.client:get_consumer_groups() or {}) do names[i] = group.name end
  return names
end

-- The key of a callout's answer, of what Kong's is made of; nil: it is not cached.
function answers.key(conf, exchange, call, context)
  local caching, cache = context.caching, conf.cache
  if cache.strategy == "off" or caching.bypass then return nil end
  caching.cache_ttl = caching.cache_ttl or cache.cache_ttl
  if caching.cache_key then return "request-callout:" .. crypto.hex(crypto.digest("sha256", caching.cache_key)) end
  local route, consumer, params = exchange.router:get_route(), exchange.client:get_consumer(), context.request.params
  local text = canonical { route and route.id or "", conf.__plugin_id or "", consumer and consumer.id or "",
    group_names(exchange), call.name, params.method, params.url, params.query or {}, params.headers or {},
    params.body or "" }
  return "request-callout:" .. crypto.hex(crypto.digest("sha256", text))
end

-- The answer that the cache has.
function answers.get(context)
  local key = context.caching.key
  local text = key and store.get(key)
  return text and json.decode(text) or nil
end

-- Keeps what is to be kept of an answer: after code of the configuration has had its turn.
function answers.put(context)
  local key, response = context.caching.key, context.response
  if not key or not response then return end
  local text = json.encode(response)
  local ok, err
  if text then ok, err = store.set(key, text, context.caching.cache_ttl) end
  if not ok then log.warn("callout not cached", { error = err or "it is no JSON" }) end
end

-- `answer`: of the HTTP client, or of the cache.
function answers.store(call, context, answer)
  local given = call.given.response
  local response = { status = answer.status }
  if given.headers.store then response.headers = answer.headers end
  if given.body.store then
    response.body = answer.body
    if given.body.decode and type(answer.body) == "string" then
      local value, err = json.decode(answer.body)
      if err then log.warn("callout's body is no JSON", { callout = call.name, error = err }) end
      response.body = value
    end
  end
  context.response = response
end

return answers
