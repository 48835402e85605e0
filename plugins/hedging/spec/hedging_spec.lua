-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local SLOW = { delay = 5, body = "slow" }
local FAST = { body = "fast" }

describe("hedging", function()
  local gateway, answers

  -- A gateway to two targets that give answers.a and answers.b, in turns.
  local function start(config, more)
    answers = { a = SLOW, b = FAST }
    local options = {
      services = { { name = "orders", url = "http://orders", routes = { { paths = { "/" } } } } },
      plugins = { { name = "hedging", config = config } },
      upstreams = {
        { name = "orders", targets = { { target = "a.example:80" }, { target = "b.example:80" } } },
        ["a.example"] = function() return answers.a end, ["b.example"] = function() return answers.b end,
      },
    }
    for name, value in pairs(more or {}) do options[name] = value end
    gateway = spec.gateway(options)
  end

  local function took(request)
    local before = gateway:now()
    local response = gateway:request(request or "/")
    return gateway:now() - before, response
  end

  local function metric(result)
    local text = gateway:request { path = "/metrics", listener = "status" }.body
    return tonumber(text:match('\nsluice_hedges_total{service="orders",result="' .. result .. '"} (%S+)')) or 0
  end

  local function requests(name)
    return #gateway:requests(name .. ".example")
  end

  it("asks another target when the first has not answered in time, and takes what comes first", function()
    start { delay = 0.2 }
    local seconds, response = took()
    assert.same({ 200, "fast" }, { response.status, response.body })
    assert.is_true(seconds >= 0.2 and seconds < 1)
    assert.same({ 1, 1 }, { requests "a", requests "b" })
    assert.equal(1, metric "won")
  end)

  it("sends nothing twice where the first answers in time", function()
    start { delay = 0.2 }
    answers.a = { delay = 0.1, body = "first" }
    assert.equal("first", select(2, took()).body)
    gateway:advance(10)
    assert.same({ 1, 0 }, { requests "a", requests "b" })
    assert.equal(0, metric "won" + metric "lost")
  end)

  it("takes the first one's response when that comes first after all", function()
    start { delay = 0.2 }
    answers.a, answers.b = { delay = 0.5, body = "first" }, { delay = 5, body = "second" }
    local seconds, response = took()
    assert.equal("first", response.body)
    assert.is_true(seconds < 1)
    assert.same({ 1, 1 }, { requests "a", requests "b" })
    assert.equal(1, metric "lost")
  end)

  describe("goes on with the other when one of them", function()
    local function expect(body, a, b)
      start { delay = 0.2 }
      answers.a, answers.b = a, b
      gateway:upstream("b.example", b)
      assert.equal(body, select(2, took()).body)
      assert.equal(1, metric(body == "first" and "lost" or "won"))
    end

    it("closes the connection", function()
      expect("first", { delay = 1, body = "first" }, { close = true })
      expect("second", { delay = 0.4, raw = "" }, { delay = 1, body = "second" })
    end)

    it("speaks no HTTP", function()
      expect("first", { delay = 1, body = "first" }, { raw = "no HTTP\r\n\r\n" })
      expect("second", { delay = 0.4, raw = "no HTTP\r\n\r\n" }, { delay = 1, body = "second" })
    end)

    it("refuses connections", function()
      expect("first", { delay = 1, body = "first" }, { refuse = true })
    end)

    it("lets connections come to nothing", function()
      expect("first", { delay = 1, body = "first" }, { silent = true })
    end)
  end)

  it("tries again as often as may be when both have failed", function()
    start { delay = 0.2 }
    answers.a, answers.b = { delay = 1, raw = "" }, { delay = 2, raw = "" }
    local pending = gateway:send("/")
    gateway:advance(1.5)
    assert.equal(2, #gateway:requests())
    answers.a, answers.b = FAST, FAST
    local response = pending:receive()
    assert.same({ 200, "fast" }, { response.status, response.body })
    assert.equal(3, #gateway:requests())
  end)

  it("gives up both when the client leaves", function()
    start { delay = 0.2 }
    answers.b = { delay = 50 }
    answers.a = { delay = 50 }
    local connection = gateway:connect()
    connection:send("/")
    gateway:advance(1)
    connection:close()
    gateway:settle()
    assert.same({ 1, 1 }, { requests "a", requests "b" })
    assert.equal(1, metric "lost")
  end)

  it("gives up both when neither answers in time", function()
    start({ delay = 0.2 }, { services = { { name = "orders", url = "http://orders", retries = 0, read_timeout = 2000,
      routes = { { paths = { "/" } } } } } })
    answers.a, answers.b = { hang = true }, { hang = true }
    local seconds, response = took()
    assert.equal(504, response.status)
    assert.is_true(seconds >= 2.2 and seconds < 2.3)
  end)

  describe("sends nothing twice", function()
    local function once(request, config, more)
      start(config or { delay = 0.2 }, more)
      answers.b = SLOW
      local _, response = took(request)
      assert.equal(200, response.status)
      assert.equal(1, #gateway:requests())
    end

    it("of methods that may not come twice", function()
      once { path = "/", method = "POST" }
      once { path = "/", method = "PATCH" }
    end)

    it("of methods that it is not told", function()
      once { path = "/", method = "DELETE" }
      once({ path = "/" }, { delay = 0.2, methods = { "DELETE" } })
    end)

    it("that has content", function()
      once({ path = "/", method = "PUT", body = "x" }, { delay = 0.2, methods = { "PUT" } })
    end)

    it("where there is no other target", function()
      once({ path = "/" }, nil, { upstreams = { { name = "orders", targets = { { target = "a.example:80" } } },
        ["*"] = SLOW } })
      once({ path = "/" }, nil, { services = { { name = "orders", url = "http://a.example",
        routes = { { paths = { "/" } } } } }, upstreams = { ["*"] = SLOW } })
    end)

    it("where the other target has the same address", function()
      once({ path = "/" }, nil, { dns = { ["a.example"] = "10.0.0.1", ["b.example"] = "10.0.0.1" } })
    end)
  end)

  it("sends a DELETE twice where it is told so", function()
    start { delay = 0.2, methods = { "DELETE" } }
    assert.equal("fast", select(2, took { path = "/", method = "DELETE" }).body)
  end)

  it("asks another address of a name", function()
    start({ delay = 0.2 }, {
      services = { { name = "orders", url = "http://many.example", routes = { { paths = { "/" } } } } },
      dns = { ["many.example"] = { "10.0.0.1", "10.0.0.2" } },
      upstreams = { ["10.0.0.1"] = SLOW, ["10.0.0.2"] = SLOW } })
    gateway:request "/"
    local addresses = {}
    for _, request in ipairs(gateway:requests()) do addresses[request.address] = true end
    assert.same({ ["10.0.0.1"] = true, ["10.0.0.2"] = true }, addresses)
  end)

  it("asks another target of those that health checks watch", function()
    start({ delay = 0.2 }, { upstreams = {
      { name = "orders", targets = { { target = "a.example:80" }, { target = "b.example:80" } },
        healthchecks = { passive = { unhealthy = { tcp_failures = 1 } } } },
      ["a.example"] = SLOW, ["b.example"] = FAST } })
    for _ = 1, 2 do assert.equal("fast", select(2, took()).body) end
  end)

  it("spends no more than its budget", function()
    start { delay = 0.2, hedge_ratio = 0.5, min_hedges_per_second = 0, ttl = 3600 }
    answers.b = SLOW
    for _ = 1, 8 do took() end
    assert.equal(8 + 4, #gateway:requests())
    assert.equal(4, metric "refused")
  end)

  it("has some budget where there are few requests", function()
    start { delay = 0.2, hedge_ratio = 0, min_hedges_per_second = 0.1, ttl = 10 }
    took()
    assert.equal(2, #gateway:requests())
  end)

  it("forgets what is older than its time", function()
    start { delay = 0.2, hedge_ratio = 1, min_hedges_per_second = 0, ttl = 10 }
    answers.a = FAST
    for _ = 1, 10 do took() end
    answers.a, answers.b = SLOW, SLOW
    gateway:advance(11)
    for _ = 1, 2 do took() end
    assert.equal(10 + 2 + 2, #gateway:requests())
  end)

  describe("by a percentile", function()
    local function learn(ms)
      answers.a = { delay = ms / 1000, body = "usual" }
      answers.b = answers.a
      for _ = 1, 40 do took() end
      gateway:advance(1)
    end

    it("waits for as long as the service usually takes", function()
      start { percentile = 95 }
      learn(100)
      answers.a, answers.b = { delay = 5, body = "slow" }, { delay = 0.1, body = "usual" }
      for _ = 1, 2 do
        local seconds, response = took()
        assert.equal("usual", response.body)
        assert.is_true(seconds < 0.25)
      end
      assert.equal(2, metric "won")
    end)

    it("waits for the initial delay while it knows too little", function()
      start { percentile = 95, initial_delay = 2 }
      local seconds = took()
      assert.is_true(seconds >= 2 and seconds < 2.5)
    end)

    it("waits at least for the minimum", function()
      start { percentile = 95, min_delay = 1 }
      learn(10)
      answers.a, answers.b = SLOW, { delay = 5, body = "slow" }
      local before = #gateway:requests()
      gateway:send("/")
      gateway:advance(0.9)
      assert.equal(before + 1, #gateway:requests())
      gateway:advance(0.2)
      assert.equal(before + 2, #gateway:requests())
    end)
  end)

  it("keeps connections of what it has given up out of further use", function()
    start { delay = 0.2 }
    for _ = 1, 4 do assert.equal("fast", select(2, took()).body) end
    gateway:advance(20)
    answers.a = FAST
    for _ = 1, 4 do assert.equal("fast", select(2, took()).body) end
  end)

  it("tells plugins that ask for it what they do wrong", function()
    local function fails(code, why)
      gateway = spec.gateway { plugins = { { name = "asks" } }, plugins_code = { asks = [[
        local sluice = require "sluice"
        return { version = "1", priority = 1, access = function(_, exchange)
          local budget = sluice.budget.define("asks", 0.1, 1, 10)
          ]] .. code .. [[ end }]] } }
      assert.equal(500, gateway:get("/").status)
      assert.matches(why, gateway:log("plugin failed")[1])
    end
    fails('exchange.service:set_hedge(0.1, 77)', "set_hedge: invalid argument")
    fails('exchange.service:set_hedge(-1, budget)', "set_hedge: invalid argument")
    fails('exchange.service:set_hedge("soon", budget)', "set_hedge: delay")
    fails('exchange.service:set_retry_budget(0)', "set_retry_budget: invalid argument")
    fails('sluice.budget.define(7, 1, 1, 1)', "sluice.budget.define: name")
    fails('exchange.service:get_hedge()', "get_hedge")
  end)

  describe("refuses a configuration", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "hedging", config = config } } })
    end

    it("with neither a delay nor a percentile, or both", function()
      assert.matches("delay", problem {}, 1, true)
      assert.matches("delay", problem { delay = 1, percentile = 90 }, 1, true)
    end)

    it("with numbers that make no sense", function()
      assert.matches("config.percentile: expected", problem { percentile = 100 }, 1, true)
      assert.matches("config.delay: expected", problem { delay = -1 }, 1, true)
      assert.matches("config.hedge_ratio: expected", problem { delay = 1, hedge_ratio = 2 }, 1, true)
    end)

    it("for methods that may not come twice", function()
      assert.matches("config.methods", problem { delay = 1, methods = { "POST" } }, 1, true)
    end)
  end)
end)
