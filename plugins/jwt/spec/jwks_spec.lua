-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"
local crypto = require "sluice.crypto"
local json = require "sluice.json"
local jwt = require "sluice.jwt"
local keys = dofile("plugins/jwt/spec/keys.lua")

local NOW = 1700000000
local URI = "http://issuer.test/keys"

describe("jwt with jwks", function()
  local gateway, ec, okp

  setup(function() ec, okp = keys.ec(), keys.okp() end)

  local EC, OKP = keys.jwk("ec", { kid = "e1" }), keys.jwk("okp", { kid = "o1" })

  local function set(...)
    return { json = { keys = json.array { ... } } }
  end

  local function start(jwks, answer, config)
    jwks.uri = URI
    config = config or {}
    config.jwks = jwks
    gateway = spec.gateway { time = NOW, plugins = { { name = "jwt", config = config } },
      consumers = { { username = "alice", custom_id = "a-1", jwt_secrets = { { key = "hs", secret = "s" } } },
        { username = "nobody" } },
      upstreams = { ["issuer.test"] = answer or set(EC, OKP) }, dns = { ["issuer.test"] = "10.0.0.9" } }
  end

  local function token(claims, header, key, algorithm)
    return assert(jwt.sign(claims or { sub = "alice" }, algorithm or "ES256", key or ec, header or { kid = "e1" }))
  end

  local function send(text)
    return gateway:get("/", { Authorization = "Bearer " .. text })
  end

  local function ask(...)
    return send(token(...))
  end

  local function seen()
    local found
    for _, request in ipairs(gateway:requests()) do
      if request.name ~= "issuer.test" then found = request end
    end
    return found
  end

  local function fetches()
    return #gateway:requests("issuer.test")
  end

  local function assert_refused(message, response)
    assert.equal(401, response.status)
    assert.same({ message = message }, response.json)
    assert.equal('Bearer error="invalid_token"', response.headers["www-authenticate"])
  end

  it("takes tokens that the issuer's keys sign, after one fetch", function()
    start {}
    for _ = 1, 3 do
      assert.equal(200, ask().status)
      assert.equal("alice", seen().headers["x-credential-identifier"])
      assert.is_nil(seen().headers["x-consumer-username"])
      assert.is_nil(seen().headers["x-anonymous-consumer"])
    end
    assert.equal(200, ask(nil, { kid = "o1" }, okp, "EdDSA").status)
    assert.equal(1, fetches())
    assert.equal("/keys", gateway:requests("issuer.test")[1].path)
  end)

  it("does not fetch before a token asks for it", function()
    start {}
    assert.equal(401, gateway:get("/").status)
    assert.equal(0, fetches())
  end)

  it("refuses a token that another key signed", function()
    start {}
    local stranger = crypto.key(keys.new("EC", "ec_paramgen_curve:P-256").private)
    assert_refused("Invalid signature", ask(nil, nil, stranger))
    assert_refused("No key found for given 'kid'", ask(nil, { kid = "o1" }))
    assert_refused("Bad token; invalid kid", ask(nil, { kid = 7 }))
  end)

  it("tries the keys that fit when the token names none", function()
    start({}, set(OKP, keys.jwk("ec"), EC))
    assert.equal(200, ask(nil, {}).status)
  end)

  it("does not look at credentials, nor take a secret for a key", function()
    start {}
    assert_refused("Invalid algorithm", ask({ iss = "hs" }, {}, "s", "HS256"))
    assert_refused("Invalid algorithm", ask(nil, nil, EC.x, "HS256"))
  end)

  it("takes the algorithms that are named", function()
    start { algorithms = { "EdDSA" } }
    assert_refused("Invalid algorithm", ask())
    assert.equal(200, ask(nil, { kid = "o1" }, okp, "EdDSA").status)
  end)

  it("takes tokens of access, and none of another type", function()
    start {}
    for _, typ in ipairs { "JWT", "at+jwt", "application/at+JWT" } do
      assert.equal(200, ask(nil, { kid = "e1", typ = typ }).status)
    end
    assert_refused("Bad token; invalid typ", ask(nil, { kid = "e1", typ = "logout+jwt" }))
  end)

  it("checks issuers", function()
    start { issuers = { "https://a.test", "https://b.test" } }
    assert.equal(200, ask({ iss = "https://b.test" }).status)
    assert_refused("Invalid 'iss' in claims", ask { iss = "https://c.test" })
    assert_refused("Invalid 'iss' in claims", ask { iss = { "https://a.test" } })
    assert_refused("No mandatory 'iss' in claims", ask { sub = "alice" })
  end)

  it("checks audiences", function()
    start { audiences = { "orders", "bills" } }
    assert.equal(200, ask({ sub = "x", aud = "orders" }).status)
    assert.equal(200, ask({ sub = "x", aud = { "other", "bills" } }).status)
    assert_refused("Invalid 'aud' in claims", ask { sub = "x", aud = "other" })
    assert_refused("Invalid 'aud' in claims", ask { sub = "x", aud = { "other", 7 } })
    assert_refused("No mandatory 'aud' in claims", ask())
  end)

  it("checks exp and nbf where there are any, without being asked to", function()
    start {}
    assert.equal(200, ask({ sub = "x", exp = NOW + 5, nbf = NOW }).status)
    for claims, body in pairs { [{ sub = "x", exp = NOW }] = { exp = "token expired" },
      [{ sub = "x", nbf = NOW + 5 }] = { nbf = "token not valid yet" },
      [{ sub = "x", exp = "never" }] = { exp = "must be a number" } } do
      local response = ask(claims)
      assert.same({ 401, body }, { response.status, response.json })
    end
    start({}, nil, { claims_to_verify = { "exp" } })
    assert.same({ exp = "must be a number" }, ask().json)
  end)

  it("finds the consumer by a claim", function()
    start { consumer_claim = "sub" }
    for _, sub in ipairs { "alice", "a-1" } do
      assert.equal(200, ask({ sub = sub }).status)
      assert.equal("alice", seen().headers["x-consumer-username"])
      assert.equal(sub, seen().headers["x-credential-identifier"])
    end
    assert_refused("Could not find consumer for 'sub=bob'", ask { sub = "bob" })
    assert_refused("No mandatory 'sub' in claims", ask { iss = "x" })
    assert_refused("No mandatory 'sub' in claims", ask { sub = { "alice" } })
    start { consumer_claim = "email", consumer_by = { "custom_id" } }
    assert.equal(200, ask({ email = "a-1" }).status)
    assert_refused("Could not find consumer for 'email=alice'", ask { email = "alice" })
  end)

  it("counts who has no good token as anonymous", function()
    start({}, nil, { anonymous = "nobody" })
    assert.equal(200, send("x.y.z").status)
    assert.equal("nobody", seen().headers["x-consumer-username"])
  end)

  describe("fetches again", function()
    it("once the keys are older than ttl, while nobody waits", function()
      start({ ttl = 60 }, { set(EC), { json = set(EC).json, delay = 3 } })
      assert.equal(200, ask().status)
      gateway:advance(59)
      assert.equal(200, ask({ sub = "2" }).status)
      assert.equal(1, fetches())
      gateway:advance(1)
      local before = gateway:now()
      assert.equal(200, ask({ sub = "3" }).status)
      assert.is_true(gateway:now() - before < 1)
      gateway:advance(5)
      assert.equal(2, fetches())
    end)

    it("when a token names a key that is not there, once for all who ask", function()
      start({ interval = 30 }, { set(OKP), { json = set(OKP, EC).json, delay = 1 } })
      assert.equal(200, ask(nil, { kid = "o1" }, okp, "EdDSA").status)
      gateway:advance(30)
      local pending = {}
      for i = 1, 5 do
        pending[i] = gateway:send { path = "/", headers = { Authorization = "Bearer " .. token { sub = "u" .. i } } }
      end
      for i = 1, 5 do assert.equal(200, pending[i]:receive().status) end
      assert.equal(2, fetches())
    end)

    it("not more often than each interval, whatever keys tokens name", function()
      start { interval = 30 }
      for i = 1, 20 do assert_refused("No key found for given 'kid'", ask(nil, { kid = "x" .. i })) end
      assert.equal(1, fetches())
      gateway:advance(30)
      for i = 1, 20 do assert.equal(401, ask(nil, { kid = "y" .. i }).status) end
      assert.equal(2, fetches())
    end)
  end)

  it("does not take a token any more whose key the issuer has withdrawn", function()
    start({ ttl = 60 }, { set(EC, OKP), set(OKP) })
    local mine = token()
    assert.equal(200, send(mine).status)
    gateway:advance(60)
    assert.equal(200, ask(nil, { kid = "o1" }, okp, "EdDSA").status) -- has the keys fetched
    gateway:advance(1)
    assert_refused("No key found for given 'kid'", send(mine))
    assert.equal(200, ask(nil, { kid = "o1" }, okp, "EdDSA").status)
  end)

  describe("while the URL fails", function()
    for what, answer in pairs {
      ["with an error"] = { status = 500, body = "no" },
      ["by a redirect"] = { status = 302, headers = { Location = URI } },
      ["with what is no JSON"] = "no JSON", ["with what holds no keys"] = { json = { error = "x" } },
      ["by refusing"] = { refuse = true }, ["by silence"] = { hang = true },
      ["with more than max_bytes"] = { body = '{"keys":[' .. (" "):rep(70000) .. "]}" },
    } do
      it("keeps the old keys: " .. what, function()
        start({ ttl = 60, interval = 10 }, { set(EC), answer })
        assert.equal(200, ask().status)
        for i = 1, 5 do
          gateway:advance(61)
          assert.equal(200, ask({ sub = "u" .. i }).status)
          gateway:advance(6)
        end
        assert.matches("the keys of a JWKS URL cannot be had", table.concat(gateway:log(), "\n"))
      end)

      it("says so when there are no keys yet: " .. what, function()
        start({ interval = 10 }, answer)
        local response = ask()
        assert.equal(503, response.status)
        assert.equal("The keys of the issuer cannot be had", response.json.message)
        gateway:upstream("issuer.test", set(EC))
        gateway:advance(10)
        assert.equal(200, ask().status)
      end)
    end

    it("asks it once each interval", function()
      start({ interval = 10 }, { status = 500 })
      for _ = 1, 10 do assert.equal(503, ask().status) end
      assert.equal(1, fetches())
    end)
  end)

  it("passes over keys that are for something else, or of no use", function()
    local weak = keys.new("RSA", "rsa_keygen_bits:1024")
    start({}, set(keys.jwk("ec", { kid = "enc", use = "enc" }), keys.jwk("ec", { kid = "ops", key_ops = { "sign" } }),
      keys.jwk("ec", { kid = "alg", alg = "ES384" }), keys.jwk("ec", { kid = "bad", x = "AQAB" }),
      { kty = "oct", kid = "oct", k = "c2VjcmV0" }, { kty = "new", kid = "new" }, "text", 7,
      keys.rsa_jwk(weak, { kid = "weak" }), keys.jwk("ec", { kid = "e1", use = "sig", key_ops = { "verify" } })))
    for _, kid in ipairs { "enc", "ops", "alg", "bad", "oct", "new" } do
      assert_refused("No key found for given 'kid'", ask(nil, { kid = kid }))
    end
    assert_refused("No key found for given 'kid'", ask(nil, { kid = "weak" }, crypto.key(weak.private), "RS256"))
    assert.equal(200, ask().status)
  end)

  it("takes RSA keys, by RS256 and PS256", function()
    local pair = keys.new("RSA", "rsa_keygen_bits:2048")
    start({}, set(keys.rsa_jwk(pair, { kid = "r1" })))
    for _, algorithm in ipairs { "RS256", "PS256" } do
      assert.equal(200, ask(nil, { kid = "r1" }, crypto.key(pair.private), algorithm).status)
    end
  end)

  it("refuses a configuration without uri, or with an algorithm of shared secrets", function()
    local function refusal(jwks)
      return select(2, spec.check { plugins = { { name = "jwt", config = { jwks = jwks } } } })
    end
    assert.matches("config.jwks.uri", refusal { issuers = { "x" } })
    assert.matches("config.jwks.uri: expected a URL", refusal { uri = "no url" })
    assert.matches("config.jwks.algorithms.*HS256", refusal { uri = URI, algorithms = { "HS256" } })
    assert.matches("config.jwks.timeout: expected .* from 1 to 60000", refusal { uri = URI, timeout = 0 })
    assert.matches("config.jwks.max_bytes", refusal { uri = URI, max_bytes = 10 })
    assert.matches("config.jwks.ssl_verify", refusal { uri = URI, ssl_verify = "no" })
  end)
end)
