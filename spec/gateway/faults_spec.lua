-- SPDX-License-Identifier: Apache-2.0
-- A bad day: plugins that fail wherever they can, clients that leave, services that break off. Nobody else notices.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

-- In each phase, does what the field X-Fault names for it ("access=raise").
local FAULTY = [[
local sluice = require "sluice"
local faulty = { version = "1.0.0", priority = 10 }
local acts = {}

function acts.raise() error("on purpose") end
function acts.exit(exchange) exchange.response:exit(403, "denied") end
function acts.exit_caught(exchange) pcall(exchange.response.exit, exchange.response, 403, "denied") end
function acts.sleep() sluice.sleep(0.05) end
function acts.nap() sluice.sleep(0.5) end
function acts.exit_later(exchange) sluice.sleep(0.05) exchange.response:exit(403, "denied") end
function acts.body(exchange) exchange.request:get_raw_body() end
function acts.replace(exchange) exchange.service.request:set_raw_body("replaced") end
function acts.stream(exchange)
  local stream = exchange.response:stream(200)
  for number = 1, 3 do stream:send("piece " .. number .. "\n") end
end
function acts.stream_raise(exchange) acts.stream(exchange) error("on purpose") end
function acts.stream_exit(exchange) acts.stream(exchange) exchange.response:exit(403, "denied") end
function acts.stream_long(exchange)
  local stream = exchange.response:stream(200)
  for _ = 1, 100 do
    if not stream:send(("x"):rep(1000)) then break end
    sluice.sleep(0.01)
  end
end
function acts.many(exchange) for number = 1, 10000 do exchange.response:add_header("X-" .. number, "v") end end
function acts.large(exchange) exchange.response:set_header("X-Large", ("x"):rep(70000)) end

local function act(phase, exchange)
  local name = (exchange.request:get_header("x-fault") or ""):match(phase .. "=([%w_]+)")
  if name then acts[name](exchange) end
end

for _, phase in ipairs { "rewrite", "access", "balancer", "header_filter", "log" } do
  faulty[phase] = function(_, exchange) act(phase, exchange) end
end

function faulty.body_filter(_, exchange, chunk)
  act("body_filter", exchange)
  return chunk
end

return faulty
]]

local WHOLE = FAULTY:gsub("for _, phase in ipairs.*", [[
function faulty.response(_, exchange) act("response", exchange) end
return faulty
]])

