-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local in_process = os.getenv("SLUICE_SPEC") == "process" and pending or it

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

  it("answers in DNS as told: an address, no such name, servers that do not answer", function()
    local gateway = spec.gateway {
      services = {
        { name = "a", url = "http://a.example", routes = { { name = "a", paths = { "/a" } } } },
        { name = "b", url = "http://b.example", routes = { { name = "b", paths = { "/b" } } } },
        { name = "c", url = "http://c.example", routes = { { name = "c", paths = { "/c" } } } },
      },
      dns = { ["a.example"] = { "10.9.8.7", "10.9.8.6" }, ["b.example"] = false, ["c.example"] = "fails" },
      upstreams = { ["10.9.8.7:80"] = { body = "by address" }, ["a.example"] = { body = "by name" } },
    }
    assert.same({ "by name", "by name" }, { gateway:get("/a").body, gateway:get("/a").body })
    local addresses = { gateway:requests()[1].address, gateway:requests()[2].address }
    table.sort(addresses)
    assert.same({ "10.9.8.6", "10.9.8.7" }, addresses)
    assert.same({ 503, 503 }, { gateway:get("/b").status, gateway:get("/c").status })
    gateway:dns { ["b.example"] = "10.1.1.1" }
    assert.equal(200, gateway:get("/b").status)
  end)

  it("has upstream entities beside the services that it plays", function()
    local gateway = spec.gateway {
      services = { { name = "a", host = "pool" } },
      upstreams = {
        { name = "pool", targets = { { target = "one.example:81" }, { target = "two.example:82" } } },
        ["one.example:81"] = { refuse = true }, ["two.example"] = { body = "two" },
      },
    }
    for _ = 1, 4 do assert.equal("two", gateway:get("/").body) end
    assert.equal(4, #gateway:requests "two.example:82")
    assert.equal(0, #gateway:requests "one.example")
    gateway:upstream("one.example:81", { body = "one" })
    local bodies = { gateway:get("/").body, gateway:get("/").body }
    table.sort(bodies)
    assert.same({ "one", "two" }, bodies)
  end)

  it("speaks TLS with clients and with services", function()
    local gateway = spec.gateway { services = { { name = "s", url = "https://secure.example" } } }
    local response = gateway:request { path = "/", tls = "me.example" }
    assert.equal(200, response.status)
    assert.equal("https", response.json.headers["x-forwarded-proto"])
    assert.equal(443, gateway:requests()[1].port)
  end)

  it("comes from any address", function()
    local gateway = spec.gateway {}
    assert.equal("203.0.113.9", gateway:request { client_ip = "203.0.113.9" }.json.headers["x-forwarded-for"])
    assert.equal("2001:db8::1", gateway:request { client_ip = "2001:db8::1" }.json.headers["x-forwarded-for"])
  end)

  it("keeps a connection, and sends any bytes on it", function()
    local gateway = spec.gateway { upstreams = { ["*"] = { body = "x" } } }
    local client = gateway:connect()
    client:send_bytes "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
    assert.equal(200, client:receive().status)
    assert.equal(200, client:receive().status)
    assert.is_false(client:is_closed())
    client:send_bytes "GET / HTTP/1.1\r\nHost : a\r\n\r\n"
    assert.equal(400, client:receive().status)
    assert.is_true(client:is_closed())
  end)

  it("sends and gets chunks, trailers and interim responses", function()
    local gateway = spec.gateway { upstreams = { ["*"] = function(request)
      return { chunks = { request.body, "!" }, trailers = { ["X-End"] = "1" },
        informational = { { status = 103, headers = { Link = "</a>" } } } }
    end } }
    local response = gateway:request { method = "PUT", chunks = { "ab", "cd" } }
    assert.equal("abcd!", response.body)
    assert.equal("1", response.trailers["x-end"])
    assert.same({ 103, "</a>" }, { response.informational[1].status, response.informational[1].headers.link })
  end)

  it("gets what plugins make of trailers, from clients that take them", function()
    local gateway = spec.gateway { upstreams = { ["*"] = { chunks = { "a" }, trailers = { ["X-End"] = "1" } } },
      plugins = { { name = "trails" } }, plugins_code = { trails = [[
        return { version = "1", priority = 1, body_filter = function(conf, exchange, chunk, last)
          if last then
            exchange.response:set_trailer("X-Sum", "of " .. exchange.response:get_trailer("X-End"))
          end
          return chunk
        end } ]] } }
    local response = gateway:get("/", { TE = "trailers" })
    assert.same({ "1", "of 1" }, { response.trailers["x-end"], response.trailers["x-sum"] })
    assert.is_nil(gateway:get("/").trailers["x-sum"])
  end)

  it("moves the clock past the deadlines of gRPC calls", function()
    local gateway = spec.gateway { upstreams = { ["*"] = { hang = true } } }
    local pending = gateway:send { path = "/", method = "POST", body = "",
      headers = { ["Content-Type"] = "application/grpc", ["grpc-timeout"] = "20S" } }
    gateway:advance(19.9)
    assert.is_nil(pending:received())
    gateway:advance(0.2)
    assert.equal("4", pending:received().headers["grpc-status"])
  end)

  it("does not wait for a response unless it is told to", function()
    local gateway = spec.gateway { upstreams = { ["*"] = { delay = 2, body = "late" } } }
    local pending = gateway:send "/"
    gateway:advance(1)
    assert.is_nil(pending:received())
    gateway:advance(1.01)
    assert.equal("late", pending:received().body)
  end)

  it("gives up on a response after as long as told", function()
    local gateway = spec.gateway { upstreams = { ["*"] = { hang = true } } }
    local _, why = gateway:send("/"):receive(5)
    assert.equal("timeout", why)
  end)

  it("goes on with another configuration, or stays with the one it has", function()
    local gateway = spec.gateway(hello { greeting = "one" })
    local client = gateway:connect()
    assert.equal("one", client:request("/").headers["x-hello"])
    assert.is_true(gateway:reload { plugins = { { name = "hello", config = { greeting = "two" } } } })
    assert.equal("two", client:request("/").headers["x-hello"])
    local ok, err = gateway:reload { plugins = { { name = "hello", config = { greeting = 3 } } } }
    assert.is_nil(ok)
    assert.matches("config.greeting: expected a string, found a number", err)
    assert.equal("two", client:request("/").headers["x-hello"])
    assert.is_true(gateway:reload { plugins_code = { hello = { handler = HELLO:gsub("X%-Hello", "X-Other"),
      schema = SCHEMA } } })
    assert.equal("two", client:request("/").headers["x-other"] or client:request("/").headers["x-hello"])
  end)

  it("takes the same random numbers each time, and others from another seed", function()
    local function id(seed)
      local gateway = spec.gateway { seed = seed, plugins = { { name = "correlation-id" } } }
      return gateway:get("/").json.headers["kong-request-id"]
    end
    assert.equal(id(1), id(1))
    assert.not_equal(id(1), id(2))
  end)

  it("loads a text in YAML", function()
    local gateway = spec.gateway { config = [[
_format_version: "3.0"
services:
- name: s
  url: http://s.example/base
  routes:
  - { name: r, paths: [/x] }
]] }
    assert.equal("/base/y", gateway:get("/x/y").json.path)
  end)

  it("says what a plugin logs, and what failed", function()
    local gateway = spec.gateway { plugins = { { name = "bad" } }, plugins_code = { bad = [[
      return { version = "1", priority = 1, access = function()
        require("sluice").log.warn("oh no")
        error "x"
      end }
    ]] } }
    assert.equal(500, gateway:get("/").status)
    assert.matches("warn worker 1: oh no plugin=bad", gateway:log("oh no")[1], 1, true)
    assert.equal(1, #gateway:log "plugin failed")
    assert.is_true(#gateway:log() > 1)
  end)

  describe("keeps gateways", function()
    local of_setup, of_each, before

    setup(function() of_setup = spec.gateway {} end)
    before_each(function() before, of_each = of_each, spec.gateway {} end)

    -- Whichever of them is the second sees what became of the gateway of the first.
    for _, which in ipairs { "one test", "another" } do
      it("of a setup until the last test, and of a before_each through one: " .. which, function()
        assert.equal(200, of_setup:get("/").status)
        assert.equal(200, of_each:get("/").status)
        if before then assert.is_true(before.is_closed) end
      end)
    end
  end)

  in_process("has the same moments in each run, of both clocks", function()
    local gateway = spec.gateway { plugins = { { name = "late" } }, plugins_code = { late = [[
      local time = require("sluice").time
      return { version = "1", priority = 1, access = function(_, exchange)
        exchange.response:exit(200, ("%.6f %.6f"):format(time.now(), time.monotonic()))
      end }
    ]] } }
    assert.equal("1767225600.000000 1000.000000", gateway:get("/").body)
    gateway:advance(0.1)
    assert.equal("1767225600.100000 1000.100000", gateway:get("/").body)
  end)

  it("says when an exchange never ends", function()
    local gateway = spec.gateway { plugins = { { name = "stuck" } }, plugins_code = { stuck = [[
      return { version = "1", priority = 1, log = function() require("sluice").sleep(1e6) end }
    ]] } }
    gateway:get("/")
    assert.has_error(function() gateway:close() end, "1 exchange never ended")
  end)

  it("comes to the end of a time whose last part is less than its clock tells apart", function()
    local gateway = spec.gateway { plugins = { { name = "patient" } }, plugins_code = { patient = [[
      local sluice = require "sluice"
      return { version = "1", priority = 1, access = function(_, exchange)
        local ends = sluice.time.monotonic() + 0.0100005
        repeat sluice.sleep(ends - sluice.time.monotonic()) until sluice.time.monotonic() >= ends
        exchange.response:exit(200, "rested")
      end }
    ]] } }
    assert.equal("rested", gateway:get("/").body)
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

    it("puts a key where Java's clients would", function()
      local gateway = gateway_of { orders = 50 }
      local known = { ["21"] = -973932308, foobar = -790332482, ["a-little-bit-long-string"] = -985981536,
        ["a-little-bit-longer-string"] = -1486304829, ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"] = -58897971,
        abc = 479470107 }
      for key, hash in pairs(known) do
        assert.equal(hash % 2 ^ 31 % 50, gateway:post("/", "x", { ["X-Key"] = key }).json.partition)
      end
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
