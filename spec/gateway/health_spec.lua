-- SPDX-License-Identifier: Apache-2.0
-- Targets that die and return: what passive and active checks make of them, as all workers see it.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local greeter = require "spec.support.greeter"
local http = require "spec.support.http"
local http2_service = require "spec.support.http2_service"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local tls = require "spec.support.tls"
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

-- How many lines there are like that, once there is one.
local function count_log(gw, pattern)
  local count = 0
  gw:wait_log(pattern)
  for line in gw:log():gmatch("[^\n]+") do
    if line:find(pattern) then count = count + 1 end
  end
  return count
end

describe("passive checks", function()
  local gw, good, bad, dead

  setup(function()
    good = upstream.start()
    bad = upstream.start(function(_, connection) connection:respond(503, {}, "") end)
    dead = process.free_port()
    local function passive(name, second, unhealthy)
      return { name = name, targets = targets(good, second), healthchecks = { passive = { unhealthy = unhealthy } } }
    end
    gw = gateway.start({
      _format_version = "3.0",
      upstreams = {
        passive("status", bad, { http_failures = 3 }), passive("refused", dead, { tcp_failures = 2 }),
        { name = "threshold", targets = targets(good, dead), healthchecks = { threshold = 60,
          passive = { unhealthy = { tcp_failures = 1 } } } },
        { name = "gone", targets = targets(dead), healthchecks = { passive = { unhealthy = { tcp_failures = 1 } } } },
        { name = "unwatched", targets = targets(dead) },
      },
      services = { service("status"), service("refused", { retries = 1 }), service("threshold"), service("gone"),
        service("unwatched") },
    }, { workers = 2 })
  end)

  teardown(function()
    gw:stop()
    good:stop()
    bad:stop()
  end)

  it("take a target out that answers with bad statuses in a row, for all workers", function()
    local failed = 0
    for _ = 1, 60 do
      if gw:get("/status/echo").status == 503 then failed = failed + 1 end
    end
    assert.equal(3, failed)
    assert.equal("healthy", health_of(gw, "status")[good.port].health)
    local state = health_of(gw, "status")[bad.port]
    assert.equal("unhealthy", state.health)
    assert.same({ "checks" }, state.addresses[1].reasons)
    assert.equal(1, count_log(gw, "takes no requests.*" .. bad.port))
    assert.matches("requests were answered with 503", gw:log(), 1, true)
  end)

  it("take a target out that refuses connections, and a retry hides that from clients", function()
    for _ = 1, 30 do assert.equal(200, gw:get("/refused/echo").status) end
    wait_health(gw, "refused", dead, "unhealthy")
    assert.equal(1, count_log(gw, "takes no requests.*upstream=refused"))
  end)

  it("answer 503 for an upstream with none left, or with less than its threshold", function()
    assert.equal(502, gw:get("/gone/").status)
    local response = gw:get("/gone/")
    assert.equal(503, response.status)
    assert.matches("failure to get a peer from the ring-balancer", response.body, 1, true)
    process.wait_until(function() return gw:get("/threshold/").status == 502 end)
    for _ = 1, 10 do assert.equal(503, gw:get("/threshold/").status) end
  end)

  it("cost nothing where there are none", function()
    for _ = 1, 3 do assert.equal(502, gw:get("/unwatched/").status) end
    local state = health_of(gw, "unwatched")[dead]
    assert.equal("unchecked", state.health)
    assert.same({}, state.addresses)
  end)

  it("are remembered over a reload, and forgotten with another configuration of them", function()
    local config = cjson.decode(process.read_file(gw.config_path))
    config.routes = { { name = "new", paths = { "/new" }, service = "status" } }
    gw:write_config(config)
    process.wait_until(function() return gw:get("/new/echo").status ~= 404 end)
    assert.equal("unhealthy", health_of(gw, "status")[bad.port].health)
    config.upstreams[1].healthchecks.passive.unhealthy.http_failures = 2
    gw:write_config(config)
    wait_health(gw, "status", bad.port, "healthy")
  end)
end)

