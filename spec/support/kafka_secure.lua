-- SPDX-License-Identifier: Apache-2.0
-- A real broker that asks who comes: TLS (also with a certificate for another name, and an old one), TLS with a client
-- certificate, SASL PLAIN, SCRAM and OAUTHBEARER. Tokens are
-- RS256 by a server of the spec's own; the broker checks their signature, audience and time.
--
-- Everybody is alice, and her password is "alice-secret".
local kafka = require "spec.support.kafka"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local tls = require "spec.support.tls"
local upstream = require "spec.support.upstream"

local secure = { USER = "alice", PASSWORD = "alice-secret", AUDIENCE = "kafka" }

local LISTENERS = { TLS = "SSL", MUTUAL = "SSL", ELSEWHERE = "SSL", EXPIRED = "SSL", SASL = "SASL_PLAINTEXT",
  BOTH = "SASL_SSL", TOKENS = "SASL_PLAINTEXT" }

-- luacheck: push ignore 631
local PROPERTIES = [[
ssl.keystore.type=PEM
ssl.keystore.location=%s
ssl.truststore.type=PEM
ssl.truststore.location=%s
listener.name.mutual.ssl.client.auth=required
listener.name.elsewhere.ssl.keystore.type=PEM
listener.name.elsewhere.ssl.keystore.location=%s
listener.name.expired.ssl.keystore.type=PEM
listener.name.expired.ssl.keystore.location=%s
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.tokens.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.tokens.oauthbearer.sasl.server.callback.handler.class=org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.tokens.oauthbearer.sasl.oauthbearer.jwks.endpoint.url=file://%s
listener.name.tokens.oauthbearer.sasl.oauthbearer.expected.audience=%s
listener.name.tokens.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.tokens.oauthbearer.connections.max.reauth.ms=2000
]]
-- luacheck: pop

local JAAS = [[
listener.name.%s.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_%s="%s";
listener.name.%s.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.%s.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
]]

local function openssl(...)
  local status, out, err = process.run({ "openssl", ... })
  assert(status == 0, err)
  return out
end

-- Base64 for URLs (RFC 7515 2) of a file's bytes.
local function url64_of(path)
  local text = openssl("base64", "-A", "-in", path):gsub("%s", "")
  return (text:gsub("+", "-"):gsub("/", "_"):gsub("=", ""))
end

local function url64(bytes)
  local path = os.tmpname()
  process.write_file(path, bytes)
  local text = url64_of(path)
  os.remove(path)
  return text
end

-- The key that signs tokens, and the set that says so.
local function make_key(directory)
  local path = directory .. "/token.key"
  openssl("genrsa", "-out", path, "2048")
  local modulus = openssl("rsa", "-in", path, "-noout", "-modulus"):match("=(%x+)")
  local n = modulus:gsub("%x%x", function(hex) return string.char(tonumber(hex, 16)) end)
  process.write_file(directory .. "/jwks.json",
    ('{"keys":[{"kty":"RSA","use":"sig","alg":"RS256","kid":"spec","e":"AQAB","n":"%s"}]}'):format(url64(n)))
  return path
end

local function make_token(key, seconds, scope)
  local now = os.time()
  local claims = ('{"sub":"%s","aud":"%s","iss":"spec","scope":"%s","iat":%d,"exp":%d}'):format(
    secure.USER, secure.AUDIENCE, scope, now, now + seconds)
  local signed = url64('{"alg":"RS256","kid":"spec","typ":"JWT"}') .. "." .. url64(claims)
  local path = os.tmpname()
  process.write_file(path, signed)
  openssl("dgst", "-sha256", "-sign", key, "-out", path .. ".signature", path)
  local token = signed .. "." .. url64_of(path .. ".signature")
  os.remove(path)
  os.remove(path .. ".signature")
  return token
end

function secure.start()
  local directory = posix.temporary_directory()
  local self = { directory = directory }
  self.ca = tls.make_certificate(directory, { name = "ca" })
  self.server = tls.make_certificate(directory, { name = "localhost", names = { "127.0.0.1" }, ca = self.ca })
  self.client = tls.make_certificate(directory, { name = "alice", ca = self.ca, client = true })
  self.stranger = tls.make_certificate(directory, { name = "stranger" })
  self.outdated = tls.make_certificate(directory, { name = "outdated", ca = self.ca, client = true, days = -1 })
  local function key_store(certificate, name)
    local path = directory .. "/" .. name .. ".pem"
    process.write_file(path, certificate.key_pem .. certificate.certificate_pem)
    return path
  end
  self.token_key = make_key(directory)
  local elsewhere = tls.make_certificate(directory, { name = "elsewhere.test", ca = self.ca })
  local expired = tls.make_certificate(directory, { name = "old", names = { "127.0.0.1" }, ca = self.ca, days = -1 })
  local properties = PROPERTIES:format(key_store(self.server, "server"), self.ca.certificate,
    key_store(elsewhere, "elsewhere"), key_store(expired, "expired"), directory .. "/jwks.json", secure.AUDIENCE)
  for _, name in ipairs { "sasl", "both" } do
    properties = properties .. JAAS:format(name, secure.USER, secure.PASSWORD, name, name)
  end
  local scram = ("[name=%s,password=%s]"):format(secure.USER, secure.PASSWORD)
  self.broker = kafka.start { listeners = LISTENERS, properties = properties,
    format = { "--add-scram", "SCRAM-SHA-256=" .. scram, "--add-scram", "SCRAM-SHA-512=" .. scram },
    java = { "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://" .. directory .. "/jwks.json" } }
  return setmetatable(self, { __index = secure })
end

-- host:port of a listener: TLS, ELSEWHERE, EXPIRED, MUTUAL, SASL, BOTH or TOKENS.
function secure:servers(listener)
  return "127.0.0.1:" .. self.broker.ports[listener]
end

-- base64 of "gateway:s3cret%2F%2B%26": id and secret as RFC 6749 2.3.1 has them.
local LOGIN = "Basic Z2F0ZXdheTpzM2NyZXQlMkYlMkIlMjY="

-- What the token server does with a request; runs there.
function secure.answer(request, connection, key)
  local kind, seconds, life = request.target:match("^/(%a+)/?(%d*)/?(%d*)")
  local json = { ["Content-Type"] = "application/json" }
  if kind == "never" then return connection:sleep(60) end
  if kind == "late" then connection:sleep(seconds + 0.5) end
  if kind == "broken" then return connection:respond(200, {}, "<html>") end
  if kind == "refuse" or request.headers["authorization"] ~= LOGIN then
    return connection:respond(401, json, '{"error":"invalid_client","error_description":"who is that?"}')
  end
  local scope = (connection:read_body() or ""):match("scope=([^&]*)") or ""
  connection:respond(200, json, ('{"access_token":"%s","token_type":"Bearer","expires_in":%d}'):format(
    make_token(key, tonumber(life) or tonumber(seconds), scope), seconds))
end

-- Hands out tokens (OAuth 2, RFC 6749 4.4) to client "gateway" with secret "s3cret/+&", each good for as many seconds
-- as the path says: /token/5; or, with /token/2/5, it says 2 and the broker takes it for 5. Other paths: /refuse (an
-- error of OAuth), /broken (no JSON), /late/2 (after the token's life), /never (no answer).
function secure:token_server(options)
  local code = ('return require("spec.support.kafka_secure").answer(select(1, ...), select(2, ...), %q)'):format(
    self.token_key)
  return upstream.start(assert(loadstring(code)), options)
end

function secure:stop()
  self.broker:stop()
  process.remove(self.directory)
end

return secure
