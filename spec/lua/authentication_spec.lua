-- SPDX-License-Identifier: Apache-2.0
-- Several authentication plugins on one route, as in Kong: those with `anonymous` are alternatives, those without have
-- to be satisfied all. And what of plugins runs for whom they find.
local spec = require "sluice.spec"
local crypto = require "sluice.crypto"

local ALICE_KEY, BOB_PASSWORD = { apikey = "alice" }, { Authorization = "Basic Ym9iOmJvYg==" } -- bob:bob
local BOTH, WRONG_KEY = { apikey = "alice", Authorization = BOB_PASSWORD.Authorization }, { apikey = "wrong" }
local DATE = "Thu, 01 Jan 2026 00:00:00 GMT" -- what the clock of a spec shows

local CONSUMERS = {
  { username = "alice", keyauth_credentials = { { key = "alice" } }, acls = { { group = "key" } } },
  { username = "bob", basicauth_credentials = { { username = "bob", password = "bob" } },
    acls = { { group = "password" } } },
  { username = "carol", hmacauth_credentials = { { username = "carol", secret = "secret" } } },
  { username = "dave", jwt_secrets = { { key = "dave", secret = "secret" } } },
  { username = "nobody" },
}

local function token()
  local text = crypto.base64url_encode('{"alg":"HS256","typ":"JWT"}') .. "."
    .. crypto.base64url_encode('{"iss":"dave"}')
  return { Authorization = "Bearer " .. text .. "." .. crypto.base64url_encode(crypto.hmac("sha256", "secret", text)) }
end

local function signed()
  return { ["X-Date"] = DATE, Authorization = ('hmac username="carol", algorithm="hmac-sha256", headers="x-date", '
    .. 'signature="%s"'):format(crypto.base64_encode(crypto.hmac("sha256", "secret", "x-date: " .. DATE))) }
end