describe("active checks", function()
  local gw, one, other

  local function active(more)
    local it = { timeout = 5, healthy = { interval = 0.1, successes = 1 },
      unhealthy = { interval = 0.1, tcp_failures = 1, http_failures = 1, timeouts = 1 } }
    for key, value in pairs(more or {}) do it[key] = value end
    return { active = it }
  end

  before_each(function() one, other = upstream.start(), upstream.start() end)

  after_each(function()
    gw:stop()
    one:stop()
    other:stop()
  end)

  local function start(upstreams, options)
    local services = {}
    for i, it in ipairs(upstreams) do services[i] = service(it.name, it.service) end
    for _, it in ipairs(upstreams) do it.service = nil end
    gw = gateway.start({ _format_version = "3.0", upstreams = upstreams, services = services },
      options or { workers = 2 })
  end

  local function checks_of(server)
    local count = 0
    for _, request in ipairs(server:stats().log) do
      if request.target == "/ready" then count = count + 1 end
    end
    return count
  end

  it("take a target out that dies, and back when it returns, each with a line in the log", function()
    start { { name = "up", targets = targets(one, other), healthchecks = active(),
      service = { retries = 1 } } }
    wait_health(gw, "up", one.port, "healthy")
    one:kill()
    wait_health(gw, "up", one.port, "unhealthy")
    for _ = 1, 10 do assert.equal(200, gw:get("/up/echo").status) end
    assert.equal(1, count_log(gw, "takes no requests.*upstream=up.*" .. one.port .. ".*could not connect"))
    one:launch()
    wait_health(gw, "up", one.port, "healthy")
    assert.equal(1, count_log(gw, "takes requests again.*" .. one.port .. ".*answered with 200"))
    one:forget()
    for _ = 1, 10 do assert.equal(200, gw:get("/up/echo").status) end
    assert.is_true(one:stats().requests >= 5)
  end)

  it("are made by one worker, and by another when that one dies", function()
    start({ { name = "up", targets = targets(one),
      healthchecks = active { http_path = "/ready", healthy = { interval = 0.1, successes = 1 } } } })
    process.wait_until(function() return checks_of(one) >= 3 end)
    local began = posix.now()
    one:forget()
    process.wait_until(function() return checks_of(one) >= 10 end)
    assert.is_true(posix.now() - began > 0.7) -- half of that is enough for two workers that both check
    for _, pid in ipairs(gw:workers()) do
      posix.kill(pid, posix.SIGKILL)
      one:forget()
      process.wait_until(function() return checks_of(one) >= 2 end)
    end
    one:kill()
    wait_health(gw, "up", one.port, "unhealthy")
    pcall(gw.stop, gw) -- it tells of the workers that were killed
    gw = gateway.start({ _format_version = "3.0" })
  end)

  it("ask a gRPC service by grpc.health.v1 how it is", function()
    local service_of_grpc = greeter.start()
    local function grpc(name, more)
      local fields = { type = "grpc" }
      for key, value in pairs(more or {}) do fields[key] = value end
      return { name = name, targets = targets(service_of_grpc.port), healthchecks = active(fields) }
    end
    start { grpc("whole"), grpc("part", { grpc_service = "hello.Greeter" }),
      grpc("none", { grpc_service = "no.Such" }),
      { name = "web", targets = targets(one), healthchecks = active { type = "grpc" } } }
    wait_health(gw, "whole", service_of_grpc.port, "healthy")
    wait_health(gw, "part", service_of_grpc.port, "healthy")
    wait_health(gw, "none", service_of_grpc.port, "unhealthy") -- the service knows no such name
    wait_health(gw, "web", one.port, "unhealthy")              -- it speaks no HTTP/2
    service_of_grpc.signal(10)
    wait_health(gw, "part", service_of_grpc.port, "unhealthy")
    gw:wait_log("upstream=part.*NOT_SERVING")
    assert.equal("healthy", health_of(gw, "whole")[service_of_grpc.port].health)
    service_of_grpc.signal(12)
    wait_health(gw, "part", service_of_grpc.port, "healthy")
    service_of_grpc.stop()
    wait_health(gw, "whole", service_of_grpc.port, "unhealthy")
  end)

  it("ask over TLS what a gRPC client would, and take nothing but SERVING for an answer", function()
    local folder = posix.temporary_directory()
    local made = tls.make_certificate(folder, { name = "grpc.example" })
    local service_of_grpc = http2_service.listen { tls = { certificate = made.certificate, key = made.key,
      alpn = { "h2" } } }
    start({ { name = "up", host_header = "grpc.example", targets = targets(service_of_grpc.port),
      healthchecks = active { type = "grpcs", grpc_service = "a.B", https_verify_certificate = false, timeout = 30,
        headers = { ["X-Token"] = { "t" } } } } }, { workers = 1 })
    local function answer(message, trailers)
      local connection = service_of_grpc:accept()
      local got = assert(connection:next_request())
      assert.same({ "POST", "https", "/grpc.health.v1.Health/Check", "grpc.example", "application/grpc", "trailers",
        "t" }, { got.request[":method"], got.request[":scheme"], got.request[":path"], got.request[":authority"],
        got.request["content-type"], got.request.te, got.request["x-token"] })
      assert.equal("\0\0\0\0\5\10\3a.B", connection:whole(got))
      connection:respond(got, { { ":status", 200 }, { "content-type", "application/grpc" } }, message, trailers)
      connection:close()
    end
    local ok = { { "grpc-status", "0" } }
    for _, case in ipairs { { "\0\0\0\0\2\8\2", ok, "unhealthy" }, { "\0\0\0\0\2\8\1", ok, "healthy" },
      { nil, { { "grpc-status", "12" } }, "unhealthy" }, { "\0\0\0\0\2\8\1", ok, "healthy" },
      { "\0\0\0\0\0", ok, "unhealthy" }, { "\0\0\0\0\2\8\1", ok, "healthy" },
      { "\1\0\0\0\2\8\1", ok, "unhealthy" } } do
      answer(case[1], case[2])
      wait_health(gw, "up", service_of_grpc.port, case[3])
    end
    service_of_grpc:close()
    process.remove(folder)
  end)

  it("show the upstream's certificate, as requests do, and verify the target's", function()
    local folder = posix.temporary_directory()
    local authority = tls.make_certificate(folder, { name = "authority.test" })
    local made = tls.make_certificate(folder, { name = "inner.test", ca = authority })
    local client = tls.make_certificate(folder, { name = "gateway.test", ca = authority, client = true })
    local secure = upstream.start(nil, { tls = { certificate = made.certificate, key = made.key,
      ca = authority.certificate, client_certificate = client.certificate, client_key = client.key } })
    local id = "b2a0ae42-9a5f-4a52-8d9c-1d7c1ff7a6c0"
    local function checked(name, verify, certificate)
      return { name = name, targets = targets(secure), client_certificate = certificate and { id = id },
        healthchecks = active { type = "https", https_sni = "inner.test", https_verify_certificate = verify } }
    end
    gw = gateway.start { _format_version = "3.0",
      certificates = { { id = id, cert = client.certificate_pem, key = client.key_pem } },
      upstreams = { checked("shown", false, true), checked("nothing", false), checked("unknown", true, true) },
      services = { service("shown", { protocol = "https" }) } }
    wait_health(gw, "nothing", secure.port, "unhealthy")
    wait_health(gw, "unknown", secure.port, "unhealthy") -- the system does not know that authority
    wait_health(gw, "shown", secure.port, "healthy")
    assert.equal(200, gw:get("/shown/echo").status)
    secure:stop()
    process.remove(folder)
  end)

  it("bring back what passive checks took out", function()
    start { { name = "up", targets = targets(one, other), service = { retries = 1 }, healthchecks = {
      passive = { unhealthy = { tcp_failures = 1 } },
      active = { healthy = { interval = 0, successes = 2 }, unhealthy = { interval = 0.1, tcp_failures = 1 } } } } }
    one:kill()
    for _ = 1, 10 do assert.equal(200, gw:get("/up/echo").status) end
    wait_health(gw, "up", one.port, "unhealthy")
    one:launch()
    wait_health(gw, "up", one.port, "healthy")
  end)
end)

