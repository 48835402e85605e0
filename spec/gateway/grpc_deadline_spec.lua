-- SPDX-License-Identifier: Apache-2.0
-- Deadlines that gRPC clients set (grpc-timeout): kept by the gateway, and told to the service.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

-- Waits where the path says, until it is told to go on; then changes all that it could have changed before.
local WAITS = [[
local sluice = require "sluice"
local waits = { version = "1", priority = 10 }

local function wait_and_change(exchange)
  repeat sluice.sleep(0.02) until sluice.counters.get("go" .. exchange.request:get_path())
  sluice.sleep(0.02) -- what had come before that has been seen then
  exchange.service.request:set_header("X-Late", "1")
  exchange.service.request:set_path("/late")
  exchange.service:set_target("127.0.0.1", 9)
  exchange.response:set_header("X-Late", "1")
  sluice.log.notice("the plugin went on", { where = exchange.request:get_path() })
  exchange.response:exit(403, { message = "too late" }, { ["X-Later"] = "2" })
end

function waits.rewrite(conf, exchange)
  if exchange.request:get_path() == "/in/rewrite" then wait_and_change(exchange) end
end

function waits.access(conf, exchange)
  local path = exchange.request:get_path()
  if path == "/in/access" then wait_and_change(exchange) end
  if path:find("^/go/") then
    sluice.counters.set(path:sub(2), 1)
    exchange.response:exit(200, "gone")
  end
  if path == "/in/stream" then
    local stream = exchange.response:stream(200)
    while stream:send("x") do sluice.sleep(0.02) end
    sluice.log.notice("the stream is over", {})
  end
  if path == "/a-while" then sluice.sleep(0.15) end
  if path == "/own" then exchange.service.request:set_header("grpc-timeout", "7S") end
  if path == "/none" then exchange.service.request:clear_header("grpc-timeout") end
end

function waits.log(conf, exchange)
  sluice.log.notice("ended", { where = exchange.request:get_path(), status = exchange.response:get_status() })
end

return waits
]]

local GATHERS = [[
local sluice = require "sluice"
return { version = "1", priority = 10, response = function(conf, exchange)
  sluice.sleep(0.3)
  exchange.response:set_header("X-Late", "1")
end }
]]

