-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

describe("bulkhead", function()
  local gateway

  local function start(config, more)
    local options = {
      services = { { name = "orders", url = "http://orders.example", routes = {
        { name = "first", paths = { "/first" } }, { name = "second", paths = { "/second" } } } } },
      plugins = { { name = "bulkhead", config = config } },
      upstreams = { ["*"] = { status = 200, delay = 10 } },
    }
    for name, value in pairs(more or {}) do options[name] = value end
    gateway = spec.gateway(options)
  end

  local function send(count, path)
    local list = {}
    for i = 1, count do list[i] = gateway:send(path or "/first") end
    gateway:settle()
    return list
  end

  local function statuses(pending)
    local list = {}
    for i = 1, #pending do
      local response = pending[i]:receive()
      list[i] = response and response.status
    end
    return list
  end

  local function metric(line)
    local text = gateway:request { path = "/metrics", listener = "status" }.body
    return tonumber(text:match("\n" .. line:gsub("%p", "%%%0") .. " (%S+)"))
  end

  it("lets so many requests be in flight at the same time, and refuses others", function()
    start { max_concurrent_calls = 2 }
    local pending = send(3)
    assert.equal(2, #gateway:requests())
    assert.same({ 200, 200, 503 }, statuses(pending))
    assert.equal(1, metric 'sluice_bulkhead_refused_total{kind="service",name="orders"}')
    assert.same({ 200, 200 }, statuses(send(2)))
  end)

  it("refuses with the status, message and time that it is told", function()
    start { max_concurrent_calls = 1, status = 429, message = "later", retry_after = 3 }
    send(1)
    local response = gateway:get("/first")
    assert.same({ 429, "later", "3" }, { response.status, response.json.message, response.headers["retry-after"] })
  end)

  it("is one for all routes of a service", function()
    start { max_concurrent_calls = 1 }
    send(1)
    assert.equal(503, gateway:get("/second").status)
  end)

  it("is one for each route where the scope says so", function()
    start { max_concurrent_calls = 1, scope = "route" }
    send(1)
    assert.equal(503, gateway:get("/first").status)
    assert.equal(200, gateway:get("/second").status)
  end)

  it("is free again when a client leaves", function()
    start { max_concurrent_calls = 1 }
    local connection = gateway:connect()
    connection:send("/first")
    gateway:settle()
    connection:close()
    gateway:settle()
    assert.equal(200, gateway:get("/first").status)
  end)

  describe("has requests wait", function()
    it("for their turns, in order", function()
      start { max_concurrent_calls = 1, max_wait_duration = 60 }
      gateway:upstream("*", function(request) return { delay = 1, body = request.query or "" } end)
      local pending = {}
      for i = 1, 5 do
        pending[i] = gateway:send("/first?" .. i)
        gateway:settle()
      end
      assert.equal(1, #gateway:requests())
      assert.same({ 200, 200, 200, 200, 200 }, statuses(pending))
      local order = {}
      for i, request in ipairs(gateway:requests()) do order[i] = request.query end
      assert.same({ "1", "2", "3", "4", "5" }, order)
      assert.equal(4, metric 'sluice_bulkhead_waited_total{kind="service",name="orders"}')
    end)

    it("for no longer than they may", function()
      start { max_concurrent_calls = 1, max_wait_duration = 2 }
      send(1)
      local before = gateway:now()
      assert.equal(503, gateway:get("/first").status)
      local seconds = gateway:now() - before
      assert.is_true(seconds >= 2 and seconds < 2.1)
    end)

    it("only so many", function()
      start { max_concurrent_calls = 1, max_wait_duration = 60, max_waiting_calls = 2 }
      local pending = send(4)
      gateway:advance(1)
      assert.equal(503, pending[4]:receive().status)
      assert.same({ 200, 200, 200 }, statuses({ pending[1], pending[2], pending[3] }))
    end)

    it("and forgets those whose client leaves", function()
      start { max_concurrent_calls = 1, max_wait_duration = 60, max_waiting_calls = 1 }
      local first = send(1)[1]
      local connection = gateway:connect()
      connection:send("/first")
      gateway:settle()
      connection:close()
      gateway:settle()
      local other = gateway:send("/first")
      assert.equal(200, first:receive().status)
      assert.equal(200, other:receive().status)
      assert.equal(2, #gateway:requests())
    end)
  end)

  it("concerns no route without a service", function()
    start({ max_concurrent_calls = 1 }, { services = {}, routes = { { paths = { "/" } } } })
    assert.equal(503, gateway:get("/first").status)
  end)

  it("refuses numbers that make no sense", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "bulkhead", config = config } } })
    end
    assert.matches("config.max_concurrent_calls: expected", problem { max_concurrent_calls = 0 }, 1, true)
    assert.matches("config.max_wait_duration: expected", problem { max_wait_duration = -1 }, 1, true)
    assert.matches("config.max_waiting_calls: expected", problem { max_waiting_calls = 0 }, 1, true)
  end)
end)
