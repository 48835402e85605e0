-- SPDX-License-Identifier: Apache-2.0
-- Tokens of an issuer that publishes its keys: for whom they are, and which consumer they speak for, is configured.
local jwks = require "sluice.jwks"
local jwt = require "sluice.jwt"

local issuer = { UNAVAILABLE = "The keys of the issuer cannot be had" }

-- RFC 7519, 5.1, and RFC 9068, 2.1: no token of another purpose passes for one of access.
local TYPES = { JWT = true, ["APPLICATION/JWT"] = true, ["AT+JWT"] = true, ["APPLICATION/AT+JWT"] = true }

local function set_of(list)
  if not list or #list == 0 then return nil end
  local set = {}
  for _, item in ipairs(list) do set[item] = true end
  return set
end

---@param conf table the record `jwks`
---@return table state
function issuer.open(conf)
  return {
    set = jwks.open(conf.uri, { ttl = conf.ttl, interval = conf.interval, timeout = conf.timeout / 1000,
      max_bytes = conf.max_bytes, verify = conf.ssl_verify }),
    algorithms = set_of(conf.algorithms) or {}, issuers = set_of(conf.issuers), audiences = set_of(conf.audiences),
  }
end

local function is_for(audiences, aud)
  if type(aud) ~= "table" then return audiences[aud] == true end
  for _, one in ipairs(aud) do
    if audiences[one] then return true end
  end
  return false
end

-- What can be told without a key; nil: nothing is wrong.
local function check_header(state, header)
  local typ, kid = header.typ, header.kid
  if typ ~= nil and not (type(typ) == "string" and TYPES[typ:upper()]) then return "Bad token; invalid typ" end
  if kid ~= nil and type(kid) ~= "string" then return "Bad token; invalid kid" end
  if not state.algorithms[header.alg] then return "Invalid algorithm" end
end

local function check_claims(state, claims)
  local iss, aud = claims.iss, claims.aud
  if state.issuers then
    if iss == nil then return "No mandatory 'iss' in claims" end
    if not state.issuers[iss] then return "Invalid 'iss' in claims" end
  end
  if state.audiences then
    if aud == nil then return "No mandatory 'aud' in claims" end
    if not is_for(state.audiences, aud) then return "Invalid 'aud' in claims" end
  end
end

-- The key whose signature it is.
local function key_of(state, decoded)
  local header = decoded.header
  local entries, err = state.set:find(header.kid, header.alg)
  if err then return nil, issuer.UNAVAILABLE end
  if not entries[1] then return nil, "No key found for given 'kid'" end
  for _, entry in ipairs(entries) do
    if jwt.verify(decoded, header.alg, entry.key) then return entry end
  end
  return nil, "Invalid signature"
end

local function consumer_of(conf, client, value)
  for _, field in ipairs(conf.consumer_by) do
    local consumer = client:load_credential("consumers", field, value)
    if consumer then return consumer end
  end
end

local function text_of(value)
  return type(value) == "string" and value ~= "" and value or nil
end

---@param conf table the record `jwks`
---@param state table from issuer.open
---@param client sluice.client
---@param decoded sluice.jwt.decoded
---@return table|nil entry of the cache
---@return string|nil message
function issuer.verify(conf, state, client, decoded)
  local claims = decoded.claims
  local wrong = check_header(state, decoded.header) or check_claims(state, claims)
  if wrong then return nil, wrong end
  local key, err = key_of(state, decoded)
  if not key then return nil, err end
  local identifier = text_of(claims.sub) or text_of(claims.iss) or key.kid
  local entry = { key = key, identifier = identifier, credential = { id = identifier, key = text_of(claims.iss),
    claims = claims } }
  local name = conf.consumer_claim
  if not name then return entry end
  local value = text_of(claims[name])
  if not value then return nil, "No mandatory '" .. name .. "' in claims" end
  entry.consumer = consumer_of(conf, client, value)
  if not entry.consumer then return nil, ("Could not find consumer for '%s=%s'"):format(name, value) end
  entry.credential.consumer = entry.consumer.id
  return entry
end

return issuer
