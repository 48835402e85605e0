-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local HELLO = [[
  return { version = "1", priority = 1, header_filter = function(conf, exchange)
    exchange.response:set_header("X-Hello", conf.greeting)
  end }
]]
local SCHEMA = [[return { greeting = { type = "string", default = "hello" } }]]

local function hello(config)
  return { plugins = { { name = "hello", config = config } },
    plugins_code = { hello = { handler = HELLO, schema = SCHEMA } } }
end

describe("the spec kit", function()
  it("runs a plugin that is given as text, with the defaults of its schema", function()
    assert.equal("hello", spec.gateway(hello()):get("/").headers["x-hello"])
  end)

  it("shows what the service got, when no service was told", function()
    local gateway = spec.gateway {}
    local response = gateway:post("/a/b?c=d", { e = 1 }, { ["X-F"] = "g" })
    assert.equal(200, response.status)
    assert.same({ "POST", "/a/b", "c=d", '{"e":1}' },
      { response.json.method, response.json.path, response.json.query, response.json.body })
    assert.equal("g", response.json.headers["x-f"])
    assert.equal("service.example", gateway:requests()[1].host)
  end)

  it("says of a bad configuration what `sluice check` says", function()
    local ok, err = spec.check(hello { greeting = 7 })
    assert.is_nil(ok)
    assert.matches("config.greeting: expected a string, found a number", err)
    assert.has_error(function() spec.gateway(hello { greeting = 7 }) end, err)
    assert.is_true(spec.check(hello()))
  end)

  it("answers as services that are tables, in turn, and functions", function()
    local gateway = spec.gateway {
      services = {
        { name = "a", url = "http://a.example", routes = { { name = "a", paths = { "/a" } } } },
        { name = "b", url = "http://b.example:8080", routes = { { name = "b", paths = { "/b" } } } },
      },
      upstreams = {
        ["a.example"] = { { status = 500 }, { status = 201, headers = { ["X-A"] = { "1", "2" } }, body = "made" } },
        ["b.example:8080"] = function(request) return { json = { path = request.path } } end,
      },
    }
    assert.equal(500, gateway:get("/a").status)
    local second = gateway:get("/a")
    assert.same({ 201, "1, 2", "made" }, { second.status, second.headers["x-a"], second.body })
    assert.equal(201, gateway:get("/a").status)
    assert.equal("/", gateway:get("/b").json.path)
    assert.equal(3, #gateway:requests("a.example"))
  end)

  it("lets time pass for a slow service, and only that much", function()
    local gateway = spec.gateway { upstreams = { ["service.example"] = { delay = 3, body = "late" } } }
    local before = gateway:now()
    assert.equal("late", gateway:get("/").body)
    assert.near(3, gateway:now() - before, 0.001)
  end)

  it("moves the clock", function()
    local gateway = spec.gateway {}
    local before = gateway:now()
    gateway:advance(60)
    assert.near(60, gateway:now() - before, 1e-6)
    assert.equal(1767225660, math.floor(gateway:now() + 0.5))
  end)

  it("has services that refuse, stay silent, close, and talk nonsense", function()
    local function status(answer)
      local gateway = spec.gateway { upstreams = { ["service.example:80"] = answer } }
      return gateway:get("/").status
    end
    assert.equal(502, status { refuse = true })
    assert.equal(504, status { silent = true })
    assert.equal(502, status { close = true })
    assert.equal(502, status { raw = "nonsense\r\n\r\n" })
    assert.equal(504, status { hang = true })
  end)

  describe("with Kafka topics", function()
    local function gateway_of(topics, config)
      config = config or { topic = "orders", value = "body", key_header = "X-Key" }
      return spec.gateway { topics = topics, plugins = { { name = "kafka-upstream", config = config } } }
    end

    it("has what was produced, and says where", function()
      local gateway = gateway_of { orders = 3 }
      local answer = gateway:post("/", "one", { ["X-Key"] = "k" })
      assert.equal(200, answer.status)
      gateway:post("/", "two", { ["X-Key"] = "k" })
      local records = gateway:records "orders"
      assert.same({ "k", "one", 0 }, { records[1].key, records[1].value, records[1].offset })
      assert.same({ "two", 1, answer.json.partition }, { records[2].value, records[2].offset, records[2].partition })
    end)

    it("refuses records as it is told to", function()
      local gateway = gateway_of { orders = { fails = "MSG_SIZE_TOO_LARGE" } }
      assert.equal(413, gateway:post("/", "one").status)
      gateway:fail_topic("orders", "full")
      assert.equal(503, gateway:post("/", "one").status)
      gateway:fail_topic("orders", "timeout")
      assert.equal(504, gateway:post("/", "one").status)
      gateway:fail_topic("orders", nil)
      assert.equal(200, gateway:post("/", "one").status)
      assert.equal(1, #gateway:records "orders")
    end)

    it("gives records to readers, old ones and new ones", function()
      local gateway = spec.gateway {
        topics = { news = { records = { { value = "first" }, { value = { second = 2 } } } } },
        plugins = { { name = "kafka-consume", config = {
          topics = { { name = "news" } }, mode = "server-sent-events", auto_offset_reset = "earliest" } } },
      }
      local client = gateway:connect()
      client:send "/"
      local head, text = client:partial()
      assert.equal("text/event-stream", head.headers["content-type"])
      assert.matches("first", text, 1, true)
      gateway:produce("news", { value = "third" })
      assert.matches("third", select(2, client:partial()), 1, true)
    end)
  end)
end)
