-- SPDX-License-Identifier: Apache-2.0
-- TCP and TLS streams through the whole gateway: the spec is the client, and most times the service as well.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local redis = require "spec.support.redis"
local tls = require "spec.support.tls"
local upstream = require "spec.support.upstream"

-- ---- The service's end ----

local function listen()
  local fd, port = posix.listen("127.0.0.1", process.free_port())
  local self = { port = assert(port), fd = fd }

  -- The next connection that the gateway makes; nil: none within that time.
  function self.accept(seconds)
    if not net.wait(fd, posix.POLLIN, posix.now() + (seconds or 5)) then return nil end
    return net.wrap(posix.accept(fd))
  end

  function self.close()
    posix.C.sys_close_fd(fd)
  end

  return self
end

local function resident_kilobytes(pid)
  return tonumber(process.read_file("/proc/" .. pid .. "/status"):match("VmRSS:%s*(%d+)"))
end

-- Sends `total` bytes into one socket and takes as many out of the other, turn by turn; the most memory meanwhile.
local function pour(from, to, total, pid)
  local piece, sent, got, most = ("x"):rep(262144), 0, 0, 0
  while got < total do
    local count = sent < total and from.operations.write(from, piece, 0)
    if type(count) == "number" then sent = sent + count end
    local data = to.operations.read(to)
    if type(data) == "number" and data > 0 then got = got + data end
    if not count and not data then net.wait(to.fd, posix.POLLIN, posix.now() + 1) end
    if got % 64 == 0 then most = math.max(most, resident_kilobytes(pid)) end
  end
  return most, sent
end

