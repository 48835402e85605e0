-- SPDX-License-Identifier: Apache-2.0
-- HTTP/1.1 through the whole gateway, byte by byte where bytes matter.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

local function resident_kilobytes(pid)
  return tonumber(process.read_file("/proc/" .. pid .. "/status"):match("VmRSS:%s*(%d+)"))
end

describe("HTTP through the gateway", function()
  local up, odd, gw

  setup(function()
    up = upstream.start()
    -- Answers as the path asks, in ways that the ordinary upstream does not.
    odd = upstream.start(function(request, connection)
      local path = request.target:match("[^/]+$")
      if path == "until-close" then
        connection:send("HTTP/1.1 200 OK\r\n\r\nto the end")
        return connection:close()
      elseif path == "interim" then
        connection:send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        return connection:respond(200, nil, "final")
      elseif path == "hop" then
        return connection:respond(200, { { "Connection", "X-Private" }, { "X-Private", "1" }, { "Keep-Alive", "x" },
          { "Proxy-Authenticate", "y" }, { "X-Public", "2" } }, "hop")
      elseif path == "trailers" then
        connection:begin(200, { Trailer = "X-Sum" })
        connection:chunk("body")
        return connection:finish("X-Sum: 7")
      elseif path == "short" then
        connection:send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        return connection:close()
      elseif path == "garbage" then
        connection:send("no HTTP at all\r\n\r\n")
        return connection:close()
      elseif path == "both" then
        return connection:send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
      elseif path == "first-event" then
        connection:begin(200, { ["Content-Type"] = "text/event-stream" })
        connection:chunk("data: 1\n\n")
        return connection:sleep(30)
      elseif path == "silent" then
        return connection:sleep(30)
      elseif path == "early" then
        connection:respond(413, { Connection = "close" }, "too much")
        return connection:close()
      end
      connection:echo()
    end)
    gw = gateway.start({
      _format_version = "3.0",
      gateway = { limits = { max_body_bytes = 300000000, max_head_bytes = 8192, max_headers = 50 } },
      services = {
        { name = "up", url = up:url(), routes = { { name = "up", paths = { "/" }, strip_path = false } } },
        { name = "odd", url = odd:url(), retries = 0,
          routes = { { name = "odd", paths = { "/odd" }, strip_path = false } } },
        { name = "hasty", url = odd:url(), read_timeout = 400, retries = 0,
          routes = { { name = "hasty", paths = { "/odd/silent" }, strip_path = false } } },
        { name = "dead", url = "http://127.0.0.1:" .. process.free_port(),
          routes = { { name = "dead", paths = { "/dead" } } } },
        { name = "nameless", url = "http://no-such-name.invalid",
          routes = { { name = "nameless", paths = { "/nameless" } } } },
      },
    })
  end)

  teardown(function()
    gw:stop()
    up:stop()
    odd:stop()
  end)

  local function raw(bytes, method)
    local client = gw:connect()
    client:send(bytes)
    local response, why = client:read_response(method)
    return response, why, client
  end

  local function echoed(response)
    return cjson.decode(response.body)
  end

  describe("a request", function()
    it("reaches the upstream with its method, path, query, fields and body", function()
      local response = gw:request({ method = "PUT", path = "/a/b?c=d&e", body = "text", headers = { ["X-A"] = "1" } })
      local seen = echoed(response)
      assert.equal(200, response.status)
      assert.same({ "PUT", "/a/b?c=d&e", "text", "1" }, { seen.method, seen.target, seen.body, seen.headers["x-a"] })
    end)

    it("follows another on the same connection, and so it is upstream", function()
      up:forget()
      local client = gw:connect()
      for _ = 1, 5 do assert.equal(200, client:request({ path = "/again" }).status) end
      client:close()
      local stats = up:stats()
      assert.equal(5, stats.requests)
      assert.is_true(stats.connections <= 1)
    end)

    it("may come together with others; answers keep their order", function()
      local client = gw:connect()
      client:send("GET /one HTTP/1.1\r\nHost: a\r\n\r\nPOST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        .. "GET /three HTTP/1.1\r\nHost: a\r\n\r\n")
      assert.equal("/one", echoed(client:read_response()).target)
      assert.equal("hi", echoed(client:read_response()).body)
      assert.equal("/three", echoed(client:read_response()).target)
      client:close()
    end)

    it("may arrive a byte at a time", function()
      local client = gw:connect()
      for byte in ("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"):gmatch(".") do client:send(byte) end
      assert.equal("/slow", echoed(client:read_response()).target)
      client:close()
    end)

    it("in chunks passes with its trailers", function()
      local response = raw("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        .. "3\r\nabc\r\n4;ext=1\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n")
      local seen = echoed(response)
      assert.equal("abcdefg", seen.body)
      assert.same({ { "X-Sum", "7" } }, seen.trailers)
    end)

    it("with Expect: 100-continue is told to go on before it sends its body", function()
      local client = gw:connect()
      client:send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
      assert.equal(100, client:read_response().status)
      client:send("body")
      assert.equal("body", echoed(client:read_response()).body)
      client:close()
    end)

    it("of HTTP/1.0 is answered without chunks, and the connection ends", function()
      local response, _, client = raw("GET /chunked/2500 HTTP/1.0\r\nHost: a\r\n\r\n")
      assert.is_nil(response.headers["transfer-encoding"])
      assert.equal(2500, #response.body)
      assert.is_true(client:closes_within(5))
    end)

    it("of HTTP/1.0 with keep-alive keeps its connection", function()
      local client = gw:connect()
      for _ = 1, 2 do
        client:send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        local response = client:read_response()
        assert.equal("keep-alive", response.headers.connection:lower())
      end
      client:close()
    end)

    it("with Connection: close is the last one", function()
      local response, _, client = raw("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
      assert.equal("close", response.headers.connection:lower())
      assert.is_true(client:closes_within(5))
    end)

    it("in absolute form goes to the host that it names", function()
      local response = raw("GET http://named.test/x?y HTTP/1.1\r\nHost: other\r\n\r\n")
      assert.equal("/x?y", echoed(response).target)
      assert.equal("named.test", echoed(response).headers["x-forwarded-host"])
    end)

    it("is answered while its body is still coming when the upstream does so", function()
      local client = gw:connect()
      client:send("POST /odd/early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" .. ("x"):rep(1000))
      assert.equal(413, client:read_response().status)
      client:close()
    end)
  end)

  describe("a response", function()
    it("to HEAD has a length and no body", function()
      local client = gw:connect()
      local response = client:request({ method = "HEAD", path = "/bytes/1000" })
      assert.equal("1000", response.headers["content-length"])
      assert.equal(200, client:request({ path = "/" }).status)
      client:close()
    end)

    it("with status 204 or 304 has no body and the connection goes on", function()
      local client = gw:connect()
      for _, status in ipairs({ 204, 304 }) do
        assert.equal(status, client:request({ path = "/status/" .. status }).status)
      end
      assert.equal(200, client:request({ path = "/" }).status)
      client:close()
    end)

    it("that ends with the upstream's connection arrives whole", function()
      local client = gw:connect()
      local response = client:request({ path = "/odd/until-close" })
      assert.equal("to the end", response.body)
      assert.equal(200, client:request({ path = "/" }).status)
      client:close()
    end)

    it("may be preceded by interim ones", function()
      local client = gw:connect()
      local response = client:request({ path = "/odd/interim" })
      assert.equal("final", response.body)
      assert.equal(103, response.informational[1].status)
      client:close()
    end)

    it("keeps its trailers", function()
      local response = gw:get("/odd/trailers")
      assert.equal("body", response.body)
      assert.equal("7", response.trailers["x-sum"])
    end)

    it("passes as it comes: an event does not wait for the next", function()
      local client = gw:connect()
      client:send("GET /odd/first-event HTTP/1.1\r\nHost: a\r\n\r\n")
      client:read_head()
      -- The service sends nothing more: what comes was passed on for its own sake.
      assert.truthy(client.socket:receive_until("data: 1\n\n"))
      client:close()
    end)

    it("that breaks off upstream breaks off downstream, so that nobody takes it for whole", function()
      local client = gw:connect()
      local response, why = client:request({ path = "/odd/short" })
      assert.is_nil(response)
      assert.is_true(why == "closed" or why == "reset")
      client:close()
    end)

    it("carries a Date", function()
      assert.matches("^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$", gw:get("/nowhere").headers.date)
    end)
  end)

  describe("a body of 200 MB", function()
    local SIZE, MOST_KB = 200000000, 8192

    it("passes down in constant memory", function()
      local worker = gw:workers()[1]
      gw:get("/bytes/1000000")
      local before = resident_kilobytes(worker)
      local client = gw:connect({ timeout = 60 })
      client:send("GET /bytes/" .. SIZE .. " HTTP/1.1\r\nHost: a\r\n\r\n")
      client:read_head()
      local have, most = 0, 0
      while have < SIZE do
        have = have + #assert(client.socket:receive_some())
        if have % 16 == 0 then most = math.max(most, resident_kilobytes(worker)) end
      end
      assert.equal(SIZE, have)
      assert.is_true(most - before < MOST_KB * process.slowness)
      client:close()
    end)

    it("passes up in constant memory", function()
      local worker = gw:workers()[1]
      local before = resident_kilobytes(worker)
      local client = gw:connect({ timeout = 60 })
      client:send("POST /swallow HTTP/1.1\r\nHost: a\r\nContent-Length: " .. SIZE .. "\r\n\r\n")
      local piece = ("x"):rep(1000000)
      for _ = 1, SIZE / #piece do assert(client:send(piece)) end
      assert.equal(tostring(SIZE), client:read_response().body)
      assert.is_true(resident_kilobytes(worker) - before < MOST_KB * process.slowness)
      client:close()
    end)

    it("waits for a client that does not read", function()
      local worker = gw:workers()[1]
      local before = resident_kilobytes(worker)
      local client = gw:connect()
      client.socket:receive_buffer(4096)
      client:send("GET /bytes/" .. SIZE .. " HTTP/1.1\r\nHost: a\r\n\r\n")
      client:read_head()
      -- Others are served meanwhile, and nothing piles up.
      for _ = 1, 50 do gw:get("/") end
      assert.is_true(resident_kilobytes(worker) - before < MOST_KB * process.slowness)
      client:close()
    end)
  end)

  describe("fields", function()
    it("of one hop end there, both ways", function()
      local seen = echoed(gw:request({ headers = { Connection = "X-Private, keep-alive", ["X-Private"] = "1",
        ["Keep-Alive"] = "x", ["Proxy-Connection"] = "y", TE = "gzip", ["X-Public"] = "2" } })).headers
      assert.same({ nil, nil, nil, nil, "2" }, { seen["x-private"], seen["keep-alive"], seen["proxy-connection"],
        seen.te, seen["x-public"] })
      local fields = gw:get("/odd/hop").headers
      assert.is_nil(fields["x-private"])
      assert.is_nil(fields["keep-alive"])
      assert.equal("2", fields["x-public"])
    end)

    it("tell the upstream where the request came from", function()
      local seen = echoed(gw:request({ path = "/p?q", host = "shop.test" })).headers
      assert.equal("127.0.0.1", seen["x-real-ip"])
      assert.equal("127.0.0.1", seen["x-forwarded-for"])
      assert.equal("http", seen["x-forwarded-proto"])
      assert.equal("shop.test", seen["x-forwarded-host"])
      assert.equal(tostring(gw.port), seen["x-forwarded-port"])
      assert.equal("/p", seen["x-forwarded-path"])
      assert.matches("1%.1 ", seen.via)
    end)

    it("that claim so are not believed from an address that is not trusted", function()
      local seen = echoed(gw:request({ headers = { ["X-Forwarded-For"] = "10.1.2.3", ["X-Real-IP"] = "10.1.2.3",
        ["X-Forwarded-Proto"] = "https" } })).headers
      assert.equal("10.1.2.3, 127.0.0.1", seen["x-forwarded-for"])
      assert.equal("127.0.0.1", seen["x-real-ip"])
      assert.equal("http", seen["x-forwarded-proto"])
    end)

    it("with the same name stay apart and in order", function()
      local seen = echoed(gw:request({ headers = { { "X-Many", "1" }, { "X-Other", "o" }, { "X-Many", "2" } } }))
      assert.same({ "1", "2" }, http.values(seen.fields, "X-Many"))
    end)
  end)

  describe("Upgrade", function()
    it("becomes a tunnel in both directions", function()
      local client = gw:connect()
      local response = client:request({ path = "/tunnel", headers = { Connection = "Upgrade", Upgrade = "websocket" } })
      assert.equal(101, response.status)
      assert.equal("websocket", response.headers.upgrade)
      for _, text in ipairs({ "ping", ("long"):rep(50000) }) do
        client:send(text)
        assert.equal(text, client.socket:receive_exact(#text))
      end
      client:close()
    end)
  end)

  describe("an error of the gateway", function()
    it("is JSON with message and request id", function()
      local response = gw:get("/dead")
      local body = cjson.decode(response.body)
      assert.equal(502, response.status)
      assert.matches("^application/json", response.headers["content-type"])
      assert.is_string(body.message)
      assert.matches("^%x+$", body.request_id)
    end)

    it("is what the client accepts", function()
      local forms = { ["text/html"] = "<html", ["application/xml"] = "<%?xml", ["text/plain"] = "^%w" }
      for accept, pattern in pairs(forms) do
        local response = gw:get("/dead", { Accept = accept })
        assert.equal(accept, response.headers["content-type"]:match("^[^;]*"))
        assert.matches(pattern, response.body)
      end
    end)

    it("is 502 for an upstream that refuses, breaks off or talks nonsense", function()
      for _, path in ipairs({ "/dead", "/odd/garbage", "/odd/both", "/close" }) do
        assert.equal(502, gw:get(path).status, path)
      end
    end)

    it("is 504 for an upstream that is silent", function()
      assert.equal(504, gw:get("/odd/silent").status)
    end)

    it("names the name that does not resolve", function()
      assert.equal(503, gw:get("/nameless").status)
      gw:wait_log("no%-such%-name%.invalid")
    end)
  end)

  describe("what is ambiguous or wrong", function()
    local head = "Host: a\r\n"
    local refused = {
      ["both lengths"] = "POST / HTTP/1.1\r\n" .. head
        .. "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ["differing lengths"] = "POST / HTTP/1.1\r\n" .. head .. "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
      ["a list of differing lengths"] = "POST / HTTP/1.1\r\n" .. head .. "Content-Length: 3, 4\r\n\r\nabcd",
      ["a negative length"] = "POST / HTTP/1.1\r\n" .. head .. "Content-Length: -1\r\n\r\n",
      ["a signed length"] = "POST / HTTP/1.1\r\n" .. head .. "Content-Length: +3\r\n\r\nabc",
      ["an encoding other than chunked"] = "POST / HTTP/1.1\r\n" .. head .. "Transfer-Encoding: gzip\r\n\r\n",
      ["chunked that is not the last"] = "POST / HTTP/1.1\r\n" .. head
        .. "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
      ["chunked twice"] = "POST / HTTP/1.1\r\n" .. head .. "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
      ["an unknown encoding before chunked"] = "POST / HTTP/1.1\r\n" .. head
        .. "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
      ["chunked in HTTP/1.0"] = "POST / HTTP/1.0\r\n" .. head .. "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ["a bare LF"] = "GET / HTTP/1.1\nHost: a\n\n",
      ["a bare CR in a value"] = "GET / HTTP/1.1\r\n" .. head .. "X-A: a\rb\r\n\r\n",
      ["a folded line"] = "GET / HTTP/1.1\r\n" .. head .. "X-A: a\r\n b\r\n\r\n",
      ["a space before the colon"] = "GET / HTTP/1.1\r\n" .. head .. "X-A : a\r\n\r\n",
      ["a NUL in a value"] = "GET / HTTP/1.1\r\n" .. head .. "X-A: a\0b\r\n\r\n",
      ["a name that is no token"] = "GET / HTTP/1.1\r\n" .. head .. "X(A): a\r\n\r\n",
      ["an empty name"] = "GET / HTTP/1.1\r\n" .. head .. ": a\r\n\r\n",
      ["no host"] = "GET / HTTP/1.1\r\nX-A: a\r\n\r\n",
      ["two hosts"] = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
      ["a host with a path"] = "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
      ["a host with a space"] = "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
      ["a target without slash"] = "GET a HTTP/1.1\r\n" .. head .. "\r\n",
      ["no version"] = "GET / HTTP\r\n" .. head .. "\r\n",
      ["a bad chunk size"] = "POST / HTTP/1.1\r\n" .. head .. "Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
      ["a chunk size with a sign"] = "POST / HTTP/1.1\r\n" .. head
        .. "Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
      ["an endless chunk size"] = "POST / HTTP/1.1\r\n" .. head
        .. "Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\na\r\n",
    }

    for what, bytes in pairs(refused) do
      it("is refused with 400 and the connection closed: " .. what, function()
        local response, why, client = raw(bytes)
        assert(response, why)
        assert.equal(400, response.status)
        assert.is_true(client:closes_within(5))
      end)
    end

    it("does not reach the upstream behind a refused one", function()
      up:forget()
      local _, _, client = raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        .. "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
      assert.is_true(client:closes_within(5))
      assert.equal(0, up:stats().requests)
    end)
  end)

  describe("limits", function()
    it("are 431 for the head and the number of fields", function()
      assert.equal(431, gw:get("/", { ["X-Long"] = ("x"):rep(9000) }).status)
      local many = {}
      for index = 1, 60 do many[index] = { "X-" .. index, "1" } end
      assert.equal(431, gw:get("/", many).status)
    end)

    it("are 414 for the target", function()
      assert.equal(414, gw:get("/" .. ("x"):rep(9000)).status)
    end)

    it("are 413 for the body", function()
      local response = raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000001\r\n\r\n")
      assert.equal(413, response.status)
    end)
  end)

  describe("limits in time", function()
    local KEEPALIVE_S = 0.6
    local hasty

    setup(function()
      hasty = gateway.start({ _format_version = "3.0",
        gateway = { limits = { client_header_timeout = 400, client_body_timeout = 400,
          keepalive_timeout = KEEPALIVE_S * 1000 } },
        services = { { name = "up", url = up:url(), routes = { { name = "up", paths = { "/" } } } } } })
    end)
    teardown(function() hasty:stop() end)

    it("end a head that does not come to its end", function()
      local client = hasty:connect()
      client:send("GET / HTTP/1.1\r\nHo")
      assert.equal(408, client:read_response().status)
      assert.is_true(client:closes_within(5))
    end)

    it("end a body that does not come", function()
      local client = hasty:connect()
      client:send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
      assert.equal(408, client:read_response().status)
      assert.is_true(client:closes_within(5))
    end)

    it("end a connection that stays idle, silently", function()
      local client, from = hasty:connect(), posix.now()
      client:request({})
      assert.is_true(client:closes_within(5))
      assert.is_true(posix.now() - from >= KEEPALIVE_S)
      assert.equal("", client.socket.pending)
    end)
  end)

  describe("trying again", function()
    it("happens when a kept connection turns out to be closed", function()
      local port = process.free_port()
      local mortal = upstream.start(nil, { port = port })
      local own = gateway.start({ _format_version = "3.0", services = {
        { name = "mortal", url = mortal:url(), routes = { { name = "all", paths = { "/" } } } } } })
      assert.equal(200, own:get("/").status)
      mortal:kill()
      mortal = upstream.start(nil, { port = port })
      assert.equal(200, own:request({ method = "POST", body = "once" }).status)
      own:stop()
      mortal:stop()
    end)

    it("does not happen to a POST that may have been carried out", function()
      up:forget()
      assert.equal(502, gw:request({ method = "POST", path = "/reset", body = "x" }).status)
      assert.equal(1, up:stats().requests)
    end)
  end)
end)
