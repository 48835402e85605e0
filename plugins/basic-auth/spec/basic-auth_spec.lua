-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"
local crypto = require "sluice.crypto"

local function basic(name, password)
  return "Basic " .. crypto.base64_encode(name .. ":" .. password)
end

local function consumer(name, password, more)
  local made = { username = name, basicauth_credentials = { { username = name, password = password } } }
  for key, value in pairs(more or {}) do made[key] = value end
  return made
end

local ALICE_ID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
local CHEAP = "$y$j75$k2XAnEHBqQ1Ct2aMXFKNa/HAmA1BpMnBsYHMWB4NZN4$Hj8ha.49UT5sHWbc3072ggKXKgBXaEIS/ZAYK2tUqr1" -- hello

describe("basic-auth", function()
  local gateway

  local function start(config, options)
    options = options or {}
    options.consumers = options.consumers or { consumer("alice", CHEAP, { custom_id = "a-1", id = ALICE_ID }),
      { username = "nobody" } }
    options.plugins = { { name = "basic-auth", config = config } }
    gateway = spec.gateway(options)
  end

  local function status(authorization)
    return gateway:get("/", { Authorization = authorization }).status
  end

  local function seen()
    local requests = gateway:requests()
    return requests[#requests]
  end

  it("lets a good password pass, and tells the service whose it is", function()
    start()
    assert.equal(200, status(basic("alice", "hello")))
    local headers = seen().headers
    assert.equal("alice", headers["x-consumer-username"])
    assert.equal("a-1", headers["x-consumer-custom-id"])
    assert.equal(ALICE_ID, headers["x-consumer-id"])
    assert.equal("alice", headers["x-credential-identifier"])
    assert.is_nil(headers["x-anonymous-consumer"])
  end)

  it("refuses others, and says the same of each", function()
    start()
    for _, value in ipairs { "", basic("alice", "hell"), basic("alice", "Hello"), basic("alice", "hello "),
      basic("alice", ""), basic("alice", "hello\0"), basic("alice", ("h"):rep(600)), basic("bob", "hello"),
      basic("", "hello"), "Basic", "Basic !", "Basic " .. crypto.base64_encode("alice"), "Bearer x",
      basic("alice", CHEAP) } do
      local response = gateway:get("/", { Authorization = value })
      assert.message(value).equal(401, response.status)
      assert.equal("Unauthorized", response.json.message)
      assert.equal('Basic realm="service"', response.headers["www-authenticate"])
    end
    assert.equal(401, gateway:get("/").status)
    assert.equal(0, #gateway:requests())
  end)

  it("says its realm", function()
    start { realm = 'the "inner" one' }
    assert.equal([[Basic realm="the \"inner\" one"]], gateway:get("/").headers["www-authenticate"])
  end)

  it("takes the scheme in any case, and base64 without its padding", function()
    start()
    local code = crypto.base64_encode "alice:hello"
    assert.matches("=$", code)
    assert.equal(200, status("bAsIc   " .. code))
    assert.equal(200, status("basic " .. code:gsub("=", "")))
  end)

  it("takes a password with colons in it, and other letters than English ones", function()
    start({}, { consumers = { consumer("alice", "a:b:"), consumer("zoë", "pässword") } })
    assert.equal(200, status(basic("alice", "a:b:")))
    assert.equal(200, status(basic("zoë", "pässword")))
  end)

  it("looks at Proxy-Authorization first", function()
    start()
    local function both(proxy, plain)
      return gateway:get("/", { ["Proxy-Authorization"] = proxy, Authorization = plain }).status
    end
    assert.equal(200, both(basic("alice", "hello"), "Bearer x"))
    assert.equal(401, both(basic("alice", "wrong"), basic("alice", "hello")))
    assert.equal(200, both(basic("bob", "wrong"), basic("alice", "hello")))
    assert.equal(200, both("Bearer x", basic("alice", "hello")))
  end)

  it("takes neither of two fields", function()
    start()
    local good = basic("alice", "hello")
    assert.equal(401, gateway:request { path = "/", headers = { { "Authorization", good },
      { "authorization", good } } }.status)
  end)

  describe("takes a password", function()
    local function takes(password, hash, file)
      local text = (file or "") .. ("consumers: [{username: alice, id: %s, basicauth_credentials: [{username: alice, "
        .. "password: '%s'}]}]\nplugins: [{name: basic-auth}]\nservices: [{host: a.example, routes: [{paths: [/]}]}]")
        :format(ALICE_ID, hash)
      gateway = spec.gateway { config = text }
      assert.equal(401, status(basic("alice", password .. "x")))
      return status(basic("alice", password))
    end

    it("that stands there plain", function()
      assert.equal(200, takes("open sesame", "open sesame"))
    end)

    it("by each method of crypt(5) that is still good", function()
      for _, hash in ipairs { CHEAP, "$2b$05$KBCwKxOzLha2MUDgW0PjXe5D9uuAp7I2O6z7376h1/7l92xku5xLG",
        "$6$rounds=1000$k2XAnEHBqQ1Ct2aM$"
          .. "G0bCpQyWtPEloWuFhM2KI7OYmuz.RHLE3Crdg31ft8YcTZselvw2kZzb4aTFJ6X/zfU4TlHqwpIhnzd9Z3wY4." } do
        assert.message(hash).equal(200, takes("hello", hash))
      end
    end)

    it("by Kong's SHA-1, in any case of the digits", function()
      local hash = crypto.hex(crypto.digest("sha1", "sesame" .. ALICE_ID))
      assert.equal(200, takes("sesame", hash, "_transform: false\n"))
      assert.equal(200, takes("sesame", hash:upper(), "_transform: false\n"))
    end)
  end)

  describe("with hide_credentials", function()
    it("keeps the password from the service", function()
      start { hide_credentials = true }
      assert.equal(200, gateway:request { path = "/", headers = { Authorization = basic("alice", "hello"),
        Proxy_Authorization = "x", ["Proxy-Authorization"] = basic("bob", "x") } }.status)
      for _, field in ipairs(seen().fields) do assert.is_nil(field[1]:lower():match("authorization")) end
    end)

    it("leaves other schemes alone", function()
      start { hide_credentials = true }
      gateway:get("/", { Authorization = "Bearer x", ["Proxy-Authorization"] = basic("alice", "hello") })
      assert.equal("Bearer x", seen().headers.authorization)
      assert.is_nil(seen().headers["proxy-authorization"])
    end)

    it("hides wrong ones from who is served as anonymous", function()
      start { hide_credentials = true, anonymous = "nobody" }
      assert.equal(200, status(basic("alice", "wrong")))
      assert.is_nil(seen().headers.authorization)
    end)
  end)

  it("shows the password to the service otherwise", function()
    start()
    status(basic("alice", "hello"))
    assert.equal(basic("alice", "hello"), seen().headers.authorization)
  end)

  describe("with anonymous", function()
    it("serves whoever has no good password as that consumer", function()
      start { anonymous = "nobody" }
      for _, value in ipairs { "", basic("alice", "wrong"), basic("bob", "x") } do
        assert.equal(200, status(value))
        local headers = seen().headers
        assert.equal("nobody", headers["x-consumer-username"])
        assert.equal("true", headers["x-anonymous-consumer"])
        assert.is_nil(headers["x-credential-identifier"])
      end
      status(basic("alice", "hello"))
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

  describe("remembers", function()
    local function count(fn)
      local before = #gateway:log("a password is checked")
      fn()
      return #gateway:log("a password is checked") - before
    end

    it("a good password until the credential changes", function()
      start()
      assert.equal(1, count(function()
        for _ = 1, 5 do assert.equal(200, status(basic("alice", "hello"))) end
      end))
      assert(gateway:reload { routes = { { name = "new", paths = { "/" }, service = { name = "s" } } },
        services = { { name = "s", host = "s.example" } } })
      assert.equal(0, count(function() assert.equal(200, status(basic("alice", "hello"))) end))
      assert(gateway:reload { consumers = { consumer("alice", "other") } })
      assert.equal(2, count(function()
        assert.equal(401, status(basic("alice", "hello")))
        assert.equal(200, status(basic("alice", "other")))
      end))
    end)

    it("the last wrong ones, and those of strangers", function()
      start()
      assert.equal(1, count(function()
        for _ = 1, 3 do assert.equal(401, status(basic("alice", "wrong"))) end
      end))
      assert.equal(1, count(function()
        for _ = 1, 3 do assert.equal(401, status(basic("bob", "hello"))) end
      end))
      for i = 1, 4 do status(basic("alice", "wrong " .. i)) end
      assert.equal(1, count(function() assert.equal(401, status(basic("alice", "wrong"))) end))
    end)

    it("nothing of one name for another", function()
      start({}, { consumers = { consumer("alice", CHEAP), consumer("bob", "other") } })
      assert.equal(200, status(basic("alice", "hello")))
      assert.equal(401, status(basic("bob", "hello")))
      assert.equal(200, status(basic("bob", "other")))
      assert.equal(401, status(basic("alice", "other")))
    end)
  end)

  it("outlives a client that leaves while its password is checked", function()
    start()
    local connection = gateway:connect()
    connection:send { path = "/", headers = { Authorization = basic("alice", "hello") } }
    connection:close()
    assert.equal(200, status(basic("alice", "hello")))
    assert.same({}, gateway:log("plugin failed"))
  end)

  it("refuses a configuration for one consumer", function()
    assert.matches("consumer: expected nothing", select(2, spec.check { consumers = { { username = "alice" } },
      plugins = { { name = "basic-auth", consumer = "alice" } } }), 1, true)
  end)
end)
