-- SPDX-License-Identifier: Apache-2.0
-- Balancing by whole gateways: streams, requests in flight over several workers, targets that change under load.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local load = require "spec.support.load"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

local function service(name, fields)
  local it = { name = name, host = name, retries = 0, routes = { { name = name, paths = { "/" .. name } } } }
  for key, value in pairs(fields or {}) do it[key] = value end
  return it
end

local function targets(...)
  local list = {}
  for i, server in ipairs { ... } do
    list[i] = { target = "127.0.0.1:" .. (type(server) == "table" and server.port or server) }
  end
  return list
end

local function health_of(gw, name)
  local states = {}
  local status, json, err = gw:command("status", "--json")
  assert(status == 0, err)
  for _, target in ipairs(cjson.decode(json).worker.targets) do
    if target.upstream == name then states[target.target:match("%d+$") + 0] = target end
  end
  return states
end

local function wait_health(gw, name, port, health)
  return process.wait_until(function()
    local state = health_of(gw, name)[port]
    return state and state.health == health and state
  end, 10, function() return name .. " " .. port .. " " .. health .. ": " .. gw:log() end)
end

describe("a stream", function()
  local algorithms = { "least-connections", "latency", "power-of-two-choices", "consistent-hashing",
    "sticky-sessions" }

  it("goes by every policy, whatever that looks for in a request", function()
    local one, other, upstreams, services, listen = upstream.start(), upstream.start(), {}, {}, {}
    for i, algorithm in ipairs(algorithms) do
      local port = process.free_port()
      listen[i] = port
      upstreams[i] = { name = algorithm, algorithm = algorithm, targets = targets(one, other),
        sticky_sessions_cookie = "stay", hash_on = "cookie", hash_on_cookie = "who" }
      services[i] = { name = algorithm, host = algorithm, protocol = "tcp", routes = { { name = algorithm,
        protocols = { "tcp" }, destinations = { { port = port } } } } }
    end
    local addresses = {}
    for i, port in ipairs(listen) do addresses[i] = "127.0.0.1:" .. port end
    local gw = gateway.start { _format_version = "3.0", gateway = { stream_listen = addresses },
      upstreams = upstreams, services = services }
    for i, port in ipairs(listen) do
      for _ = 1, 4 do
        local client = assert(http.connect(port))
        assert.equal(200, assert(client:request({ path = "/echo" }), algorithms[i]).status)
        client:close()
      end
    end
    assert.is_nil(gw:log():find("policy failed", 1, true), gw:log())
    gw:stop()
    one:stop()
    other:stop()
  end)
end)

describe("requests in flight", function()
  it("are counted over all workers", function()
    local one, other = upstream.start(), upstream.start()
    local gw = gateway.start({ _format_version = "3.0", upstreams = { { name = "up", algorithm = "least-connections",
      targets = targets(one, other) } }, services = { service("up") } }, { workers = 2 })
    local function in_flight()
      local state, total = health_of(gw, "up"), {}
      for i, server in ipairs { one, other } do total[i] = state[server.port].addresses[1].in_flight end
      return total
    end
    local clients = {}
    for i = 1, 12 do
      clients[i] = gw:connect() -- to the one worker or the other
      clients[i]:send("GET /up/delay/60 HTTP/1.1\r\nHost: a\r\n\r\n")
      process.wait_until(function()
        local now = in_flight()
        return now[1] + now[2] == i
      end)
    end
    assert.same({ 6, 6 }, in_flight())
    for _, client in ipairs(clients) do client:close() end
    process.wait_until(function()
      local now = in_flight()
      return now[1] + now[2] == 0
    end)
    gw:stop()
    one:stop()
    other:stop()
  end)
end)

describe("under load", function()
  it("a target that dies and returns, with retries, fails no request", function()
    local one, other = upstream.start(), upstream.start()
    local gw = gateway.start({ _format_version = "3.0", upstreams = { { name = "up", targets = targets(one, other),
      healthchecks = { passive = { unhealthy = { tcp_failures = 2, timeouts = 2 } },
        active = { unhealthy = { interval = 0.1 }, healthy = { successes = 1 } } } } },
      services = { service("up", { retries = 2 }) } }, { workers = 2 })
    local clients = load.start(gw.port, "/up/echo", 4)
    for _ = 1, 3 do
      clients:asked(100)
      one:kill()
      wait_health(gw, "up", one.port, "unhealthy")
      clients:asked(100)
      one:launch()
      wait_health(gw, "up", one.port, "healthy")
    end
    clients:asked(100)
    local counts = clients:stop()
    assert.is_true(counts["200"] > 700)
    counts["200"] = nil
    assert.same({}, counts)
    gw:stop()
    one:stop()
    other:stop()
  end)

  it("changes of targets fail nothing", function()
    local servers = { upstream.start(), upstream.start(), upstream.start() }
    local function config(algorithm, ...)
      return { _format_version = "3.0", upstreams = { { name = "up", targets = targets(...), algorithm = algorithm,
        sticky_sessions_cookie = "stay", healthchecks = { active = { healthy = { interval = 0.1 } } } } },
        services = { service("up") } }
    end
    local gw = gateway.start(config("round-robin", servers[1]), { workers = 2 })
    local clients = load.start(gw.port, "/up/echo", 4)
    local generation = 1
    for _, algorithm in ipairs { "round-robin", "least-connections", "latency", "consistent-hashing",
      "power-of-two-choices", "sticky-sessions" } do
      for place = 1, 3 do
        gw:write_config(config(algorithm, servers[place % 3 + 1], place == 2 and servers[place] or nil))
        generation = generation + 1
        process.wait_until(function()
          local _, json = gw:command("status", "--json")
          return cjson.decode(json).generation >= generation
        end, 10, function() return "generation " .. generation .. ": " .. gw:log() end)
        clients:asked(20)
      end
    end
    local counts = clients:stop()
    assert.is_true(counts["200"] > 300)
    counts["200"] = nil
    assert.same({}, counts)
    gw:stop()
    for _, server in ipairs(servers) do server:stop() end
  end)
end)
