-- SPDX-License-Identifier: Apache-2.0
-- `when` on a plugin instance: the instance runs only for requests that its condition holds for.
local spec = require "sluice.spec"

-- Notes each of its phases in a response header or the log.
local TRACER = {
  handler = [[
    local sluice = require "sluice"
    local tracer = { version = "1", priority = 850 }
    local function note(conf, exchange, phase)
      exchange.ctx.seen = (exchange.ctx.seen or "") .. conf.label .. ":" .. phase .. " "
    end
    function tracer.access(conf, exchange) note(conf, exchange, "access") end
    function tracer.header_filter(conf, exchange)
      note(conf, exchange, "header_filter")
      exchange.response:set_header("X-Tracer", conf.label)
    end
    function tracer.body_filter(conf, exchange, chunk, last)
      note(conf, exchange, "body_filter")
      return last and chunk .. "!" or chunk
    end
    function tracer.log(conf, exchange)
      note(conf, exchange, "log")
      sluice.log.notice("traced " .. exchange.ctx.seen)
    end
    return tracer
  ]],
  schema = [[return { label = { type = "string", default = "t" } }]],
}
-- Works on nothing but the response.
local MARKER = {
  handler = [[
    local marker = { version = "1", priority = 90 }
    function marker.header_filter(conf, exchange) exchange.response:add_header("X-Mark", conf.label) end
    return marker
  ]],
  schema = [[return { label = { type = "string", default = "m" } }]],
}

local function gateway(plugins, extra)
  local options = { plugins_code = { tracer = TRACER, marker = MARKER }, plugins = plugins,
    upstreams = { ["service.example"] = function(request) return { body = "body",
      status = tonumber((request.query or ""):match("status=(%d+)")) or 200 } end } }
  for name, value in pairs(extra or {}) do options[name] = value end
  return spec.gateway(options)
end

describe("a plugin with a condition", function()
  it("runs in all of its phases where it holds, and in none where it does not", function()
    local gw = gateway { { name = "tracer", when = 'http.method == "POST"' } }
    local response = gw:post("/", "x")
    assert.same({ "t", "body!" }, { response.headers["x-tracer"], response.body })
    assert.equal(1, #gw:log("traced t:access t:header_filter t:body_filter .*t:log"))
    response = gw:get("/")
    assert.same({ nil, "body" }, { response.headers["x-tracer"], response.body })
    assert.equal(1, #gw:log("traced"))
  end)

  it("is asked once, in the first phase of the instance", function()
    local gw = gateway({ { name = "tracer", when = 'http.headers.x_a == "1"' },
      { name = "request-transformer", config = { remove = { headers = { "X-A" } } } } })
    local response = gw:get("/", { ["X-A"] = "1" })
    assert.same({ "t", "body!" }, { response.headers["x-tracer"], response.body })
  end)

  it("leaves the others alone", function()
    local gw = gateway { { name = "tracer", when = 'http.path == "/no"' }, { name = "marker" } }
    local response = gw:get("/")
    assert.same({ nil, "m" }, { response.headers["x-tracer"], response.headers["x-mark"] })
  end)

  it("can ask for the response where it has no earlier phase", function()
    local gw = gateway { { name = "marker", when = 'response.status >= 400 && response.source == "service"' } }
    assert.is_nil(gw:get("/").headers["x-mark"])
    assert.equal("m", gw:get("/?status=404").headers["x-mark"])
  end)

  it("can ask for the consumer behind authentication", function()
    local gw = gateway({ { name = "key-auth" }, { name = "tracer", when = 'consumer.username == "ada"' } }, {
      consumers = { { username = "ada", keyauth_credentials = { { key = "a" } } },
        { username = "bob", keyauth_credentials = { { key = "b" } } } } })
    assert.equal("t", gw:get("/", { apikey = "a" }).headers["x-tracer"])
    assert.is_nil(gw:get("/", { apikey = "b" }).headers["x-tracer"])
  end)

  it("is chosen by precedence first: no instance of a wider scope steps in", function()
    local gw = gateway(nil, { plugins = { { name = "tracer", config = { label = "global" } },
      { name = "tracer", config = { label = "service" }, service = "service", when = 'http.path == "/yes"' } } })
    assert.equal("service", gw:get("/yes").headers["x-tracer"])
    assert.is_nil(gw:get("/no").headers["x-tracer"])
  end)

  it("may be one of a consumer's", function()
    local gw = gateway({ { name = "key-auth" }, { name = "tracer", config = { label = "all" } },
      { name = "tracer", config = { label = "ada" }, consumer = "ada", when = 'http.path == "/yes"' } },
      { consumers = { { username = "ada", keyauth_credentials = { { key = "a" } } },
        { username = "bob", keyauth_credentials = { { key = "b" } } } } })
    assert.is_nil(gw:get("/", { apikey = "a" }).headers["x-tracer"])
    assert.equal("ada", gw:get("/yes", { apikey = "a" }).headers["x-tracer"])
    assert.equal("all", gw:get("/", { apikey = "b" }).headers["x-tracer"])
  end)

  it("changes with a reload", function()
    local gw = gateway { { name = "marker", when = 'http.path == "/a"' } }
    assert.equal("m", gw:get("/a").headers["x-mark"])
    assert(gw:reload { plugins = { { name = "marker", when = 'http.path == "/b"' } } })
    assert.is_nil(gw:get("/a").headers["x-mark"])
    assert.equal("m", gw:get("/b").headers["x-mark"])
    assert(gw:reload { plugins = { { name = "marker" } } })
    assert.equal("m", gw:get("/a").headers["x-mark"])
  end)

  describe("is refused", function()
    local function problem(plugin)
      local ok, err = spec.check { plugins_code = { tracer = TRACER, marker = MARKER }, plugins = { plugin } }
      assert.is_nil(ok)
      return err
    end

    it("when it is no expression, with the place", function()
      assert.matches('when: expected an expression (column 16: expected a text in quotes, an integer or an '
        .. 'address, found "GET"), found "http.method == GET"',
        problem { name = "marker", when = "http.method == GET" }, 1, true)
    end)

    it("when it is no text", function()
      assert.matches("when: expected a string, found a boolean", problem { name = "marker", when = true }, 1, true)
    end)

    it("when it looks at what is not known by then", function()
      assert.matches("when: expected what is known in phase access, in which tracer first runs, found response.status, "
        .. "known from header_filter on", problem { name = "tracer", when = "response.status == 404" }, 1, true)
    end)

    it("when it asks for the consumer before there is a route", function()
      assert.matches("when: expected what is known in phase rewrite, in which pre%-function first runs, found "
        .. "consumer.id, known from access on",
        problem { name = "pre-function", config = { rewrite = { "return" } }, when = 'consumer.id == "a"' })
    end)
  end)

  it("may ask for the consumer with a plugin that could run earlier, but has nothing to do there", function()
    assert(spec.check { plugins = { { name = "pre-function", config = { access = { "return" } },
      when = 'consumer.id == "a"' } } })
  end)
end)
