-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local SERVED = { status = 200, close = true } -- so that no later try is on a connection that had been idle

describe("retry-budget", function()
  local gateway, answer

  local function start(config, more)
    answer = { close = true }
    local options = {
      services = { { name = "orders", url = "http://orders.example", retries = 3, routes = { { paths = { "/" } } } } },
      plugins = { { name = "retry-budget", config = config } },
      upstreams = { ["*"] = function() return answer end },
    }
    for name, value in pairs(more or {}) do options[name] = value end
    gateway = spec.gateway(options)
  end

  -- Requests that the service gets for so many of clients'.
  local function tries(count, request)
    local before = #gateway:requests()
    for _ = 1, count do gateway:request(request or "/") end
    return #gateway:requests() - before
  end

  local function metric(name)
    local text = gateway:request { path = "/metrics", listener = "status" }.body
    return tonumber(text:match("\nsluice_retry_budget_" .. name .. '{service="orders"} (%S+)'))
  end

  it("bounds retries to a share of the requests", function()
    start { retry_ratio = 0.5, min_retries_per_second = 0 }
    answer = SERVED
    assert.equal(20, tries(20))
    answer = { close = true }
    assert.equal(10 + 15, tries(10)) -- half of 30
    assert.equal(15, metric "retries_total")
  end)

  it("leaves a few where there are few requests", function()
    start { retry_ratio = 0, min_retries_per_second = 0.4, ttl = 10 }
    assert.equal(4, tries(1))
    assert.equal(2 + 1, tries(2))
    assert.equal(2, metric "exhausted_total")
  end)

  it("forgets what is older than its time", function()
    start { retry_ratio = 1, min_retries_per_second = 0, ttl = 10 }
    answer = SERVED
    tries(50)
    gateway:advance(11)
    answer = { close = true }
    assert.equal(1 + 1, tries(1))
  end)

  it("gives back in time what was spent", function()
    start { retry_ratio = 0, min_retries_per_second = 0.3, ttl = 10 }
    assert.equal(1 + 3, tries(1))
    assert.equal(1, tries(1))
    gateway:advance(11)
    assert.equal(1 + 3, tries(1))
  end)

  it("lets the client know what the last try came to", function()
    start { retry_ratio = 0, min_retries_per_second = 0 }
    assert.equal(502, gateway:get("/").status)
    assert.equal(1, #gateway:log("a try failed.*retrying=no"))
  end)

  it("holds for gRPC's retries elsewhere", function()
    local unavailable = { status = 200, headers = { ["Content-Type"] = "application/grpc", ["grpc-status"] = "14" } }
    start({ retry_ratio = 0, min_retries_per_second = 0 }, { upstreams = {
      { name = "orders.example", targets = { { target = "a.example:80" }, { target = "b.example:80" } } },
      ["*"] = unavailable } })
    assert.equal(1, tries(1, { path = "/", headers = { ["Content-Type"] = "application/grpc" } }))
  end)

  it("is each service's own", function()
    start({ retry_ratio = 0, min_retries_per_second = 0.1, ttl = 10 }, { services = {
      { name = "orders", url = "http://a.example", retries = 3, routes = { { paths = { "/a" } } } },
      { name = "others", url = "http://b.example", retries = 3, routes = { { paths = { "/b" } } } } } })
    assert.equal(2, tries(1, "/a"))
    assert.equal(2, tries(1, "/b"))
    assert.equal(1, tries(1, "/a"))
  end)

  it("does not count a request that a dead connection never delivered", function()
    start { retry_ratio = 0, min_retries_per_second = 0 }
    local served = 0
    gateway:upstream("*", function()
      served = served + 1
      if served == 2 then return { close = true } end
      return { status = 200 }
    end)
    local connection = gateway:connect()
    assert.equal(200, connection:request("/").status)
    assert.equal(200, connection:request("/").status)
    assert.equal(3, served)
  end)

  it("changes when the configuration is loaded anew, and keeps count", function()
    start { retry_ratio = 0, min_retries_per_second = 0.3, ttl = 10 }
    assert.equal(4, tries(1))
    assert.is_true(gateway:reload { plugins = { { name = "retry-budget", config = { retry_ratio = 0,
      min_retries_per_second = 0.4, ttl = 10 } } } })
    assert.equal(2, tries(1))
  end)

  it("concerns no route without a service", function()
    start({}, { services = {}, routes = { { paths = { "/" } } } })
    assert.equal(503, gateway:get("/").status)
  end)

  it("refuses numbers that make no sense", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "retry-budget", config = config } } })
    end
    assert.matches("config.retry_ratio: expected", problem { retry_ratio = -1 }, 1, true)
    assert.matches("config.min_retries_per_second: expected", problem { min_retries_per_second = -1 }, 1, true)
    assert.matches("config.ttl: expected", problem { ttl = 0 }, 1, true)
  end)
end)
