-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local ALICE = { username = "alice", custom_id = "a-1", keyauth_credentials = { { key = "sesame",
  id = "11111111-2222-4333-8444-555555555555" } } }
local IDENTITY = { "x-consumer-id", "x-consumer-username", "x-consumer-custom-id", "x-credential-identifier",
  "x-anonymous-consumer" }

describe("key-auth", function()
  local gateway

  local function start(config, consumers)
    gateway = spec.gateway {
      consumers = consumers or { ALICE, { username = "nobody" } },
      plugins = { { name = "key-auth", config = config } },
    }
  end

  -- The request as the service saw it.
  local function seen()
    local requests = gateway:requests()
    return requests[#requests]
  end

  local function assert_refused(message, response)
    assert.equal(401, response.status)
    assert.equal(message, response.json.message)
    assert.equal(0, #gateway:requests())
    return response
  end

  it("lets a good key pass, and tells the service whose it is", function()
    start()
    assert.equal(200, gateway:get("/", { apikey = "sesame" }).status)
    local headers = seen().headers
    assert.equal("alice", headers["x-consumer-username"])
    assert.equal("a-1", headers["x-consumer-custom-id"])
    assert.equal("11111111-2222-4333-8444-555555555555", headers["x-credential-identifier"])
    assert.matches("^%x+%-%x+%-%x+%-%x+%-%x+$", headers["x-consumer-id"])
    assert.is_nil(headers["x-anonymous-consumer"])
  end)

  it("refuses a request without a key, or with an empty one", function()
    start()
    local response = assert_refused("No API key found in request", gateway:get("/"))
    assert.equal("Key", response.headers["www-authenticate"])
    assert.matches("^%x+$", response.json.request_id)
    assert_refused("No API key found in request", gateway:get("/", { apikey = "" }))
    assert_refused("No API key found in request", gateway:get("/?apikey"))
    assert_refused("No API key found in request", gateway:get("/?apikey="))
  end)

  it("refuses a key that is nobody's, and one like somebody's", function()
    start()
    for _, key in ipairs { "other", "Sesame", "sesame ,", "sesam", "sesamesesame" } do
      local response = assert_refused("Unauthorized", gateway:get("/", { apikey = key }))
      assert.equal("Key", response.headers["www-authenticate"])
    end
  end)

  it("refuses several keys under one name, even the same", function()
    start { key_in_body = true }
    local twice = { { "apikey", "sesame" }, { "ApiKey", "sesame" } }
    assert_refused("Duplicate API key found", gateway:request { path = "/", headers = twice })
    assert_refused("Duplicate API key found", gateway:get("/?apikey=sesame&apikey=sesame"))
    assert_refused("Duplicate API key found", gateway:get("/?apikey=sesame&%61pikey=sesame"))
    assert_refused("Duplicate API key found", gateway:post("/", { apikey = { "sesame" } }))
  end)

  it("says its realm", function()
    start { realm = 'the "inner" one' }
    assert.equal([[Key realm="the \"inner\" one"]], gateway:get("/").headers["www-authenticate"])
  end)

  describe("finds keys", function()
    it("under any of key_names, in their order", function()
      start { key_names = { "x-key", "token" } }
      assert.equal(200, gateway:get("/", { ["X-Key"] = "sesame" }).status)
      assert.equal(200, gateway:get("/?token=sesame").status)
      assert.equal(200, gateway:get("/?token=other", { ["X-Key"] = "sesame" }).status)
      assert.equal(401, gateway:get("/?token=sesame", { ["X-Key"] = "other" }).status)
      assert.equal(401, gateway:get("/", { apikey = "sesame" }).status)
    end)

    it("in the header before the query", function()
      start()
      assert.equal(200, gateway:get("/?apikey=other", { apikey = "sesame" }).status)
      assert.equal(401, gateway:get("/?apikey=sesame", { apikey = "other" }).status)
    end)

    it("not in the header when key_in_header is off", function()
      start { key_in_header = false }
      assert.equal(401, gateway:get("/", { apikey = "sesame" }).status)
      assert.equal(200, gateway:get("/?apikey=sesame", { apikey = "other" }).status)
    end)

    it("not in the query when key_in_query is off", function()
      start { key_in_query = false }
      assert.equal(401, gateway:get("/?apikey=sesame").status)
      assert.equal(200, gateway:get("/", { apikey = "sesame" }).status)
    end)

    it("not in the body unless key_in_body is on", function()
      start()
      assert.equal(401, gateway:post("/", { apikey = "sesame" }).status)
    end)

    it("in a body of JSON, a form or multipart/form-data", function()
      start { key_in_body = true }
      local form = { ["Content-Type"] = "application/x-www-form-urlencoded" }
      local multipart = '--b\r\nContent-Disposition: form-data; name="apikey"\r\n\r\nsesame\r\n--b--\r\n'
      assert.equal(200, gateway:post("/", { apikey = "sesame" }).status)
      assert.equal(200, gateway:post("/", "a=1&apikey=sesame", form).status)
      assert.equal(200, gateway:post("/", multipart, { ["Content-Type"] = "multipart/form-data; boundary=b" }).status)
    end)

    it("nowhere in a body that it cannot read", function()
      start { key_in_body = true }
      local json = { ["Content-Type"] = "application/json" }
      assert_refused("No API key found in request", gateway:post("/", '{"apikey":', json))
      assert_refused("No API key found in request", gateway:post("/", '"apikey"', json))
      assert_refused("No API key found in request", gateway:post("/", "apikey=sesame", { ["Content-Type"] = "x/y" }))
    end)
  end)

  describe("with hide_credentials", function()
    it("keeps the key from the service, wherever it was, and leaves the rest", function()
      start { hide_credentials = true, key_in_body = true, key_names = { "apikey", "x_key" } }
      gateway:request { method = "POST", path = "/a?b=1&%61pikey=sesame&c=%20", body = '{"apikey":"sesame","list":[]}',
        headers = { apikey = "sesame", ["X-Key"] = "sesame", X_Key = "sesame", other = "stays",
          ["Content-Type"] = "application/json" } }
      local request = seen()
      assert.is_nil(request.headers.apikey)
      assert.is_nil(request.headers["x-key"])
      assert.is_nil(request.headers["x_key"])
      assert.equal("stays", request.headers.other)
      assert.equal("/a?b=1&c=%20", request.target)
      assert.equal('{"list":[]}', request.body)
    end)

    it("sends a body on as it was when there is no key in it", function()
      start { hide_credentials = true, key_in_body = true }
      gateway:post("/?apikey=sesame", '{ "a" : 1 }', { ["Content-Type"] = "application/json" })
      assert.equal('{ "a" : 1 }', seen().body)
    end)

    it("also hides a key that is nobody's from who is served as anonymous", function()
      start { hide_credentials = true, anonymous = "nobody" }
      gateway:get("/?apikey=a&apikey=b", { apikey = "other" })
      assert.is_nil(seen().headers.apikey)
      assert.equal("/", seen().target)
    end)
  end)

  it("shows the key to the service otherwise", function()
    start()
    gateway:get("/?apikey=sesame", { apikey = "sesame" })
    assert.equal("sesame", seen().headers.apikey)
    assert.equal("/?apikey=sesame", seen().target)
  end)

  describe("with anonymous", function()
    it("serves who has no good key as that consumer, by name or id", function()
      for _, anonymous in ipairs { "nobody", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee" } do
        start({ anonymous = anonymous }, { ALICE,
          { username = "nobody", id = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee" } })
        for _, key in ipairs { "", "other" } do
          assert.equal(200, gateway:get("/", { apikey = key }).status)
          local headers = seen().headers
          assert.equal("nobody", headers["x-consumer-username"])
          assert.equal("aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", headers["x-consumer-id"])
          assert.equal("true", headers["x-anonymous-consumer"])
          assert.is_nil(headers["x-credential-identifier"])
        end
      end
    end)

    it("serves who has a good key as who it is", function()
      start { anonymous = "nobody" }
      gateway:get("/", { apikey = "sesame" })
      assert.equal("alice", seen().headers["x-consumer-username"])
      assert.is_nil(seen().headers["x-anonymous-consumer"])
    end)

    it("answers 500 when there is no such consumer", function()
      start { anonymous = "missing" }
      local response = gateway:get("/")
      assert.equal(500, response.status)
      assert.equal("anonymous consumer missing is configured but doesn't exist", response.json.message)
    end)
  end)

  describe("authenticates OPTIONS", function()
    local function preflight(headers)
      return gateway:request { method = "OPTIONS", path = "/", headers = headers }.status
    end

    it("as other requests", function()
      start()
      assert.equal(401, preflight())
      assert.equal(200, preflight { apikey = "sesame" })
    end)

    it("not when run_on_preflight is off, and then tells the service of nobody", function()
      start { run_on_preflight = false }
      assert.equal(200, preflight { ["X-Consumer-Username"] = "forged" })
      assert.is_nil(seen().headers["x-consumer-username"])
      assert.equal(401, gateway:get("/").status)
    end)
  end)

  it("lets no identity from outside through, in any spelling", function()
    local function forge(key)
      local headers = { { "apikey", key } }
      for _, name in ipairs(IDENTITY) do
        headers[#headers + 1] = { name, "forged" }
        headers[#headers + 1] = { name:upper(), "forged" }
        headers[#headers + 1] = { name:gsub("-", "_"), "forged" }
        headers[#headers + 1] = { name:gsub("-", "_", 1), "forged" }
        headers[#headers + 1] = { name:gsub("-", "."), "forged" }
      end
      gateway:request { path = "/", headers = headers }
      for _, field in ipairs(seen().fields) do assert.not_equal("forged", field[2]) end
    end
    start { anonymous = "nobody" }
    forge "sesame"
    forge "other"
  end)

  it("takes no key past its ttl", function()
    start({}, { { username = "alice", keyauth_credentials = {
      { key = "short", created_at = 1767225600, ttl = 60 }, { key = "long", created_at = 1767225600, ttl = 0 } } } })
    assert.equal(200, gateway:get("/", { apikey = "short" }).status)
    gateway:advance(60)
    assert.equal(401, gateway:get("/", { apikey = "short" }).status)
    assert.equal(200, gateway:get("/", { apikey = "long" }).status)
  end)

  it("knows the keys of a new configuration at once, and those of the old no more", function()
    start()
    local function with(key)
      return gateway:get("/", { apikey = key }).status
    end
    assert.same({ 200, 401 }, { with "sesame", with "new" })
    assert(gateway:reload { consumers = { { username = "alice", keyauth_credentials = { { key = "new" } } } } })
    assert.same({ 401, 200 }, { with "sesame", with "new" })
  end)

  describe("refuses a configuration", function()
    local function problem(plugin)
      plugin.name = "key-auth"
      return select(2, spec.check { consumers = { { username = "alice" } }, plugins = { plugin } })
    end

    it("with a name that cannot be a field's", function()
      assert.matches('config.key_names[0]: expected a header name, found "a b"',
        problem { config = { key_names = { "a b" } } }, 1, true)
    end)

    it("for one consumer", function()
      assert.matches("consumer: expected nothing", problem { consumer = "alice" }, 1, true)
    end)
  end)
end)
