-- SPDX-License-Identifier: Apache-2.0
-- Two tries of one request at once, over real sockets: HTTP/1.1 with services that do whatever they like, and HTTP/2
-- frame by frame.
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local http2 = require "spec.support.http2"
local http2_service = require "spec.support.http2_service"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

-- Slow or quick by chance; now and then its head comes in two pieces, its content in many, or nothing at all.
local function moody(request, connection)
  local path = request.target:match("[^?]*$")
  local mood = math.random()
  connection:sleep(math.random() * 0.012)
  if mood < 0.15 then return connection:close() end
  local body = mood < 0.3 and path:rep(20000) or path
  local head = ("HTTP/1.1 200 OK\r\nX-Path: %s\r\nContent-Length: %d\r\n"):format(path, #body)
  if mood > 0.8 then
    connection:send(head:sub(1, math.random(#head)))
    connection:sleep(math.random() * 0.012)
    return connection:close()
  end
  connection:send(head)
  if mood > 0.6 then connection:sleep(math.random() * 0.012) end
  connection:send("\r\n" .. body)
end

describe("requests to two services of moods", function()
  local moods, one, two, gw

  setup(function()
    moods = { upstream.start(moody), upstream.start(moody) }
  end)

  teardown(function()
    for i = 1, 2 do moods[i]:stop() end
  end)

  after_each(function()
    for _, it in ipairs { gw, one, two } do it:stop() end
  end)

  local function start(protocol, port_one, port_two)
    gw = gateway.start({
      _format_version = "3.0",
      upstreams = { { name = "both", algorithm = "least-connections", targets = {
        { target = "127.0.0.1:" .. port_one }, { target = "127.0.0.1:" .. port_two } } } },
      services = { { name = "both", url = protocol .. "://both", retries = 20, routes = { { paths = { "/" } } } } },
      plugins = { { name = "hedging", config = { delay = 0.004, hedge_ratio = 1, min_hedges_per_second = 100000 } } },
    }, { workers = 2 })
  end

  -- Speaks HTTP/2 for a service of moods.
  local function front(service)
    return gateway.start({ _format_version = "3.0", services = { { name = "moody", retries = 0,
      url = "http://127.0.0.1:" .. service.port, routes = { { paths = { "/" } } } } } }, { http2 = true })
  end

  local function metric(result)
    local text = http.get(gw.status_port, "/metrics").body
    return tonumber(text:match('\nsluice_hedges_total{service="both",result="' .. result .. '"} (%S+)')) or 0
  end

  -- Now and then a client has no more patience.
  local function answer_to(client, path, patient)
    local response = patient and client:read_response("GET", 10)
    if not response then return nil end
    if response.status == 200 then
      assert.equal(path, response.headers["x-path"])
      assert.is_truthy(response.body == path or response.body == path:rep(20000))
    else
      assert.equal(502, response.status) -- a head that was cut off is not asked for again
    end
    return response
  end

  local function play(rounds)
    local clients, whole = {}, 0
    for round = 1, rounds do
      for i = 1, 8 do
        clients[i] = clients[i] or gw:connect()
        clients[i]:send((http.format({ path = ("/%d/%d"):format(round, i) }, "gateway.test")))
      end
      for i = 1, 8 do
        local response = answer_to(clients[i], ("/%d/%d"):format(round, i), (round + i) % 13 ~= 0)
        if response and response.status == 200 then whole = whole + 1 end
        if not response then
          clients[i]:close()
          clients[i] = nil
        end
      end
    end
    for i = 1, 8 do
      if clients[i] then clients[i]:close() end
    end
    assert.is_true(whole > rounds * 4)
    assert.is_true(metric "won" > 10 and metric "lost" > 10)
    assert.is_nil(gw:log():match("a worker ended[^\n]*"))
  end

  it("get each its own response, whole, or hear that it broke off", function()
    start("http", moods[1].port, moods[2].port)
    play(40)
  end)

  it("do so over HTTP/2", function()
    one, two = front(moods[1]), front(moods[2])
    start("http2", one.port, two.port)
    play(40)
  end)
end)

describe("a request to two services over HTTP/2", function()
  local gw, slow, quick, client, connections

  setup(function()
    slow, quick = http2_service.listen(), http2_service.listen()
    gw = gateway.start({
      _format_version = "3.0",
      upstreams = { { name = "both", targets = { { target = "127.0.0.1:" .. slow.port },
        { target = "127.0.0.1:" .. quick.port } } } },
      services = { { name = "both", url = "http2://both", retries = 1, read_timeout = 5000,
        routes = { { paths = { "/" } } } } },
      plugins = { { name = "hedging", config = { delay = 0.02, hedge_ratio = 1, min_hedges_per_second = 1000 } } },
    })
  end)

  teardown(function()
    gw:stop()
    slow:close()
    quick:close()
  end)

  before_each(function()
    client, connections = gw:connect(), {}
  end)

  after_each(function()
    client:close()
    for _, connection in ipairs(connections) do
      connection.socket:finish()
      connection.socket:closes_within(2)
      connection:close()
    end
  end)

  -- The request as both services have it; which of them got it first depends on whose turn it was.
  local function both()
    client:send((http.format({ path = "/x" }, "gateway.test")))
    for i, service in ipairs { slow, quick } do connections[i] = service:accept() end
    local first, second = connections[1]:next_request(), connections[2]:next_request()
    assert.equal("/x", first.request[":path"])
    assert.equal("/x", second.request[":path"])
    return first, second
  end

  local function assert_gets(body)
    local response = client:read_response("GET", 5)
    assert.same({ 200, body }, { response.status, response.body })
  end

  for i, name in ipairs { "one", "other" } do
    it("gets what the " .. name .. " says, and the stream to where nothing came from is reset", function()
      local requests = { both() }
      local loser = requests[3 - i]
      connections[i]:respond(requests[i], { { ":status", "200" } }, name)
      assert_gets(name)
      assert.is_truthy(connections[3 - i]:wait_until(function() return loser.reset end, 5))
      assert.equal("CANCEL", loser.reset)
    end)

    it("gets what the " .. name .. " says when the other's connection ends", function()
      local requests = { both() }
      connections[3 - i].socket:finish()
      connections[3 - i].socket:closes_within(2)
      connections[i]:respond(requests[i], { { ":status", "200" } }, name)
      assert_gets(name)
    end)

    it("gets what the " .. name .. " says when the other goes away or resets", function()
      for _, go in ipairs { "go_away", "reset" } do
        local requests = { both() }
        if go == "reset" then connections[3 - i]:reset(requests[3 - i], 7) else connections[3 - i]:go_away(0) end
        connections[i]:respond(requests[i], { { ":status", "200" } }, name)
        assert_gets(name)
        for _, connection in ipairs(connections) do
          connection.socket:finish()
          connection.socket:closes_within(2)
          connection:close()
        end
        connections = {}
      end
    end)
  end

  it("gets the whole head of one while that of the other has begun", function()
    local requests = { both() }
    local block = http2.block { { ":status", "200" }, { "x-from", "first" } }
    connections[1]:send(http2.frame(http2.HEADERS, 0, requests[1].number, block:sub(1, 5)))
    connections[2]:send(http2.frame(http2.HEADERS, 0, requests[2].number,
      http2.block { { ":status", "200" }, { "x-from", "second" } }:sub(1, 5)))
    connections[1]:send(http2.frame(http2.CONTINUATION, http2.END_HEADERS, requests[1].number, block:sub(6)))
    connections[1]:data(requests[1].number, "first")
    local response = client:read_response("GET", 5)
    assert.same({ 200, "first", "first" }, { response.status, response.headers["x-from"], response.body })
  end)

  it("is given up at both when the client leaves", function()
    local requests = { both() }
    client:close()
    for i = 1, 2 do
      assert.is_truthy(connections[i]:wait_until(function() return requests[i].reset end, 5))
    end
    assert.is_truthy(process.wait_until(function()
      return http.get(gw.status_port, "/metrics").body:match('sluice_hedges_total{service="both",result="lost"}')
    end))
  end)
end)
