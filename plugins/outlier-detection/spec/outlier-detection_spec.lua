-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local DOWN, UP = { status = 500 }, { status = 200 }

describe("outlier-detection", function()
  local gateway, answers

  local function targets_of(names)
    local targets = {}
    for name in names:gmatch(".") do targets[#targets + 1] = { target = name .. ".example:80" } end
    return targets
  end

  -- A gateway to targets of so many names ("abc"), each of which gives answers[name].
  local function start(names, config, more)
    config.ejection_time_jitter = config.ejection_time_jitter or 0
    answers = {}
    local upstreams = { { name = "orders", targets = targets_of(names) } }
    for name in names:gmatch(".") do
      upstreams[name .. ".example"] = function() return answers[name] or UP end
    end
    local options = {
      services = { { name = "orders", url = "http://orders", retries = 0, routes = { { paths = { "/" } } } } },
      plugins = { { name = "outlier-detection", config = config } }, upstreams = upstreams,
    }
    for name, value in pairs(more or {}) do options[name] = value end
    gateway = spec.gateway(options)
  end

  -- Sends so many requests; how many each target got.
  local function shares(count, request)
    local before = #gateway:requests()
    for _ = 1, count do gateway:request(request or "/") end
    local got, all = {}, gateway:requests()
    for i = before + 1, #all do
      local name = all[i].host:sub(1, 1)
      if #all[i].host > 10 then name = "?" end
      got[name] = (got[name] or 0) + 1
    end
    return got, #all - before
  end

  -- Requests that a target got of so many.
  local function of(name, count, request)
    local before = #gateway:requests(name .. ".example")
    for _ = 1, count do gateway:request(request or "/") end
    return #gateway:requests(name .. ".example") - before
  end

  local function metric(line)
    local text = gateway:request { path = "/metrics", listener = "status" }.body
    return tonumber(text:match("\n" .. line:gsub("%p", "%%%0") .. " (%S+)"))
  end

  local function log(pattern)
    return #gateway:log(pattern)
  end

  it("ejects a target after so many failures in a row", function()
    start("ab", { consecutive_5xx = 3 })
    answers.a = DOWN
    assert.equal(3, of("a", 6))
    assert.equal(0, of("a", 10))
    assert.equal(1, log "a target takes no requests.*circuit breaker")
    assert.equal(1, log "a circuit changed its state.*to=open")
  end)

  it("ejects none that has failed now and then", function()
    start("ab", { consecutive_5xx = 3 })
    for _ = 1, 5 do
      answers.a = DOWN
      of("a", 4)
      answers.a = UP
      of("a", 2)
    end
    assert.equal(0, log "takes no requests")
  end)

  it("ejects a target of which too large a share fails", function()
    start("ab", { consecutive_5xx = 0, failure_percentage_threshold = 50, request_volume = 10 })
    for i = 1, 9 do
      answers.a = i % 2 == 0 and DOWN or UP
      of("a", 2)
    end
    assert.equal(0, log "takes no requests")
    answers.a = DOWN
    of("a", 2)
    assert.equal(1, log "failure rate")
    assert.equal(0, of("a", 10))
  end)

  it("ejects a target that is slow", function()
    start("ab", { consecutive_5xx = 0, slow_call_rate_threshold = 50, slow_call_duration_threshold = 1, interval = 60,
      request_volume = 4 })
    answers.a = { status = 200, delay = 2 }
    assert.equal(4, of("a", 20))
    assert.equal(1, log "slow call rate")
  end)

  it("ejects a target whose clients have waited for too long and left", function()
    start("ab", { consecutive_5xx = 0, slow_call_rate_threshold = 50, slow_call_duration_threshold = 1, interval = 60,
      request_volume = 2 })
    answers.a = { hang = true }
    for _, patience in ipairs { 0.5, 1.5, 1.5 } do
      for _ = 1, 2 do
        local connection = gateway:connect()
        connection:send("/")
        gateway:advance(patience)
        connection:close()
        gateway:settle()
      end
    end
    assert.equal(1, log "slow call rate")
    assert.equal(0, of("a", 4))
  end)

  it("ejects a target that does worse than the others", function()
    start("abcdef", { consecutive_5xx = 0, success_rate_stdev_factor = 1.5, success_rate_minimum_hosts = 5,
      request_volume = 10, interval = 10 })
    for i = 1, 10 do
      answers.a = i % 3 == 0 and DOWN or UP
      of("a", 6)
    end
    assert.equal(0, log "takes no requests")
    gateway:advance(8)
    assert.equal(1, log "below the others")
    assert.equal(0, of("a", 12))
  end)

  it("compares no fewer than it is told", function()
    start("abcd", { consecutive_5xx = 0, success_rate_stdev_factor = 1.5, success_rate_minimum_hosts = 5,
      request_volume = 10 })
    answers.a = DOWN
    of("a", 60)
    gateway:advance(15)
    assert.equal(0, log "takes no requests")
  end)

  it("ejects for targets that cannot be reached or do not answer, each try", function()
    for _, told in ipairs { { refuse = true }, { close = true }, { raw = "what?\r\n\r\n" }, { hang = true } } do
      start("ab", { consecutive_5xx = 2 }, { services = { { name = "orders", url = "http://orders", retries = 3,
        read_timeout = 1000, routes = { { paths = { "/" } } } } } })
      answers.a = told
      gateway:upstream("a.example", told)
      for _ = 1, 8 do
        local status = gateway:get("/").status
        assert.is_true(status == 200 or told.raw ~= nil) -- what is no HTTP is an answer all the same: not asked again
      end
      assert.equal(1, log "a target takes no requests")
    end
  end)

  it("ejects for gRPC's statuses", function()
    local CALL = { path = "/", method = "POST", headers = { ["Content-Type"] = "application/grpc" } }
    start("ab", { consecutive_5xx = 2 })
    answers.a = { status = 200, headers = { ["Content-Type"] = "application/grpc", ["grpc-status"] = "13" } }
    assert.equal(2, of("a", 10, CALL))
  end)

  it("ejects for the statuses that it is told", function()
    start("ab", { consecutive_5xx = 2, failure_statuses = { 429 } })
    answers.a = DOWN
    assert.equal(3, of("a", 6))
    answers.a = { status = 429 }
    assert.equal(2, of("a", 10))
  end)

  describe("never ejects", function()
    it("more than the share that may be", function()
      start("abcdef", { consecutive_5xx = 1, max_ejection_percent = 50 })
      for name in ("abcdef"):gmatch(".") do answers[name] = DOWN end
      shares(60)
      assert.equal(3, log "a target takes no requests")
      local total = 0
      for name in ("abcdef"):gmatch(".") do total = total + (of(name, 6) > 0 and 1 or 0) end
      assert.equal(3, total)
      assert.is_true(metric 'sluice_outlier_ejections_overflow_total{upstream="orders"}' > 0)
    end)

    it("fewer than one, nor the last one", function()
      start("ab", { consecutive_5xx = 1, max_ejection_percent = 100 })
      answers.a, answers.b = DOWN, DOWN
      shares(20)
      assert.equal(1, log "a target takes no requests")
      start("a", { consecutive_5xx = 1, max_ejection_percent = 100 })
      answers.a = DOWN
      shares(20)
      assert.equal(0, log "a target takes no requests")
    end)

    it("any where the share is 0", function()
      start("ab", { consecutive_5xx = 1, max_ejection_percent = 0 })
      answers.a = DOWN
      shares(20)
      assert.equal(0, log "a target takes no requests")
    end)
  end)

  describe("lets single requests find out", function()
    local function ejected(config)
      config.consecutive_5xx = 1
      start("ab", config)
      answers.a = DOWN
      of("a", 2)
      assert.equal(0, of("a", 4))
    end

    it("whether the target is well again, and puts it back", function()
      ejected { base_ejection_time = 20 }
      answers.a = UP
      gateway:advance(19.9)
      assert.equal(0, of("a", 4))
      gateway:advance(0.1)
      assert.equal(4, of("a", 7))
      assert.equal(1, log "a target takes requests again")
      assert.equal(1, log "to=closed")
    end)

    it("one at a time", function()
      ejected { base_ejection_time = 20 }
      answers.a = { status = 200, delay = 5 }
      gateway:advance(20)
      local before = #gateway:requests("a.example")
      for _ = 1, 10 do gateway:send("/") end
      gateway:settle()
      assert.equal(1, #gateway:requests("a.example") - before)
      gateway:advance(5)
      assert.equal(1, log "to=closed")
    end)

    it("and ejects it for longer when they fail, up to the most", function()
      ejected { base_ejection_time = 20, ejection_time_multiplier = 3, max_ejection_time = 100 }
      for _, seconds in ipairs { 20, 60, 100, 100 } do
        gateway:advance(seconds - 0.1)
        assert.equal(0, of("a", 4))
        gateway:advance(0.2)
        assert.equal(1, of("a", 4))
      end
    end)

    it("as many as it is told, one after the other", function()
      ejected { base_ejection_time = 20, probes = 3 }
      gateway:advance(20)
      answers.a = { status = 200, delay = 1 }
      of("a", 2)
      assert.equal(0, log "to=closed")
      of("a", 4)
      assert.equal(1, log "to=closed")
    end)

    it("anew when nothing is heard of one", function()
      ejected { base_ejection_time = 20, probe_interval = 5 }
      gateway:advance(20)
      answers.a = { hang = true }
      local clients = {}
      for i = 1, 2 do
        clients[i] = gateway:connect()
        clients[i]:send("/")
      end
      gateway:settle()
      assert.equal(0, of("a", 4))
      for i = 1, 2 do clients[i]:close() end
      gateway:advance(4)
      assert.equal(0, of("a", 4))
      gateway:advance(1.1)
      answers.a = UP
      assert.is_true(of("a", 4) > 0)
      assert.equal(1, log "to=closed")
    end)

    it("and takes no word of requests from before", function()
      start("ab", { consecutive_5xx = 1, base_ejection_time = 20 })
      answers.a = { status = 200, delay = 30 }
      for _ = 1, 2 do gateway:send("/") end
      gateway:settle()
      answers.a = DOWN
      of("a", 2)
      gateway:advance(15)
      assert.equal(0, of("a", 4))
      assert.equal(0, log "to=closed")
    end)
  end)

  it("makes the time of an ejection differ by chance", function()
    local seen = {}
    for seed = 1, 5 do
      start("ab", { consecutive_5xx = 1, base_ejection_time = 10, ejection_time_jitter = 0.5 }, { seed = seed })
      answers.a = DOWN
      of("a", 2)
      local seconds = tonumber(gateway:log("to=open")[1]:match("seconds=(%S+)"))
      assert.is_true(seconds >= 5 and seconds <= 15)
      seen[seconds] = true
    end
    assert.is_truthy(next(seen, (next(seen))))
  end)

  it("ejects addresses of a service's own name", function()
    start("a", { consecutive_5xx = 1 }, {
      services = { { name = "many", url = "http://many.example", routes = { { paths = { "/" } } } } },
      dns = { ["many.example"] = { "10.0.0.1", "10.0.0.2", "10.0.0.3" } },
      upstreams = { ["10.0.0.1"] = DOWN, ["10.0.0.2"] = UP, ["10.0.0.3"] = UP, ["*"] = function(request)
        return request.address == "10.0.0.1" and DOWN or UP
      end } })
    shares(9)
    local before, bad = #gateway:requests(), 0
    shares(9)
    for i = before + 1, #gateway:requests() do
      if gateway:requests()[i].address:find("10.0.0.1", 1, true) then bad = bad + 1 end
    end
    assert.equal(1, log "a target takes no requests")
    assert.equal(0, bad)
    local plugin = { name = "outlier-detection", config = { consecutive_5xx = 2 } }
    assert.is_true(gateway:reload { plugins = { plugin } })
    for _ = 1, 6 do assert.equal(200, gateway:get("/").status) end
    assert.is_true(gateway:reload { plugins = { { name = "correlation-id" } } })
    assert.equal(1, log "nothing breaks it any more")
  end)

  it("keeps a target out when the configuration is loaded anew, and puts it back when nothing ejects", function()
    start("ab", { consecutive_5xx = 1 })
    answers.a = DOWN
    of("a", 2)
    assert.is_true(gateway:reload { plugins = { { name = "outlier-detection", config = { consecutive_5xx = 7 } } } })
    assert.equal(0, of("a", 4))
    assert.is_true(gateway:reload { plugins = { { name = "correlation-id" } } })
    assert.equal(2, of("a", 4))
  end)

  it("goes with health checks and policies that go by load", function()
    start("abc", { consecutive_5xx = 1 }, {})
    local upstreams = { { name = "orders", algorithm = "least-connections", targets = targets_of "abc",
      healthchecks = { passive = { unhealthy = { http_failures = 2 } } } } }
    for name in ("abc"):gmatch(".") do
      upstreams[name .. ".example"] = function() return answers[name] or UP end
    end
    assert.is_true(gateway:reload { upstreams = upstreams })
    answers.a = DOWN
    shares(6)
    assert.equal(0, of("a", 6))
  end)

  it("is to be seen in metrics", function()
    start("ab", { consecutive_5xx = 1 })
    answers.a = DOWN
    of("a", 2)
    local text = gateway:request { path = "/metrics", listener = "status" }.body
    assert.matches('sluice_circuit_breaker_state{kind="target",name="orders [%d.]+:80"} 2', text)
    assert.matches('sluice_outlier_ejections_total{upstream="orders",target="[%d.]+:80"} 1', text)
  end)

  it("refuses numbers that make no sense", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "outlier-detection", config = config } } })
    end
    assert.matches("config.max_ejection_percent: expected", problem { max_ejection_percent = 101 }, 1, true)
    assert.matches("config.consecutive_5xx: expected", problem { consecutive_5xx = -1 }, 1, true)
    assert.matches("config.probes: expected", problem { probes = 0 }, 1, true)
    assert.matches("config.interval: expected", problem { interval = 0 }, 1, true)
  end)
end)
