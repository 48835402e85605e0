-- SPDX-License-Identifier: Apache-2.0
local json = require "sluice.json"
local spec = require "sluice.spec"

local ENDPOINT = "http://sink.example/entries?from=sluice"

describe("http-log", function()
  local gateway

  local function start(config, sink)
    config.http_endpoint = config.http_endpoint or ENDPOINT
    gateway = spec.gateway { plugins = { { name = "http-log", config = config } },
      upstreams = { ["sink.example"] = sink or { body = "" }, ["*"] = { body = "hello" } } }
    return gateway
  end

  -- What the server has got.
  local function sent()
    gateway:settle()
    return gateway:requests("sink.example")
  end

  local function refused(config)
    config.http_endpoint = config.http_endpoint or ENDPOINT
    local ok, err = spec.check { plugins = { { name = "http-log", config = config } } }
    assert.is_nil(ok)
    return err
  end

  it("posts each exchange as JSON in Kong's log format", function()
    start {}
    gateway:get("/a?b=c")
    local request = sent()[1]
    assert.equal("POST", request.method)
    assert.equal("/entries?from=sluice", request.target)
    assert.equal("application/json", request.headers["content-type"])
    local record = json.decode(request.body)
    assert.equal("/a?b=c", record.request.uri)
    assert.equal(200, record.response.status)
    assert.equal("127.0.0.1", record.client_ip)
    assert.equal("route", record.route.name)
  end)

  it("posts batches as lists", function()
    start { queue = { max_batch_size = 2 } }
    gateway:get("/1")
    gateway:get("/2")
    local list = json.decode(sent()[1].body)
    assert.equal(2, #list)
    assert.equal("/2", list[2].request.uri)
  end)

  it("makes a list of a batch with one entry, too", function()
    start { queue = { max_batch_size = 2, max_coalescing_delay = 3 } }
    gateway:get("/1")
    gateway:advance(3)
    assert.equal(1, #json.decode(sent()[1].body))
  end)

  it("uses the method, Content-Type and fields that it is told to", function()
    start { method = "PUT", content_type = "application/json; charset=utf-8", headers = { ["X-Key"] = "secret" } }
    gateway:get("/")
    local request = sent()[1]
    assert.equal("PUT", request.method)
    assert.equal("application/json; charset=utf-8", request.headers["content-type"])
    assert.equal("secret", request.headers["x-key"])
  end)

  it("sends PATCH requests", function()
    start { method = "PATCH" }
    gateway:get("/")
    assert.equal("PATCH", sent()[1].method)
  end)

  it("takes name and password from the endpoint", function()
    start { http_endpoint = "http://ada:secret@sink.example/" }
    gateway:get("/")
    assert.equal("Basic YWRhOnNlY3JldA==", sent()[1].headers.authorization)
  end)

  it("speaks TLS, and trusts any certificate unless it is told to verify", function()
    start { http_endpoint = "https://sink.example/" }
    gateway:get("/")
    assert.equal(1, #sent())
    gateway:close()
    start { http_endpoint = "https://sink.example/", ssl_verify = true }
    gateway:get("/")
    gateway:advance(1)
    assert.equal(0, #sent())
    assert.matches("certificate", gateway:log("cannot be sent, trying again")[1])
  end)

  it("keeps its connection, for as long as keepalive says", function()
    start { keepalive = 5000 }
    gateway:get("/1")
    gateway:settle()
    gateway:advance(4)
    gateway:get("/2")
    gateway:settle()
    gateway:advance(30)
    gateway:get("/3")
    local list = sent()
    assert.equal(list[1].connection, list[2].connection)
    assert.not_equal(list[2].connection, list[3].connection)
  end)

  it("gives a request up after timeout, and sends it again", function()
    start({ timeout = 2000 }, { { hang = true }, { body = "" } })
    gateway:get("/")
    gateway:advance(1.9)
    assert.equal(1, #sent())
    gateway:advance(0.3)
    assert.equal(2, #sent())
  end)

  it("sends again what the server answers with 400 and above", function()
    start({}, { { status = 500, body = "no disk" }, { status = 429 }, { status = 302 } })
    gateway:get("/")
    gateway:advance(1)
    assert.equal(3, #sent())
    assert.matches("the server answered 500: no disk", gateway:log("cannot be sent, trying again")[1], 1, true)
  end)

  it("adds fields by Lua", function()
    start { custom_fields_by_lua = { who = "return exchange.request:get_header('x-who')" } }
    gateway:get("/", { ["X-Who"] = "Ada" })
    assert.equal("Ada", json.decode(sent()[1].body).who)
  end)

  it("holds no request up while the server is away", function()
    start({}, { silent = true })
    local began = gateway:now()
    for i = 1, 50 do assert.equal(200, gateway:get("/" .. i).status) end
    assert.is_true(gateway:now() - began < 0.001)
  end)

  it("maps Kong's older fields", function()
    start { queue_size = 2, flush_timeout = 4, retry_count = 3 }
    gateway:get("/1")
    gateway:advance(3)
    assert.equal(0, #sent())
    gateway:advance(2)
    assert.equal(1, #json.decode(sent()[1].body))
  end)

  it("refuses a configuration that is wrong, and says where", function()
    assert.matches("config.http_endpoint: expected a URL", refused { http_endpoint = "sink" }, 1, true)
    assert.matches("config.method: expected one of", refused { method = "GET" }, 1, true)
    assert.matches("config.content_type: expected one of", refused { content_type = "text/plain" }, 1, true)
    assert.matches("config.timeout: expected a number", refused { timeout = "x" }, 1, true)
    assert.matches("config.keepalive: expected a number", refused { keepalive = "x" }, 1, true)
    assert.matches("config.custom_fields_by_lua.a: expected Lua code",
      refused { custom_fields_by_lua = { a = "return return" } }, 1, true)
    for name, shown in pairs { host = "Host", ["content-length"] = "Content-Length",
      ["Content-type"] = "Content-Type" } do
      assert.matches("cannot contain '" .. shown .. "' header", refused { headers = { [name] = "x" } }, 1, true)
    end
    for field, value in pairs { max_batch_size = 0, max_coalescing_delay = 3601, max_entries = 0, max_bytes = "x",
      max_retry_time = "x", initial_retry_delay = 0, max_retry_delay = 0, concurrency_limit = 2 } do
      assert.matches("config.queue." .. field .. ": expected", refused { queue = { [field] = value } }, 1, true)
    end
  end)
end)
