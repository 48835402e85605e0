-- SPDX-License-Identifier: Apache-2.0
-- Where one message ends and the next begins, whatever clients, services and plugins do about it: nothing may slip
-- from one request, response or connection into another.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local tls = require "spec.support.tls"
local upstream = require "spec.support.upstream"

-- Runs what the request's own fields say: X-Access, X-Header-Filter and so on hold the code of a phase.
local RUN = [[
local run = { version = "1.0.0", priority = 10 }

local function act(phase, exchange, chunk, last)
  local text = exchange.request:get_header("x-" .. phase)
  if not text then return chunk end
  return assert(load("local exchange, sluice, chunk, last = ...; " .. text, "=" .. phase))(exchange, require "sluice",
    chunk, last)
end

for _, phase in ipairs { "rewrite", "access", "balancer", "header_filter", "log" } do
  run[phase] = function(_, exchange) act(phase:gsub("_", "-"), exchange) end
end

return run
]]

local RESPONSE = [[
local whole = { version = "1.0.0", priority = 5 }
function whole.response(_, exchange)
  local text = exchange.request:get_header("x-response")
  if text then assert(load("local exchange = ...; " .. text))(exchange) end
end
return whole
]]

local SHOUT = [[
local shout = { version = "1.0.0", priority = 5 }
function shout.body_filter(_, exchange, chunk) return chunk:upper() .. "!" end
return shout
]]

