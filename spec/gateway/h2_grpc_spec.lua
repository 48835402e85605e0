-- SPDX-License-Identifier: Apache-2.0
-- gRPC's side of an exchange over HTTP/2: answers of the gateway, responses that break off, deadlines, trailers.
local gateway = require "spec.support.gateway"
local http2 = require "spec.support.http2"
local http2_service = require "spec.support.http2_service"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

local BREAKS = [[
return { version = "1", priority = 10, body_filter = function(conf, exchange, chunk, last)
  if chunk:find("break", 1, true) then error("oh") end
  return chunk
end }
]]

local TRAILS = [[
local sluice = require "sluice"
return { version = "1", priority = 10, header_filter = function(conf, exchange)
  exchange.response:set_trailer("X-Early", "1")
end, body_filter = function(conf, exchange, chunk, last)
  if last then
    exchange.response:set_trailer("X-Late", exchange.service.response:get_trailer("grpc-status") or "none")
    exchange.response:clear_trailer("x-sum")
  end
  return chunk
end, log = function(conf, exchange)
  sluice.log.notice("trailers", { late = exchange.response:get_trailer("x-late") or "none" })
end }
]]

local REQUEST_TRAILS = [[
return { version = "1", priority = 10, access = function(conf, exchange)
  exchange.request:get_raw_body()
  exchange.response:exit(200, exchange.request:get_trailer("x-sum") or "none")
end }
]]

local STREAMS = [[
local sluice = require "sluice"
return { version = "1", priority = 10, access = function(conf, exchange)
  local stream = exchange.response:stream(200, { ["Content-Type"] = "application/grpc" })
  while stream:send("x") do sluice.sleep(0.02) end
end }
]]

