-- SPDX-License-Identifier: Apache-2.0
-- Services over HTTP/2: what they get, what comes back, how content flows both ways, and those that misbehave.
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local http2 = require "spec.support.http2"
local http2_service = require "spec.support.http2_service"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local tls = require "spec.support.tls"

local function config(port, more)
  return ([[
_format_version: "3.0"
gateway: { limits: { max_head_bytes: 16384 } }
services:
- name: far
  url: http2://127.0.0.1:%d/base
  connect_timeout: 2000
  read_timeout: 20000
  write_timeout: 20000
  retries: 1
  routes: [{ name: far, paths: [/] }]
- name: hasty
  url: http2://127.0.0.1:%d/base
  read_timeout: 700
  write_timeout: 700
  retries: 1
  routes: [{ name: hasty, paths: [/hasty] }]
%s]]):format(port, port, more or "")
end

describe("a service over HTTP/2", function()
  local gw, service, client, connection

  setup(function()
    service = http2_service.listen()
    gw = gateway.start(config(service.port))
  end)

  teardown(function()
    gw:stop()
    service:close()
  end)

  before_each(function()
    client = gw:connect()
  end)

  after_each(function()
    client:close()
    if not connection then return end
    if connection.socket.fd >= 0 then -- the gateway's next request is not to find it
      connection.socket:finish()
      connection.socket:closes_within(2)
    end
    connection:close()
    connection = nil
  end)

  local function send(request)
    assert(client:send((http.format(request, "gateway.test"))))
  end

  -- Sends a request and gives it as the service gets it.
  local function pass(request, settings)
    send(request)
    connection = service:accept(settings)
    return assert(connection:next_request())
  end

  describe("gets requests", function()
    it("with pseudo-fields, fields in lower case and none of a single connection", function()
      local got = pass { method = "GET", path = "/a?b=c", headers = { ["X-Mixed"] = "Kept",
        Connection = "X-Private, TE",
        ["X-Private"] = "1", ["Keep-Alive"] = "5", TE = "trailers, deflate", ["Proxy-Connection"] = "x" } }
      local fields = got.request
      assert.same({ "GET", "http", "/base/a?b=c", "127.0.0.1:" .. service.port },
        { fields[":method"], fields[":scheme"], fields[":path"], fields[":authority"] })
      assert.equal("Kept", fields["x-mixed"])
      assert.equal("trailers", fields.te)
      assert.equal("1.1 sluice", fields.via)
      assert.equal("127.0.0.1", fields["x-forwarded-for"])
      assert.equal("gateway.test", fields["x-forwarded-host"])
      assert.equal(tostring(gw.port), fields["x-forwarded-port"])
      for _, name in ipairs { "connection", "keep-alive", "proxy-connection", "x-private", "host", "X-Mixed",
        "transfer-encoding", "content-length" } do
        assert.is_nil(fields[name], name)
      end
      assert.is_true(got.ended)
      connection:respond(got, { { ":status", 204 } })
      assert.equal(204, client:read_response().status)
    end)

    it("with a content whose length is known", function()
      local got = pass { path = "/", body = "hello" }
      assert.equal("5", got.request["content-length"])
      assert.equal("hello", connection:whole(got))
      connection:respond(got, { { ":status", 200 } }, "")
      assert.equal(200, client:read_response().status)
    end)

    it("with a content whose length is not, and its trailers", function()
      send { method = "POST", headers = { ["Transfer-Encoding"] = "chunked" } }
      client:send("5\r\nhello\r\n0\r\nX-Check: 1\r\n\r\n")
      connection = service:accept()
      local got = assert(connection:next_request())
      assert.equal("hello", connection:whole(got))
      assert.is_nil(got.request["content-length"])
      assert.equal("1", got.trailers["x-check"])
      connection:respond(got, { { ":status", 200 } }, "")
      assert.equal(200, client:read_response().status)
    end)
  end)

  describe("answers", function()
    it("with fields, content and trailers", function()
      local got = pass {}
      connection:respond(got, { { ":status", 200 }, { "x-a", "1" }, { "x-a", "2" }, { "content-type", "text/plain" } },
        "hello", { { "grpc-status", "0" }, { "x-t", "v" } })
      local answer = client:read_response()
      assert.equal("hello", answer.body)
      assert.same({ "1", "2" }, http.values(answer.headers, "x-a"))
      assert.equal("2 sluice", answer.headers.via)
      assert.equal("chunked", answer.headers["transfer-encoding"])
      assert.same({ "0", "v" }, { answer.trailers["grpc-status"], answer.trailers["x-t"] })
    end)

    it("with a length that it tells, or none where there is no content", function()
      local got = pass {}
      connection:respond(got, { { ":status", 200 }, { "content-length", 5 } }, "hello")
      assert.equal("5", client:read_response().headers["content-length"])
      send {}
      connection:respond(assert(connection:next_request()), { { ":status", 404 } })
      local empty = client:read_response()
      assert.same({ 404, "0" }, { empty.status, empty.headers["content-length"] })
    end)

    it("to HEAD with the length that its content would have", function()
      local got = pass { method = "HEAD" }
      connection:respond(got, { { ":status", 200 }, { "content-length", 1234 } })
      assert.equal("1234", client:read_response("HEAD").headers["content-length"])
    end)

    it("after interim responses, which pass", function()
      local got = pass {}
      connection:head(got, { { ":status", 103 }, { "link", "</x>" } })
      connection:respond(got, { { ":status", 200 } }, "done")
      local hint = client:read_response()
      assert.same({ 103, "</x>" }, { hint.status, hint.headers.link })
      assert.equal("done", client:read_response().body)
    end)

    it("piece by piece, each forwarded as it comes", function()
      local got = pass {}
      connection:head(got, { { ":status", 200 } })
      assert.equal(200, client:read_head().status)
      for _, piece in ipairs { "one", "two" } do
        connection:data(got.number, piece, true)
        assert.equal(piece, (client.socket:receive_exact(3 + #piece + 2):sub(4, -3)))
      end
      connection:data(got.number, "")
      assert.equal("0\r\n\r\n", client.socket:receive_exact(5))
    end)

    it("while the request is still on its way, and both go on", function()
      send { method = "POST", headers = { ["Transfer-Encoding"] = "chunked" } }
      connection = service:accept()
      local got = assert(connection:next_request())
      connection:head(got, { { ":status", 200 } })
      assert.equal(200, client:read_head().status)
      for number = 1, 3 do
        client:send("2\r\nq" .. number .. "\r\n")
        assert(connection:wait_until(function() return #table.concat(got.parts) == number * 2 end))
        connection:data(got.number, "a" .. number, true)
        assert.equal("2\r\na" .. number .. "\r\n", client.socket:receive_exact(7))
      end
      client:send("0\r\n\r\n")
      assert(connection:wait_until(function() return got.ended end))
      connection:head(got, { { "x-end", "1" } }, true)
      assert.equal("0\r\nx-end: 1\r\n\r\n", client.socket:receive_exact(15))
    end)

    it("before the request has come, whose rest it does not get", function()
      send { method = "POST", headers = { ["Transfer-Encoding"] = "chunked" } }
      client:send("2\r\nab\r\n")
      connection = service:accept()
      local got = assert(connection:next_request())
      connection:respond(got, { { ":status", 403 } }, "no")
      assert.equal(403, client:read_response().status)
      assert(connection:wait_until(function() return got.reset end))
      assert.equal("CANCEL", got.reset)
    end)
  end)

  it("carries many exchanges on one connection", function()
    local clients, answers = { client }, {}
    pass { path = "/0" }
    for number = 1, 20 do
      clients[number] = gw:connect()
      clients[number]:send("GET /" .. number .. " HTTP/1.1\r\nHost: a\r\n\r\n")
    end
    for _ = 1, 20 do
      local got = assert(connection:next_request())
      connection:respond(got, { { ":status", 200 } }, got.request[":path"])
    end
    for number = 1, 20 do
      answers[number] = clients[number]:read_response().body
      clients[number]:close()
      assert.equal("/base/" .. number, answers[number])
    end
    assert.is_nil(service:accept_socket(0))
  end)

  it("gets no more streams than it takes at once, and another connection where it takes no more", function()
    local first = pass({}, { { 3, 1 } }) -- MAX_CONCURRENT_STREAMS
    local second = gw:connect()
    connection:respond(first, { { ":status", 200 } }, "") -- the gateway has read the settings once it has this
    assert.equal(200, client:read_response().status)
    send { path = "/1" }
    first = assert(connection:next_request())
    second:send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    local other = service:accept()
    local got = assert(other:next_request())
    assert.equal("/base/2", got.request[":path"])
    other:respond(got, { { ":status", 200 } }, "two")
    connection:respond(first, { { ":status", 200 } }, "one")
    assert.same({ "one", "two" }, { client:read_response().body, second:read_response().body })
    second:close()
    other:close()
  end)

  describe("under pressure", function()
    it("is read no faster than its client reads", function()
      local got = pass {}
      connection:head(got, { { ":status", 200 } })
      -- What the gateway lets it send: the stream's window, which opens as the client takes the bytes. That of the
      -- connection holds nobody up.
      local window, sent, piece = 65535, 0, ("x"):rep(16384)
      local function push(seconds)
        while window >= #piece do
          assert(connection:data(got.number, piece, true))
          sent, window = sent + #piece, window - #piece
        end
        local frame = connection:step(seconds)
        if not frame then return false end
        local grows = frame.kind == http2.WINDOW_UPDATE and frame.stream == got.number
        if grows then window = window + http2.number_at(frame.payload, 1, 4) end
        return true
      end
      assert(connection:wait_until(function() return connection.settings[4] end))
      window = connection.settings[4]
      while push(0.3) do end
      local held = sent
      assert.is_true(held < 32 * 2 ^ 20, "the gateway took " .. held .. " bytes that nobody reads")
      local deadline = posix.now() + 5 -- the client reads: it goes on
      while sent < held + 2 ^ 20 and posix.now() < deadline do
        client.socket:receive_some(0.05)
        push(0)
      end
      assert.is_true(sent >= held + 2 ^ 20)
    end)

    it("holds up its client's content by its window", function()
      send { method = "POST", headers = { ["Content-Length"] = 64 * 2 ^ 20 } }
      connection = service:accept(nil, true)
      local got = assert(connection:next_request())
      local piece, sent = ("x"):rep(65536), 0
      while client.socket:send(piece, 0.3) do sent = sent + #piece end
      assert.is_true(sent < 16 * 2 ^ 20, "the gateway took " .. sent .. " bytes that nobody reads")
      connection:wait_until(function() return false end, 0)
      assert.is_true(#table.concat(got.parts) <= 65535)
    end)
  end)

  describe("is left", function()
    it("with CANCEL when the client goes", function()
      local got = pass {}
      client:close()
      assert(connection:wait_until(function() return got.reset end))
      assert.equal("CANCEL", got.reset)
    end)

    it("with 504 when it does not answer, and asked whether it lives", function()
      local got = pass { path = "/hasty", method = "POST" }
      assert.equal(504, client:read_response().status)
      assert(connection:wait_until(function() return got.reset and connection.pings end))
      assert.equal("CANCEL", got.reset)
      -- It has answered the PING, so it goes on being used. (The gateway has read that once it has refused something
      -- that came later.)
      assert.equal(405, gw:request({ method = "CONNECT", path = "x.test:1" }).status)
      send {}
      connection:respond(assert(connection:next_request()), { { ":status", 200 } }, "")
      assert.equal(200, client:read_response().status)
    end)

    it("with 504 when it takes no content", function()
      send { path = "/hasty", method = "POST", body = ("x"):rep(200000) }
      connection = service:accept(nil, true)
      assert.equal(504, client:read_response().status)
    end)
  end)

  describe("is tried again", function()
    it("when it refuses the stream, whatever the method", function()
      local got = pass { method = "POST", body = "once" }
      connection:whole(got)
      connection:reset(got, 7)
      local again = assert(connection:next_request())
      assert.equal("once", connection:whole(again))
      connection:respond(again, { { ":status", 200 } }, "")
      assert.equal(200, client:read_response().status)
    end)

    it("on another connection when GOAWAY leaves the stream out", function()
      local got = pass { method = "POST", body = "once" }
      connection:whole(got)
      connection:go_away(got.number - 1 > 0 and got.number - 2 or 0)
      local other = service:accept()
      local again = assert(other:next_request())
      assert.equal("once", other:whole(again))
      other:respond(again, { { ":status", 200 } }, "")
      assert.equal(200, client:read_response().status)
      other:close()
    end)

    it("not when the stream may have been seen and the method is not idempotent", function()
      local got = pass { method = "POST", body = "once" }
      connection:whole(got)
      connection:reset(got, 2)
      assert.equal(502, client:read_response().status)
    end)

    it("when the connection breaks under an idempotent request", function()
      pass {}
      connection:close()
      connection = service:accept()
      connection:respond(assert(connection:next_request()), { { ":status", 200 } }, "")
      assert.equal(200, client:read_response().status)
    end)
  end)

  it("may say GOAWAY: what is on its way ends, what comes goes elsewhere", function()
    local got = pass {}
    connection:go_away(got.number)
    local second = gw:connect()
    connection:head(got, { { ":status", 200 } })
    assert.equal(200, client:read_head().status) -- and so the gateway has seen the GOAWAY
    second:send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    local other = service:accept()
    other:respond(assert(other:next_request()), { { ":status", 200 } }, "")
    assert.equal(200, second:read_response().status)
    connection:data(got.number, "rest")
    assert.equal("4\r\nrest\r\n0\r\n\r\n", client.socket:receive_exact(14))
    assert.is_true(connection:closes_within(2))
    second:close()
    other:close()
  end)

  describe("that misbehaves is answered for with 502:", function()
    local function refused(name, act, log)
      it(name, function()
        local got = pass { method = "POST", body = "x" }
        connection:whole(got)
        act(got)
        local answer = client:read_response()
        assert.equal(502, answer.status)
        assert.is_nil(answer.headers["x-bad"])
        if log then gw:wait_log(log) end
      end)
    end

    local function head(...)
      local fields = { { ":status", 200 }, ... }
      return function(got) connection:head(got, fields, true) end
    end

    refused("a line break in a value", head({ "x-bad", "a\r\nx-evil: 1" }), "characters that are not allowed")
    refused("a NUL in a value", head({ "x-bad", "a\0b" }))
    refused("upper case in a name", head({ "X-Bad", "1" }))
    refused("a line break in a name", head({ "x-bad\r\nevil", "1" }))
    refused("a space in a name", head({ "x bad", "1" }))
    refused("an empty name", head({ "", "1" }))
    refused("a field of a single connection", head({ "connection", "close" }))
    refused("a transfer coding", head({ "transfer-encoding", "chunked" }))
    refused("an unknown pseudo-field", head({ ":path", "/" }))
    refused("no status", function(got) connection:head(got, { { "x-bad", "1" } }, true) end)
    refused("a status that is no number", function(got) connection:head(got, { { ":status", "2x0" } }, true) end)
    refused("101, which HTTP/2 does not have", function(got) connection:head(got, { { ":status", 101 } }, true) end)
    refused("a head that is too large", function(got)
      local long = ("y"):rep(9000)
      local fields = { { ":status", 200 }, { "x-bad", long } }
      connection:send(http2.frame(http2.HEADERS, 0, got.number, http2.block(fields))
        .. http2.frame(http2.CONTINUATION, http2.END_HEADERS, got.number, http2.block { { "x-more", long } }))
    end, "too large")
    refused("a head of too many fields", function(got)
      local fields = { { ":status", 200 } }
      for number = 1, 300 do fields[number + 1] = { "x-bad", "1" } end
      connection:head(got, fields, true)
    end, "too many")
    refused("something that is not HTTP/2", function() connection:send(("\xff"):rep(1000)) end)
    refused("a frame that is too large", function() connection:send(http2.bytes(100000, 3) .. ("\0"):rep(100)) end)
    refused("CONTINUATION without end", function(got)
      connection:send(http2.frame(http2.HEADERS, 0, got.number, http2.block { { ":status", 200 } }))
      local more = http2.frame(http2.CONTINUATION, 0, got.number, http2.block { { "a", "b" } })
      for _ = 1, 100 do connection:send(more) end
    end)
    refused("a pushed stream", function(got)
      connection:send(http2.frame(http2.PUSH_PROMISE, http2.END_HEADERS, got.number,
        http2.bytes(2, 4) .. http2.block { { ":method", "GET" }, { ":path", "/" } }))
    end)
    refused("its own end in the middle", function() connection:close() end)

    local function breaks_off(name, length, content)
      it(name, function()
        local got = pass {}
        connection:head(got, { { ":status", 200 }, { "content-length", length } })
        connection:data(got.number, content)
        assert.equal(200, client:read_head().status)
        assert.is_true(#client.socket:receive_all() < 10)
      end)
    end

    breaks_off("a content that ends too early", 10, "short")
    breaks_off("a content that is too long", 10, "much too long")
  end)

  it("may flood with PING and read nothing: it is let go, and others are served", function()
    pass { method = "POST" }
    local pings = http2.frame(http2.PING, 0, 0, ("x"):rep(8)):rep(4000)
    local deadline = posix.now() + 5
    while connection.socket:send(pings, 0.2) and posix.now() < deadline do end
    connection:close()
    assert.is_number(client:read_response().status)
    local second = gw:connect()
    second:send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    connection = service:accept()
    connection:respond(assert(connection:next_request()), { { ":status", 200 } }, "")
    assert.equal(200, second:read_response().status)
    second:close()
  end)

  it("that answers in HTTP/1 is told so in the log", function()
    send {}
    for _ = 1, 2 do -- it is tried again, for nothing of the request was read
      local socket = assert(service:accept_socket())
      socket:send("HTTP/1.1 400 Bad Request\r\n\r\n")
    end
    assert.equal(502, client:read_response().status)
    gw:wait_log("does not speak HTTP/2")
  end)
end)

describe("gRPC through the gateway", function()
  local gw, service, client, connection

  setup(function()
    service = http2_service.listen()
    gw = gateway.start(([[
_format_version: "3.0"
services:
- name: greeter
  url: grpc://127.0.0.1:%d
  routes:
  - { name: greeter, protocols: [grpc, grpcs], paths: [/greet.Greeter/] }
  - { name: secure, protocols: [grpcs], paths: [/secure.Greeter/] }
]]):format(service.port), { http2 = true })
  end)

  teardown(function()
    gw:stop()
    service:close()
  end)

  before_each(function() client = assert(http2.connect(gw.port)) end)

  after_each(function()
    client:close()
    if not connection then return end
    connection.socket:finish()
    connection.socket:closes_within(2)
    connection:close()
    connection = nil
  end)

  local HEADERS = { { "content-type", "application/grpc" }, { "te", "trailers" } }

  local function call()
    local number = client:request { method = "POST", path = "/greet.Greeter/Chat", headers = HEADERS, open = true }
    connection = service:accept()
    return number, assert(connection:next_request())
  end

  local function content(stream)
    return table.concat(stream.parts)
  end

  it("passes the head before there is content, then messages both ways as they come, and each end", function()
    local number, got = call()
    local stream = client:stream(number)
    assert.same({ "trailers", "application/grpc", "/greet.Greeter/Chat" },
      { got.request.te, got.request["content-type"], got.request[":path"] })
    connection:head(got, { { ":status", 200 }, { "content-type", "application/grpc" } })
    assert(client:wait_until(function() return stream.status end))
    for round = 1, 3 do
      client:data(number, "question " .. round, true)
      assert(connection:wait_until(function() return content(got):find("question " .. round, 1, true) end))
      connection:data(got.number, "answer " .. round, true)
      assert(client:wait_until(function() return content(stream):find("answer " .. round, 1, true) end))
    end
    client:data(number, "")
    assert(connection:wait_until(function() return got.ended end))
    connection:data(got.number, "last", true) -- it goes on when the client has ended its side
    connection:head(got, { { "grpc-status", "0" }, { "grpc-message", "well" } }, true)
    local answer = client:wait(number)
    assert.equal("answer 1answer 2answer 3last", answer.body)
    assert.same({ "0", "well" }, { answer.trailers["grpc-status"], answer.trailers["grpc-message"] })
  end)

  it("ends a call whose service ends it, whatever the client still has to say", function()
    local number, got = call()
    client:data(number, "more and", true)
    assert(connection:wait_until(function() return #got.parts > 0 end))
    connection:respond(got, { { ":status", 200 }, { "content-type", "application/grpc" } }, nil,
      { { "grpc-status", "9" } })
    assert.equal("9", client:wait(number).trailers["grpc-status"])
    assert(connection:wait_until(function() return got.reset end))
    assert.equal("CANCEL", got.reset)
  end)

  it("passes trailers alone as a single head", function()
    local number, got = call()
    connection:head(got, { { ":status", 200 }, { "content-type", "application/grpc" }, { "grpc-status", "5" } }, true)
    local answer = client:wait(number)
    assert.same({ "5", true }, { answer.headers["grpc-status"], answer.ended })
    assert.is_nil(answer.trailers)
    assert.is_nil(answer.headers["content-length"])
  end)

  it("passes the client's cancelling on", function()
    local number, got = call()
    client:send(http2.frame(http2.RST_STREAM, 0, number, http2.bytes(8, 4)))
    assert(connection:wait_until(function() return got.reset end))
    assert.equal("CANCEL", got.reset)
  end)

  it("tells a call that breaks off in the middle as such", function()
    local number, got = call()
    connection:head(got, { { ":status", 200 }, { "content-type", "application/grpc" } })
    connection:data(got.number, "half", true)
    assert(client:wait_until(function() return #client:stream(number).parts > 0 end))
    connection:reset(got, 2)
    local answer = client:wait(number)
    assert.equal("14", answer.trailers["grpc-status"])
  end)

  it("holds a service up when its client opens no window", function()
    client:close()
    client = assert(http2.connect(gw.port, { silent = true, settings = { { 4, 1000 } } }))
    local _, got = call()
    connection:head(got, { { ":status", 200 }, { "content-type", "application/grpc" } })
    assert(connection:wait_until(function() return connection.settings[4] end))
    local window, sent, piece = connection.settings[4], 0, ("x"):rep(16384)
    repeat
      while window >= #piece do
        assert(connection:data(got.number, piece, true))
        sent, window = sent + #piece, window - #piece
      end
      local frame = connection:step(0.3)
      local grows = frame and frame.kind == http2.WINDOW_UPDATE and frame.stream == got.number
      if grows then window = window + http2.number_at(frame.payload, 1, 4) end
    until not frame
    assert.is_true(sent < 2 ^ 20, "the gateway took " .. sent .. " bytes that nobody reads")
  end)

  describe("on a route for gRPC", function()
    it("is refused to others with 415", function()
      assert.equal(415, gw:get("/greet.Greeter/Chat").status)
      assert.equal(415, client:wait(client:request { path = "/greet.Greeter/Chat" }).status)
    end)

    it("is refused over HTTP/1 with 426 for logs, as gRPC tells it", function()
      local answer = gw:request { method = "POST", path = "/greet.Greeter/Chat", body = "",
        headers = { ["Content-Type"] = "application/grpc" } }
      assert.equal("Please use HTTP2 protocol", answer.headers["grpc-message"])
    end)

    it("that wants TLS is refused in the clear as Kong refuses it", function()
      local answer = client:wait(client:request { method = "POST", path = "/secure.Greeter/Chat", headers = HEADERS })
      assert.same({ 200, "1", "gRPC request matched gRPCs route" },
        { answer.status, answer.headers["grpc-status"], answer.headers["grpc-message"] })
    end)
  end)
end)

describe("a service over HTTP/2 in TLS", function()
  local folder, made

  setup(function()
    folder = posix.temporary_directory()
    made = tls.make_certificate(folder, { name = "127.0.0.1" })
  end)

  teardown(function() process.remove(folder) end)

  local function with_service(alpn, act)
    local service = http2_service.listen { tls = { certificate = made.certificate, key = made.key, alpn = alpn } }
    local gw = gateway.start((config(service.port):gsub("http2://", "http2s://")))
    local client = gw:connect()
    client:send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    act(service, client, gw)
    client:close()
    gw:stop()
    service:close()
  end

  it("agrees on h2 by ALPN and gets https", function()
    with_service({ "h2" }, function(service, client)
      local connection = service:accept()
      local got = assert(connection:next_request())
      assert.equal("https", got.request[":scheme"])
      connection:respond(got, { { ":status", 200 } }, "secret")
      assert.equal("secret", client:read_response().body)
      connection:close()
    end)
  end)

  it("is refused with 502 where it does not", function()
    with_service(nil, function(service, client, gw)
      for _ = 1, 2 do service:accept_socket() end
      assert.equal(502, client:read_response().status)
      gw:wait_log("does not speak HTTP/2")
    end)
  end)
end)
