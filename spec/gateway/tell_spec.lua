-- SPDX-License-Identifier: Apache-2.0
-- What responses tell of the gateway besides: the setting `headers`.
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local upstream = require "spec.support.upstream"

local ANSWERS = [[
return { version = "1", priority = 10, access = function(conf, exchange)
  require("sluice").sleep(0.05)
  if exchange.request:get_path() == "/plugin" then exchange.response:exit(200, "mine") end
end, log = function(conf, exchange)
  require("sluice").log.notice("sent", { id = exchange.response:get_header("X-Kong-Request-Id") or "none",
    own = exchange.id })
end }
]]

describe("a response", function()
  local up

  setup(function()
    up = upstream.start(function(request, connection)
      if request.target:find("timed", 1, true) then
        connection:sleep(0.05)
        return connection:respond(200, { ["Server-Timing"] = "db;dur=5", Via = "1.1 inner", Server = "up/1" }, "timed")
      end
      connection:respond(418, nil, "teapot")
    end)
  end)

  teardown(function() up:stop() end)

  local function with(headers, run)
    local gw = gateway.start({
      _format_version = "3.0", gateway = { headers = headers },
      services = { { name = "up", url = up:url(), routes = {
        { name = "up", paths = { "/" }, strip_path = false, plugins = { { name = "answers" } } } } } },
    }, { plugins = { answers = ANSWERS } })
    local good, why = pcall(run, gw)
    gw:stop()
    if not good then error(why, 0) end
  end

  local function durations(field)
    local gateway_ms, upstream_ms = field:match("^gateway;dur=(%d+%.%d), upstream;dur=(%d+%.%d)$")
    return tonumber(gateway_ms), tonumber(upstream_ms)
  end

  it("tells who was on the way, unless told otherwise", function()
    with(nil, function(gw)
      local headers = gw:get("/timed").headers
      assert.same({ "1.1 inner, 1.1 sluice", "up/1", "db;dur=5" },
        { headers.via, headers.server, headers["server-timing"] })
      assert.equal("sluice", gw:get("/plugin").headers.server)
      for _, name in ipairs { "proxy-latency", "upstream-latency", "response-latency", "request-id" } do
        assert.is_nil(headers["x-kong-" .. name])
      end
    end)
  end)

  it("tells nothing when that is off", function()
    with("off", function(gw)
      local headers = gw:get("/timed").headers
      assert.same({ "1.1 inner", "up/1" }, { headers.via, headers.server })
      assert.is_nil(gw:get("/plugin").headers.server)
      assert.is_nil(gw:get("/other").headers.via)
    end)
  end)

  it("tells where the time went, beside what the service says", function()
    with({ "Server-Timing" }, function(gw)
      local fields = http.values(gw:get("/timed").headers, "Server-Timing")
      assert.equal("db;dur=5", fields[1])
      local gateway_ms, upstream_ms = durations(fields[2])
      assert.is_true(gateway_ms >= 49 and upstream_ms >= 49)
      assert.matches("^gateway;dur=%d+%.%d$", gw:get("/plugin").headers["server-timing"])
    end)
  end)

  it("has Kong's fields for it", function()
    with({ "latency_tokens", "X-Kong-Upstream-Status", "X-Kong-Request-Id" }, function(gw)
      local headers = gw:get("/timed").headers
      assert.is_true(tonumber(headers["x-kong-proxy-latency"]) >= 49)
      assert.is_true(tonumber(headers["x-kong-upstream-latency"]) >= 49)
      assert.is_nil(headers["x-kong-response-latency"])
      assert.equal("418", gw:get("/other").headers["x-kong-upstream-status"])
      headers = gw:get("/plugin").headers
      assert.is_true(tonumber(headers["x-kong-response-latency"]) >= 49)
      assert.is_nil(headers["x-kong-proxy-latency"] or headers["x-kong-upstream-latency"]
        or headers["x-kong-upstream-status"])
      gw:wait_log("sent.*id=" .. headers["x-kong-request-id"] .. ".*own=" .. headers["x-kong-request-id"])
    end)
  end)
end)
