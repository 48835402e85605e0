-- SPDX-License-Identifier: Apache-2.0
-- JSON Web Tokens in compact form: RFC 7519 over RFC 7515, with the algorithms of RFC 7518 and 8037.
--
-- Read as RFC 8725 asks: who verifies names the algorithm, and a key serves the algorithms of its own kind only; what
-- two readers could understand differently (members that occur twice, base64 in a second spelling, extensions that
-- are critical) is refused.

local check = require "sluice.api.check"
local crypto = require "sluice.crypto"
local json = require "sluice.json"

local find, sub, type, next = string.find, string.sub, type, next

---@class sluice.jwt
local jwt = {}

local MOST_BYTES = 16384 -- of a token: an Authorization field may hold no more either

-- kind: of sluice.crypto; type and curve: of the key.
local ALGORITHMS = {
  HS256 = { digest = "sha256", symmetric = true }, HS384 = { digest = "sha384", symmetric = true },
  HS512 = { digest = "sha512", symmetric = true },
  RS256 = { kind = "rsa", digest = "sha256", type = "RSA" }, RS384 = { kind = "rsa", digest = "sha384", type = "RSA" },
  RS512 = { kind = "rsa", digest = "sha512", type = "RSA" },
  PS256 = { kind = "rsa_pss", digest = "sha256", type = "RSA" },
  PS384 = { kind = "rsa_pss", digest = "sha384", type = "RSA" },
  PS512 = { kind = "rsa_pss", digest = "sha512", type = "RSA" },
  ES256 = { kind = "ecdsa", digest = "sha256", type = "EC", curve = "P-256" },
  ES384 = { kind = "ecdsa", digest = "sha384", type = "EC", curve = "P-384" },
  ES512 = { kind = "ecdsa", digest = "sha512", type = "EC", curve = "P-521" },
  EdDSA = { kind = "eddsa", type = "OKP" },
}

-- The names of algorithms with a public key.
jwt.ASYMMETRIC = { "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA" }

local UNIQUE = { unique = true }

---@class sluice.jwt.decoded
---@field header table
---@field claims table
---@field signature string bytes
---@field input string the text that is signed

-- Padding has no place in a token (RFC 7515, 2).
local function decode_part(text)
  if find(text, "=", 1, true) then return nil end
  return crypto.base64url_decode(text)
end

local function decode_object(text)
  local plain = decode_part(text)
  local object = plain and json.decode(plain, UNIQUE)
  if type(object) ~= "table" or json.is_array(object) then return nil end
  return object
end

local function split(token)
  local first = find(token, ".", 1, true)
  local second = first and find(token, ".", first + 1, true)
  if not second or find(token, ".", second + 1, true) then return nil end
  return sub(token, 1, first - 1), sub(token, first + 1, second - 1), sub(token, second + 1), sub(token, 1, second - 1)
end

-- Takes a token apart; nothing in it is to be believed before `jwt.verify`.
---@param token string
---@return sluice.jwt.decoded|nil
---@return string|nil err "invalid JSON", "invalid alg" or "invalid crit"
function jwt.decode(token)
  check.string("sluice.jwt.decode", "token", token)
  if #token > MOST_BYTES then return nil, "too long" end
  local head, body, tail, input = split(token)
  if not head then return nil, "invalid JSON" end
  local header, claims, signature = decode_object(head), decode_object(body), decode_part(tail)
  if not header or not claims or not signature then return nil, "invalid JSON" end
  if not ALGORITHMS[header.alg] then return nil, "invalid alg" end
  -- An extension that must be understood, and none is here (RFC 7515, 4.1.11).
  if header.crit ~= nil then return nil, "invalid crit" end
  return { header = header, claims = claims, signature = signature, input = input }
end

-- Whether a key is of the kind that the algorithm needs: text for HS..., else a key of sluice.crypto.
---@param algorithm string
---@param key string|sluice.crypto.key
---@return boolean
function jwt.fits(algorithm, key)
  local it = ALGORITHMS[algorithm]
  if not it then return false end
  if it.symmetric then return type(key) == "string" end
  if type(key) ~= "table" or it.curve and it.curve ~= key.curve then return false end
  return key.type == it.type or it.kind == "rsa_pss" and key.type == "RSA-PSS"
end

-- Whether the token was signed with that key by that algorithm, which its header must name.
---@param decoded sluice.jwt.decoded
---@param algorithm string "HS256" to "EdDSA"
---@param key string|sluice.crypto.key the secret, or the public key
---@return boolean
function jwt.verify(decoded, algorithm, key)
  check.table("sluice.jwt.verify", "decoded", decoded)
  local it = ALGORITHMS[algorithm]
  if not it then check.fail("sluice.jwt.verify", "there is no algorithm " .. tostring(algorithm)) end
  if decoded.header.alg ~= algorithm or not jwt.fits(algorithm, key) then return false end
  if it.symmetric then return crypto.equal(crypto.hmac(it.digest, key, decoded.input), decoded.signature) end
  return crypto.verify(it.kind, it.digest, key, decoded.input, decoded.signature) == true
end

local function encode_object(object)
  if next(object) == nil then return "e30" end -- {}, which an empty array is not
  local text, err = json.encode(object)
  if not text then check.fail("sluice.jwt.sign", err, 4) end
  return crypto.base64url_encode(text)
end

-- Makes a token.
---@param claims table
---@param algorithm string "HS256" to "EdDSA"
---@param key string|sluice.crypto.key the secret, or a private key
---@param header? table members beside `alg` and `typ`
---@return string|nil token
---@return string|nil err
function jwt.sign(claims, algorithm, key, header)
  check.table("sluice.jwt.sign", "claims", claims)
  check.table_or_nil("sluice.jwt.sign", "header", header)
  local it = ALGORITHMS[algorithm]
  if not it then check.fail("sluice.jwt.sign", "there is no algorithm " .. tostring(algorithm)) end
  if not jwt.fits(algorithm, key) then return nil, "the key is of another kind than the algorithm" end
  local all = { typ = "JWT" }
  for name, value in pairs(header or {}) do all[name] = value end
  all.alg = algorithm
  local input = encode_object(all) .. "." .. encode_object(claims)
  local signature, err
  if it.symmetric then
    signature = crypto.hmac(it.digest, key, input)
  else
    signature, err = crypto.sign(it.kind, it.digest, key, input)
  end
  if not signature then return nil, err end
  return input .. "." .. crypto.base64url_encode(signature)
end

-- What is wrong with a claim that says a time; nil: nothing.
---@param claims table
---@param name "exp"|"nbf"
---@param now number seconds since 1970
---@param leeway? number seconds that clocks may differ, 0 unless told
---@return string|nil err "must be a number", "token expired" or "token not valid yet"
function jwt.check_time(claims, name, now, leeway)
  local at = claims[name]
  if type(at) ~= "number" then return "must be a number" end
  if name == "exp" then
    if at + (leeway or 0) <= now then return "token expired" end
  elseif at - (leeway or 0) > now then
    return "token not valid yet"
  end
  return nil
end

return jwt