describe("the deadline of a gRPC call", function()
  local gw, up

  setup(function()
    up = upstream.start()
    gw = gateway.start({
      _format_version = "3.0",
      plugins = { { name = "waits" } },
      services = {
        { name = "up", url = up:url(), routes = {
          { name = "up", paths = { "/" }, strip_path = false },
          { name = "gathers", paths = { "/gathered" }, plugins = { { name = "gathers" } } },
        } },
        -- Each try fails after a while, so that it is the deadline which ends them.
        { name = "slow", url = up:url(), read_timeout = 60, retries = 1000,
          routes = { { name = "slow", paths = { "/tries" }, methods = { "PUT" } } } },
      },
    }, { plugins = { waits = WAITS, gathers = GATHERS } })
  end)

  teardown(function()
    gw:stop()
    up:stop()
  end)

  local function call(path, timeout, method)
    return gw:request({ path = path, method = method or "POST", body = "",
      headers = { ["Content-Type"] = "application/grpc", ["grpc-timeout"] = timeout } })
  end

  local function status(response)
    return tonumber(response.headers["grpc-status"])
  end

  it("ends a call whose service is too slow, and the service's work", function()
    local response = call("/delay/30", "50m")
    assert.same({ 4, "The deadline of the call has passed" }, { status(response), response.headers["grpc-message"] })
    gw:wait_log("ended.*status=504.*/delay/30")
    process.wait_until(function() return up:stats().open <= 1 end, 5, "the service is left alone") -- 1: who asks
  end)

  it("counts all tries", function()
    local before = up:stats().requests
    assert.equal(4, status(call("/tries/delay/30", "1500m", "PUT")))
    assert.is_true(up:stats().requests - before >= 2)
  end)

  for _, phase in ipairs { "rewrite", "access" } do
    it("does not wait for a plugin of " .. phase .. ", whose changes then reach nobody", function()
      local client = gw:connect()
      local response = assert(client:request({ path = "/in/" .. phase, method = "POST", body = "",
        headers = { ["Content-Type"] = "application/grpc", ["grpc-timeout"] = "50m" } }))
      assert.equal(4, status(response))
      assert.is_nil(response.headers["x-late"])
      assert.is_nil(gw:log():find("the plugin went on.*/in/" .. phase))
      assert.equal(200, gw:get("/go/in/" .. phase).status)
      assert.equal(200, client:request({ path = "/echo" }).status)
      gw:wait_log("the plugin went on.*/in/" .. phase)
      gw:wait_log("ended.*status=504.*/in/" .. phase)
      assert.is_nil(gw:log():find("plugin failed", 1, true))
      client:close()
    end)
  end

  it("does not wait for a plugin of response", function()
    local response = call("/gathered/echo", "100m")
    assert.equal(4, status(response))
    assert.is_nil(response.headers["x-late"])
  end)

  it("breaks off a response that has begun", function()
    local client = gw:connect()
    client:send("POST /events/100/0.02 HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\ngrpc-timeout: 1500m\r\n"
      .. "Content-Length: 0\r\n\r\n")
    local response, why = client:read_response("POST")
    assert.is_nil(response)
    assert.equal("closed", why)
    client:close()
  end)

  it("breaks off a response that a plugin sends", function()
    local client = gw:connect()
    client:send("POST /in/stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\ngrpc-timeout: 100m\r\n"
      .. "Content-Length: 0\r\n\r\n")
    assert.is_nil((client:read_response("POST")))
    gw:wait_log("the stream is over")
    client:close()
  end)

  -- What the service was told, in microseconds.
  local function told(path, timeout)
    local value = cjson.decode(call(path, timeout).body).headers["grpc-timeout"]
    local number, unit = (value or ""):match("^(%d+)(%a)$")
    return number and tonumber(number) * ({ u = 1, m = 1000, S = 1e6, M = 60e6, H = 3600e6 })[unit]
  end

  it("is told to the service as what is left of it", function()
    local left = told("/echo", "10S")
    assert.is_true(left <= 10e6 and left > 5e6)
    assert.is_true(told("/a-while", "10S") <= 10e6 - 140000)
    assert.is_true(told("/echo", "99999999H") > 3e6 * 3600e6)
  end)

  it("is told as a plugin says, where one does", function()
    assert.equal(7e6, told("/own", "10S"))
    assert.is_nil(told("/none", "10S"))
  end)

  it("is INTERNAL when it is malformed", function()
    local response = call("/echo", "soon")
    assert.same({ 13, "malformed grpc-timeout" }, { status(response), response.headers["grpc-message"] })
  end)

  it("has passed when it is nothing", function()
    assert.equal(4, status(call("/delay/30", "0n")))
  end)

  it("is none for who does not speak gRPC", function()
    local response = gw:request({ path = "/delay/0.1", headers = { ["grpc-timeout"] = "1m" } })
    assert.equal(200, response.status)
  end)
end)

describe("a client that leaves while a plugin waits", function()
  it("is no failure of the plugin, whatever that does then", function()
    local up = upstream.start()
    local gw = gateway.start({ _format_version = "3.0", plugins = { { name = "waits" } }, services = {
      { name = "up", url = up:url(), routes = { { name = "up", paths = { "/" }, strip_path = false } } } } },
      { plugins = { waits = WAITS } })
    local client = gw:connect()
    client:send("GET /in/access HTTP/1.1\r\nHost: x\r\n\r\n")
    client:close()
    gw:get("/go/in/access")
    gw:wait_log("the plugin went on")
    gw:wait_log("ended.*status=499")
    assert.is_nil(gw:log():find("head of the response", 1, true))
    gw:stop()
    up:stop()
  end)
end)
