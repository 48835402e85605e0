-- SPDX-License-Identifier: Apache-2.0
-- The API of plugins against the real core: each request carries the code that the plugin "run" runs for it.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local redis = require "spec.support.redis"
local relay = require "spec.support.relay"
local tls = require "spec.support.tls"
local upstream = require "spec.support.upstream"

local RUN = [[
local sluice = require "sluice"
local run = { version = "1.0.0", priority = 10 }

local function code(phase, exchange)
  local text = exchange.request:get_header("x-" .. phase)
  return text and assert(load("local exchange, sluice, chunk, last = ...; " .. text, "=" .. phase))
end

function run.certificate(conf, exchange)
  if exchange.client.tls:get_server_name() ~= "chosen.example" then return end
  assert(exchange.client.tls:set_certificate(conf.certificate, conf.key))
end

function run.access(conf, exchange)
  local fn = code("access", exchange)
  exchange.service.request:clear_header("x-access")
  local results = fn and { fn(exchange, sluice) }
  if results and #results > 0 then exchange.response:exit(200, results) end
end

function run.header_filter(conf, exchange)
  local fn = code("header-filter", exchange)
  if fn then fn(exchange, sluice) end
end

function run.body_filter(conf, exchange, chunk, last)
  local fn = code("body-filter", exchange)
  if not fn then return chunk end
  return fn(exchange, sluice, chunk, last)
end

function run.log(conf, exchange)
  local fn = code("log", exchange)
  if fn then fn(exchange, sluice) end
end

return run
]]

local SCHEMA = 'return { certificate = { type = "string" }, key = { type = "string" } }'