describe("authentication by several plugins", function()
  local gateway

  -- key: configuration of key-auth, and so on; nil: without it.
  local function start(options)
    local plugins = options.plugins or {}
    for name, config in pairs { ["key-auth"] = options.key or false, ["basic-auth"] = options.basic or false,
      ["hmac-auth"] = options.hmac or false, jwt = options.jwt or false } do
      if config then plugins[#plugins + 1] = { name = name, config = config } end
    end
    gateway = spec.gateway { consumers = CONSUMERS, plugins = plugins }
  end

  -- The status, and whom the service saw.
  local function outcome(headers)
    local before = #gateway:requests()
    local response = gateway:get("/", headers)
    local request = gateway:requests()[before + 1]
    if not request then return response.status end
    local seen = request.headers
    return response.status, seen["x-consumer-username"], seen["x-credential-identifier"] ~= nil,
      seen["x-anonymous-consumer"]
  end

  local function assert_outcome(headers, ...)
    assert.same({ ... }, { outcome(headers) })
  end

  describe("without anonymous", function()
    before_each(function() start { key = {}, basic = {} } end)

    it("needs all of them, and the last one says who it is", function()
      assert_outcome(BOTH, 200, "bob", true, nil)
      assert_outcome(ALICE_KEY, 401)
      assert_outcome(BOB_PASSWORD, 401)
      assert_outcome(nil, 401)
    end)

    it("tells of the one that is missing", function()
      assert.equal("Key", gateway:get("/", BOB_PASSWORD).headers["www-authenticate"])
      assert.equal('Basic realm="service"', gateway:get("/", ALICE_KEY).headers["www-authenticate"])
    end)
  end)

  describe("with anonymous", function()
    before_each(function()
      start { key = { anonymous = "nobody" }, basic = { anonymous = "nobody", hide_credentials = true },
        hmac = { anonymous = "nobody" }, jwt = { anonymous = "nobody" } }
    end)

    it("needs one of them, and the first one that knows says who it is", function()
      assert_outcome(ALICE_KEY, 200, "alice", true, nil)
      assert_outcome(BOB_PASSWORD, 200, "bob", true, nil)
      assert_outcome(BOTH, 200, "alice", true, nil)
      assert_outcome(signed(), 200, "carol", true, nil)
      assert_outcome(token(), 200, "dave", true, nil)
    end)

    it("goes on as that consumer when none knows", function()
      for _, headers in ipairs { {}, WRONG_KEY, { Authorization = "Basic x" }, { Authorization = "Bearer x" } } do
        assert_outcome(headers, 200, "nobody", false, "true")
      end
    end)

    it("forgets a wrong key for a good password", function()
      assert_outcome({ apikey = "wrong", Authorization = BOB_PASSWORD.Authorization }, 200, "bob", true, nil)
    end)
  end)

  it("goes on as anonymous of the last one when each has its own", function()
    start { key = { anonymous = "alice" }, basic = { anonymous = "nobody" } }
    assert_outcome(nil, 200, "nobody", false, "true")
  end)

  it("needs those without, when others have it", function()
    start { key = { anonymous = "nobody" }, basic = {} }
    assert_outcome(ALICE_KEY, 401)
    assert_outcome(BOB_PASSWORD, 200, "bob", true, nil)
    assert_outcome(nil, 401)
    start { key = {}, basic = { anonymous = "nobody" } }
    assert_outcome(ALICE_KEY, 200, "alice", true, nil)
    assert_outcome(BOB_PASSWORD, 401)
  end)

  it("can refuse who satisfied none, by a plugin of the anonymous consumer", function()
    start { key = { anonymous = "nobody" }, basic = { anonymous = "nobody" }, plugins = {
      { name = "request-termination", consumer = "nobody", config = { status_code = 403, message = "who is it?" } } } }
    assert_outcome(ALICE_KEY, 200, "alice", true, nil)
    local response = gateway:get("/")
    assert.same({ 403, "who is it?" }, { response.status, response.json.message })
  end)

  it("has acl judge the consumer that was settled", function()
    start { key = { anonymous = "nobody" }, basic = { anonymous = "nobody" }, plugins = {
      { name = "acl", config = { allow = { "password" } } } } }
    assert_outcome(BOB_PASSWORD, 200, "bob", true, nil)
    assert_outcome(ALICE_KEY, 403)
    assert_outcome(BOTH, 403)
    assert_outcome(nil, 401)
  end)
end)

describe("groups of consumers", function()
  it("limit together with limit_by: consumer-group", function()
    local gateway = spec.gateway {
      consumer_groups = { { name = "gold" } },
      consumers = {
        { username = "alice", groups = { { name = "gold" } }, keyauth_credentials = { { key = "alice" } } },
        { username = "bob", groups = { { name = "gold" } }, keyauth_credentials = { { key = "bob" } } },
        { username = "carol", keyauth_credentials = { { key = "carol" } } },
      },
      plugins = { { name = "key-auth" }, { name = "rate-limiting", config = { minute = 2,
        limit_by = "consumer-group" } } },
    }
    local function status(key) return gateway:get("/", { apikey = key }).status end
    assert.same({ 200, 200, 429, 429 }, { status "alice", status "bob", status "alice", status "bob" })
    assert.same({ 200, 200, 429 }, { status "carol", status "carol", status "carol" })
  end)

  it("have limits of their own", function()
    local gateway = spec.gateway {
      consumer_groups = {
        { name = "gold", plugins = { { name = "rate-limiting", config = { minute = 3 } } } },
        { name = "iron", plugins = { { name = "rate-limiting", config = { minute = 1 } } } },
      },
      consumers = {
        { username = "alice", groups = { { name = "gold" } }, keyauth_credentials = { { key = "alice" } } },
        { username = "bob", groups = { { name = "iron" } }, keyauth_credentials = { { key = "bob" } } },
        { username = "carol", keyauth_credentials = { { key = "carol" } } },
        { username = "dora", groups = { { name = "iron" }, { name = "gold" } },
          keyauth_credentials = { { key = "dora" } } },
      },
      plugins = { { name = "key-auth" }, { name = "rate-limiting", config = { minute = 2 } } },
    }
    local function passes(key)
      local count = 0
      for _ = 1, 5 do
        if gateway:get("/", { apikey = key }).status == 200 then count = count + 1 end
      end
      return count
    end
    assert.same({ 3, 1, 2 }, { passes "alice", passes "bob", passes "carol" })
    assert.equal(3, passes "dora") -- the first of her groups by name
  end)
end)
