-- SPDX-License-Identifier: Apache-2.0
-- Who sends a request is told by a key: in a header, the query or the body, in this order for each name.
local time = require "sluice.time"

local key_auth = { version = "1.0.0", priority = 1250 }

local MISSING, DUPLICATE, WRONG = "No API key found in request", "Duplicate API key found", "Unauthorized"
local MOST_ARGUMENTS = 1000
local NO_BODY = {}

local challenges = setmetatable({}, { __mode = "k" }) -- by configuration: fields of a refusal

local function challenge_of(conf)
  if not conf.realm then return { ["WWW-Authenticate"] = "Key" } end
  return { ["WWW-Authenticate"] = 'Key realm="' .. conf.realm:gsub('[\\"]', "\\%0") .. '"' }
end

function key_auth.configure(confs)
  for _, conf in ipairs(confs or {}) do challenges[conf] = challenge_of(conf) end
end

-- ---- Where keys are ----

-- Each of these gives the key, and whether there are several.

local function in_arguments(arguments, name)
  local value = arguments[name]
  return type(value) == "string" and value or nil, type(value) == "table"
end

-- What cannot be read as arguments holds no key, and is the service's business.
local function body_of(request)
  local body = request:get_body()
  return type(body) == "table" and body or NO_BODY
end

local function under_name(conf, request, name)
  local key, several
  if conf.key_in_header then key, several = request:get_only_header(name) end
  if not key and conf.key_in_query and request:get_raw_query() ~= "" then
    key, several = in_arguments(request:get_query(MOST_ARGUMENTS), name)
  end
  if not key and not several and conf.key_in_body then key, several = in_arguments(body_of(request), name) end
  return key, several
end

-- The key of a request, or why there is none.
local function find(conf, request)
  local names = conf.key_names
  for i = 1, #names do
    local key, several = under_name(conf, request, names[i])
    if several then return nil, DUPLICATE end
    if key == "" then return nil, MISSING end
    if key then return key end
  end
  return nil, MISSING
end

-- ---- Hiding them ----

local function hide_in_body(conf, exchange)
  local body, found = body_of(exchange.request), false
  for _, name in ipairs(conf.key_names) do
    found = found or body[name] ~= nil
    body[name] = nil
  end
  if found then exchange.service.request:set_body(body) end
end

-- Under every name, for what is no key here may be one elsewhere.
local function hide(conf, exchange)
  local request, names = exchange.service.request, conf.key_names
  for i = 1, #names do
    request:clear_alike(names[i])
    request:clear_query_arg(names[i])
  end
  if conf.key_in_body then hide_in_body(conf, exchange) end
end

-- ---- Whose they are ----

-- A credential with a `ttl` ends that many seconds after its `created_at`.
local function is_over(credential)
  local ttl, from = credential.ttl, credential.created_at
  return ttl and ttl > 0 and from and from + ttl <= time.now()
end

local function set_consumer(client, consumer, credential)
  client:authenticate(consumer, credential)
  client:forward_identity(credential and credential.id)
end

-- nil when it is known who it is, else what is wrong.
local function authenticate(conf, exchange)
  local key, problem = find(conf, exchange.request)
  if conf.hide_credentials then hide(conf, exchange) end
  if not key then return problem end
  local client = exchange.client
  local credential = client:load_credential("keyauth_credentials", "key", key)
  if not credential or is_over(credential) then return WRONG end
  set_consumer(client, client:load_consumer(credential.consumer), credential)
end

local function go_on_as_anonymous(conf, exchange)
  local consumer = exchange.client:load_consumer(conf.anonymous, true)
  if not consumer then
    exchange.response:error(500, "anonymous consumer " .. conf.anonymous .. " is configured but doesn't exist")
  end
  set_consumer(exchange.client, consumer, nil)
end

function key_auth.access(conf, exchange)
  local client = exchange.client
  if not conf.run_on_preflight and exchange.request:get_method() == "OPTIONS" then
    if not client:get_consumer() then client:clear_identity() end
    return
  end
  if conf.anonymous and client:get_credential() then return end -- another plugin knows who it is, and one is enough
  local problem = authenticate(conf, exchange)
  if not problem then return end
  if conf.anonymous then return go_on_as_anonymous(conf, exchange) end
  exchange.response:error(401, problem, challenges[conf])
end

return key_auth
