-- SPDX-License-Identifier: Apache-2.0
-- Targets that die and return: what passive and active checks make of them, as all workers see it.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
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
  local _, json = gw:command("status", "--json")
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

local function count_log(gw, pattern)
  local count = 0
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
