-- SPDX-License-Identifier: Apache-2.0
-- Who sends a request is told by a signed token. Its signature is verified once: what came of it is kept, and holds as
-- long as the token itself, its credential (or the issuer's key) and its consumer stay what they were.
local authentication = require "sluice.authentication"
local credentials = require "jwt.credentials"
local issuer = require "jwt.issuer"
local jwt = require "sluice.jwt"
local recent = require "sluice.recent"
local time = require "sluice.time"
local tokens = require "jwt.tokens"

local handler = { version = "1.0.0", priority = 1450 }

local ENTRY_BYTES = 512 -- of the tables that stand for a token

local cache = recent.new(8192, 8 * 1024 * 1024, ENTRY_BYTES) -- by configuration and text: what was verified
local plans = setmetatable({}, { __mode = "k" }) -- by configuration

local function empty(list)
  return not list or #list == 0
end

-- The fields of a 401: without a token, and with one that is not good (RFC 6750, 3).
local function challenges_of(conf)
  local missing = authentication.challenge("Bearer", conf.realm)
  local said = missing["WWW-Authenticate"]
  return missing, { ["WWW-Authenticate"] = said .. (conf.realm and ", " or " ") .. 'error="invalid_token"' }
end

function handler.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local plan = plans[conf] or {}
    plans[conf] = plan
    plan.missing, plan.invalid = challenges_of(conf)
    -- The usual case: a token can be in one header field only, if there is no query.
    plan.field = empty(conf.cookie_names) and not empty(conf.header_names) and not conf.header_names[2]
      and conf.header_names[1] or nil
    plan.query = not empty(conf.uri_param_names)
    plan.issuer = conf.jwks and issuer.open(conf.jwks)
  end
end

-- ---- Verifying ----

local function check_times(conf, claims, now, wanted)
  local errors
  for _, name in ipairs(wanted) do
    local err = jwt.check_time(claims, name, now, conf.leeway)
    if err then
      errors = errors or {}
      errors[name] = err
    end
  end
  if errors then return errors end
  local most = conf.maximum_expiration or 0
  if most > 0 and claims.exp - now > most then return { exp = "exceeds maximum allowed expiration" } end
end

-- An issuer's times hold where it says some, whether they were asked for or not.
local function times_of(conf, claims)
  local wanted = conf.claims_to_verify or {}
  if not conf.jwks then return wanted end
  local all = { wanted[1], wanted[2] }
  for _, name in ipairs { "exp", "nbf" } do
    if claims[name] ~= nil and all[1] ~= name and all[2] ~= name then all[#all + 1] = name end
  end
  return all
end

-- When a token's result may be used: not before `nbf` or once `exp` has come, whatever is verified.
local function set_span(entry, conf, claims, now)
  local leeway = conf.leeway
  entry.from = type(claims.nbf) == "number" and math.min(claims.nbf - leeway, now) or 0
  entry.till = type(claims.exp) == "number" and claims.exp + leeway or math.huge
end

-- What a token says, as an entry of the cache; or nil, what is wrong and, for claims, by name.
local function verify(conf, plan, exchange, token)
  local decoded, err = jwt.decode(token)
  if not decoded then return nil, "Bad token; " .. err end
  local entry
  if plan.issuer then
    entry, err = issuer.verify(conf.jwks, plan.issuer, exchange.client, decoded)
  else
    entry, err = credentials.verify(conf, exchange.client, decoded)
  end
  if not entry then return nil, err end
  local now = time.now()
  local errors = check_times(conf, decoded.claims, now, times_of(conf, decoded.claims))
  if errors then return nil, nil, errors end
  entry.token = token
  set_span(entry, conf, decoded.claims, now)
  return entry
end

-- ---- Whose it is ----

local function set_consumer(exchange, entry)
  local client = exchange.client
  client:authenticate(entry.consumer, entry.credential)
  client:forward_identity(entry.identifier)
  exchange.ctx.authenticated_jwt_token = entry.token
end

-- Whether what was found out still holds, in the configuration that the exchange sees.
local function holds(entry, client, now)
  if now >= entry.till or now < entry.from then return false end
  if entry.key and not entry.key.alive then return false end
  if entry.key == nil and client:load_credential("jwt_secrets", "key", entry.identifier) ~= entry.credential then
    return false
  end
  local consumer = entry.consumer
  return not consumer or client:load_consumer(consumer.id) == consumer
end

local function known(conf, exchange, text)
  local entry = cache:get(conf, text)
  if not entry or not holds(entry, exchange.client, time.now()) then return false end
  set_consumer(exchange, entry)
  return true
end

-- The header field, when nothing else can hold a token.
local function only_field(plan, request)
  if not plan.field or plan.query and request:get_raw_query() ~= "" then return nil end
  local value, several = request:get_only_header(plan.field)
  if several then return nil end
  return value
end

-- nil when it is known who it is; else what is wrong, or what is wrong with claims, and the fields of the answer.
local function authenticate(conf, plan, exchange)
  local text = only_field(plan, exchange.request)
  if text and known(conf, exchange, text) then return nil end
  local found = tokens.find(conf, exchange)
  if not found[1] then return { message = "Unauthorized" }, plan.missing end
  if found[2] then return { message = "Multiple tokens provided" }, plan.invalid end
  local token = found[1]
  text = text or "\0" .. token -- no header field is equal to that
  if known(conf, exchange, text) then return nil end
  local entry, message, errors = verify(conf, plan, exchange, token)
  if not entry then return errors or { message = message }, plan.invalid end
  cache:put(conf, text, entry)
  set_consumer(exchange, entry)
  return nil
end

function handler.access(conf, exchange)
  local client = exchange.client
  if not conf.run_on_preflight and exchange.request:get_method() == "OPTIONS" then
    if not client:get_consumer() then client:clear_identity() end
    return
  end
  if authentication.is_settled(conf, exchange) then return end
  local problem, headers = authenticate(conf, plans[conf], exchange)
  if conf.hide_credentials then tokens.hide(conf, exchange) end
  if not problem then return end
  if conf.anonymous then return authentication.refuse(conf, exchange) end
  if problem.message == issuer.UNAVAILABLE then exchange.response:error(503, issuer.UNAVAILABLE) end
  exchange.response:exit(401, problem, headers)
end

return handler
