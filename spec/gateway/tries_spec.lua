-- SPDX-License-Identifier: Apache-2.0
-- What plugins and logs learn of the tries of an exchange.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

local TELLS = [[
local sluice = require "sluice"
return { version = "1", priority = 10, header_filter = function(conf, exchange)
  exchange.response:set_header("X-Tries", sluice.json.encode(exchange.service:get_tries()))
end, log = function(conf, exchange)
  sluice.log.notice("tried", { record = sluice.json.encode({ tries = exchange:serialize().tries }) })
end }
]]

describe("the tries of an exchange", function()
  local gw, up, down, dead

  setup(function()
    up = upstream.start()
    down = upstream.start(function(_, connection) connection:respond(200, { ["grpc-status"] = "14" }, "") end)
    dead = process.free_port()
    local function service(name, host, retries)
      return { name = name, host = host, retries = retries, routes = { { name = name, paths = { "/" .. name },
        plugins = { { name = "tells" } } } } }
    end
    gw = gateway.start({
      _format_version = "3.0",
      upstreams = {
        { name = "mixed", targets = { { target = "127.0.0.1:" .. dead }, { target = "127.0.0.1:" .. up.port } } },
        { name = "calls", targets = { { target = "127.0.0.1:" .. down.port }, { target = "127.0.0.1:" .. up.port } } },
      },
      services = { service("mixed", "mixed", 3), service("calls", "calls", 3), service("nowhere", "no-such.invalid", 0),
        { name = "many", url = "http://127.0.0.1:" .. dead, retries = 100, routes = { { name = "many",
          paths = { "/many" }, plugins = { { name = "tells" } } } } } },
    }, { plugins = { tells = TELLS } })
  end)

  teardown(function()
    gw:stop()
    up:stop()
    down:stop()
  end)

  local function tries(path, headers)
    local before = os.time() * 1000
    local response = gw:get(path, headers)
    local list = cjson.decode(response.headers["x-tries"])
    for _, try in ipairs(list) do
      assert.is_true(try.balancer_start >= before - 1000 and try.balancer_start <= os.time() * 1000 + 1000)
      assert.equal(try.balancer_start, math.floor(try.balancer_start_ns / 1e6))
      try.balancer_start, try.balancer_start_ns = nil, nil
    end
    return list, response
  end

  -- Until the one that fails was first.
  local function two(path, headers)
    return process.wait_until(function()
      local list, response = tries(path, headers)
      assert.equal(200, response.status)
      return #list == 2 and list
    end)
  end

  it("are those that failed and the one that did not", function()
    assert.same({ { ip = "127.0.0.1", port = dead, state = "failed", code = 502 },
      { ip = "127.0.0.1", port = up.port } }, two("/mixed/echo"))
    gw:wait_log('tried.*"state\\*":\\*"failed.*' .. up.port)
  end)

  it("tell a target that answered it cannot serve", function()
    assert.same({ { ip = "127.0.0.1", port = down.port, state = "next", code = 503 },
      { ip = "127.0.0.1", port = up.port } }, two("/calls/echo", { ["Content-Type"] = "application/grpc" }))
  end)

  it("have no address where a name has none", function()
    assert.same({ { state = "failed", code = 503 } }, (tries("/nowhere")))
  end)

  it("are kept as far as anybody could want them", function()
    local list, response = tries("/many")
    assert.same({ 502, 32 }, { response.status, #list })
  end)
end)
