-- SPDX-License-Identifier: Apache-2.0
-- A gRPC service that answers UNAVAILABLE, and nothing else: the call goes to another of its targets.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local upstream = require "spec.support.upstream"

describe("a gRPC call that a target cannot serve now", function()
  local gw, up, down, broken

  setup(function()
    up = upstream.start()
    down = upstream.start(function(_, connection)
      connection:respond(200, { ["Content-Type"] = "application/grpc", ["grpc-status"] = "14",
        ["grpc-message"] = "not now" }, "")
    end)
    broken = upstream.start(function(_, connection)
      connection:respond(200, { ["Content-Type"] = "application/grpc", ["grpc-status"] = "13" }, "")
    end)
    local function targets(...)
      local list = {}
      for i, one in ipairs { ... } do list[i] = { target = "127.0.0.1:" .. one.port } end
      return list
    end
    local function service(name, retries)
      return { name = name, host = name, retries = retries,
        routes = { { name = name, paths = { "/" .. name }, strip_path = false } } }
    end
    gw = gateway.start({
      _format_version = "3.0",
      upstreams = {
        { name = "mixed", targets = targets(down, up) }, { name = "firm", targets = targets(down, up) },
        { name = "wrong", targets = targets(broken, up) },
        { name = "gone", targets = { { target = "127.0.0.1:" .. down.port }, { target = "localhost:" .. down.port } } },
      },
      services = { service "mixed", service("firm", 0), service "wrong", service "gone" },
    })
  end)

  teardown(function()
    gw:stop()
    up:stop()
    down:stop()
    broken:stop()
  end)

  local function call(path, body, type)
    local response = gw:request({ path = path, method = "POST", body = body or "\0\0\0\0\0",
      headers = { ["Content-Type"] = type or "application/grpc" } })
    return response.headers["grpc-status"] or "0", response
  end

  local function asked(of)
    return of:stats().requests
  end

  it("is served by another one, with all of its content", function()
    local before = asked(down)
    for i = 1, 6 do
      local status, response = call("/mixed/echo", "message " .. i)
      assert.same({ "0", "message " .. i }, { status, cjson.decode(response.body).body })
    end
    assert.is_true(asked(down) > before)
    gw:wait_log("a try failed.*The service answered UNAVAILABLE.*retrying=yes")
  end)

  it("is told so once every target has been asked", function()
    local before = asked(down)
    local status, response = call("/gone/x")
    assert.same({ "14", "not now" }, { status, response.headers["grpc-message"] })
    assert.equal(2, asked(down) - before)
  end)

  -- Of two calls in turn, one meets the target that does not serve.
  local function statuses(...)
    local found = { (call(...)), (call(...)) }
    table.sort(found)
    return table.concat(found, " ")
  end

  it("is told so where the service has no retries", function()
    assert.equal("0 14", statuses("/firm/echo"))
  end)

  it("is told so where the content is too large to be kept for another", function()
    assert.equal("0 14", statuses("/mixed/echo", ("x"):rep(200000)))
  end)

  it("is told any other status", function()
    assert.equal("0 13", statuses("/wrong/echo"))
  end)

  it("is told so where it is no gRPC", function()
    assert.equal("0 14", statuses("/mixed/echo", "x", "application/json"))
  end)
end)
