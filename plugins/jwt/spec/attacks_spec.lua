-- SPDX-License-Identifier: Apache-2.0
-- Attacks on verifiers of tokens that are publicly known: each must fail, and a sound token beside it pass.
local spec = require "sluice.spec"
local crypto = require "sluice.crypto"
local jwt = require "sluice.jwt"
local keys = dofile("plugins/jwt/spec/keys.lua")

local NOW = 1700000000
local SECRET = "a secret that nobody knows"
local encode = crypto.base64url_encode

describe("jwt withstands", function()
  local gateway, ec

  setup(function() ec = keys.ec() end)

  before_each(function()
    gateway = spec.gateway { time = NOW, plugins = { { name = "jwt", config = { claims_to_verify = { "exp" } } } },
      consumers = {
        { username = "symmetric", jwt_secrets = { { key = "hs", secret = SECRET } } },
        { username = "elliptic", jwt_secrets = { { key = "es", algorithm = "ES256",
          rsa_public_key = keys.EC_PUBLIC } } },
      } }
  end)

  -- A token of texts, signed by the shared secret or as told.
  local function forge(header, claims, signature)
    local input = encode(header) .. "." .. encode(claims)
    return input .. "." .. encode(signature or crypto.hmac("sha256", SECRET, input))
  end

  local HS, CLAIMS = '{"alg":"HS256","typ":"JWT"}', '{"iss":"hs","exp":1700000100}'
  local ES, ES_CLAIMS = '{"alg":"ES256"}', '{"iss":"es","exp":1700000100}'

  local function change(text, at, letter)
    return text:sub(1, at - 1) .. letter .. text:sub(at + 1)
  end

  -- The other letters that stand for the same bytes when the last one has bits to spare.
  local function respelled(token)
    local last = token:sub(-1)
    local letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    local at = letters:find(last, 1, true)
    return token:sub(1, -2) .. letters:sub(at + 1, at + 1)
  end

  local function sound()
    return assert(jwt.sign({ iss = "es", exp = NOW + 100 }, "ES256", ec))
  end

  local BAD = "^Bad token; "

  local attacks = {
    { "alg none, without a signature", BAD, function() return forge('{"alg":"none"}', CLAIMS, "") end },
    { "alg none in another spelling", BAD, function() return forge('{"alg":"nOnE"}', CLAIMS, "") end },
    { "alg none, with the signature left on", BAD, function() return forge('{"alg":"none"}', CLAIMS) end },
    { "no alg at all", BAD, function() return forge('{"typ":"JWT"}', CLAIMS) end },
    { "an alg that is no text", BAD, function() return forge('{"alg":["HS256"]}', CLAIMS) end },
    { "an alg that is unknown", BAD, function() return forge('{"alg":"HS1"}', CLAIMS) end },
    { "no signature", "^Invalid signature", function() return forge(HS, CLAIMS, "") end },
    { "the public key as the secret of an HMAC", "^Invalid algorithm", function()
      local input = encode(HS) .. "." .. encode(ES_CLAIMS)
      return input .. "." .. encode(crypto.hmac("sha256", keys.EC_PUBLIC, input))
    end },
    { "another algorithm of the same family", "^Invalid algorithm", function()
      local input = encode('{"alg":"HS512"}') .. "." .. encode(CLAIMS)
      return input .. "." .. encode(crypto.hmac("sha512", SECRET, input))
    end },
    { "a signature of zeros (r = s = 0)", "^Invalid signature", function()
      return forge(ES, ES_CLAIMS, ("\0"):rep(64)) end },
    { "a signature in DER", "^Invalid signature", function()
      local input = encode(ES) .. "." .. encode(ES_CLAIMS)
      return input .. "." .. encode(crypto.sign("ecdsa_der", "sha256", ec, input))
    end },
    { "a signature that goes on", "^Invalid signature", function() return sound() .. "AAAA" end },
    { "another consumer's name under one's own signature", "^Invalid algorithm", function()
      return (sound():gsub("%.[^.]+%.", "." .. encode(CLAIMS) .. "."))
    end },
    { "changed claims", "^Invalid signature", function()
      return (sound():gsub("%.[^.]+%.", "." .. encode('{"iss":"es","exp":1700009999}') .. "."))
    end },
    { "a key that comes along in the header (jwk)", "^Invalid signature", function()
      local stranger = crypto.key(keys.new("EC", "ec_paramgen_curve:P-256").private)
      return assert(jwt.sign({ iss = "es", exp = NOW + 100 }, "ES256", stranger, { jwk = keys.jwk "ec" }))
    end },
    { "a kid that is a path", "^Invalid signature", function()
      local input = encode('{"alg":"HS256","kid":"../../dev/null"}') .. "." .. encode(CLAIMS)
      return input .. "." .. encode(crypto.hmac("sha256", "", input))
    end },
    { "a kid that is an injection", "^No credentials found", function()
      return forge(HS, [[{"iss":"x' UNION SELECT 'hs","exp":1700000100}]]) end },
    { "an issuer with a NUL behind it", "^No credentials found", function()
      return forge(HS, [[{"iss":"hs\u0000","exp":1700000100}]]) end },
    { "a critical extension", BAD, function() return forge('{"alg":"HS256","crit":["exp"],"exp":1}', CLAIMS) end },
    { "a critical extension that leaves the claims unencoded", BAD, function()
      return forge('{"alg":"HS256","crit":["b64"],"b64":false}', CLAIMS) end },
    { "crit that is empty, or null", BAD, function() return forge('{"alg":"HS256","crit":null}', CLAIMS) end },
    { "another type of token", BAD, function() return forge('{"alg":"HS256","typ":"logout+jwt"}', CLAIMS) end },
    { "a type that is no text", BAD, function() return forge('{"alg":"HS256","typ":1}', CLAIMS) end },
    { "a member of the header that occurs twice", BAD, function()
      return forge('{"alg":"HS256","alg":"none"}', CLAIMS) end },
    { "a claim that occurs twice", BAD, function()
      return forge(HS, '{"iss":"es","exp":1700000100,"iss":"hs"}') end },
    { "a claim that occurs twice in two spellings", BAD, function()
      return forge(HS, [[{"exp":1,"iss":"hs","\u0065xp":1700000100}]]) end },
    { "claims with something behind them", BAD, function() return forge(HS, CLAIMS .. "x") end },
    { "claims that are a list", BAD, function() return forge(HS, '["hs"]') end },
    { "claims that are an empty list", BAD, function() return forge(HS, "[]") end },
    { "claims that are a text", BAD, function() return forge(HS, '"hs"') end },
    { "claims that are null", BAD, function() return forge(HS, "null") end },
    { "claims that are no JSON", BAD, function() return forge(HS, "{") end },
    { "claims nested without end", BAD, function() return forge(HS, ("["):rep(4000)) end },
    { "an exp below what a number can hold", nil, function() return forge(HS, '{"iss":"hs","exp":-1e999}') end },
    { "an exp that is a text", nil, function() return forge(HS, '{"iss":"hs","exp":"9999999999"}') end },
    { "an exp that is true", nil, function() return forge(HS, '{"iss":"hs","exp":true}') end },
    { "an exp in a list", nil, function() return forge(HS, '{"iss":"hs","exp":[9999999999]}') end },
    { "an exp that is not a number", BAD, function() return forge(HS, '{"iss":"hs","exp":NaN}') end },
    { "an exp that is infinite in words", BAD, function() return forge(HS, '{"iss":"hs","exp":Infinity}') end },
    { "an exp in hexadecimal", BAD, function() return forge(HS, '{"iss":"hs","exp":0xffffffffff}') end },
    { "padding", BAD, function() return forge(HS, CLAIMS) .. "=" end },
    { "padding inside", BAD, function() return (sound():gsub("%.", "=.", 1)) end },
    { "the other alphabet", BAD, function() return change(sound(), 5, "+") end },
    { "a letter that is none", BAD, function() return change(sound(), 5, "*") end },
    { "a space inside", BAD, function() return change(sound(), 5, " ") end },
    { "a signature in a second spelling", BAD, function() return respelled(sound()) end },
    { "two parts", BAD, function() return (sound():gsub("%.[^.]*$", "")) end },
    { "four parts", BAD, function() return sound() .. ".x" end },
    { "five parts, as an encrypted token has", BAD, function() return sound() .. ".x.y" end },
    { "dots alone", BAD, function() return ".." end },
    { "a token without an end", BAD, function() return forge(HS, '{"iss":"hs","x":"' .. ("x"):rep(13000) .. '"}') end },
  }

  for _, attack in ipairs(attacks) do
    it(attack[1], function()
      local token = attack[3]()
      for _ = 1, 2 do
        local response = gateway:get("/", { Authorization = "Bearer " .. token })
        assert.equal(401, response.status)
        if attack[2] then assert.matches(attack[2], response.json.message) else assert.is_string(response.json.exp) end
        assert.matches('error="invalid_token"', response.headers["www-authenticate"])
      end
      assert.equal(0, #gateway:requests())
      assert.equal(200, gateway:get("/", { Authorization = "Bearer " .. forge(HS, CLAIMS) }).status)
      assert.equal(200, gateway:get("/", { Authorization = "Bearer " .. sound() }).status)
    end)
  end

  it("a credential's key that does not fit its algorithm", function()
    local p384 = keys.new("EC", "ec_paramgen_curve:P-384")
    gateway = spec.gateway { plugins = { { name = "jwt" } }, consumers = { { username = "x", jwt_secrets = {
      { key = "x", algorithm = "ES256", rsa_public_key = p384.public } } } } }
    local input = encode('{"alg":"ES256"}') .. "." .. encode('{"iss":"x"}')
    local token = input .. "." .. encode(crypto.sign("ecdsa", "sha256", p384.private, input))
    local response = gateway:get("/", { Authorization = "Bearer " .. token })
    assert.same({ 401, "Invalid signature" }, { response.status, response.json.message })
  end)
end)