describe("gRPC over HTTP/2", function()
  local gw, up, service, client

  setup(function()
    up = upstream.start(function(request, connection)
      local path = request.target
      connection:begin(200, { ["Content-Type"] = "application/grpc", Trailer = "grpc-status, X-Sum" })
      if path:find("broken", 1, true) then
        connection:chunk("partial")
        return connection:close()
      elseif path:find("events", 1, true) then
        while connection:chunk("event") do connection:sleep(0.02) end
        return connection:close()
      end
      connection:chunk(path:find("breaks", 1, true) and "first break" or "body")
      connection:finish("grpc-status: 0\r\ngrpc-message: fine\r\nX-Sum: 7\r\nSet-Cookie: a=b")
    end)
    service = http2_service.listen()
    gw = gateway.start({
      _format_version = "3.0",
      gateway = { limits = { max_head_bytes = 8192 }, headers = { "Server-Timing", "X-Kong-Request-Id" } },
      services = {
        { name = "up", url = up:url(), retries = 0, routes = {
          { name = "up", paths = { "/" }, strip_path = false },
          { name = "breaks", paths = { "/breaks" }, strip_path = false, plugins = { { name = "breaks" } } },
          { name = "trails", paths = { "/trails" }, strip_path = false, plugins = { { name = "trails" } } },
          { name = "request", paths = { "/request" }, strip_path = false, plugins = { { name = "request-trails" } } },
          { name = "streams", paths = { "/streams" }, strip_path = false, plugins = { { name = "streams" } } },
        } },
        { name = "far", url = "http2://127.0.0.1:" .. service.port, retries = 0,
          routes = { { name = "far", paths = { "/far" }, plugins = { { name = "trails" } } } } },
        { name = "dead", url = "http://127.0.0.1:" .. process.free_port(), retries = 0,
          routes = { { name = "dead", paths = { "/dead" } } } },
      },
    }, { http2 = true, plugins = { breaks = BREAKS, trails = TRAILS, ["request-trails"] = REQUEST_TRAILS,
      streams = STREAMS } })
  end)

  teardown(function()
    gw:stop()
    up:stop()
    service:close()
  end)

  before_each(function() client = assert(http2.connect(gw.port)) end)
  after_each(function() client:close() end)

  local function call(path, headers, type)
    local fields = { { "content-type", type or "application/grpc" }, { "te", "trailers" } }
    for _, field in ipairs(headers or {}) do fields[#fields + 1] = field end
    local number = client:request { path = path, headers = fields, body = "\0\0\0\0\0" }
    return client:wait(number), client:stream(number)
  end

  it("is told errors of the gateway in one frame", function()
    local answer, stream = call("/dead")
    assert.same({ 200, "14", "application/grpc" },
      { answer.status, answer.headers["grpc-status"], answer.headers["content-type"] })
    assert.same({ nil, 0, true }, { answer.trailers, #stream.parts, answer.ended })
  end)

  it("is told that its head is too large", function()
    local answer = call("/dead", { { "x-large", ("x"):rep(10000) } })
    assert.same({ 200, "8" }, { answer.status, answer.headers["grpc-status"] })
  end)

  it("is told nothing of the kind where it is not spoken", function()
    local answer = call("/dead", nil, "application/json")
    assert.equal(502, answer.status)
    assert.is_nil(answer.headers["grpc-status"])
  end)

  it("gets the trailers of the service, but for what may not be one", function()
    local answer = call("/plain")
    assert.equal("body", answer.body)
    assert.same({ { "grpc-status", "0" }, { "grpc-message", "fine" }, { "x-sum", "7" } }, { unpack(answer.trailers) })
  end)

  it("is told in trailers that a response broke off", function()
    local answer = call("/broken")
    assert.same({ 200, "partial", "14", "An invalid response was received from the upstream server" },
      { answer.status, answer.body, answer.trailers["grpc-status"], answer.trailers["grpc-message"] })
    answer = call("/breaks")
    assert.same({ 200, "", "13", "An unexpected error occurred" },
      { answer.status, answer.body, answer.trailers["grpc-status"], answer.trailers["grpc-message"] })
    assert.is_nil(answer.reset)
  end)

  it("sees a reset where it is not spoken", function()
    local answer = call("/broken", nil, "application/json")
    assert.equal("INTERNAL_ERROR", answer.reset)
  end)

  it("is told in trailers that a deadline has passed, of a service's response or a plugin's", function()
    local numbers = {}
    for i, path in ipairs { "/events", "/streams" } do
      numbers[i] = client:request { path = path, body = "\0\0\0\0\0",
        headers = { { "content-type", "application/grpc" }, { "te", "trailers" }, { "grpc-timeout", "1500m" } } }
    end
    for _, number in ipairs(numbers) do
      local answer = client:wait(number)
      assert.same({ 200, "4", "The deadline of the call has passed" },
        { answer.status, answer.trailers["grpc-status"], answer.trailers["grpc-message"] })
      assert.is_true(#answer.body > 0)
    end
  end)

  it("has its trailers read and changed by plugins", function()
    local answer = call("/trails")
    assert.same({ "0", "1", "0" },
      { answer.trailers["grpc-status"], answer.trailers["x-early"], answer.trailers["x-late"] })
    assert.is_nil(answer.trailers["x-sum"])
    gw:wait_log("trailers.*late=0")
    local number = client:request { path = "/request", method = "POST", body = "abc", trailers = { { "x-sum", "5" } } }
    assert.equal("5", client:wait(number).body)
  end)

  it("gets an answer of its service that is a head alone as one frame, whatever plugins there are", function()
    local number = client:request { path = "/far", headers = { { "content-type", "application/grpc" } }, body = "x" }
    local connection = service:accept()
    local got = assert(connection:next_request())
    connection:head(got, { { ":status", 200 }, { "content-type", "application/grpc" }, { "grpc-status", 5 } }, true)
    local answer, stream = client:wait(number), client:stream(number)
    assert.same({ 200, "5", nil, 0 }, { answer.status, answer.headers["grpc-status"], answer.trailers, #stream.parts })
    assert.is_nil(answer.headers["content-length"])
    connection:close()
  end)

  it("has the other details too", function()
    local answer = call("/plain")
    assert.matches("^gateway;dur=%d+%.%d, upstream;dur=%d+%.%d$", answer.headers["server-timing"])
    assert.matches("^%x+$", answer.headers["x-kong-request-id"])
    assert.is_nil(answer.headers.via)
    assert.is_nil(call("/dead").headers.server)
    local number = client:headers { { ":method", "CONNECT" }, { ":authority", "example.com:443" } }
    local refused = client:wait(number)
    assert.equal(405, refused.status)
    assert.matches("GET", refused.headers.allow)
    assert.equal("body", call("/plain").body) -- on the same connection
  end)
end)
