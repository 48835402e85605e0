-- SPDX-License-Identifier: Apache-2.0
-- Answers of callouts: what is kept of them for a request, and the cache, which all workers share, and with Redis all
-- gateways.
local crypto = require "sluice.crypto"
local json = require "sluice.json"
local limits = require "sluice.limits"
local log = require "sluice.log"
local redis = require "sluice.redis"
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

-- Scripts go where a cluster has their key.
local GET = "return redis.call('GET', KEYS[1])"
local SET = "return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])"

local servers = setmetatable({}, { __mode = "k" }) -- by configuration: options of sluice.redis

-- What stands between the gateway and Redis takes no more of the time than is left for all callouts.
local function ask(conf, left, script, key, args)
  local options = servers[conf]
  if not options then
    options = limits.redis_options(conf.cache.redis)
    servers[conf] = options
  end
  if left <= 0 then return nil, "timeout" end
  if left < options.deadline then
    local hurried = { deadline = left }
    for name, value in pairs(options) do hurried[name] = hurried[name] or value end
    options = hurried
  end
  return redis.eval(options, script, { key }, args)
end

-- The answer that the cache has. `left`: seconds that are left for it.
function answers.get(conf, context, left)
  local key = context.caching.key
  if not key then return nil end
  if conf.cache.strategy == "memory" then
    local text = store.get(key)
    return text and json.decode(text) or nil
  end
  local text, err = ask(conf, left, GET, key)
  if err then log.warn("callouts' cache cannot be asked", { error = err }) end
  return type(text) == "string" and json.decode(text) or nil
end

-- Keeps what is to be kept of an answer: after code of the configuration has had its turn.
function answers.put(conf, context, left)
  local key, response = context.caching.key, context.response
  if not key or not response then return end
  local ttl = context.caching.cache_ttl
  local text, ok, err = json.encode(response), nil, "it is no JSON"
  if text and conf.cache.strategy == "memory" then
    ok, err = store.set(key, text, ttl)
  elseif text then
    ok, err = ask(conf, left, SET, key, { text, math.max(math.floor(ttl), 1) })
  end
  if not ok then log.warn("callout not cached", { error = err }) end
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
