-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local DOWN = { status = 500 }
local UP = { status = 200, body = "served" }

describe("circuit-breaker", function()
  local gateway, answer

  -- A gateway to a service that gives `answer`, whose circuit opens after 3 failures in a row unless told otherwise.
  local function start(config, more)
    config = config or {}
    local by_rate = config.failure_rate_threshold or config.slow_call_rate_threshold
    if not by_rate then config.consecutive_failures = config.consecutive_failures or 3 end
    config.wait_duration_jitter = config.wait_duration_jitter or 0
    answer = UP
    local options = {
      services = { { name = "orders", url = "http://orders.example", retries = 0, routes = {
        { name = "first", paths = { "/" } }, { name = "second", paths = { "/second" } } } } },
      plugins = { { name = "circuit-breaker", config = config } },
      upstreams = { ["*"] = function() return answer end },
    }
    for name, value in pairs(more or {}) do options[name] = value end
    gateway = spec.gateway(options)
  end

  -- Statuses of so many requests while the service answers like that.
  local function statuses(count, told, request)
    answer = told or answer
    local list = {}
    for i = 1, count do list[i] = gateway:request(request or "/").status end
    return list
  end

  local function metric(line)
    local text = gateway:request { path = "/metrics", listener = "status" }.body
    return tonumber(text:match("\n" .. line:gsub("%p", "%%%0") .. " (%S+)"))
  end

  local function state()
    return metric('sluice_circuit_breaker_state{kind="service",name="orders"}')
  end

  local function open()
    statuses(3, DOWN)
    assert.equal(2, state())
  end

  describe("opens", function()
    it("after so many failures in a row", function()
      start { consecutive_failures = 3 }
      assert.same({ 500, 500 }, statuses(2, DOWN))
      assert.same({ 200 }, statuses(1, UP))
      assert.same({ 500, 500, 500, 503 }, statuses(4, DOWN))
      assert.equal(6, #gateway:requests())
    end)

    it("when the share of failures reaches the threshold, of enough calls", function()
      start { failure_rate_threshold = 50, minimum_number_of_calls = 10 }
      statuses(5, UP)
      assert.same({ 500, 500, 500, 500 }, statuses(4, DOWN))
      assert.same({ 500, 503 }, statuses(2, DOWN))
      assert.matches('cause="failure rate"', gateway:log("changed its state")[1], 1, true)
    end)

    it("when half of twenty calls have failed, unless it is told otherwise", function()
      start { slow_call_rate_threshold = 100 }
      statuses(10, UP)
      statuses(9, DOWN)
      assert.equal(0, state())
      statuses(1, DOWN)
      assert.equal(2, state())
    end)

    it("not before: with fewer failures, or fewer calls", function()
      start { failure_rate_threshold = 50, minimum_number_of_calls = 10 }
      statuses(20, UP)
      statuses(19, DOWN)
      assert.equal(0, state())
      start { failure_rate_threshold = 50, minimum_number_of_calls = 10 }
      statuses(9, DOWN)
      assert.equal(0, state())
    end)

    it("by what the window holds, and nothing older", function()
      start { failure_rate_threshold = 50, minimum_number_of_calls = 10, sliding_window_size = 30 }
      statuses(9, DOWN)
      gateway:advance(33)
      statuses(9, DOWN)
      assert.equal(0, state())
      gateway:advance(20)
      statuses(1, DOWN)
      assert.equal(2, state())
    end)

    it("when the share of slow calls reaches the threshold", function()
      start { slow_call_rate_threshold = 50, slow_call_duration_threshold = 2, minimum_number_of_calls = 4 }
      statuses(2, UP)
      assert.same({ 200 }, statuses(1, { status = 200, delay = 1.9 }))
      assert.same({ 200, 200 }, statuses(2, { status = 200, delay = 2 }))
      assert.equal(0, state())
      assert.same({ 200, 503 }, statuses(2))
      assert.matches('cause="slow call rate"', gateway:log("changed its state")[1], 1, true)
    end)

    it("for clients that have waited for too long and left", function()
      start { slow_call_rate_threshold = 100, slow_call_duration_threshold = 2, minimum_number_of_calls = 2 }
      for _, patience in ipairs { 1.9, 1.9, 2.1, 2.1 } do
        answer = { hang = true }
        local connection = gateway:connect()
        connection:send("/")
        gateway:advance(patience)
        connection:close()
        gateway:settle()
        assert.equal(0, state() % 2)
      end
      assert.equal(2, state())
    end)

    it("for services that cannot be reached, do not answer, or speak no HTTP", function()
      for _, told in ipairs { { refuse = true }, { close = true }, { raw = "what?\r\n\r\n" }, { hang = true } } do
        start({ consecutive_failures = 1 }, { upstreams = { ["*"] = told } })
        assert.is_true(gateway:get("/").status >= 502)
        assert.equal(2, state())
      end
    end)

    it("for responses that break off", function()
      start { consecutive_failures = 1 }
      answer = { raw = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf" }
      local connection = gateway:connect()
      connection:send("/")
      gateway:settle()
      connection:close()
      assert.equal(2, state())
    end)

    it("for the statuses that it is told are failures", function()
      start { consecutive_failures = 1, failure_statuses = { 404 } }
      assert.same({ 500, 500 }, statuses(2, DOWN))
      assert.same({ 404, 503 }, statuses(2, { status = 404 }))
    end)

    it("for gRPC's statuses", function()
      local CALL = { path = "/", method = "POST", headers = { ["Content-Type"] = "application/grpc" } }
      local function answered(status)
        return { status = 200, headers = { ["Content-Type"] = "application/grpc", ["grpc-status"] = status } }
      end
      start { consecutive_failures = 1 }
      statuses(1, answered "5", CALL)
      assert.equal(0, state())
      statuses(1, answered "14", CALL)
      assert.equal(2, state())
      start { consecutive_failures = 2 }
      statuses(1, answered "14", CALL)
      assert.equal(0, state())
    end)

    it("for gRPC's statuses in trailers", function()
      local CALL = { path = "/", method = "POST", headers = { ["Content-Type"] = "application/grpc" } }
      local told = { status = 200, chunks = { "a" }, trailers = { ["grpc-status"] = "13" } }
      start { consecutive_failures = 1 }
      statuses(1, told, CALL)
      assert.equal(2, state())
      start { consecutive_failures = 1, failure_grpc_statuses = { 8 } }
      statuses(1, told, CALL)
      assert.equal(0, state())
    end)

    it("not for what the service is not to blame for", function()
      start({ consecutive_failures = 1 }, { plugins_code = { cached = [[
        return { version = "1", priority = 1, access = function(_, exchange)
          if exchange.request:get_header("x-cached") then exchange.response:exit(500) end
        end }]] } })
      gateway:reload { plugins = { { name = "cached" },
        { name = "circuit-breaker", config = { consecutive_failures = 1 } } } }
      statuses(1, UP, { path = "/", headers = { ["X-Cached"] = "1" } })
      statuses(1, UP, { path = "/", method = "POST", body = "x", headers = { ["Transfer-Encoding"] = "gzip" } })
      answer = { hang = true }
      local connection = gateway:connect()
      connection:send("/")
      gateway:advance(1)
      connection:close()
      assert.equal(0, state())
    end)
  end)

  describe("while open", function()
    it("answers with its status, message and Retry-After, and spares the service", function()
      start { wait_duration_in_open_state = 7.5 }
      open()
      gateway:advance(2)
      local response = gateway:get("/")
      assert.same({ 503, "6", "The service is not available at the moment" },
        { response.status, response.headers["retry-after"], response.json.message })
      assert.equal(3, #gateway:requests())
      assert.equal(1, metric('sluice_circuit_breaker_not_permitted_calls_total{kind="service",name="orders"}'))
    end)

    it("answers with the status and message that it is told", function()
      start { status = 429, message = "later" }
      open()
      local response = gateway:get("/")
      assert.same({ 429, "later" }, { response.status, response.json.message })
    end)

    it("answers with the fallback's status, body and headers", function()
      start { fallback = { status = 200, body = "[]", headers = { ["Content-Type"] = "application/json" } } }
      open()
      local response = gateway:get("/")
      assert.same({ 200, "[]", "application/json" },
        { response.status, response.body, response.headers["content-type"] })
    end)

    it("sends requests to the fallback's host and port, which do not count", function()
      start({ fallback = { host = "spare.example", port = 81 } },
        { upstreams = { ["spare.example:81"] = { status = 500, body = "spare" },
          ["*"] = function() return answer end } })
      open()
      assert.equal("spare", gateway:get("/").body)
      gateway:advance(10)
      statuses(3, UP)
      assert.equal(0, state())
      assert.equal(1, #gateway:requests("spare.example:81"))
    end)

    it("sends requests to the fallback's upstream", function()
      local config = { fallback = { upstream = "spares" } }
      start(config, { upstreams = { { name = "spares", targets = { { target = "spare.example:82" } } },
        ["spare.example:82"] = { body = "spare" }, ["*"] = function() return answer end } })
      open()
      assert.equal("spare", gateway:get("/").body)
    end)

    it("sends requests to the fallback's service, with its path", function()
      start({ fallback = { service = "spare" } }, { services = {
        { name = "orders", url = "http://orders.example", routes = { { name = "first", paths = { "/" } } } },
        { name = "spare", url = "http://spare.example/static" } },
        upstreams = { ["spare.example"] = function(request) return { body = "spare " .. request.path } end,
          ["*"] = function() return answer end } })
      open()
      assert.equal("spare /static/x", gateway:get("/x").body)
    end)

    it("stays so when the configuration is loaded anew", function()
      start()
      open()
      local plugin = { name = "circuit-breaker", config = { consecutive_failures = 9 } }
      assert.is_true(gateway:reload { plugins = { plugin } })
      assert.same({ 503 }, statuses(1))
    end)
  end)

  describe("half-open", function()
    local function half_open(config)
      start(config)
      open()
      gateway:advance(10)
    end

    -- Requests whose answers do not come yet.
    local function pending(count)
      answer = { status = 200, delay = 5 }
      local list = {}
      for i = 1, count do list[i] = gateway:send("/") end
      gateway:settle()
      return list
    end

    it("lets so many requests through and answers others", function()
      half_open { permitted_number_of_calls_in_half_open_state = 2 }
      pending(2)
      assert.equal(1, state())
      local response = gateway:get("/")
      assert.same({ 503, "1" }, { response.status, response.headers["retry-after"] })
      assert.equal(3 + 2, #gateway:requests())
    end)

    it("closes when all probes went well", function()
      half_open { permitted_number_of_calls_in_half_open_state = 2 }
      assert.same({ 200 }, statuses(1, UP))
      assert.equal(1, state())
      assert.same({ 200, 200 }, statuses(2))
      assert.equal(0, state())
      assert.equal(2, metric(
        'sluice_circuit_breaker_probes_total{kind="service",name="orders",result="good"}'))
    end)

    it("begins to count anew when it has closed", function()
      half_open { permitted_number_of_calls_in_half_open_state = 1 }
      statuses(1, UP)
      assert.same({ 500, 500, 500, 503 }, statuses(4, DOWN))
    end)

    it("opens when a probe fails, for longer each time, up to the most", function()
      half_open { wait_duration_multiplier = 3, max_wait_duration_in_open_state = 50 }
      for _, seconds in ipairs { 30, 50, 50 } do
        assert.same({ 500, 503 }, statuses(2, DOWN))
        gateway:advance(seconds - 0.01)
        assert.same({ 503 }, statuses(1))
        gateway:advance(0.01)
      end
    end)

    it("opens for as long as at first once it has been closed", function()
      half_open { permitted_number_of_calls_in_half_open_state = 1 }
      statuses(1, DOWN)
      gateway:advance(20)
      statuses(1, UP)
      open()
      gateway:advance(10)
      assert.same({ 200 }, statuses(1, UP))
    end)

    it("counts a slow probe as failed where slow calls count", function()
      start { slow_call_rate_threshold = 100, slow_call_duration_threshold = 2, minimum_number_of_calls = 1 }
      statuses(1, { status = 200, delay = 3 })
      gateway:advance(10)
      statuses(1, { status = 200, delay = 3 })
      assert.equal(2, state())
    end)

    it("ignores what comes of requests from before it opened", function()
      start { permitted_number_of_calls_in_half_open_state = 1 }
      answer = { status = 500, delay = 30 }
      gateway:send("/")
      gateway:settle()
      open()
      gateway:advance(10)
      statuses(1, UP)
      gateway:advance(40)
      assert.same({ 500, 500 }, statuses(2, DOWN))
      assert.equal(0, state())
    end)

    it("gives a probe whose client has left to another request", function()
      half_open { permitted_number_of_calls_in_half_open_state = 1 }
      answer = { hang = true }
      local connection = gateway:connect()
      connection:send("/")
      gateway:settle()
      assert.same({ 503 }, statuses(1))
      connection:close()
      gateway:settle()
      assert.same({ 200 }, statuses(1, UP))
      assert.equal(0, state())
      assert.equal(1, metric(
        'sluice_circuit_breaker_probes_total{kind="service",name="orders",result="cancelled"}'))
    end)

    it("gives a probe that nothing is heard of to another request in time", function()
      half_open { permitted_number_of_calls_in_half_open_state = 1, max_wait_duration_in_half_open_state = 20 }
      answer = { hang = true }
      gateway:connect():send("/")
      gateway:advance(19.9)
      assert.same({ 503 }, statuses(1))
      gateway:advance(0.1)
      assert.same({ 200 }, statuses(1, UP))
      assert.equal(0, state())
    end)
  end)

  it("makes the time that it is open differ by chance", function()
    local seen = {}
    for seed = 1, 5 do
      start({ wait_duration_jitter = 0.5 }, { seed = seed })
      open()
      local seconds = tonumber(gateway:log("to=open")[1]:match("seconds=(%S+)"))
      assert.is_true(seconds >= 5 and seconds <= 15)
      seen[seconds] = true
    end
    assert.is_truthy(next(seen, (next(seen))))
  end)

  it("is one for all routes of a service", function()
    start()
    open()
    assert.same({ 503 }, statuses(1, UP, "/second"))
  end)

  it("is one for each route where the scope says so", function()
    start { scope = "route" }
    statuses(3, DOWN)
    assert.same({ 503 }, statuses(1, UP))
    assert.same({ 200 }, statuses(1, UP, "/second"))
    assert.equal(2, metric('sluice_circuit_breaker_state{kind="route",name="first"}'))
  end)

  it("concerns no route without a service", function()
    start(nil, { services = {}, routes = { { name = "none", paths = { "/" } } } })
    for _ = 1, 5 do assert.equal(503, gateway:get("/").status) end
    assert.same({}, gateway:log("changed its state"))
  end)

  it("tells each change in the log and in metrics", function()
    start()
    open()
    gateway:advance(10)
    statuses(3, UP)
    local lines = gateway:log("changed its state")
    for i, told in ipairs { "from=closed", "from=open", "from=half-open" } do
      assert.matches(told, lines[i], 1, true)
      assert.matches("name=orders", lines[i], 1, true)
    end
    for _, to in ipairs { "open", "half-open", "closed" } do
      assert.equal(1, metric(('sluice_circuit_breaker_transitions_total{kind="service",name="orders",to="%s"}')
        :format(to)))
    end
  end)

  it("refuses a fallback that leads nowhere", function()
    for kind, article in pairs { upstream = "an", service = "a" } do
      local config = { fallback = { [kind] = "nowhere" } }
      local _, err = spec.check { plugins = { { name = "circuit-breaker", config = config } } }
      assert.matches(("config.fallback.%s: expected the name of %s %s in the configuration, found \"nowhere\"")
        :format(kind, article, kind), err, 1, true)
    end
  end)

  describe("refuses a configuration", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "circuit-breaker", config = config } } })
    end

    it("with a threshold that is no percentage", function()
      assert.matches("config.failure_rate_threshold: expected", problem { failure_rate_threshold = 101 }, 1, true)
      assert.matches("config.slow_call_rate_threshold: expected", problem { slow_call_rate_threshold = 0 }, 1, true)
    end)

    it("with two fallbacks, or half of one", function()
      local function fallback(it) return problem { consecutive_failures = 1, fallback = it } end
      assert.matches("config.fallback", fallback { status = 200, upstream = "a" }, 1, true)
      assert.matches("config.fallback", fallback { host = "a" }, 1, true)
      assert.matches("expected a status", fallback { upstream = "a", body = "b" }, 1, true)
      assert.matches("config.fallback", fallback {}, 1, true)
    end)
  end)
end)
