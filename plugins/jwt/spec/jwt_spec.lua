-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"
local crypto = require "sluice.crypto"
local jwt = require "sluice.jwt"
local keys = dofile("plugins/jwt/spec/keys.lua")

local NOW = 1700000000
local SECRET = "a secret of alice's that nobody knows"
local ID = "11111111-2222-4333-8444-555555555555"

local function consumers(credential)
  credential.key = credential.key or "alice-key"
  return { { username = "alice", custom_id = "a-1", id = ID, jwt_secrets = { credential } }, { username = "nobody" } }
end

describe("jwt", function()
  local gateway

  local function start(config, credential, others)
    gateway = spec.gateway { time = NOW, consumers = consumers(credential or { secret = SECRET }),
      plugins = { { name = "jwt", config = config }, unpack(others or {}) } }
  end

  local function token(claims, algorithm, key, header)
    return assert(jwt.sign(claims or { iss = "alice-key" }, algorithm or "HS256", key or SECRET, header))
  end

  local function with(text)
    return { Authorization = "Bearer " .. text }
  end

  local function ask(...)
    return gateway:get("/", with(token(...)))
  end

  local function seen()
    local requests = gateway:requests()
    return requests[#requests]
  end

  local function assert_refused(body, response, challenge)
    assert.equal(401, response.status)
    assert.same(type(body) == "table" and body or { message = body }, response.json)
    assert.equal(challenge or 'Bearer error="invalid_token"', response.headers["www-authenticate"])
  end

  it("lets a good token pass, and tells the service whose it is", function()
    start()
    for _ = 1, 2 do -- the second time from what is kept
      assert.equal(200, ask().status)
      local headers = seen().headers
      assert.equal("alice", headers["x-consumer-username"])
      assert.equal(ID, headers["x-consumer-id"])
      assert.equal("a-1", headers["x-consumer-custom-id"])
      assert.equal("alice-key", headers["x-credential-identifier"])
      assert.is_nil(headers["x-anonymous-consumer"])
    end
  end)

  it("lets no identity of the client's own through", function()
    start()
    gateway:get("/", { Authorization = "Bearer " .. token(), ["X-Consumer-Username"] = "root", X_Consumer_ID = "0" })
    assert.equal("alice", seen().headers["x-consumer-username"])
    assert.is_nil(seen().headers["x_consumer_id"])
  end)

  it("refuses a request without a token", function()
    start()
    assert_refused("Unauthorized", gateway:get("/"), "Bearer")
    for _, value in ipairs { "Basic YTpi", "Bearer", "Bearer  ", "x" .. token() } do
      assert_refused("Unauthorized", gateway:get("/", { Authorization = value }), "Bearer")
    end
    assert.equal(0, #gateway:requests())
  end)

  it("refuses two different tokens, but takes one that is there twice", function()
    start { cookie_names = { "token" } }
    local one, other = token(), token { iss = "alice-key", n = 1 }
    assert_refused("Multiple tokens provided", gateway:get("/?jwt=" .. other, with(one)))
    assert_refused("Multiple tokens provided", gateway:get("/?jwt=" .. one .. "&jwt=" .. other))
    assert_refused("Multiple tokens provided", gateway:get("/", { Authorization = "Bearer " .. one,
      Cookie = "token=" .. other }))
    assert_refused("Multiple tokens provided", gateway:request { path = "/", headers = {
      { "Authorization", "Bearer " .. one }, { "authorization", "Bearer " .. other } } })
    assert.equal(200, gateway:get("/?jwt=" .. one, { Authorization = "bearer " .. one,
      Cookie = "token=" .. one }).status)
  end)

  it("takes two fields for two tokens when only fields are looked at", function()
    start { uri_param_names = {} }
    local one, other = token(), token { iss = "alice-key", n = 1 }
    for _ = 1, 2 do
      assert.equal(200, gateway:get("/", with(one)).status)
      assert_refused("Multiple tokens provided", gateway:request { path = "/", headers = {
        { "Authorization", "Bearer " .. one }, { "authorization", "Bearer " .. other } } })
    end
    assert.equal(200, gateway:get("/?jwt=" .. other, with(one)).status)
  end)

  describe("finds tokens", function()
    it("in the query under uri_param_names", function()
      start { uri_param_names = { "jwt", "t" } }
      for _ = 1, 2 do
        assert.equal(200, gateway:get("/?jwt=" .. token()).status)
        assert.equal(200, gateway:get("/?t=" .. token()).status)
      end
      assert.equal(401, gateway:get("/?jwtx=" .. token()).status)
      start { uri_param_names = {} }
      assert.equal(401, gateway:get("/?jwt=" .. token()).status)
    end)

    it("in cookie_names", function()
      start { cookie_names = { "session", "token" } }
      assert.equal(200, gateway:get("/", { Cookie = "a=b; token=" .. token() .. "; c=d" }).status)
      assert.equal(401, gateway:get("/", { Cookie = "other=" .. token() }).status)
      start()
      assert.equal(401, gateway:get("/", { Cookie = "jwt=" .. token() }).status)
    end)

    it("in header_names, as a bearer token in any case", function()
      start { header_names = { "x-token", "authorization" } }
      assert.equal(200, gateway:get("/", { ["X-Token"] = "bearer " .. token() }).status)
      assert.equal(200, gateway:get("/", { Authorization = "BEARER   " .. token() }).status)
      assert.equal(401, gateway:get("/", { ["X-Token"] = token() }).status)
      start { header_names = { "x-token" } }
      assert.equal(401, gateway:get("/", with(token())).status)
    end)
  end)

  it("does not take what is kept of a field for a token from elsewhere", function()
    start { header_names = { "x-token" } }
    assert.equal(200, gateway:get("/?jwt=" .. token()).status)
    assert.equal(401, gateway:get("/", { ["X-Token"] = token() }).status)
  end)

  describe("finds the credential", function()
    it("by the claim key_claim_name, else by the header's member", function()
      start { key_claim_name = "kid" }
      assert.equal(200, ask({ kid = "alice-key" }).status)
      assert.equal(200, ask({ x = 1 }, nil, nil, { kid = "alice-key" }).status)
      assert_refused("No credentials found for given 'kid'", ask({ kid = "other" }, nil, nil, { kid = "alice-key" }))
      assert_refused("No mandatory 'kid' in claims", ask())
    end)

    it("or says why not", function()
      start()
      assert_refused("No mandatory 'iss' in claims", ask { sub = "alice-key" })
      assert_refused("Invalid 'iss' in claims", ask { iss = "" })
      assert_refused("Invalid 'iss' in claims", ask { iss = { "alice-key" } })
      assert_refused("No credentials found for given 'iss'", ask { iss = "bob-key" })
    end)
  end)

  describe("verifies", function()
    for _, algorithm in ipairs { "HS256", "HS384", "HS512" } do
      it(algorithm, function()
        start(nil, { secret = SECRET, algorithm = algorithm })
        assert.equal(200, ask(nil, algorithm).status)
        assert_refused("Invalid signature", ask(nil, algorithm, "another secret"))
      end)
    end

    for kind, it_has in pairs {
      rsa = { "RSA", "rsa_keygen_bits:2048", { "RS256", "RS384", "RS512", "PS256", "PS384", "PS512" } },
      p256 = { "EC", "ec_paramgen_curve:P-256", { "ES256" } }, p384 = { "EC", "ec_paramgen_curve:P-384", { "ES384" } },
      p521 = { "EC", "ec_paramgen_curve:P-521", { "ES512" } }, ed25519 = { "ED25519", nil, { "EdDSA" } },
      ed448 = { "ED448", nil, { "EdDSA" } },
    } do
      it(table.concat(it_has[3], ", ") .. " by a key of kind " .. kind, function()
        local mine, other = keys.new(it_has[1], it_has[2]), keys.new(it_has[1], it_has[2])
        local pair, stranger = crypto.key(mine.private), crypto.key(other.private)
        for _, algorithm in ipairs(it_has[3]) do
          start(nil, { algorithm = algorithm, rsa_public_key = mine.public })
          assert.equal(200, ask(nil, algorithm, pair).status)
          assert_refused("Invalid signature", ask(nil, algorithm, stranger))
        end
      end)
    end

    it("a secret that is given in base64", function()
      start({ secret_is_base64 = true }, { secret = crypto.base64_encode(SECRET) })
      assert.equal(200, ask().status)
      assert_refused("Invalid signature", ask(nil, nil, crypto.base64_encode(SECRET)))
      start({ secret_is_base64 = true }, { secret = "no base64!" })
      assert_refused("Invalid key/secret", ask())
    end)
  end)

  describe("with claims_to_verify", function()
    it("refuses a token past its exp, and one without", function()
      start { claims_to_verify = { "exp" } }
      assert.equal(200, ask({ iss = "alice-key", exp = NOW + 10 }).status)
      assert_refused({ exp = "token expired" }, ask { iss = "alice-key", exp = NOW })
      assert_refused({ exp = "must be a number" }, ask { iss = "alice-key" })
      assert_refused({ exp = "must be a number" }, ask { iss = "alice-key", exp = tostring(NOW + 10) })
    end)

    it("refuses a token before its nbf", function()
      start { claims_to_verify = { "nbf", "exp" } }
      assert.equal(200, ask({ iss = "alice-key", exp = NOW + 10, nbf = NOW }).status)
      assert_refused({ nbf = "token not valid yet" }, ask { iss = "alice-key", exp = NOW + 10, nbf = NOW + 1 })
      assert_refused({ nbf = "must be a number", exp = "token expired" }, ask { iss = "alice-key", exp = 1 })
    end)

    it("does not look at claims that are not named", function()
      start()
      assert.equal(200, ask({ iss = "alice-key", exp = 1, nbf = NOW + 100 }).status)
    end)

    it("allows for clocks that differ by leeway", function()
      start { claims_to_verify = { "exp", "nbf" }, leeway = 5 }
      assert.equal(200, ask({ iss = "alice-key", exp = NOW - 4, nbf = NOW + 4 }).status)
      assert_refused({ exp = "token expired" }, ask { iss = "alice-key", exp = NOW - 5, nbf = 0 })
      assert_refused({ nbf = "token not valid yet" }, ask { iss = "alice-key", exp = NOW + 1, nbf = NOW + 6 })
    end)

    it("bounds how far ahead exp may lie", function()
      start { claims_to_verify = { "exp" }, maximum_expiration = 300 }
      assert.equal(200, ask({ iss = "alice-key", exp = NOW + 300 }).status)
      assert_refused({ exp = "exceeds maximum allowed expiration" }, ask { iss = "alice-key", exp = NOW + 301 })
    end)
  end)

  describe("keeps what it verified", function()
    it("no longer than the token holds", function()
      start { claims_to_verify = { "exp" } }
      local mine = with(token { iss = "alice-key", exp = NOW + 10 })
      assert.equal(200, gateway:get("/", mine).status)
      gateway:advance(9)
      assert.equal(200, gateway:get("/", mine).status)
      gateway:advance(1)
      assert_refused({ exp = "token expired" }, gateway:get("/", mine))
    end)

    it("no longer than the credential stays what it was", function()
      start()
      local mine = with(token())
      assert.equal(200, gateway:get("/", mine).status)
      assert.is_true(gateway:reload { consumers = consumers { secret = "another secret" } })
      assert_refused("Invalid signature", gateway:get("/", mine))
      assert.is_true(gateway:reload { consumers = consumers { secret = SECRET } })
      assert.equal(200, gateway:get("/", mine).status)
      assert.is_true(gateway:reload { consumers = consumers { secret = SECRET, key = "other" } })
      assert_refused("No credentials found for given 'iss'", gateway:get("/", mine))
    end)

    it("no longer than the consumer stays who it was", function()
      start()
      local mine, changed = with(token()), consumers { secret = SECRET }
      assert.equal(200, gateway:get("/", mine).status)
      changed[1].username = "alicia"
      assert.is_true(gateway:reload { consumers = changed })
      assert.equal(200, gateway:get("/", mine).status)
      assert.equal("alicia", seen().headers["x-consumer-username"])
    end)
  end)

  describe("with anonymous", function()
    it("lets whoever has no good token pass as that consumer", function()
      start { anonymous = "nobody" }
      for _, headers in ipairs { {}, with "x.y.z" } do
        assert.equal(200, gateway:get("/", headers).status)
        assert.equal("nobody", seen().headers["x-consumer-username"])
        assert.equal("true", seen().headers["x-anonymous-consumer"])
      end
      assert.equal(200, ask().status)
      assert.equal("alice", seen().headers["x-consumer-username"])
      assert.is_nil(seen().headers["x-anonymous-consumer"])
    end)

    it("leaves alone whom another plugin has authenticated", function()
      gateway = spec.gateway { time = NOW, consumers = { { username = "bob", keyauth_credentials = { { key = "k" } } },
        { username = "nobody" } }, plugins = { { name = "key-auth", ordering = { before = { access = { "jwt" } } } },
        { name = "jwt", config = { anonymous = "nobody" } } } }
      assert.equal(200, gateway:get("/", { apikey = "k" }).status)
      assert.equal("bob", seen().headers["x-consumer-username"])
    end)

    it("says when there is no such consumer", function()
      start { anonymous = "stranger" }
      local response = gateway:get("/")
      assert.equal(500, response.status)
      assert.equal("anonymous consumer stranger is configured but doesn't exist", response.json.message)
    end)
  end)

  it("lets preflight requests pass when run_on_preflight is off", function()
    start()
    local preflight = { method = "OPTIONS", path = "/", headers = { ["X-Consumer-ID"] = "mine" } }
    assert.equal(401, gateway:request(preflight).status)
    start { run_on_preflight = false }
    assert.equal(200, gateway:request(preflight).status)
    assert.is_nil(seen().headers["x-consumer-id"])
    assert.equal(401, gateway:get("/").status)
  end)

  it("keeps tokens from the service with hide_credentials, and leaves the rest", function()
    local config = { hide_credentials = true, cookie_names = { "t" }, header_names = { "authorization", "x-token" },
      anonymous = "nobody" }
    start(config)
    for _, mine in ipairs { token(), token(), "x.y.z" } do
      gateway:get("/p?a=1&jwt=" .. mine .. "&b=2", { Authorization = "Bearer " .. mine, ["X-Token"] = "Basic x",
        Cookie = "a=b; t=" .. mine .. ";c=d" })
      assert.same({ nil, "Basic x", "a=b; c=d", "a=1&b=2" }, { seen().headers.authorization, seen().headers["x-token"],
        seen().headers.cookie, seen().query })
      gateway:get("/", { Cookie = "t=" .. mine })
      assert.is_nil(seen().headers.cookie)
    end
    config.hide_credentials = nil
    start(config)
    gateway:get("/", with(token()))
    assert.matches("^Bearer ", seen().headers.authorization)
  end)

  it("says its realm", function()
    start { realm = 'the "inner" one' }
    assert_refused("Unauthorized", gateway:get("/"), [[Bearer realm="the \"inner\" one"]])
    assert_refused("Bad token; invalid JSON", gateway:get("/", with "x"),
      [[Bearer realm="the \"inner\" one", error="invalid_token"]])
  end)

  it("gives later plugins the token", function()
    gateway = spec.gateway { time = NOW, consumers = consumers { secret = SECRET },
      plugins = { { name = "jwt" }, { name = "tell" } }, plugins_code = { tell = [[
        return { version = "1.0.0", priority = 1, access = function(_, exchange)
          exchange.response:exit(200, exchange.ctx.authenticated_jwt_token)
        end }]] } }
    local mine = token()
    assert.equal(mine, gateway:get("/", with(mine)).body)
    assert.equal(mine, gateway:get("/", with(mine)).body)
  end)

  describe("refuses a configuration", function()
    local function refusal(config, credential)
      local _, err = spec.check { consumers = consumers(credential or { secret = "s" }),
        plugins = { { name = "jwt", config = config } } }
      return err
    end

    it("with a maximum_expiration and no exp to verify", function()
      assert.matches("claims_to_verify", refusal { maximum_expiration = 10 })
      assert.matches("claims_to_verify", refusal { maximum_expiration = 10, claims_to_verify = { "nbf" } })
      assert.is_nil(refusal { maximum_expiration = 10, claims_to_verify = { "exp", "nbf" } })
      assert.matches("maximum_expiration: expected .* from 0 to 31536000", refusal { maximum_expiration = 31536001,
        claims_to_verify = { "exp" } })
    end)

    it("with a claim that cannot be verified", function()
      assert.matches("claims_to_verify.*expected one of exp or nbf", refusal { claims_to_verify = { "iat" } })
    end)

    it("with a credential whose key is none", function()
      assert.matches("rsa_public_key: expected a public key or a certificate in PEM form",
        refusal({}, { algorithm = "RS256", rsa_public_key = "no key" }))
      assert.matches("rsa_public_key: expected a value", refusal({}, { algorithm = "ES256" }))
      assert.matches("secret: expected a value", refusal({}, { algorithm = "HS384" }))
      assert.matches("algorithm: expected one of .* found \"none\"", refusal({}, { algorithm = "none", secret = "s" }))
    end)
  end)
end)