describe("passive checks of gRPC and of streams", function()
  it("go by the status of a call, wherever it stands", function()
    local bad = upstream.start(function(request, connection)
      local fields = { ["Content-Type"] = "application/grpc", ["grpc-status"] = request.headers["x-status"] }
      connection:respond(200, fields, "")
    end)
    local good = upstream.start()
    local gw = gateway.start({ _format_version = "3.0", upstreams = { { name = "up", targets = targets(bad, good),
      healthchecks = { passive = { unhealthy = { http_failures = 2 } } } } }, services = { service("up") } })
    local function call(status)
      return gw:request { path = "/up/echo", method = "POST", body = "\0\0\0\0\0",
        headers = { ["Content-Type"] = "application/grpc", ["X-Status"] = status } }
    end
    for _ = 1, 8 do call("5") end -- what the caller did wrong
    assert.equal("healthy", health_of(gw, "up")[bad.port].health)
    for _ = 1, 4 do call("14") end
    assert.equal("unhealthy", health_of(gw, "up")[bad.port].health)
    gw:stop()
    bad:stop()
    good:stop()
  end)

  it("go by connections of streams that were made or not", function()
    local good, dead, listen = upstream.start(), process.free_port(), process.free_port()
    local gw = gateway.start({ _format_version = "3.0",
      gateway = { stream_listen = { "127.0.0.1:" .. listen } },
      upstreams = { { name = "up", targets = targets(dead, good),
        healthchecks = { passive = { unhealthy = { tcp_failures = 2 } } } } },
      services = { { name = "up", host = "up", protocol = "tcp", retries = 1, routes = { { name = "up",
        protocols = { "tcp" }, destinations = { { port = listen } } } } } } })
    for _ = 1, 6 do
      local client = assert(http.connect(listen))
      assert.equal(200, client:request({ path = "/echo" }).status)
      client:close()
    end
    local state = wait_health(gw, "up", dead, "unhealthy")
    assert.equal("checks", state.addresses[1].reasons[1])
    gw:stop()
    good:stop()
  end)
end)
