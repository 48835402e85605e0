-- SPDX-License-Identifier: Apache-2.0
-- Tokens of consumers' own credentials (jwt_secrets): the credential says by which algorithm and key.
local crypto = require "sluice.crypto"
local jwt = require "sluice.jwt"

local credentials = {}

-- Read once for each credential, which a change makes anew.
local keys = setmetatable({}, { __mode = "k" })

local function key_of(conf, credential)
  if credential.algorithm:sub(1, 2) == "HS" then
    if conf.secret_is_base64 then
      local secret = credential.secret
      return crypto.base64_decode(secret) or crypto.base64url_decode(secret)
    end
    return credential.secret
  end
  local key = keys[credential]
  if not key then
    key = crypto.key(credential.rsa_public_key)
    keys[credential] = key
  end
  return key
end

local function is_plain(typ)
  return typ == nil or type(typ) == "string" and typ:upper() == "JWT"
end

-- The credential that the token names, once its signature is that of the credential's key.
---@param conf table
---@param client sluice.client
---@param decoded sluice.jwt.decoded
---@return table|nil entry of the cache
---@return string|nil message
function credentials.verify(conf, client, decoded)
  if not is_plain(decoded.header.typ) then return nil, "Bad token; invalid typ" end
  local name = conf.key_claim_name
  local key = decoded.claims[name] or decoded.header[name]
  if not key then return nil, "No mandatory '" .. name .. "' in claims" end
  if type(key) ~= "string" or key == "" then return nil, "Invalid '" .. name .. "' in claims" end
  local credential = client:load_credential("jwt_secrets", "key", key)
  if not credential then return nil, "No credentials found for given '" .. name .. "'" end
  local algorithm = credential.algorithm
  if decoded.header.alg ~= algorithm then return nil, "Invalid algorithm" end
  local secret = key_of(conf, credential)
  if not secret then return nil, "Invalid key/secret" end
  if not jwt.verify(decoded, algorithm, secret) then return nil, "Invalid signature" end
  local consumer = client:load_consumer(credential.consumer)
  if not consumer then return nil, ("Could not find consumer for '%s=%s'"):format(name, key) end
  return { credential = credential, consumer = consumer, identifier = key }
end

return credentials
