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
end)