describe("in a plugin", function()
  local up, gw

  setup(function()
    up = upstream.start()
    local chosen = tls.make_certificate(posix.temporary_directory(), { name = "chosen.example" })
    gw = gateway.start({
      _format_version = "3.0",
      services = { { name = "up", url = up:url(), routes = {
        { name = "all", paths = { "/" }, strip_path = false },
        { name = "user", paths = { "~/users/(?<id>\\d+)/(\\w+)" }, strip_path = false },
      } } },
      upstreams = { { name = "pool", targets = { { target = up:url():match("//(.*)") } } } },
      consumers = { { username = "alice", keyauth_credentials = { { key = "k1" } },
        groups = { { name = "gold" }, { name = "bronze" } } } },
      consumer_groups = { { name = "gold" }, { name = "bronze" } },
      plugins = { { name = "run", config = { certificate = chosen.certificate_pem, key = chosen.key_pem } } },
    }, { plugins = { run = { ["handler.lua"] = RUN, ["schema.lua"] = SCHEMA } } })
  end)

  teardown(function()
    gw:stop()
    up:stop()
  end)

  -- What the code returns in access, as a list.
  local function access(text, request)
    request = request or {}
    request.headers = request.headers or {}
    request.headers["X-Access"] = text:gsub("%s*\n%s*", " ")
    local response = assert(gw:request(request))
    if response.status ~= 200 then return nil, response end
    return cjson.decode(response.body), response
  end

  describe("exchange.request", function()
    it("tells all parts of the target", function()
      local got = access([[local r = exchange.request
        return r:get_method(), r:get_path(), r:get_raw_path(), r:get_path_with_query(), r:get_raw_query(),
          r:get_scheme(), r:get_host(), r:get_http_version() ]], { path = "/a%2Db/../c?x=%20&y" })
      assert.same({ "GET", "/c", "/a%2Db/../c", "/a%2Db/../c?x=%20&y", "x=%20&y", "http", "127.0.0.1", 1.1 }, got)
    end)

    it("gives the groups of the route's path", function()
      local got = access("local c = exchange.request:get_uri_captures() return c.named, c.unnamed",
        { path = "/users/42/books" })
      assert.same({ { id = "42" }, { "42", "books" } }, got)
    end)

    it("reads a body that comes late", function()
      local client = gw:connect()
      client:send("POST / HTTP/1.1\r\nHost: a\r\nX-Access: return exchange.request:get_raw_body()\r\n"
        .. "Content-Length: 10\r\n\r\nhello")
      posix.pause(0.05)
      client:send("world")
      assert.same({ "helloworld" }, cjson.decode(assert(client:read_response()).body))
      client:close()
    end)

    it("decodes forms and JSON, and says why not", function()
      local code = "local body, err = exchange.request:get_body() return body or false, err"
      local function body(content_type, text)
        return access(code, { method = "POST", headers = { ["Content-Type"] = content_type }, body = text })
      end
      assert.same({ { a = "1", b = { "2", true } } }, body("application/x-www-form-urlencoded", "a=1&b=2&b"))
      assert.same({ { a = { 1 } } }, body("application/json", '{"a":[1]}'))
      assert.matches("^invalid json body", body("application/json", "{")[2])
      assert.equal("unsupported content type 'text/plain'", body("text/plain", "x")[2])
    end)
  end)

  describe("exchange.service.request", function()
    it("changes what goes to the service", function()
      local seen = access([[local r = exchange.service.request
        r:set_method("PUT") r:set_path("/other place") r:set_query({ q = "a b" }) r:set_raw_body("fresh")
        r:set_header("X-Two", { "1", "2" }) r:clear_header("X-Gone") r:add_header("X-Has", "more") ]],
        { method = "POST", body = "stale body", headers = { ["X-Gone"] = "1", ["X-Has"] = "some" } })
      assert.equal("PUT", seen.method)
      assert.equal("/other%20place?q=a%20b", seen.target)
      assert.equal("fresh", seen.body)
      assert.same({ { "1", "2" }, {}, { "some", "more" } }, {
        http.values(seen.fields, "X-Two"), http.values(seen.fields, "X-Gone"), http.values(seen.fields, "X-Has"),
      })
    end)

    it("goes to another target", function()
      local other = upstream.start(function(_, connection) connection:respond(200, {}, '"the other"') end)
      local _, response = access(('exchange.service:set_target("127.0.0.1", %d)'):format(other.port))
      other:stop()
      assert.equal('"the other"', response.body)
    end)

    it("sets the Host that the service sees", function()
      assert.equal("other.example", access('exchange.service.request:set_header("Host", "other.example")').headers.host)
    end)

    it("goes by TLS, to an upstream, with other limits", function()
      local made = tls.make_certificate(posix.temporary_directory(), { name = "127.0.0.1" })
      local secure = upstream.start(nil, { tls = { certificate = made.certificate, key = made.key } })
      local code = ([[exchange.service:set_target("127.0.0.1", %d) exchange.service.request:set_scheme("https")
        exchange.service:set_tls_verify(%s) exchange.service:set_retries(0) ]])
      local lax = access(code:format(secure.port, "false"))
      local _, strict = access(code:format(secure.port, "true"))
      secure:stop()
      assert.equal("/", lax.target)
      assert.equal(502, strict.status)
      assert.same({ "could not find an upstream named 'none'" },
        access('return select(2, exchange.service:set_upstream("none"))'))
      assert.equal("/", access('exchange.service:set_upstream("pool")').target)
      local _, late = access("exchange.service:set_timeouts(1000, 1000, 50)", { path = "/delay/5" })
      assert.equal(504, late.status)
    end)

    it("cannot smuggle a line into the request", function()
      local _, response = access([[exchange.service.request:set_header("X-A", "1\r\nX-B: 2")]])
      assert.equal(500, response.status)
      assert.matches("exchange.service.request:set_header: ", gw:wait_log("access:1"))
    end)
  end)

  describe("exchange.response", function()
    it("exits with JSON, headers and status", function()
      local _, response = access('exchange.response:exit(403, { message = "no" }, { ["X-Why"] = "policy" })')
      assert.same({ 403, '{"message":"no"}', "application/json; charset=utf-8", "policy" },
        { response.status, response.body, response.headers["content-type"], response.headers["x-why"] })
    end)

    it("answers errors by Accept, and in one form for core and plugins", function()
      local _, plain = access('exchange.response:error(418, "tea")', { headers = { Accept = "text/plain" } })
      assert.matches("^tea\n", plain.body)
      local _, json = access('exchange.response:error(418, "tea")')
      local _, same = access('exchange.response:error(418, "tea", { ["Content-Type"] = "application/json" })')
      local function without_id(text) return (text:gsub("%x+\"}", "")) end
      assert.matches('^{"message":"tea","request_id":"%x+"}', json.body)
      assert.equal(without_id(json.body), without_id(same.body))
    end)

    it("keeps what was set before the service answered", function()
      local _, response = access('exchange.response:set_header("X-Early", "yes")')
      assert.equal("yes", response.headers["x-early"])
    end)

    it("changes status and fields in header_filter", function()
      local response = gw:get("/status/200", { ["X-Header-Filter"] = "local r = exchange.response r:set_status(202) "
        .. "r:set_header('X-Was', exchange.service.response:get_status()) r:add_header('X-Source', r:get_source())" })
      assert.same({ 202, "200", "service" },
        { response.status, response.headers["x-was"], response.headers["x-source"] })
    end)

    it("takes and replaces the whole body in body_filter", function()
      local response = gw:get("/chunked/3", { ["X-Body-Filter"] = "local b = exchange.response:get_raw_body() "
        .. "if b then exchange.response:set_raw_body(#b .. '!') end" })
      assert.matches("^%d+!$", response.body)
    end)

    it("streams piece by piece", function()
      local client = gw:connect()
      client:send("GET / HTTP/1.1\r\nHost: a\r\nX-Access: local s = exchange.response:stream(200, "
        .. "{ ['Content-Type'] = 'text/event-stream' }) for i = 1, 3 do s:send('data: ' .. i .. '\\n\\n') "
        .. "sluice.sleep(0.02) end s:finish()\r\n\r\n")
      local response = assert(client:read_response())
      assert.same({ 200, "text/event-stream", "data: 1\n\ndata: 2\n\ndata: 3\n\n" },
        { response.status, response.headers["content-type"], response.body })
      client:close()
    end)

    it("tells a streaming plugin that the client has left", function()
      local client = gw:connect()
      client:send("GET / HTTP/1.1\r\nHost: a\r\nX-Access: local s = exchange.response:stream(200) "
        .. "while s:send('x') do sluice.sleep(0.01) end sluice.log.notice('it left')\r\n\r\n")
      assert(client:read_head())
      client:close()
      gw:wait_log("it left")
    end)

    it("waits while the client reads slowly, in bounded memory", function()
      local client = gw:connect()
      client:send("GET / HTTP/1.1\r\nHost: a\r\nX-Access: local s = exchange.response:stream(200) "
        .. "local piece, sent = ('x'):rep(65536), 0 for i = 1, 1000 do s:send(piece) sent = i end "
        .. "sluice.log.notice('all sent')\r\n\r\n")
      assert(client:read_head())
      posix.pause(0.2)
      assert.is_nil(gw:log():find("all sent", 1, true))
      client:close()
    end)
  end)

  describe("exchange.client", function()
    it("finds consumers and credentials, and remembers who was authenticated", function()
      local got = access([[local c = exchange.client
        local credential = c:load_credential("keyauth_credentials", "key", "k1")
        local consumer = c:load_consumer(credential.consumer)
        c:authenticate(consumer, credential)
        local names = {} for i, group in ipairs(c:get_consumer_groups()) do names[i] = group.name end
        return c:get_consumer().username, names, c:load_consumer("alice", true).username,
          c:load_consumer("bob", true) == nil ]])
      assert.same({ "alice", { "bronze", "gold" }, "alice", true }, got)
    end)

    it("knows the address and the protocol", function()
      local got = access("local c = exchange.client return c:get_ip(), c:get_forwarded_ip(), c:get_protocol()",
        { headers = { ["X-Forwarded-For"] = "8.8.8.8" } })
      assert.same({ "127.0.0.1", "127.0.0.1", "http" }, got)
    end)
  end)

  describe("exchange.client.tls", function()
    it("tells the handshake's facts, and nothing without one", function()
      local code = "local t = exchange.client.tls return t:get_server_name() or false, t:get_version() or false, "
        .. "exchange.request:get_scheme()"
      local client = gw:connect({ tls = { name = "a.example" } })
      local response = assert(client:request({ headers = { ["X-Access"] = code } }))
      client:close()
      assert.same({ "a.example", "TLSv1.3", "https" }, cjson.decode(response.body))
      assert.same({ false, false, "http" }, access(code))
    end)

    it("presents the certificate that a plugin chose", function()
      local client = gw:connect({ tls = { name = "chosen.example" } })
      assert.matches("chosen.example", tls.info(client.socket).peer)
      client:close()
    end)
  end)

  it("a log record has Kong's fields and no credentials", function()
    local response = gw:get("/path?a=1", { Authorization = "Bearer secret", ["X-Log"] =
      "sluice.log.notice('record', { json = (sluice.json.encode(exchange:serialize())) })" })
    assert.equal(200, response.status)
    local line = gw:wait_log("record plugin=run json=.*/path%?a=1")
    assert.is_nil(line:find("secret", 1, true))
    for _, field in ipairs { '\\"upstream_uri\\":\\"/path?a=1\\"', '\\"client_ip\\":\\"127.0.0.1\\"',
      '\\"status\\":200', '\\"authorization\\":\\"REDACTED\\"', '\\"upstream_status\\":\\"200\\"' } do
      assert.is_truthy(line:find(field, 1, true), field .. " in " .. line)
    end
  end)

  it("a call in the wrong phase says which phases allow it, at the plugin's line", function()
    gw:get("/", { ["X-Log"] = "exchange.response:set_header('X', 'y')" })
    assert.matches("exchange.response:set_header cannot be called in phase log; it can in rewrite, access, "
      .. "header_filter, response", gw:wait_log("at=log:1"))
  end)

  it("a name of a header field may be long", function()
    local name = "X-" .. ("Long-"):rep(100) .. "Name"
    local got, response = access(([[exchange.response:set_header(%q, 7)
      return exchange.request:get_header(%q)]]):format(name, name), { headers = { [name] = "yes" } })
    assert.same({ "yes" }, got)
    assert.equal("7", response.headers[name:lower()])
  end)

  it("any number of names of header fields can be used", function()
    local got, response = access([[for i = 1, 1100 do exchange.request:get_header("X-Name-" .. i) end
      exchange.response:set_header("X-New", "1") exchange.response:add_header("X-New", 2)
      exchange.response:set_header("X-Number", 7)
      return exchange.request:get_header("X-Sent"), exchange.request:get_header("x_sent")]],
      { headers = { ["X-Sent"] = "yes" } })
    assert.same({ "yes", "yes" }, got)
    assert.equal("7", response.headers["x-number"])
  end)

  it("numbers of header fields are written as Lua writes them", function()
    for _, number in ipairs { "0", "7", "-1", "99999999999999", "100000000000000", "1e300", "0.5", "-0.25", "1/0" } do
      local _, response = access(('exchange.response:set_header("X-Number", %s)'):format(number))
      assert.equal(tostring(loadstring("return " .. number)()), response.headers["x-number"])
    end
  end)

  it("what waits is refused where waiting is not possible", function()
    local response = gw:get("/", { ["X-Header-Filter"] = "sluice.sleep(1)" })
    assert.equal(500, response.status)
    gw:wait_log("a call that waits cannot be made in phase header_filter; it can in")
  end)

  it("what one plugin holds cannot be changed for others", function()
    local got = access([[return (pcall(setmetatable, exchange.request, {})) == false, getmetatable(exchange) == false,
      pcall(function() sluice.json.decode = nil end), exchange.request.new == nil ]])
    assert.is_true(got[1] and got[2] and got[#got])
    assert.is_false(got[3])
  end)

  describe("sluice.http", function()
    it("asks a server, and keeps the connection", function()
      up:forget()
      local code = ('local res = sluice.http.post("%s/echo?x=1", { body = "hi", headers = { ["X-A"] = "1" } }) '
        .. "return res.status, res.body"):format(up:url())
      for _ = 1, 3 do
        local got = access(code)
        local seen = cjson.decode(got[2])
        assert.same({ 200, "POST", "/echo?x=1", "hi" }, { got[1], seen.method, seen.target, seen.body })
      end
      assert.equal(1, up:stats().connections)
    end)

    it("reads chunked bodies whole and in pieces, and none of HEAD", function()
      local whole = access(('return sluice.http.get("%s/chunked/5").body'):format(up:url()))
      local pieces = access(([[local res = sluice.http.get("%s/chunked/5", { stream = true }) local all = ""
        while true do local piece = res:read() if not piece then break end all = all .. piece end return all ]])
        :format(up:url()))
      assert.same(whole, pieces)
      local code = 'local res = sluice.http.request { method = "HEAD", url = "%s/" } return res.body, res.status'
      assert.same({ "", 200 }, access(code:format(up:url())))
    end)

    it("gives up in time, and bounds what it reads", function()
      local code = "local res, err = sluice.http.get('%s%s', { timeout = %g, max_body = 1000 }) "
        .. "return res or false, err"
      assert.same({ false, "timeout" }, access(code:format(up:url(), "/delay/60", 0.1)))
      assert.same({ false, "the body is larger than 1000 bytes" }, access(code:format(up:url(), "/bytes/100000", 10)))
    end)

    it("asks https by a proxy's tunnel", function()
      local made = tls.make_certificate(posix.temporary_directory(), { name = "shop.test" })
      local secure = upstream.start(nil, { tls = { certificate = made.certificate, key = made.key } })
      local proxy = relay.start(secure.port, nil, { server = "shop.test:444", authorization = "Basic YWRhOnMgcA==" })
      local function ask(server, user, more)
        return access(([[local res, err = sluice.http.get("https://%s/echo?x=1", { proxy = "http://%s127.0.0.1:%d", %s
          tls = { ca = exchange.request:get_raw_body() } }) return res and res.body or false, err]]):format(server,
          user, proxy.port, more or ""), { method = "POST", body = made.certificate_pem })
      end
      for _ = 1, 3 do
        local got = cjson.decode(ask("shop.test:444", "ada:s%20p@")[1])
        assert.same({ "/echo?x=1", "shop.test:444" }, { got.target, got.headers.host })
        assert.is_nil(got.headers["proxy-authorization"])
      end
      assert.equal(1, secure:stats().connections)
      assert.is_string(ask("shop.test:444", "", 'proxy_authorization = "Basic YWRhOnMgcA==",')[1])
      assert.matches("the proxy answered 407", ask("shop.test:444", "bob:x@")[2])
      assert.matches("the proxy answered 403", ask("other.test", "ada:s%20p@")[2])
      proxy:stop()
      proxy = relay.start(secure.port, proxy.port, { server = "other.test:443" })
      assert.matches("certificate", ask("other.test", "")[2])
      proxy:stop()
      secure:stop()
    end)

    it("gives up on a tunnel whose other end says something by itself, breaks off, or says nothing", function()
      local code = 'return (select(2, sluice.http.get("https://a.test/", { proxy = "%s", timeout = 0.2 })))'
      local odd = upstream.start(function(request, connection)
        local way = request.headers["proxy-authorization"]
        connection:send("HTTP/1.1 200 OK\r\n\r\n" .. (way == "Basic YTp0YWxrcw==" and "hello" or ""))
        if way == "Basic YTpoYW5ncw==" then connection.sleep(nil, 5) end
        connection:close()
      end)
      local url = odd:url():gsub("//", "//a:%%s@")
      assert.same({ "cannot connect to a.test: closed" }, access(code:format(url:format("talks"))))
      assert.matches("^cannot connect to a.test: ", access(code:format(url:format("ends")))[1])
      assert.matches("cannot connect to a.test: .*time", access(code:format(url:format("hangs")))[1])
      odd:stop()
    end)

    it("asks http by a proxy", function()
      local code = 'local res, err = sluice.http.get("%s", { proxy = "%s" }) return res and res.body or false, err'
      local got = cjson.decode(access(code:format("http://nowhere.test:81/x?y=1", up:url()))[1])
      assert.same({ "http://nowhere.test:81/x?y=1", "nowhere.test:81" }, { got.target, got.headers.host })
      got = cjson.decode(access(code:format("http://nowhere.test/", up:url():gsub("//", "//ada:pw@")))[1])
      assert.same({ "http://nowhere.test/", "Basic YWRhOnB3" }, { got.target, got.headers["proxy-authorization"] })
      assert.same({ false, "proxy: expected a URL of http" }, access(code:format("http://a.test/", "https://b.test")))
    end)

    it("says why there is no answer", function()
      local port = process.free_port()
      local code = 'local res, err = sluice.http.get("http://127.0.0.1:%d/") return res or false, err'
      local got = access(code:format(port))
      assert.same({ false, ("cannot connect to 127.0.0.1:%d: Connection refused"):format(port) }, got)
    end)

    it("tries again when a kept connection was closed, but not what may not be repeated", function()
      local closing = upstream.start(function(_, connection) connection:respond(200, {}, "x") end)
      local url = closing:url()
      assert.same({ 200 }, access(('return sluice.http.get("%s/").status'):format(url)))
      closing:kill()
      closing:launch()
      assert.same({ 200 }, access(('return sluice.http.get("%s/").status'):format(url)))
      closing:stop()
    end)

    it("verifies certificates unless told not to", function()
      local made = tls.make_certificate(posix.temporary_directory(), { name = "127.0.0.1" })
      local secure = upstream.start(nil, { tls = { certificate = made.certificate, key = made.key } })
      local got = access(([[local url = "%s/status/200"
        local res, err = sluice.http.get(url)
        local lax = sluice.http.get(url, { tls = { verify = false } })
        local knowing = sluice.http.get(url, { tls = { ca = exchange.request:get_raw_body() } })
        return res or false, err, lax.status, knowing.status ]]):format(secure:url()),
        { method = "POST", body = made.certificate_pem })
      secure:stop()
      assert.is_false(got[1])
      assert.matches("certificate", got[2])
      assert.same({ 200, 200 }, { got[3], got[4] })
    end)
  end)

  describe("sluice.redis", function()
    local server

    setup(function() server = redis.start { password = "sesame" } end)
    teardown(function() server:stop() end)

    -- What the code returns that has a connection, which goes back to the pool.
    local function with_client(code, options)
      return access(([[local redis = sluice.redis
        return redis.use({ port = %d, password = "sesame" %s }, function(client) %s end)]])
        :format(server.port, options or "", code))
    end

    it("runs commands, pipelines and scripts", function()
      assert.same({ "OK", 2, true }, with_client(
        [[return client:set("a", 1), client:incr("a"), client:get("none") == redis.null]]))
      local got = with_client([[return client:pipeline { { "INCR", "n" }, { "NOPE" }, { "GET", "n" } }]])
      assert.equal(1, got[1][1])
      assert.matches("^ERR unknown command", got[1][2].err)
      assert.equal("1", got[1][3])
      for _ = 1, 2 do
        assert.same({ { 1, "k", "v" } }, with_client(
          [[return client:eval("return { 1, KEYS[1], ARGV[1] }", { "k" }, { "v" })]]))
      end
      assert.matches("cmdstat_eval:calls=1,", server:command("INFO", "commandstats"))
    end)

    it("keeps connections, each with its own database and protocol", function()
      local other = ", database = 3, protocol = 3"
      with_client([[return client:set("where", "zero")]])
      with_client([[return client:set("where", "three")]], other)
      assert.same({ "zero" }, with_client([[return client:get("where")]]))
      assert.same({ "three" }, with_client([[return client:get("where")]], other))
      process.wait_until(function() -- with the one that asks; those that asked before may yet have to end
        return server:command("INFO", "clients"):match("connected_clients:(%d+)") == "3"
      end, 5, "two connections that are kept")
    end)

    it("closes a connection that a failing plugin still had", function()
      access(([[sluice.redis.use({ port = %d, password = "sesame", database = 5 }, function() error("no") end)]])
        :format(server.port))
      process.wait_until(function() return not server:command("CLIENT", "LIST"):find("db=5", 1, true) end, 5, "its end")
    end)

    it("closes a connection that a plugin forgot", function()
      access(([[sluice.redis.connect { port = %d, password = "sesame", database = 6 }]]):format(server.port))
      process.wait_until(function()
        -- What is kept is made: tables that nobody uses the compiler leaves out, and the collector rests.
        access("local t = {} for i = 1, 1e5 do t[i] = { i } end return #t")
        return not server:command("CLIENT", "LIST"):find("db=6", 1, true)
      end, 10, "its end")
    end)

    it("tells a wrong password and a server that is not there", function()
      assert.matches("WRONGPASS", access(([[return select(2, sluice.redis.connect { port = %d, password = "no" })]])
        :format(server.port))[1])
      local port = process.free_port()
      assert.equal(("cannot connect to redis at 127.0.0.1:%d: Connection refused"):format(port),
        access(([[return select(2, sluice.redis.connect { port = %d })]]):format(port))[1])
    end)
  end)

  describe("sluice.lock", function()
    it("has one exchange work while the others wait for its result", function()
      local code = "X-Access: local c = sluice.counters c.add('asked') return sluice.lock.once('k', 30, function() "
        .. "repeat sluice.sleep(0.02) until c.get('asked') == 5 return sluice.uuid.v4() end)"
      local clients, bodies = {}, {}
      for i = 1, 5 do
        clients[i] = gw:connect()
        clients[i]:send("GET / HTTP/1.1\r\nHost: a\r\n" .. code .. "\r\n\r\n")
      end
      for i = 1, 5 do
        bodies[i] = assert(clients[i]:read_response()).body
        clients[i]:close()
      end
      for i = 2, 5 do assert.equal(bodies[1], bodies[i]) end
    end)
  end)

  describe("sluice.timer", function()
    it("runs later, under the plugin's name", function()
      access([[local function fn(a) sluice.log.notice("timer ran", { a = a }) error("on purpose") end
        sluice.timer.at(0.02, fn, "x")]])
      assert.matches("plugin=run a=x", gw:wait_log("timer ran"))
      assert.matches("plugin=run version=1.0.0 phase=timer", gw:wait_log("on purpose"))
    end)
  end)
end)
