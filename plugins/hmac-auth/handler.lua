-- SPDX-License-Identifier: Apache-2.0
-- Who sends a request is told by a signature of some of its fields, made with a secret that both sides know.
local authentication = require "sluice.authentication"
local crypto = require "sluice.crypto"
local signatures = require "hmac-auth.signatures"
local time = require "sluice.time"

local hmac_auth = { version = "1.0.0", priority = 1030 }

local MISSING = "Unauthorized"
local LATE = "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication"
local UNKNOWN, WRONG = "HMAC signature cannot be verified", "HMAC signature does not match"
local FIELDS = { "proxy-authorization", "authorization" } -- in the order in which they are looked at
local DATES = { "x-date", "date" }

local challenges = setmetatable({}, { __mode = "k" }) -- by configuration: fields of a refusal
local demands = setmetatable({}, { __mode = "k" })    -- by configuration: { algorithms = set, fields = names }

function hmac_auth.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local demand = { algorithms = {}, fields = {} }
    for _, algorithm in ipairs(conf.algorithms or {}) do demand.algorithms[algorithm] = true end
    for i, name in ipairs(conf.enforce_headers) do demand.fields[i] = name:lower() end
    challenges[conf], demands[conf] = authentication.challenge("hmac", conf.realm), demand
  end
end

-- What the client says of its signature, and whether it says anything at all.
local function find(conf, exchange)
  local parameters, present
  for i = 1, #FIELDS do
    local value, several = authentication.field(exchange, FIELDS[i])
    if value then
      present = true
      local found = signatures.parse(value)
      if conf.hide_credentials and (found or several) then exchange.service.request:clear_alike(FIELDS[i]) end
      if found and not several then parameters = parameters or found end
    end
  end
  return parameters, present
end

local last_date, last_at -- clients write a second's date many times

local function seconds_of(date)
  if date ~= last_date then last_date, last_at = date, time.parse_http_date(date) end
  return last_at
end

-- A date that is signed counts alone: one that anybody may have added must not make an old signature young.
local function is_in_time(conf, exchange, parameters)
  local signed = parameters and (parameters.signs["x-date"] or parameters.signs["date"])
  for i = 1, #DATES do
    local name = DATES[i]
    local value, several = authentication.field(exchange, name)
    local at = value and not several and seconds_of(value)
    local counts = not signed or parameters.signs[name]
    if at and counts and math.abs(time.now() - at) <= conf.clock_skew then return true end
  end
  return false
end

local function is_enough(demand, parameters)
  if not demand.algorithms[parameters.algorithm] then return false end
  for i = 1, #demand.fields do
    if not parameters.signs[demand.fields[i]] then return false end
  end
  return true
end

-- Waits for the body. Without one there is nothing to have a digest.
local function has_its_body(exchange)
  local body = exchange.request:get_raw_body()
  if not body then return false end
  local digest = exchange.request:get_header("digest")
  if not digest then return body == "" end
  return crypto.equal(digest, "SHA-256=" .. crypto.base64_encode(crypto.digest("sha256", body)))
end

-- nil when it is known who it is, else what is wrong.
local function authenticate(conf, exchange)
  local parameters, present = find(conf, exchange)
  if not present then return MISSING end
  if not is_in_time(conf, exchange, parameters) then return LATE end
  if not parameters or not is_enough(demands[conf], parameters) then return UNKNOWN end
  local credential = exchange.client:load_credential("hmacauth_credentials", "username", parameters.username)
  if not credential then return UNKNOWN end
  if not signatures.is_good(exchange.request, parameters, credential.secret) then return WRONG end
  if conf.validate_request_body and not has_its_body(exchange) then return WRONG end
  authentication.accept(exchange, credential, credential.username)
end

function hmac_auth.access(conf, exchange)
  if authentication.is_settled(conf, exchange) then return end
  local problem = authenticate(conf, exchange)
  if problem then authentication.refuse(conf, exchange, problem, challenges[conf]) end
end

return hmac_auth