describe("on a bad day", function()
  local up, weak, gw

  setup(function()
    up = upstream.start()
    -- Breaks off once for each new target, then answers.
    weak = upstream.start(function(request, connection)
      local seen = package.loaded.seen or {} -- outlives the request
      package.loaded.seen = seen
      local body = connection:read_body()
      if not seen[request.target] then
        seen[request.target] = true
        return connection:reset()
      end
      return connection:respond(200, { ["X-Length"] = #body }, body:sub(1, 100))
    end)
    gw = gateway.start({
      _format_version = "3.0",
      gateway = { limits = { max_body_bytes = 5000000, max_head_bytes = 8192, max_headers = 60 } },
      services = {
        { name = "up", url = up:url(), routes = {
          { name = "up", paths = { "/" }, strip_path = false },
          { name = "whole", paths = { "/whole" }, plugins = { { name = "whole" } } },
        } },
        { name = "weak", url = weak:url(), retries = 2, routes = { { name = "weak", paths = { "/weak" } } } },
      },
      plugins = { { name = "faulty" } },
    }, { plugins = { faulty = FAULTY, whole = WHOLE } })
  end)

  teardown(function()
    gw:stop()
    up:stop()
    weak:stop()
  end)

  -- What is in work besides the question itself.
  local function wait_until_idle()
    process.wait_until(function()
      local status = cjson.decode(http.get(gw.status_port, "/status").body)
      return status.server.connections_writing == 1
    end, 5, "the end of every exchange")
  end

  describe("a plugin", function()
    -- What the client gets; "cut": a response that breaks off.
    local expected = {
      ["rewrite=raise"] = 500, ["rewrite=exit"] = 403, ["rewrite=exit_caught"] = 403, ["rewrite=sleep"] = 200,
      ["rewrite=exit_later"] = 403, ["rewrite=body"] = 200, ["rewrite=stream"] = 500,
      ["access=raise"] = 500, ["access=exit"] = 403, ["access=exit_caught"] = 403, ["access=sleep"] = 200,
      ["access=exit_later"] = 403, ["access=body"] = 200, ["access=replace"] = 200, ["access=stream"] = 200,
      ["access=stream_raise"] = "cut", ["access=stream_exit"] = "cut",
      ["access=stream header_filter=raise"] = 500, ["access=stream header_filter=sleep"] = 500,
      ["balancer=raise"] = 500, ["balancer=exit"] = 500, ["balancer=sleep"] = 500,
      ["header_filter=raise"] = 500, ["header_filter=exit"] = 403, ["header_filter=sleep"] = 500,
      ["header_filter=body"] = 500, ["header_filter=stream"] = 500,
      ["access=exit header_filter=raise"] = 500, ["access=exit header_filter=exit"] = 403,
      ["body_filter=raise"] = "cut", ["body_filter=exit"] = "cut", ["body_filter=sleep"] = "cut",
      ["access=exit body_filter=raise"] = 500,
      ["log=raise"] = 200, ["log=exit"] = 200, ["log=sleep"] = 200, ["log=stream"] = 200,
      ["header_filter=many"] = 500, ["access=many"] = 500,
      ["header_filter=large"] = 500, ["access=exit header_filter=large"] = 500, ["access=large"] = 500,
    }
    local expected_whole = { ["response=raise"] = 500, ["response=exit"] = 403, ["response=exit_caught"] = 403,
      ["response=sleep"] = 200, ["response=exit_later"] = 403, ["response=stream"] = 500,
      ["response=sleep header_filter=raise"] = 500, ["response=exit body_filter=raise"] = 500 }

    local function try_all(path, faults)
      for fault, outcome in pairs(faults) do
        for _, method in ipairs { "GET", "POST" } do
          local client = gw:connect()
          local response = client:request({ path = path, method = method, headers = { ["X-Fault"] = fault },
            body = method == "POST" and ("b"):rep(100000) or nil })
          assert.equal(outcome, response and response.status or "cut", method .. " " .. fault)
          if response and response.headers.connection ~= "close" then
            assert.equal(200, client:request({ path = "/" }).status, "after " .. fault)
          end
          client:close()
        end
      end
      wait_until_idle()
    end

    it("may fail in every phase in every way", function() try_all("/", expected) end)

    it("may do so over a response that is held whole", function() try_all("/whole", expected_whole) end)

    it("finds its exchange ended when the client has left meanwhile", function()
      for _, fault in ipairs { "rewrite=nap", "access=nap", "access=body", "access=stream_long", "log=nap" } do
        local client = gw:connect()
        client:send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nX-Fault: " .. fault .. "\r\n\r\nabc")
        posix.pause(0.05)
        client.socket:reset()
      end
      wait_until_idle()
      assert.equal(200, gw:get("/").status)
    end)

    it("that replaces the request's body leaves the connection in order", function()
      local client = gw:connect()
      client:send("POST / HTTP/1.1\r\nHost: a\r\nX-Fault: access=replace\r\nTransfer-Encoding: chunked\r\n\r\n"
        .. "3\r\nabc\r\n")
      assert.equal("replaced", cjson.decode(client:read_response().body).body)
      client:send("3\r\ndef\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
      assert.equal("/next", cjson.decode(client:read_response().body).target)
      client:close()
    end)
  end)

  describe("a service that breaks off", function()
    it("is asked again with the whole body, where asking twice does no harm", function()
      for index, headers in ipairs { {}, { ["X-Fault"] = "access=body" }, { ["X-Fault"] = "access=replace" } } do
        local response = gw:request({ method = "PUT", path = "/weak/" .. index, body = ("y"):rep(50000),
          headers = headers })
        assert.equal(200, response.status)
        assert.equal(index == 3 and "8" or "50000", response.headers["x-length"])
      end
      local client = gw:connect()
      client:send("PUT /weak/chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n")
      posix.pause(0.05)
      client:send("0\r\n\r\n")
      assert.equal("abcdef", client:read_response().body)
      client:close()
    end)

    it("is not asked again with a body too large to be kept, nor for what is not idempotent", function()
      assert.equal(502, gw:request({ method = "PUT", path = "/weak/large", body = ("y"):rep(200000) }).status)
      assert.equal(502, gw:request({ method = "POST", path = "/weak/post", body = "y" }).status)
    end)
  end)

  it("a body that grows past max_body_bytes on its way is 413", function()
    local client = gw:connect()
    client:send("POST /swallow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    local piece = ("%x\r\n%s\r\n"):format(100000, ("x"):rep(100000))
    for _ = 1, 60 do
      if not client:send(piece) then break end
    end
    assert.equal(413, client:read_response().status)
    assert.is_true(client:closes_within(3))
    client:close()
    wait_until_idle()
  end)
end)