describe("streams", function()
  local gw, service, ports, folder, authority, made

  setup(function()
    folder = posix.temporary_directory()
    authority = tls.make_certificate(folder, { name = "Spec CA" })
    made = {
      gateway = tls.make_certificate(folder, { name = "t.test", ca = authority }),
      service = tls.make_certificate(folder, { name = "p.test", names = { "127.0.0.1" }, ca = authority }),
    }
  end)
  teardown(function() process.remove(folder) end)

  local CA = "00000000-0000-4000-8000-000000000009"

  -- A gateway with a TCP and a TLS listener. `changes` to the configuration; further listeners by options.listen.
  local function start(changes, options)
    options = options or {}
    ports = { tcp = process.free_port(), tls = process.free_port(), extra = process.free_port() }
    local config = { _format_version = "3.0",
      certificates = { { cert = made.gateway.certificate_pem, key = made.gateway.key_pem,
        snis = { { name = "t.test" } } } },
      ca_certificates = { { id = CA, cert = authority.certificate_pem } } }
    for key, value in pairs(changes(ports) or {}) do config[key] = value end
    local listeners = ("127.0.0.1:%d, 127.0.0.1:%d ssl"):format(ports.tcp, ports.tls)
    if options.listen then listeners = listeners .. ", " .. options.listen(ports) end
    gw = gateway.start(config, { workers = options.workers, plugins = options.plugins,
      env = { SLUICE_STREAM_LISTEN = listeners, SLUICE_TRUSTED_IPS = options.trusted,
        SLUICE_LIMITS_CLIENT_HEADER_TIMEOUT = options.header_timeout,
        SLUICE_LIMITS_DRAIN_TIMEOUT = options.drain_timeout } })
    return config
  end

  -- One service behind one TCP route.
  local function to_service(fields)
    service = listen()
    local one = { name = "s", host = "127.0.0.1", port = service.port, protocol = "tcp" }
    for key, value in pairs(fields or {}) do one[key] = value end
    return function(at)
      return { services = { one }, routes = {
        { name = "plain", service = "s", protocols = { "tcp" },
          destinations = { { port = at.tcp }, { port = at.extra } } },
        { name = "secure", service = "s", protocols = { "tls" }, snis = { "t.test" } },
      } }
    end
  end

  local function connect(options)
    return assert(net.connect("127.0.0.1", options and options.tls and ports.tls or ports.tcp, options))
  end

  local function stop()
    gw:stop()
    if service then service.close() end
    service = nil
  end

  describe("over TCP", function()
    setup(function() start(to_service()) end)
    teardown(stop)

    it("pass in both directions, whoever speaks first", function()
      local client = connect()
      local there = service.accept()
      there:send("welcome")
      assert.equal("welcome", client:receive_exact(7))
      client:send("hello")
      assert.equal("hello", there:receive_exact(5))
      client:close()
      assert.same({ nil, "closed" }, { there:receive_some() })
      there:close()
    end)

    it("end in one direction and go on in the other", function()
      local client = connect()
      local there = service.accept()
      client:send("question")
      client:finish()
      assert.equal("question", there:receive_all())
      there:send("answer")
      there:close()
      assert.equal("answer", client:receive_all())
      client:close()

      client = connect()
      there = service.accept()
      there:send("all I have to say")
      there:finish()
      assert.equal("all I have to say", client:receive_all())
      client:send("and I go on")
      assert.equal("and I go on", there:receive_exact(11))
      client:close()
      assert.same({ nil, "closed" }, { there:receive_some() })
      there:close()
    end)

    it("break where the service breaks them off", function()
      local client = connect()
      local there = service.accept()
      there:send("half of")
      assert.equal("half of", client:receive_exact(7))
      there:reset()
      assert.same({ nil, "reset" }, { client:receive_some() })
      client:close()

      client = connect()
      there = service.accept()
      there:finish()
      assert.same({ nil, "closed" }, { client:receive_some() })
      client:send("more")
      assert.equal("more", there:receive_exact(4))
      there:reset()
      process.wait_until(function() return not client:send("x") end, 5, "the end of the client's direction, too")
      client:close()
    end)

    it("break off for the service where the client does", function()
      local client = connect()
      local there = service.accept()
      client:send("x")
      assert.equal("x", there:receive_exact(1))
      client:reset()
      assert.is_true(there:closes_within(5))
      there:close()
    end)

    it("pass 300 MB each way in constant memory", function()
      local SIZE, MOST_KB, worker = 300000000, 8192, gw:workers()[1]
      local client = connect()
      local there = service.accept()
      pour(client, there, 1000000, worker)
      local before = resident_kilobytes(worker)
      local up = pour(client, there, SIZE, worker)
      local down = pour(there, client, SIZE, worker)
      assert.is_true(math.max(up, down) - before < MOST_KB * process.slowness)
      client:close()
      there:close()
    end)

    it("hold back who sends more than the other side takes", function()
      local worker = gw:workers()[1]
      local before = resident_kilobytes(worker)
      local client = connect()
      local there = service.accept()
      local piece, sent = ("x"):rep(1000000), 0
      client.timeout = 0.5
      repeat
        local ok, _, part = client:send(piece)
        sent = sent + (ok and #piece or part)
      until not ok
      assert.is_true(sent < 40000000)
      assert.is_true(resident_kilobytes(worker) - before < 4096 * process.slowness)
      client:finish()
      assert.equal(sent, #there:receive_all())
      client:close()
      there:close()
    end)

    it("show in the status and the metrics", function()
      local client = connect()
      local there = service.accept()
      client:send("12345")
      there:receive_exact(5)
      local status, screen = gw:command("status")
      assert.equal(0, status)
      assert.matches("stream +127.0.0.1:" .. ports.tcp, screen)
      assert.matches("STREAMS", screen, 1, true)
      local _, json = gw:command("status", "--json")
      local worker = cjson.decode(json).workers[1]
      assert.same({ true, true }, { worker.streams_open >= 1, worker.streams >= worker.streams_open })
      local function metrics() return http.get(gw.status_port, "/metrics").body end
      process.wait_until(function()
        return metrics():find('subsystem="stream",state="active"} [1-9]')
      end, 5, "an open stream in the metrics")
      assert.is_truthy(metrics():find('sluice_stream_bytes_total{[^}]*direction="ingress"} %d'))
      client:close()
      there:close()
    end)
  end)

  describe("over TLS that the gateway ends", function()
    setup(function() start(to_service()) end)
    teardown(stop)

    it("are plain to the service, with half-closes told by close_notify", function()
      local client = connect({ tls = { name = "t.test", ca = authority.certificate } })
      assert.equal("/CN=t.test", tls.info(client).peer)
      local there = service.accept()
      client:send("question")
      client:finish()
      assert.equal("question", there:receive_all())
      there:send("answer")
      there:close()
      assert.equal("answer", client:receive_all())
      client:close()
    end)

    it("bring all that a client sent that left without a word", function()
      local client = connect({ tls = { name = "t.test" } })
      local there = service.accept()
      client:send(("x"):rep(100000))
      posix.C.sys_shutdown(client.fd, 1)
      assert.equal(100000, #there:receive_all())
      there:close()
      client:close()
    end)

    it("refuse what is no TLS", function()
      local client = assert(net.connect("127.0.0.1", ports.tls))
      client:send("GET / HTTP/1.1\r\n\r\n")
      assert.is_true(client:closes_within(5))
      assert.is_nil(service.accept(0))
      client:close()
    end)
  end)

  describe("by server name", function()
    local secure

    setup(function()
      secure = upstream.start(nil, { tls = { certificate = made.service.certificate, key = made.service.key } })
      service = listen()
      start(function()
        return { services = { { name = "through", host = "127.0.0.1", port = secure.port, protocol = "tcp" },
          { name = "ended", host = "127.0.0.1", port = service.port, protocol = "tcp" } },
          routes = { { name = "through", service = "through", protocols = { "tls_passthrough" }, snis = { "p.test" } },
            { name = "ended", service = "ended", protocols = { "tls" }, snis = { "*.test" } } } }
      end)
    end)
    teardown(function()
      stop()
      secure:stop()
    end)

    local function subject(name)
      local client = connect({ tls = { name = name } })
      local peer = tls.info(client).peer
      return peer, client
    end

    it("pass through untouched, or end here", function()
      local peer, client = subject "P.test"
      assert.equal("/CN=p.test", peer)
      client:send("GET /status/418 HTTP/1.1\r\nHost: p.test\r\nConnection: close\r\n\r\n")
      assert.matches("^HTTP/1.1 418", client:receive_all())
      client:close()
      peer, client = subject "t.test"
      assert.equal("/CN=t.test", peer)
      service.accept():close()
      client:close()
    end)

    it("are closed where no route has the name", function()
      local _, client = subject "t.other"
      assert.is_true(client:closes_within(5))
      client:close()
      gw:wait_log("notice.*generation") -- it lives
    end)

    it("are read from a greeting in small pieces, with others served meanwhile", function()
      local slow = assert(net.connect("127.0.0.1", ports.tls))
      local name = "p.test"
      local extension = "\0\0\0\11\0\9\0\0\6" .. name
      local body = "\3\3" .. ("r"):rep(32) .. "\0\0\2\19\1\1\0\0\15" .. extension
      local hello = "\22\3\1\0" .. string.char(#body + 4) .. "\1\0\0" .. string.char(#body) .. body
      for at = 1, #hello - 1 do
        slow:send(hello:sub(at, at))
        if at % 20 == 0 then subject "p.test" end
      end
      local worker = gw:workers()[1]
      local function ticks()
        local user, system = process.read_file("/proc/" .. worker .. "/stat"):match(
          "^%d+ %b() %S+" .. (" %S+"):rep(10) .. " (%d+) (%d+)")
        return user + system
      end
      local before = ticks()
      posix.pause(0.2)
      assert.is_true(ticks() - before <= 5, "the rest of the greeting is waited for asleep")
      slow:send(hello:sub(-1))
      local answer = slow:receive_exact(1) -- of the service: an alert, for that greeting asks for nothing real
      assert.equal("\21", answer)
      slow:close()
    end)

  end)

  it("are given up when the greeting does not come", function()
    start(to_service(), { header_timeout = "300" })
    local client = connect()
    service.accept():close() -- one that needs no greeting
    client:close()
    client = assert(net.connect("127.0.0.1", ports.tls))
    client:send("\22\3\1\1\0")
    assert.is_true(client:closes_within(5 * process.slowness))
    client:close()
    stop()
  end)

  it("go on in TLS to a service with protocol tls, which is verified as for https", function()
    local secure = upstream.start(nil, { tls = { certificate = made.service.certificate, key = made.service.key } })
    start(function(at)
      local function one(name, port, fields)
        local whole = { name = name, host = "127.0.0.1", port = secure.port, protocol = "tls", retries = 0,
          routes = { { protocols = { "tcp" }, destinations = { { port = port } } } } }
        for key, value in pairs(fields) do whole[key] = value end
        return whole
      end
      return { services = { one("known", at.tcp, { tls_verify = true, ca_certificates = { CA } }),
        one("strange", at.extra, { tls_verify = true }) } }
    end, { listen = function(at) return "127.0.0.1:" .. at.extra end })
    local client = connect()
    client:send("GET /status/418 HTTP/1.1\r\nHost: p.test\r\nConnection: close\r\n\r\n")
    assert.matches("^HTTP/1.1 418", client:receive_all())
    client:close()
    client = assert(net.connect("127.0.0.1", ports.extra))
    assert.is_true(client:closes_within(5))
    gw:wait_log("certificate verify failed")
    client:close()
    stop()
    secure:stop()
  end)

  it("carry other protocols, such as Redis'", function()
    local server = redis.start()
    start(function(at)
      return { services = { { name = "redis", url = "tcp://127.0.0.1:" .. server.port, routes = {
        { protocols = { "tcp" }, destinations = { { port = at.tcp } } } } } } }
    end)
    local client = connect()
    client:send("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n5\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n")
    assert.equal("+OK\r\n$1\r\n5\r\n", client:receive_exact(12))
    assert.equal("5", server:command("GET", "a"))
    client:close()
    stop()
    server:stop()
  end)

  describe("that cannot be carried", function()
    it("are tried with the other targets of the upstream", function()
      service = listen()
      start(function(at)
        return { upstreams = { { name = "u", targets = { { target = "127.0.0.1:" .. process.free_port() },
          { target = "127.0.0.1:" .. service.port } } } },
          services = { { name = "s", host = "u", protocol = "tcp", routes = {
            { protocols = { "tcp" }, destinations = { { port = at.tcp } } } } } } }
      end)
      for _ = 1, 4 do
        local client = connect()
        local there = service.accept()
        there:send("here")
        assert.equal("here", client:receive_exact(4))
        client:close()
        there:close()
      end
      stop()
    end)

    it("are closed when nobody is there, and the next one is served when somebody is", function()
      start(to_service({ retries = 1 }))
      local port = service.port
      service.close()
      local client = connect()
      assert.is_true(client:closes_within(5))
      client:close()
      gw:wait_log("a try failed.*Connection refused")
      local fd = posix.listen("127.0.0.1", port)
      client = connect()
      assert.is_truthy(net.wait(fd, posix.POLLIN, posix.now() + 5))
      client:close()
      posix.C.sys_close_fd(fd)
      service = nil
      stop()
    end)

    it("are closed after read_timeout of silence", function()
      start(to_service({ read_timeout = 1500 }))
      local client = connect()
      local there = service.accept()
      for _ = 1, 6 do -- bytes in one direction keep both alive
        posix.pause(0.3)
        client:send("x")
        assert.equal("x", there:receive_exact(1))
      end
      assert.is_true(client:closes_within(5))
      assert.is_true(there:closes_within(5))
      client:close()
      there:close()
      stop()
    end)
  end)

  it("stand in the access log", function()
    for _, format in ipairs { "text", "json" } do
      local whole = to_service()
      start(function(at)
        local config = whole(at)
        config.gateway = { access_log = { path = "access.log", format = format } }
        return config
      end)
      local client = connect({ tls = { name = "t.test" } })
      local there = service.accept()
      there:send("abc")
      client:receive_exact(3)
      client:close()
      there:close()
      local line = process.wait_until(function()
        local file = io.open(gw.directory .. "/access.log")
        local text = file and file:read("*l")
        if file then file:close() end
        return text
      end, 5, "a line")
      if format == "text" then
        assert.matches('^127.0.0.1 %- %- %[.-%] "tls t.test:' .. ports.tls .. '" 200 3 "%-" "%-" ', line)
        assert.matches("127.0.0.1:" .. service.port .. " %x+$", line)
      else
        local record = cjson.decode(line)
        assert.same({ "tls", "t.test", ports.tls, 200, "s" },
          { record.scheme, record.sni, record.port, record.status, record.service })
      end
      stop()
    end
  end)

  describe("and plugins", function()
    local PLUGIN = [[
      local log, sleep = require "sluice.log", require "sluice.sleep"
      local note = { version = "1", priority = 10 }
      function note.preread(conf, exchange)
        local client = exchange.client
        local ok, err = pcall(exchange.request.get_method, exchange.request)
        log.notice("preread", { ip = client:get_ip(), port = client:get_port(), protocol = client:get_protocol(),
          route = exchange.router:get_route().name, service = (exchange.router:get_service() or {}).name,
          sni = client.tls:get_server_name(), refused = err })
        if conf.wait then sleep(0.05) end
        if conf.to then exchange.service:set_target("127.0.0.1", conf.to) end
        if conf.exit then exchange.response:exit(conf.exit, conf.body) end
        exchange.ctx.seen = true
      end
      function note.balancer(conf, exchange)
        log.notice("balancer", { seen = exchange.ctx.seen })
      end
      function note.log(conf, exchange)
        local ok, err = pcall(exchange.response.get_header, exchange.response, "a")
        local record = exchange:serialize()
        log.notice("record", { session = require("sluice.json").encode(record.session), service = record.service and
          record.service.name, tries = record.tries and #record.tries or 0, refused = err })
      end
      return note]]
    local SCHEMA = [[return { wait = { type = "boolean" }, to = { type = "integer" }, exit = { type = "integer" },
      body = { type = "string" } }]]

    local function with(conf)
      local whole = to_service()
      start(function(at)
        local config = whole(at)
        config.plugins = { { name = "note", config = conf, route = "plain" },
          { name = "note", config = conf, service = "s", protocols = { "tls" } } }
        return config
      end, { plugins = { note = { ["handler.lua"] = PLUGIN, ["schema.lua"] = SCHEMA } } })
    end

    local function record()
      return cjson.decode((gw:wait_log("record"):match('session="(.-[^\\])"'):gsub("\\(.)", "%1")))
    end

    it("see a stream in preread, balancer and log, and may wait", function()
      with({ wait = true })
      local client = connect()
      local there = service.accept()
      client:send("12345")
      assert.equal("12345", there:receive_exact(5))
      there:send("123")
      there:close()
      assert.equal("123", client:receive_all())
      client:close()
      local line = gw:wait_log("notice worker 1: preread")
      assert.matches("ip=127.0.0.1", line, 1, true)
      assert.matches("protocol=tcp", line, 1, true)
      assert.matches("route=plain", line, 1, true)
      assert.matches("service=s", line, 1, true)
      assert.matches("request:get_method cannot be called in phase preread; it can in rewrite", line, 1, true)
      assert.matches("seen=true", gw:wait_log("notice worker 1: balancer"), 1, true)
      assert.matches("get_header cannot be called in phase log %(stream%)", gw:wait_log("record"))
      local session = record()
      assert.same({ 200, 5, 3, "tcp", ports.tcp },
        { session.status, session.received, session.sent, session.protocol, session.server_port })
      stop()
    end)

    it("are told the server name and the cipher of TLS", function()
      with({})
      local client = connect({ tls = { name = "t.test" } })
      service.accept():close()
      client:close()
      assert.matches("sni=t.test", gw:wait_log("notice worker 1: preread"), 1, true)
      local session = record()
      assert.equal("tls", session.protocol)
      assert.equal("TLSv1.3", session.tls.version)
      stop()
    end)

    it("close a stream, with a last word or without", function()
      with({ exit = 200, body = "closed today\n" })
      local client = connect()
      client:send("anybody there?")
      assert.equal("closed today\n", client:receive_all())
      client:close()
      assert.equal(200, record().status)
      assert.is_nil(service.accept(0))
      stop()
      with({ exit = 403, body = "this is for the log" })
      client = connect()
      assert.equal("", client:receive_all())
      client:close()
      local session = record()
      assert.same({ 403, "this is for the log" }, { session.status, session.error })
      assert.is_nil(service.accept(0))
      stop()
    end)

    it("send a stream elsewhere", function()
      local other = listen()
      with({ to = other.port })
      local client = connect()
      other.accept():close()
      client:close()
      stop()
      other.close()
    end)

    it("that have nothing to do with streams are refused on their routes", function()
      local whole = to_service()
      start(whole)
      local config = whole(ports)
      config.plugins = { { name = "correlation-id", route = "plain" } }
      gw:write_config(config)
      gw:wait_log("expected a plugin with phase preread, balancer or log %(for protocols tcp%), found correlation%-id")
      stop()
    end)

    it("that fail close the stream, and are named in the log", function()
      local whole = to_service()
      start(function(at)
        local config = whole(at)
        config.plugins = { { name = "broken", route = "plain" } }
        return config
      end, { plugins = { broken = [[
        return { version = "1", priority = 1, preread = function() error("oops") end }]] } })
      local client = connect()
      assert.is_true(client:closes_within(5))
      client:close()
      gw:wait_log("plugin failed.*broken.*preread.*oops")
      assert.is_nil(service.accept(0))
      stop()
    end)
  end)

  describe("and the PROXY protocol", function()
    local function number16(value)
      return string.char(math.floor(value / 256), value % 256)
    end

    local V2 = "\r\n\r\n\0\r\nQUIT\n\33\17\0\12" .. "\192\0\2\7" .. "\192\0\2\8" .. number16(1234) .. number16(443)

    local function begin(flags, options)
      options = options or {}
      options.listen = function(at) return ("127.0.0.1:%d proxy_protocol%s"):format(at.extra, flags) end
      start(to_service(options.service), options)
    end

    local function ask()
      return assert(net.connect("127.0.0.1", ports.extra))
    end

    it("tell services of the client in version 1 and 2", function()
      start(to_service({ proxy_protocol = "v1" }))
      local client = connect()
      client:send("hello")
      local there = service.accept()
      assert.matches("^PROXY TCP4 127.0.0.1 127.0.0.1 %d+ " .. ports.tcp .. "\r\n$", there:receive_until("\n"))
      assert.equal("hello", there:receive_exact(5))
      client:close()
      there:close()
      stop()
      start(to_service({ proxy_protocol = "v2" }))
      client = connect()
      there = service.accept()
      assert.equal("\r\n\r\n\0\r\nQUIT\n\33\17\0\12\127\0\0\1\127\0\0\1", there:receive_exact(24))
      assert.equal(number16(ports.tcp), there:receive_exact(4):sub(3))
      client:close()
      there:close()
      stop()
    end)

    it("are told of the client by a trusted proxy, and tell on", function()
      begin("", { trusted = "127.0.0.0/8", service = { proxy_protocol = "v1" } })
      for _, header in ipairs { "PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n", V2 } do
        local client = ask()
        for at = 1, #header do client:send(header:sub(at, at)) end
        client:send("data")
        local there = service.accept()
        assert.equal("PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n", there:receive_until("\n"))
        assert.equal("data", there:receive_exact(4))
        client:close()
        there:close()
      end
      local client = ask()
      client:send("PROXY UNKNOWN\r\n")
      local there = service.accept()
      assert.matches("^PROXY TCP4 127.0.0.1 127.0.0.1 ", there:receive_until("\n"))
      client:close()
      there:close()
      stop()
    end)

    it("believe nobody else, and take nothing without a header", function()
      begin("", { service = { proxy_protocol = "v1" }, header_timeout = "1000" })
      local client = ask()
      client:send("PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n")
      local there = service.accept()
      assert.matches("^PROXY TCP4 127.0.0.1 127.0.0.1 ", there:receive_until("\n"))
      client:close()
      there:close()
      for _, wrong in ipairs { "GET / HTTP/1.1\r\n\r\n", "PROXY TCP4 nobody\r\n", "\r\n\r\n\0\r\nQUIT\n\17",
        "PROXY " } do
        client = ask()
        client:send(wrong)
        assert.is_true(client:closes_within(5))
        client:close()
      end
      assert.is_nil(service.accept(0))
      stop()
    end)

    it("stand before TLS", function()
      begin(" ssl", { trusted = "127.0.0.1", service = { proxy_protocol = "v1" } })
      local client = ask()
      client:send("PROXY TCP4 192.0.2.7 192.0.2.8 1234 443\r\n")
      assert(client:start_tls({ name = "t.test", ca = authority.certificate }))
      local there = service.accept()
      assert.matches("^PROXY TCP4 192.0.2.7 ", there:receive_until("\n"))
      client:send("inside")
      assert.equal("inside", there:receive_exact(6))
      client:close()
      there:close()
      stop()
    end)

    it("stand before HTTP as well", function()
      local up, plain, secure = upstream.start(), process.free_port(), process.free_port()
      gw = gateway.start({ _format_version = "3.0", services = { { url = up:url(),
        routes = { { paths = { "/" } } } } } }, { env = { SLUICE_TRUSTED_IPS = "127.0.0.1",
          SLUICE_PROXY_LISTEN = ("127.0.0.1:%d proxy_protocol, 127.0.0.1:%d ssl proxy_protocol"):format(plain,
            secure) } })
      local client = assert(http.connect(plain))
      client:send("PROXY TCP6 2001:db8::7 2001:db8::8 1234 443\r\n")
      for _ = 1, 2 do -- of the connection, not of one request
        local answer = client:request({ path = "/", headers = { ["X-Forwarded-For"] = "9.9.9.9" } })
        local headers = cjson.decode(answer.body).headers
        assert.equal("2001:db8::7", headers["x-real-ip"])
        assert.equal("9.9.9.9, 2001:db8::7", headers["x-forwarded-for"])
      end
      client:close()
      client = assert(http.connect(secure))
      client:send(V2)
      assert(client.socket:start_tls({}))
      assert.equal("192.0.2.7", cjson.decode(client:request({ path = "/" }).body).headers["x-real-ip"])
      client:close()
      client = assert(http.connect(plain))
      client:send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      assert.is_true(client.socket:closes_within(5))
      client:close()
      gw:stop()
      up:stop()
    end)
  end)

  describe("over a change", function()
    it("go on through a reload, and the next one follows it", function()
      local config = start(to_service())
      local client = connect()
      local there = service.accept()
      local other = listen()
      config.services[1].port = other.port
      gw:write_config(config)
      gw:wait_log("generation is live.*revision=2")
      client:send("still")
      assert.equal("still", there:receive_exact(5))
      local second = connect()
      local elsewhere = other.accept()
      assert.is_truthy(elsewhere)
      config.services, config.routes = nil, nil
      gw:write_config(config)
      gw:wait_log("generation is live.*revision=3")
      there:send("here")
      assert.equal("here", client:receive_exact(4))
      local third = connect()
      assert.is_true(third:closes_within(5))
      for _, socket in ipairs { client, there, second, elsewhere, third } do socket:close() end
      stop()
      other.close()
    end)

    it("go on where WebSockets are cut", function()
      local config = start(to_service())
      config.gateway = { websocket = { on_reload = "cut" } }
      gw:write_config(config)
      gw:wait_log("generation is live.*revision=2")
      local client = connect()
      local there = service.accept()
      config.routes[1].name = "renamed"
      gw:write_config(config)
      gw:wait_log("generation is live.*revision=3")
      local again = connect()
      local other = service.accept()
      again:close()
      other:close()
      client:send("still")
      assert.equal("still", there:receive_exact(5))
      client:close()
      there:close()
      stop()
    end)

    it("hold up the end of the gateway until they end, or until its limit", function()
      start(to_service())
      local client = connect()
      local there = service.accept()
      gw.process:signal(15)
      gw:wait_log("draining")
      client:send("last words")
      assert.equal("last words", there:receive_exact(10))
      client:close()
      there:close()
      assert.is_truthy(gw.process:wait(10))
      stop()

      start(to_service(), { drain_timeout = "300" })
      client = connect()
      there = service.accept()
      gw.process:signal(15)
      assert.is_true(client:closes_within(10))
      assert.is_truthy(gw.process:wait(10))
      client:close()
      there:close()
      stop()
    end)

    it("go on through an upgrade, and the new process has the listener", function()
      start(to_service())
      local client = connect()
      local there = service.accept()
      local upgrade = process.start({ gateway.binary, "upgrade", "-c", gw.config_path },
        { env = gw.env, cwd = gw.directory })
      gw:wait_log("draining reason=\"a new process")
      local second = connect()
      local elsewhere = service.accept()
      elsewhere:send("new")
      assert.equal("new", second:receive_exact(3))
      client:send("old")
      assert.equal("old", there:receive_exact(3))
      client:close()
      there:close()
      assert.equal(0, gw.process:wait(10))
      assert.equal(0, upgrade:wait(10))
      upgrade:forget()
      second:close()
      elsewhere:close()
      local _, json = gw:command("status", "--json")
      local new = cjson.decode(json).pid
      posix.kill(new, posix.SIGTERM)
      process.wait_until(function() return not net.connect("127.0.0.1", gw.status_port) end, 10, "the new one's end")
      stop()
    end)

    it("of the worker: those of one that dies break, and the next are served", function()
      start(to_service())
      local client = connect()
      local there = service.accept()
      posix.kill(gw:workers()[1], 9)
      assert.is_true(client:closes_within(5))
      client:close()
      there:close()
      process.wait_until(function()
        local again = net.connect("127.0.0.1", ports.tcp)
        local served = again and service.accept(1)
        if again then again:close() end
        if served then served:close() end
        return served
      end, 10, "a stream through the new worker")
      gw.process:stop(10)
      gw.process:forget()
      service.close()
      service = nil
    end)
  end)
end)

