-- SPDX-License-Identifier: Apache-2.0
-- HTTP/2 on the client's side, frame by frame where frames matter.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local http2 = require "spec.support.http2"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"
local websocket = require "spec.support.websocket"

local STREAMS = 20

describe("HTTP/2 from clients", function()
  local up, odd, sockets, gw

  setup(function()
    up = upstream.start()
    odd = upstream.start(function(request, connection)
      local path = request.target:match("[^/]+$")
      if path == "interim" then
        connection:send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        return connection:respond(200, nil, "final")
      elseif path == "hop" then
        return connection:respond(200, { { "Connection", "X-Private" }, { "X-Private", "1" }, { "Keep-Alive", "x" },
          { "Proxy-Connection", "y" }, { "Upgrade", "h2c" }, { "X-Public", "  2  " } }, "hop")
      elseif path == "trailers" then
        connection:begin(200, { Trailer = "X-Sum" })
        connection:chunk("body")
        return connection:finish("X-Sum: 7")
      elseif path == "short" then
        connection:send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        return connection:close()
      elseif path == "watch" then
        connection:receive(30)
        return connection:close()
      elseif path == "both-ways" then
        connection:begin(200)
        connection:chunk("begun ")
        connection:chunk(connection:read_body())
        return connection:finish()
      elseif path == "silent" then
        return connection:sleep(30)
      elseif path == "socket" then
        connection:send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          .. "Sec-WebSocket-Accept: x\r\nX-Key: " .. #(request.headers["sec-websocket-key"] or "") .. "\r\n\r\n")
        while true do
          local data = connection:receive(5)
          if not data then return connection:close() end
          connection:send("<" .. data .. ">")
        end
      end
      connection:echo()
    end)
    sockets = upstream.start(function(_, connection)
      require("spec.support.websocket").echo(connection)
    end)
    gw = gateway.start({
      _format_version = "3.0",
      gateway = { limits = { max_body_bytes = 3000000, max_head_bytes = 8192, max_headers = 50,
        max_streams = STREAMS } },
      services = {
        { name = "up", url = up:url(), routes = { { name = "up", paths = { "/" }, strip_path = false } } },
        { name = "odd", url = odd:url(), retries = 0,
          routes = { { name = "odd", paths = { "/odd" }, strip_path = false } } },
        { name = "sockets", url = sockets:url(),
          routes = { { name = "sockets", paths = { "/loud" }, plugins = { { name = "loud" } } } } },
        { name = "dead", url = "http://127.0.0.1:" .. process.free_port(), retries = 0,
          routes = { { name = "dead", paths = { "/dead" } } } },
      },
      routes = {
        { name = "told", paths = { "/told" }, plugins = { { name = "told" } } },
        { name = "talks", paths = { "/talks" }, plugins = { { name = "talks" } } },
        { name = "whole", paths = { "/whole" }, plugins = { { name = "whole" } } },
        { name = "sent", paths = { "/sent" }, plugins = { { name = "sent" } } },
      },
    }, { http2 = true, plugins = { talks = [[
return { version = "1.0.0", priority = 1, access = function(conf, exchange)
  local talk = exchange.response:websocket()
  while talk do
    local data, kind = talk:receive(10)
    if not data or not talk:send(data:upper()) then break end
  end
end }
]], loud = [[
      local Loud = { priority = 10, version = "1.0.0" }
      function Loud.ws_client_frame(conf, exchange, frame)
        frame:set_data(frame.data:upper())
      end
      return Loud
    ]], whole = [[
      local Whole = { priority = 10, version = "1.0.0" }
      function Whole.access(conf, exchange)
        exchange.response:exit(200, tostring(#exchange.request:get_raw_body()))
      end
      return Whole
    ]], sent = [[
      local sluice = require "sluice"
      local Sent = { priority = 10, version = "1.0.0" }
      function Sent.access(conf, exchange)
        local stream, piece = exchange.response:stream(200), ("x"):rep(65536)
        for index = 1, 100 do
          if not stream:send(piece) then return sluice.log.notice("it left") end
        end
        sluice.log.notice("all sent")
        stream:finish()
      end
      return Sent
    ]], told = [[
      local Told = { priority = 10, version = "1.0.0" }
      function Told.access(conf, exchange)
        exchange.response:exit(200, ("%s %s"):format(exchange.request:get_http_version(),
          exchange.request:get_header("host")))
      end
      return Told
    ]] } })
  end)

  teardown(function()
    gw:stop()
    up:stop()
    odd:stop()
    sockets:stop()
  end)

  before_each(function()
    up:forget()
  end)

  local function connect(options)
    return assert(http2.connect(options and options.tls and gw.tls_port or gw.port, options))
  end

  local function ask(request)
    local client = connect()
    local answer = client:wait(client:request(request))
    client:close()
    return answer
  end

  local function served()
    local targets = {}
    for index, entry in ipairs(up:stats().log) do targets[index] = entry.target end
    return targets
  end

  describe("carries requests and responses", function()
    it("over cleartext, by the preface alone", function()
      local answer = ask { path = "/echo?a=b", headers = { ["x-one"] = "1" } }
      local seen = cjson.decode(answer.body)
      assert.same({ 200, "GET", "/echo?a=b", "1", "2 sluice", "127.0.0.1" }, { answer.status, seen.method, seen.target,
        seen.headers["x-one"], seen.headers.via, seen.headers["x-forwarded-host"] })
      assert.equal("1.1 sluice", answer.headers.via)
      assert.equal(#answer.body, tonumber(answer.headers["content-length"]))
      assert.is_true(answer.ended)
    end)

    it("over TLS, agreed on by ALPN", function()
      local client = connect { tls = true }
      local answer = client:wait(client:request { path = "/echo" })
      assert.same({ 200, "https" }, { answer.status, cjson.decode(answer.body).headers["x-forwarded-proto"] })
      client:close()
    end)

    it("and HTTP/1.1 on the same listeners", function()
      assert.equal(200, gw:get("/echo").status)
      local client = gw:connect { tls = {} }
      assert.equal(200, client:request({ path = "/echo" }).status)
      client:close()
    end)

    it("with the version and the host told to plugins", function()
      assert.equal("2 sluice.test:81", ask({ path = "/told", authority = "sluice.test:81" }).body)
    end)

    it("with content both ways, larger than any window", function()
      local body = ("0123456789abcdef"):rep(100000)
      local client = connect()
      local stream = client:request { path = "/echo", method = "POST", open = true }
      assert.is_true(client:upload(stream, body))
      local answer = client:wait(stream)
      client:close()
      local seen = cjson.decode(answer.body)
      assert.same({ 200, #body }, { answer.status, #(seen.body or "") })
      assert.equal("chunked", seen.headers["transfer-encoding"])
      local sized = cjson.decode(ask({ path = "/echo", body = "hello", headers = { ["content-length"] = 5 } }).body)
      assert.same({ "hello", "5" }, { sized.body, sized.headers["content-length"] })
      local many = ask { path = "/bytes/3000000" }
      assert.same({ 200, 3000000 }, { many.status, #many.body })
    end)

    it("with content that a plugin wants whole", function()
      local client = connect()
      local stream = client:request { path = "/whole", method = "POST", open = true }
      assert.is_true(client:upload(stream, ("x"):rep(1500000)))
      assert.equal("1500000", client:wait(stream).body)
      client:close()
    end)

    it("with content that a plugin makes, as fast as the client takes it", function()
      local client = connect { silent = true }
      local stream = client:request { path = "/sent" }
      assert(client:wait_until(function() return #table.concat(client:stream(stream).parts) == 65535 end))
      assert.is_nil(gw:log():find("all sent", 1, true))
      client.silent = false
      local open = http2.bytes(100 * 65536, 4)
      client:send(http2.frame(http2.WINDOW_UPDATE, 0, 0, open) .. http2.frame(http2.WINDOW_UPDATE, 0, stream, open))
      assert.equal(100 * 65536, #client:wait(stream).body)
      gw:wait_log("all sent")
      client:close()
    end)

    it("with content that the client sends once it is asked for", function()
      local client = connect()
      local stream = client:request { path = "/echo", method = "POST", open = true,
        headers = { expect = "100-continue" } }
      assert(client:wait_until(function() return client:stream(stream).interim end))
      assert.equal(100, client:stream(stream).interim[1].status)
      client:data(stream, "asked")
      assert.equal("asked", cjson.decode(client:wait(stream).body).body)
      client:close()
    end)

    it("many at once, each with its own", function()
      local client, streams = connect(), {}
      for index = 1, STREAMS do
        streams[index] = client:request { path = "/delay/0.05?" .. index, headers = { ["x-index"] = index } }
      end
      for index = 1, STREAMS do
        local answer = client:wait(streams[index])
        assert.same({ 200, true }, { answer.status, answer.ended })
      end
      client:close()
    end)

    it("with trailers of both sides", function()
      local answer = ask { path = "/odd/trailers" }
      assert.same({ "body", "7" }, { answer.body, answer.trailers["x-sum"] })
      local seen = cjson.decode(ask({ path = "/echo", body = "x", trailers = { { "x-check", "9" } } }).body)
      assert.same({ { "x-check", "9" } }, seen.trailers)
      seen = cjson.decode(ask({ path = "/echo", method = "POST", trailers = { { "x-check", "8" } } }).body)
      assert.same({ { { "x-check", "8" } } }, { seen.trailers, seen.headers["x-check"] })
    end)

    it("with interim responses", function()
      local answer = ask { path = "/odd/interim" }
      assert.same({ 103, "</a.css>", 200, "final" },
        { answer.interim[1].status, answer.interim[1].headers.link, answer.status, answer.body })
    end)

    it("to HEAD with a length and no content", function()
      local answer = ask { path = "/bytes/100", method = "HEAD" }
      assert.same({ 200, "100", "", true }, { answer.status, answer.headers["content-length"], answer.body,
        answer.ended })
    end)

    it("without fields that belong to one connection", function()
      local headers = ask({ path = "/odd/hop" }).headers
      assert.same({ "2" }, { headers["x-public"], headers["x-private"], headers.connection, headers["keep-alive"],
        headers["proxy-connection"], headers.upgrade, headers["transfer-encoding"] })
    end)

    it("with the crumbs of a cookie in one piece", function()
      local seen = cjson.decode(ask({ path = "/echo", headers = { { "cookie", "a=1" }, { "x", "y" },
        { "cookie", "b=2" }, { "cookie", "c=3" } } }).body)
      assert.same({ "a=1; b=2; c=3", "y" }, { seen.headers.cookie, seen.headers.x })
    end)

    it("of the gateway's own too", function()
      assert.equal(502, ask({ path = "/dead" }).status)
      local answer = ask { path = "/echo", method = "CONNECT" }
      assert.equal("PROTOCOL_ERROR", answer.reset)
    end)
  end)

  describe("hands on what happens on either side", function()
    it("a request that the client cancels ends at the service", function()
      local client = connect()
      odd:forget()
      local stream = client:request { path = "/odd/watch" }
      process.wait_until(function() return #odd:stats().log > 0 end, 5, "the request at the service")
      local open = odd:stats().open
      client:send(http2.frame(http2.RST_STREAM, 0, stream, http2.bytes(8, 4)))
      process.wait_until(function() return odd:stats().open < open end, 5, "the end of it")
      assert.equal(200, client:wait(client:request { path = "/echo" }).status)
      client:close()
    end)

    it("a response that breaks off resets its stream, and no other", function()
      local client = connect()
      local short = client:wait(client:request { path = "/odd/short" })
      assert.same({ 200, "INTERNAL_ERROR" }, { short.status, short.reset })
      assert.equal(200, client:wait(client:request { path = "/echo" }).status)
      client:close()
    end)

    it("a response before the request is whole, which need not be sent then", function()
      local client = connect()
      local stream = client:request { path = "/echo", method = "POST", open = true }
      client:upload(stream, ("x"):rep(3000001), true)
      local answer = client:wait(stream)
      assert.equal(413, answer.status)
      client:wait_until(function() return client:stream(stream).reset end)
      assert.equal("NO_ERROR", client:stream(stream).reset)
      assert.equal(200, client:wait(client:request { path = "/echo" }).status)
      client:close()
    end)

    it("a client that does not open its window makes nobody read", function()
      local client = connect { silent = true, settings = { { 4, 1000 } } }
      local stream = client:request { path = "/bytes/2900000" }
      client:wait_until(function() return #table.concat(client:stream(stream).parts) >= 1000 end)
      assert.equal(1000, #table.concat(client:stream(stream).parts))
      client:close()
    end)
  end)

  describe("refuses", function()
    local function fields(extra, without)
      local list = {}
      for _, field in ipairs { { ":method", "GET" }, { ":scheme", "http" }, { ":authority", "a.test" },
        { ":path", "/refused" } } do
        if field[1] ~= without then list[#list + 1] = field end
      end
      for _, field in ipairs(extra) do list[#list + 1] = field end
      return list
    end

    -- name, fields, and the status of an answer where it is none that resets the stream
    local cases = {
      { "upper case in a name", fields { { "X-Upper", "1" } } },
      { "Connection", fields { { "connection", "close" } } },
      { "Keep-Alive", fields { { "keep-alive", "1" } } },
      { "Transfer-Encoding", fields { { "transfer-encoding", "chunked" } } },
      { "Upgrade", fields { { "upgrade", "websocket" } } },
      { "TE but trailers", fields { { "te", "gzip" } } },
      { "CR in a value", fields { { "x-a", "a\rb" } } },
      { "LF in a value", fields { { "x-a", "a\nb: c" } } },
      { "NUL in a value", fields { { "x-a", "a\0b" } } },
      { "a space at a value's end", fields { { "x-a", "a " } } },
      { "a colon in a name", fields { { "x:a", "1" } } },
      { "a space in a name", fields { { "x a", "1" } } },
      { "no method", fields({}, ":method") },
      { "no path", fields({}, ":path") },
      { "no scheme", fields({}, ":scheme") },
      { "no host at all", fields({}, ":authority") },
      { "an empty path", fields({ { ":path", "" } }, ":path") },
      { "a path that is no path", fields({ { ":path", "refused" } }, ":path") },
      { "LF in a path", fields({ { ":path", "/refused\nx" } }, ":path") },
      { "a pseudo-field twice", fields { { ":path", "/refused" } } },
      { "a pseudo-field that is not known", fields { { ":what", "1" } } },
      { "a pseudo-field of responses", fields { { ":status", "200" } } },
      { "a pseudo-field behind others", fields({ { "x", "y" }, { ":path", "/refused" } }, ":path") },
      { "a length that lies", fields { { "content-length", "5" } } },
      { "a length that is none", fields { { "content-length", "x" } } },
      { "two lengths", fields { { "content-length", "0" }, { "content-length", "0" } } },
      { "* but for OPTIONS", fields({ { ":path", "*" } }, ":path") },
      { "another Host", fields { { "host", "b.test" } }, 400 },
      { "two Hosts", fields { { "host", "a.test" }, { "host", "a.test" } } },
      { "an authority that is none", fields({ { ":authority", "u@a.test" } }, ":authority"), 400 },
      { "a scheme of something else", fields({ { ":scheme", "ftp" } }, ":scheme"), 400 },
      { "a path that leaves its root", fields({ { ":path", "/%00" } }, ":path"), 400 },
      { "a head that is too large", fields { { "x-a", ("a"):rep(9000) } }, 431 },
      { "a target that is too long", fields({ { ":path", "/" .. ("a"):rep(9000) } }, ":path"), 414 },
      { "what it expects and nobody knows", fields { { "expect", "wonders" } }, 417 },
      { "CONNECT", { { ":method", "CONNECT" }, { ":authority", "a.test:443" } }, 405 },
    }
    for _, case in ipairs(cases) do
      it(case[1], function()
        local client = connect()
        local answer = client:wait(client:headers(case[2]))
        assert.equal(case[3] or "PROTOCOL_ERROR", answer.status or answer.reset)
        assert.equal(200, client:wait(client:request { path = "/echo" }).status) -- and serves on
        client:close()
        assert.same({ "/echo" }, served())
      end)
    end

    it("too many fields", function()
      local many = {}
      for index = 1, 60 do many[index] = { "x-" .. index, "1" } end
      assert.equal(431, ask({ headers = many }).status)
    end)

    it("content that is longer than its length", function()
      local client = connect()
      local stream = client:request { path = "/echo", method = "PUT", open = true,
        headers = { ["content-length"] = 3 } }
      client:data(stream, "12345")
      assert.equal("PROTOCOL_ERROR", client:wait(stream).reset)
      client:close()
    end)

    it("more streams than it offers", function()
      local client = connect { silent = true } -- so that it may not know of the limit yet
      local streams = {}
      for index = 1, STREAMS + 1 do
        streams[index] = client:request { path = "/echo", method = "POST", open = true }
      end
      assert.equal("REFUSED_STREAM", client:wait(streams[STREAMS + 1]).reset)
      client:data(streams[1], "that is all")
      assert.equal(200, client:wait(streams[1]).status)
      assert.equal(STREAMS, client.settings[3])
      client:close()
    end)

    it("what is neither HTTP/2 nor HTTP/1.1, without a word", function()
      local client = connect { preface = false }
      client:send("INVALID CONNECTION PREFACE\r\n\r\n")
      assert.is_nil((client:read_frame(5)))
      client:close()
    end)
  end)

  describe("sets limits in time to", function()
    local hasty

    setup(function()
      hasty = gateway.start({ _format_version = "3.0",
        gateway = { limits = { client_header_timeout = 600, client_body_timeout = 600, send_timeout = 600,
          keepalive_timeout = 600 } },
        services = { { name = "up", url = up:url(), routes = { { name = "up", paths = { "/" }, strip_path = false } } },
          { name = "odd", url = odd:url(), routes = { { name = "odd", paths = { "/odd" }, strip_path = false } } } },
      }, { http2 = true })
    end)
    teardown(function() hasty:stop() end)

    local function connect(options) -- luacheck: ignore 431
      return assert(http2.connect(hasty.port, options))
    end

    it("heads that do not end", function()
      local client = connect()
      client:send(http2.frame(http2.HEADERS, http2.END_STREAM, 1, http2.block { { ":method", "GET" } }))
      assert.is_true(client:closes_within(5))
      client:close()
    end)

    it("connections without requests, which end in good order", function()
      local client = connect()
      assert.equal(200, client:wait(client:request { path = "/echo" }).status)
      assert.is_true(client:closes_within(5))
      assert.same({ "NO_ERROR", 1 }, { client.goaway, client.last_stream })
      client:close()
    end)

    it("connections that say nothing", function()
      local client = connect { preface = false }
      client:send(http2.PREFACE)
      assert.is_true(client:closes_within(5))
      client:close()
    end)

    it("content that does not come", function()
      local client = connect()
      local answer = client:wait(client:request { path = "/echo", method = "POST", open = true })
      assert.equal(408, answer.status)
      client:close()
    end)

    it("content that does not come, until the response has begun", function()
      local client = connect()
      local stream = client:request { path = "/odd/both-ways", method = "POST", open = true }
      assert(client:wait_until(function() return #client:stream(stream).parts > 0 end))
      assert.is_false((client:wait_until(function() return client:stream(stream).ended end, 1.2)))
      client:data(stream, "at last")
      assert.equal("begun at last", client:wait(stream).body)
      client:close()
    end)

    it("windows that stay shut", function()
      local client = connect { silent = true, settings = { { 4, 0 } } }
      client:request { path = "/bytes/1000" }
      assert.is_true(client:closes_within(5))
      assert.equal("ENHANCE_YOUR_CALM", client.goaway)
      client:close()
    end)
  end)

  describe("ends floods of", function()
    local floods = {
      { "SETTINGS", http2.frame(http2.SETTINGS, 0, 0) },
      { "PING", http2.frame(http2.PING, 0, 0, ("x"):rep(8)) },
      { "PRIORITY", http2.frame(http2.PRIORITY, 0, 3, "\0\0\0\1\1") },
      { "WINDOW_UPDATE", http2.frame(http2.WINDOW_UPDATE, 0, 0, http2.bytes(1, 4)) },
      { "unknown frames", http2.frame(200, 0, 0, "x") },
      { "empty DATA", http2.frame(http2.DATA, 0, 1), true },
      { "DATA of padding only", http2.frame(http2.DATA, http2.PADDED, 1, "\4\0\0\0\0"), true },
    }
    for _, flood in ipairs(floods) do
      it(flood[1], function()
        local client = connect { silent = true }
        if flood[3] then client:request { path = "/echo", method = "POST", open = true } end
        client:send(flood[2]:rep(5000))
        assert.is_true(client:closes_within(5))
        assert.equal("ENHANCE_YOUR_CALM", client.goaway)
        client:close()
      end)
    end

    it("CONTINUATION", function()
      local client = connect { silent = true }
      client:send(http2.frame(http2.HEADERS, 0, 1, http2.block { { ":method", "GET" } })
        .. http2.frame(http2.CONTINUATION, 0, 1, http2.block { { "x", "y" } }):rep(5000))
      assert.is_true(client:closes_within(5))
      assert.equal("ENHANCE_YOUR_CALM", client.goaway)
      client:close()
    end)

    it("header fields by reference", function()
      local client = connect { silent = true }
      -- A literal of 3,900 bytes that the table keeps, then its index again and again.
      local bomb = "\64\1x\127" .. string.char(0xbd, 0x1d) .. ("a"):rep(3900) .. ("\190"):rep(10000)
      client:send(http2.frame(http2.HEADERS, http2.END_STREAM + http2.END_HEADERS, 1, bomb))
      assert.is_true(client:closes_within(5))
      assert.equal("ENHANCE_YOUR_CALM", client.goaway)
      client:close()
    end)

    it("requests beyond the limit on streams", function()
      local client, out = connect { silent = true }, {}
      for index = 0, 999 do
        out[#out + 1] = http2.frame(http2.HEADERS, http2.END_HEADERS + http2.END_STREAM, index * 2 + 1,
          http2.block(client:fields { path = "/odd/silent" }))
      end
      client:send(table.concat(out))
      assert.is_true(client:closes_within(5))
      assert.equal("ENHANCE_YOUR_CALM", client.goaway)
      client:close()
    end)

    local cancels = {
      ["requests that are cancelled at once"] = { http2.RST_STREAM, http2.bytes(8, 4) },
      ["requests whose streams the client breaks"] = { http2.WINDOW_UPDATE, http2.bytes(2 ^ 31 - 1, 4) },
    }
    for name, frame in pairs(cancels) do
      it(name, function()
        local client = connect()
        local function told() return select(2, gw:log():gsub("cancelled as fast as they come", "")) end
        local before = told()
        for round = 0, 99 do
          local out = {}
          for index = round * 10, round * 10 + 9 do
            out[#out + 1] = http2.frame(http2.HEADERS, http2.END_HEADERS + http2.END_STREAM, index * 2 + 1,
              http2.block(client:fields { path = "/odd/silent" }))
            out[#out + 1] = http2.frame(frame[1], 0, index * 2 + 1, frame[2])
          end
          -- The answer to PING tells that they were seen.
          out[#out + 1] = http2.frame(http2.PING, 0, 0, ("x"):rep(8))
          local pongs = client.pongs or 0
          if not client:send(table.concat(out)) then break end
          if not client:wait_until(function() return (client.pongs or 0) > pongs end) then break end
        end
        assert.equal("ENHANCE_YOUR_CALM", client.goaway)
        process.wait_until(function() return told() > before end, 5, "a line in the log")
        client:close()
      end)
    end
  end)

  describe("carries WebSockets (RFC 8441)", function()
    local function open(client, path, protocol)
      return client:headers({ { ":method", "CONNECT" }, { ":protocol", protocol or "websocket" },
        { ":scheme", "http" }, { ":authority", "a.test" }, { ":path", path }, { "sec-websocket-version", "13" } }, true)
    end

    it("as a tunnel of DATA", function()
      local client = connect()
      assert(client:wait_until(function() return client.settings[8] end))
      assert.equal(1, client.settings[8])
      local stream = open(client, "/odd/socket")
      client:data(stream, "early", true)
      client:wait_until(function() return table.concat(client:stream(stream).parts) == "<early>" end)
      client:data(stream, "late", true)
      client:wait_until(function() return table.concat(client:stream(stream).parts) == "<early><late>" end)
      local told = client:stream(stream)
      assert.same({ 200, "24" }, { told.status, told.headers["x-key"], told.headers["sec-websocket-accept"],
        told.headers.upgrade, told.headers.connection, told.headers["content-length"] })
      assert.equal("<early><late>", table.concat(told.parts))
      client:data(stream, "")
      assert.is_true(client:wait(stream).ended)
      client:close()
    end)

    it("whose messages plugins see", function()
      local client = connect()
      local stream = open(client, "/loud")
      client:data(stream, websocket.frame(1, "hello", { mask = "abcd" }), true)
      local wanted = websocket.frame(1, "HELLO")
      assert(client:wait_until(function() return #table.concat(client:stream(stream).parts) >= #wanted end))
      assert.equal(wanted, table.concat(client:stream(stream).parts))
      client:data(stream, websocket.frame(8, "\3\232", { mask = "abcd" }), true)
      assert.is_true(client:wait(stream).ended)
      client:close()
    end)

    it("whose other end is a plugin", function()
      local client = connect()
      local stream = open(client, "/talks")
      client:data(stream, websocket.frame(1, "hello", { mask = "abcd" }), true)
      local wanted = websocket.frame(1, "HELLO")
      assert(client:wait_until(function() return #table.concat(client:stream(stream).parts) >= #wanted end))
      assert.equal(wanted, table.concat(client:stream(stream).parts))
      assert.equal(200, client:stream(stream).status)
      assert.is_nil(client:stream(stream).headers["sec-websocket-accept"])
      client:data(stream, websocket.frame(8, "\3\232", { mask = "abcd" }), true)
      assert.is_true(client:wait(stream).ended)
      client:close()
    end)

    it("with the service's own answer where it wants none", function()
      local client = connect()
      local answer = client:wait(open(client, "/status/403"))
      assert.equal(403, answer.status)
      client:close()
    end)

    it("and no other protocol", function()
      local client = connect()
      assert.equal(501, client:wait(open(client, "/odd/socket", "connect-udp")).status)
      client:close()
    end)
  end)

  it("speaks it only on listeners that have it", function()
    local ports = { process.free_port(), process.free_port() }
    local other = gateway.start({ _format_version = "3.0", services = {} }, { env = {
      SLUICE_PROXY_LISTEN = ("127.0.0.1:%d, 127.0.0.1:%d ssl"):format(ports[1], ports[2]) } })
    local client = assert(http2.connect(ports[1]))
    assert.is_false((client:wait_until(function() return client.settings_acknowledged end, 2)))
    client:close()
    assert.is_nil((http2.connect(ports[2], { tls = true })))
    local old = assert(http.connect(ports[2], { tls = {} }))
    assert.equal(404, old:request({ path = "/" }).status)
    old:close()
    other:stop()
  end)

  it("drains: requests on their way are answered, later ones are not begun", function()
    local other = gateway.start({ _format_version = "3.0", services = { { name = "up", url = up:url(),
      routes = { { name = "up", paths = { "/" }, strip_path = false } } } } }, { http2 = true })
    local client = assert(http2.connect(other.port))
    assert.equal(200, client:wait(client:request { path = "/echo" }).status)
    local slow = client:request { path = "/delay/2" }
    process.wait_until(function() return #up:stats().log > 1 end, 5, "the slow request")
    other.process:signal(15)
    assert(client:wait_until(function() return client.goaway end, 5))
    assert.equal("NO_ERROR", client.goaway)
    assert.equal(200, client:wait(slow).status)
    assert.is_true(client:closes_within(5))
    client:close()
    assert.equal(0, other:stop())
  end)
end)