describe("between messages", function()
  local up, odd, secure, gw

  setup(function()
    up = upstream.start()
    odd = upstream.start(function(request, connection)
      local path = request.target:match("[^/]+$")
      if path == "unasked" then
        return connection:send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
      elseif path == "gzip" then
        return connection:send("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
      elseif path == "gzip-only" then
        connection:send("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxyz")
        return connection:close()
      elseif path == "unchanged" then
        return connection:send("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\nETag: x\r\n\r\n")
      elseif path == "cut" then
        connection:send("HTTP/1.1 200 OK\r\n\r\nonly a part")
        connection:sleep(0.05)
        return connection:reset()
      elseif path == "hints" then
        for _ = 1, 30 do
          connection:send("HTTP/1.1 103 Early Hints\r\nLink: </" .. ("h"):rep(4000) .. ">\r\n\r\n")
        end
        connection:send("HTTP/1.1 200 OK\r\nX-Mark: kept\r\nContent-Length: 300000\r\n\r\n")
        return connection:send_many(300000)
      elseif path == "refuse" then
        connection:respond(413, { Connection = "close" }, "too much")
        return connection:close()
      elseif path == "duplex" then
        connection:begin(200)
        connection:chunk("head first;")
        connection:sleep(0.1)
        connection:chunk(connection:read_body())
        return connection:finish()
      end
      connection:echo()
    end)
    local certificate = tls.make_certificate(posix.temporary_directory(), { name = "shop.test" })
    secure = upstream.start(nil, { tls = certificate })
    gw = gateway.start({
      _format_version = "3.0",
      gateway = { limits = { max_head_bytes = 16384 } },
      services = {
        { name = "up", url = up:url(), routes = {
          { name = "up", paths = { "/" }, strip_path = false },
          { name = "same-host", paths = { "/same-host" }, preserve_host = true, hosts = { "shop.test" } },
          { name = "only-tls", paths = { "/only-tls" }, protocols = { "https" }, https_redirect_status_code = 301 },
          { name = "whole", paths = { "/whole" }, strip_path = true, plugins = { { name = "whole" } } },
          { name = "shout", paths = { "/shout" }, strip_path = true, plugins = { { name = "shout" } } },
        } },
        { name = "secure", url = secure:url(), routes = {
          { name = "secure", paths = { "/secure" }, preserve_host = true } } },
        { name = "odd", url = odd:url(), routes = { { name = "odd", paths = { "/odd" }, strip_path = false } } },
        { name = "brisk", url = up:url(), read_timeout = 1500, retries = 0,
          routes = { { name = "brisk", paths = { "/brisk" } } } },
      },
      upstreams = { { name = "pool", targets = { { target = up:url():match("//(.*)") } } } },
      routes = { { name = "homeless", paths = { "/homeless" } } },
      plugins = { { name = "run" } },
    }, { plugins = { run = RUN, whole = RESPONSE, shout = SHOUT } })
  end)

  teardown(function()
    gw:stop()
    up:stop()
    odd:stop()
    secure:stop()
  end)

  local function echoed(response)
    return cjson.decode(response.body)
  end

  it("a length that no number holds is refused, and nothing behind it reaches the service", function()
    up:forget()
    local client = gw:connect()
    client:send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n"
      .. "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.equal(400, client:read_response().status)
    assert.equal(0, up:stats().requests)
    client:close()
  end)

  it("two fields of Transfer-Encoding are refused", function()
    local client = gw:connect()
    client:send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
      .. "0\r\n\r\n")
    assert.equal(400, client:read_response().status)
    client:close()
  end)

  it("an empty Content-Length is refused", function()
    local client = gw:connect()
    client:send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n")
    assert.equal(400, client:read_response().status)
    client:close()
  end)

  it("the rest of a request that has been answered reaches no other request", function()
    local first = gw:connect()
    first:send("POST /x HTTP/1.1\r\nHost: a\r\nX-Access: exchange.response:exit(401)\r\n"
      .. "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert.equal(401, first:read_response().status)
    local second = gw:connect()
    second:send("POST /y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    posix.pause(0.05)
    first:send("0\r\nX-Evil: 1\r\n\r\n")
    posix.pause(0.05)
    second:send("0\r\nX-Good: 1\r\n\r\n")
    assert.same({ { "X-Good", "1" } }, echoed(second:read_response()).trailers)
    assert.equal(200, first:request({ path = "/" }).status)
    first:close()
    second:close()
  end)

  it("a service that switches protocols unasked is not followed", function()
    assert.equal(502, gw:get("/odd/unasked").status)
    assert.equal(502, gw:get("/odd/unasked", { Connection = "Upgrade", Upgrade = "h2c" }).status)
  end)

  it("a response in a transfer coding besides chunked is not passed on as content", function()
    assert.equal(502, gw:get("/odd/gzip").status)
    assert.equal(502, gw:get("/odd/gzip-only").status)
  end)

  it("a GET that a plugin makes HEAD is answered without content", function()
    local client = gw:connect()
    local response = client:request({ path = "/bytes/1000",
      headers = { ["X-Access"] = "exchange.service.request:set_method('HEAD')" } })
    assert.equal("0", response.headers["content-length"])
    assert.equal(200, client:request({ path = "/" }).status)
    client:close()
  end)

  it("a 304 that a plugin makes 200 is answered without content", function()
    local client = gw:connect()
    local response = client:request({ path = "/odd/unchanged",
      headers = { ["X-Header-Filter"] = "exchange.response:set_status(200)" } })
    assert.same({ 200, "0" }, { response.status, response.headers["content-length"] })
    assert.equal(200, client:request({ path = "/" }).status)
    client:close()
  end)

  it("an empty piece of a streamed answer does not end it", function()
    local client = gw:connect()
    local response = client:request({ path = "/",
      headers = { ["X-Access"] = "local s = exchange.response:stream(200) s:send('a') s:send('') s:send('b')" } })
    assert.equal("ab", response.body)
    assert.equal(200, client:request({ path = "/" }).status)
    client:close()
  end)

  it("a plugin cannot make the response an interim one", function()
    assert.equal(500, gw:get("/", { ["X-Header-Filter"] = "exchange.response:set_status(100)" }).status)
  end)

  it("an answer given in header_filter takes the place of the service's whole response", function()
    local client = gw:connect()
    local response = client:request({ path = "/bytes/1000",
      headers = { ["X-Header-Filter"] = "exchange.response:exit(403, 'no')" } })
    assert.same({ 403, "Forbidden", "no" }, { response.status, response.reason, response.body })
    assert.equal(200, client:request({ path = "/" }).status)
    client:close()
  end)

  it("a plugin of phase response leaves the header_filter of others running", function()
    local response = gw:get("/whole/a", { ["X-Header-Filter"] = "exchange.response:set_header('X-Seen', '1')",
      ["X-Response"] = "exchange.response:set_raw_body('mine')" })
    assert.equal("mine", response.body)
    assert.equal("1", response.headers["x-seen"])
  end)

  it("a response to HEAD keeps its length through phase response", function()
    local client = gw:connect()
    local response = client:request({ method = "HEAD", path = "/whole/bytes/1000" })
    assert.equal("1000", response.headers["content-length"])
    client:close()
  end)

  it("what a plugin tells the service is not taken away by the client's Connection", function()
    local seen = echoed(gw:get("/", { Connection = "X-Consumer-ID, X-Forwarded-For, X-Real-IP",
      ["X-Consumer-ID"] = "evil",
      ["X-Access"] = "exchange.service.request:set_header('X-Consumer-ID', 'good')" })).headers
    assert.equal("good", seen["x-consumer-id"])
    assert.equal("127.0.0.1", seen["x-forwarded-for"])
    assert.equal("127.0.0.1", seen["x-real-ip"])
  end)

  it("fields of plugins neither change the framing nor begin new lines", function()
    local seen = echoed(gw:request({ method = "POST", body = "abc", headers = {
      ["X-Access"] = "local r = exchange.service.request r:set_header('Content-Length', '1') " ..
        "r:set_header('Connection', 'close') r:clear_header('Content-Length')" } }))
    assert.equal("abc", seen.body)
    local response = gw:get("/", { ["X-Header-Filter"] = "local r = exchange.response " ..
      "r:set_header('Content-Length', '1') pcall(r.set_header, r, 'X-A', 'b\\r\\nX-C: d')" })
    assert.is_nil(response.headers["x-c"])
    assert.is_table(cjson.decode(response.body))
  end)

  it("a host that is preserved is the one that the request was routed by", function()
    local client = gw:connect()
    client:send("GET http://shop.test:8080/same-host HTTP/1.1\r\nHost: evil.test\r\n\r\n")
    assert.equal("shop.test:8080", echoed(client:read_response()).headers.host)
    client:close()
  end)

  it("a host that is preserved is the name asked for in TLS", function()
    local response = gw:request({ path = "/secure", host = "shop.test" })
    assert.equal(200, response.status)
    assert.equal("shop.test", echoed(response).tls.sni or echoed(response).tls.server_name)
  end)

  it("a redirect to https has one host, whatever the form of the target", function()
    local client = gw:connect()
    client:send("GET http://shop.test/only-tls?a=b HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    local response = client:read_response()
    assert.equal("https://shop.test/only-tls?a=b", response.headers.location)
    client:close()
  end)

  it("a route without a service goes where a plugin says", function()
    assert.equal(503, gw:get("/homeless").status)
    assert.equal(200, gw:get("/homeless", { ["X-Access"] = "exchange.service:set_upstream('pool')" }).status)
    local there = ("exchange.service:set_target('127.0.0.1', %d)"):format(up.port)
    assert.equal(200, gw:get("/homeless", { ["X-Access"] = there }).status)
  end)

  it("a body that does not come is 408 also while a plugin waits for it", function()
    local hasty = gateway.start({ _format_version = "3.0", gateway = { limits = { client_body_timeout = 200 } },
      services = { { name = "up", url = up:url(), routes = { { name = "up", paths = { "/" } } } } },
      plugins = { { name = "run" } } }, { plugins = { run = RUN } })
    local client = hasty:connect()
    client:send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nX-Access: exchange.request:get_raw_body()\r\n"
      .. "X-Header-Filter: exchange.response:set_header('X-Seen', '1')\r\n\r\nabc")
    local response = client:read_response()
    assert.same({ 408, "1" }, { response.status, response.headers["x-seen"] })
    client:close()
    assert.equal(200, hasty:get("/").status)
    hasty:stop()
  end)

  it("a response that begins early does not cut the request short", function()
    local client = gw:connect()
    client:send("POST /odd/duplex HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    client:read_head()
    assert(client.socket:receive_until("head first;"))
    client:send("3\r\ndef\r\n0\r\n\r\n")
    assert.matches("abcdef", client.socket:receive_until("0\r\n\r\n"))
    client:close()
  end)

  it("a response without length that is cut off by a reset is cut off for the client as well", function()
    local client = gw:connect()
    local response, why = client:request({ path = "/odd/cut" })
    assert.is_nil(response)
    assert.is_true(why == "closed" or why == "reset")
    client:close()
  end)

  it("a request whose head begins behind another request's may end later", function()
    local client = gw:connect()
    client:send("GET /delay/0.1 HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHo")
    assert.equal("/delay/0.1", echoed(client:read_response()).target)
    client:send("st: a\r\n\r\n")
    assert.equal("/second", echoed(client:read_response()).target)
    client:close()
  end)

  it("phase log sees the fields that were sent", function()
    local function logged(path, access)
      local mark = "mark" .. path:gsub("%W", "")
      local response = gw:get(path, { ["X-Access"] = access, ["X-Log"] = "sluice.log.warn('" .. mark .. " ' .. "
        .. "require('sluice').json.encode(exchange.response:get_headers()))" })
      local line = gw:wait_log(mark)
      for _, field in ipairs(response.headers) do
        local shown = ('\\"%s\\":\\"%s\\"'):format(field[1]:lower(), field[2])
        assert(line:find(shown, 1, true), shown .. " in " .. line)
      end
      return line
    end
    assert.is_nil(logged("/shout/bytes/100"):find("content-length", 1, true))
    assert.is_truthy(logged("/exit", "exchange.response:exit(200, 'abc')"):find("content-length", 1, true))
    logged("/status/204")
    assert.is_nil(logged("/nowhere/else", "exchange.response:exit(204)"):find("content-length", 1, true))
  end)

  it("the path of the route holds although a plugin has looked at the request before it", function()
    local seen = echoed(gw:get("/whole/there?a=1&b=2",
      { ["X-Rewrite"] = "exchange.service.request:clear_query_arg('a')" }))
    assert.equal("/there?b=2", seen.target)
  end)

  it("a plugin of phase balancer may choose the path", function()
    local seen = echoed(gw:get("/whole/there", { ["X-Balancer"] = "exchange.service.request:set_path('/here')" }))
    assert.equal("/here", seen.target)
    assert.equal(500, gw:get("/", { ["X-Balancer"] = "error('no')" }).status)
  end)

  it("a response over TLS that is cut off does not look finished", function()
    local client = gw:connect({ tls = {} })
    client:send("GET /odd/cut HTTP/1.0\r\nHost: a\r\n\r\n")
    client:read_head()
    local socket = client.socket
    local count
    repeat count = socket:attempt(socket.operations.read, socket:deadline()) until not count or count == 0
    assert.is_nil(count) -- 0 would be close_notify
    client:close()
  end)

  it("the size of a request counts a head that came in pieces", function()
    local client = gw:connect()
    local head = "GET / HTTP/1.1\r\nHost: a\r\nX-Log: sluice.log.warn('size ' .. exchange.request:get_size())\r\n\r\n"
    client:send(head:sub(1, 30))
    posix.pause(0.05)
    client:send(head:sub(31))
    client:read_response()
    gw:wait_log("size " .. #head)
    client:close()
  end)

  it("an answer arrives although the service hangs up on the rest of the request", function()
    local body = ("x"):rep(3000000)
    for _ = 1, 10 do
      local response = gw:request({ method = "POST", path = "/odd/refuse", body = body })
      assert.same({ 413, "too much" }, { response.status, response.body })
    end
  end)

  it("any number of interim responses may come before the final one", function()
    local response = gw:get("/odd/hints",
      { ["X-Log"] = "sluice.log.warn('mark ' .. exchange.response:get_header('x-mark'))" })
    assert.equal(300000, #response.body)
    gw:wait_log("mark kept")
  end)

  it("a body too large for a plugin still passes whole to the service", function()
    local response = gw:request({ method = "POST", path = "/swallow", body = ("x"):rep(12000000), headers = {
      ["X-Access"] = "local body, err = exchange.request:get_raw_body() " ..
        "exchange.response:set_header('X-Why', err or 'got it')" } })
    assert.equal("12000000", response.body)
    assert.matches("limit", response.headers["x-why"])
  end)

  it("a plugin that has read the request's body reads the response's own after it", function()
    local text = ("x"):rep(70000)
    local response = gw:request({ method = "POST", path = "/whole/bytes/70000", body = text, headers = {
      ["X-Access"] = "exchange.request:get_raw_body()",
      ["X-Response"] = "exchange.response:set_header('X-Is', exchange.response:get_raw_body():sub(1, 4))" } })
    assert.equal("0123", response.headers["x-is"])
  end)

  it("read_timeout begins when the request has been sent, however slow the client was", function()
    local client = gw:connect()
    client:send("POST /brisk HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\na")
    for byte in ("bcdef"):gmatch(".") do -- longer than read_timeout in all
      posix.pause(0.35)
      client:send(byte)
    end
    assert.equal(200, client:read_response().status)
    client:close()
  end)
end)
