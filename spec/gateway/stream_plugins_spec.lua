-- SPDX-License-Identifier: Apache-2.0
-- The plugins that work on streams, on streams.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

describe("on streams", function()
  local gw, fd, port, listener

  -- One TCP route "r" to service "s", which accepts in the kernel and says nothing.
  local function start(plugins, options)
    options = options or {}
    fd, port = posix.listen("127.0.0.1", process.free_port())
    listener = process.free_port()
    gw = gateway.start({ _format_version = "3.0", plugins = plugins,
      services = { { name = "s", host = "127.0.0.1", port = port, protocol = "tcp",
        routes = { { name = "r", protocols = { "tcp" }, destinations = { { port = listener } } } } } } },
      { workers = options.workers, env = { SLUICE_STREAM_LISTEN = "127.0.0.1:" .. listener .. (options.flags or ""),
        SLUICE_TRUSTED_IPS = "127.0.0.1" } })
  end

  local function stop()
    gw:stop()
    posix.C.sys_close_fd(fd)
  end

  local function accept(seconds)
    if not net.wait(fd, posix.POLLIN, posix.now() + (seconds or 5)) then return nil end
    return net.wrap(posix.accept(fd))
  end

  -- A stream, both ends; nil when it is refused.
  local function open(hello)
    local client = assert(net.connect("127.0.0.1", listener))
    if hello then client:send(hello) end
    local deadline = posix.now() + 5
    while posix.now() < deadline do
      local there = accept(0.02)
      if there then return client, there end
      if client:closes_within(0.02) then break end
    end
    client:close()
    return nil
  end

  local function close(client, there)
    client:close()
    assert.is_true(there:closes_within(5))
    there:close()
  end

  describe("a condition", function()
    it("keeps a plugin to those that it holds for", function()
      start({ { name = "pre-function", route = "r", config = { preread = { "exchange.response:exit(403, 'no')" } },
        when = 'net.protocol == "tcp" && route.name == "r" && net.src.ip in 192.0.2.0/24 && !(http.path ~ "")' } },
        { flags = " proxy_protocol" })
      assert.is_nil((open "PROXY TCP4 192.0.2.7 127.0.0.1 5 6\r\n"))
      close(open "PROXY TCP4 198.51.100.7 127.0.0.1 5 6\r\n")
      stop()
    end)
  end)

  describe("ip-restriction", function()
    it("lets in by address, also by what a trusted proxy tells", function()
      start({ { name = "ip-restriction", config = { allow = { "192.0.2.0/24" }, deny = { "192.0.2.66" } } },
        { name = "file-log", route = "r", config = { path = "/dev/stderr" } } }, { flags = " proxy_protocol" })
      local function from(ip) return open(("PROXY TCP4 %s 127.0.0.1 5 6\r\n"):format(ip)) end
      local client, there = from "192.0.2.7"
      assert.is_truthy(client)
      close(client, there)
      assert.is_nil((from "192.0.2.66"))
      assert.is_nil((from "198.51.100.1"))
      assert.is_nil((open "PROXY UNKNOWN\r\n"))
      local record = cjson.decode((gw:wait_log "198.51.100.1":match("{.*}")))
      assert.same({ 403, "IP address not allowed: 198.51.100.1" }, { record.session.status, record.session.error })
      stop()
    end)
  end)

  describe("connection-limiting", function()
    local function limited(config, options)
      start({ { name = "connection-limiting", config = config } }, options)
    end

    it("lets only so many be open, over all workers, and the next when one has gone", function()
      limited({ connections = 3 }, { workers = 2 })
      local streams = {}
      for i = 1, 3 do streams[i] = { open() } end
      for _ = 1, 4 do assert.is_nil((open())) end
      close(unpack(streams[1]))
      streams[1] = process.wait_until(function()
        local client, there = open()
        return client and { client, there }
      end, 5, "room for another")
      assert.is_nil((open()))
      for i = 1, 3 do close(unpack(streams[i])) end
      stop()
    end)

    it("forgets those of a worker that died", function()
      limited({ connections = 2, limit_by = "service" })
      local streams = { { open() }, { open() } }
      assert.is_nil((open()))
      posix.kill(gw:workers()[1], 9)
      for _, ends in ipairs(streams) do close(unpack(ends)) end
      local client, there
      process.wait_until(function()
        client, there = open()
        return client
      end, 10, "a stream through the new worker")
      close(client, there)
      gw.process:stop(10)
      gw.process:forget()
      posix.C.sys_close_fd(fd)
    end)

    it("lets only so many begin in a time", function()
      limited({ hour = 3, limit_by = "route" })
      local hour, refused
      repeat -- once more, should the hour change just now
        hour = os.date("!%H")
        for _ = 1, 3 do
          local client, there = open()
          if client then close(client, there) end
        end
        refused = open() == nil
      until hour == os.date("!%H")
      assert.is_true(refused)
      stop()
    end)

    it("counts each client for itself", function()
      limited({ connections = 1 }, { flags = " proxy_protocol" })
      local function from(ip) return open(("PROXY TCP4 %s 127.0.0.1 5 6\r\n"):format(ip)) end
      local client, there = from "192.0.2.7"
      assert.is_nil((from "192.0.2.7"))
      local other, elsewhere = from "192.0.2.8"
      close(client, there)
      close(other, elsewhere)
      stop()
    end)
  end)

  describe("pre-function", function()
    it("runs code in preread and log", function()
      start({ { name = "pre-function", route = "r", config = {
        preread = { "require('sluice').log.notice('before', { from = exchange.client:get_ip() })" },
        log = { "require('sluice').log.notice('after', { bytes = exchange:serialize().session.sent })" } } } })
      local client, there = open()
      there:send("abc")
      client:receive_exact(3)
      close(client, there)
      assert.matches("from=127.0.0.1", gw:wait_log("before"), 1, true)
      assert.matches("bytes=3", gw:wait_log("after"), 1, true)
      stop()
    end)
  end)

  describe("file-log", function()
    it("writes a line for each, as text as well", function()
      start({ { name = "file-log", service = "s", config = { path = "/dev/stderr", format = "text" } } })
      local client, there = open()
      there:send("abc")
      client:receive_exact(3)
      close(client, there)
      local expected = '^127.0.0.1 %- %- %[.-%] "tcp :' .. listener .. '" 200 3 "%-" "%-" %d+ s %x+$'
      assert.matches(expected, gw:wait_log('"tcp :'))
      stop()
    end)
  end)

  describe("prometheus", function()
    it("counts sessions, bytes and how long they last", function()
      start({ { name = "prometheus", protocols = { "http", "tcp" }, config = { status_code_metrics = true,
        bandwidth_metrics = true, latency_metrics = true } } })
      for _ = 1, 2 do
        local client, there = open()
        client:send("12345")
        there:receive_exact(5)
        close(client, there)
      end
      local function metrics() return http.get(gw.status_port, "/metrics").body end
      process.wait_until(function()
        return metrics():find('sluice_stream_sessions_total{service="s",route="r",code="200",[^\n]*} 2')
      end, 5, metrics)
      assert.matches('sluice_bandwidth_bytes{service="s",route="r",direction="ingress",[^\n]*} 10', metrics())
      assert.matches('sluice_session_duration_ms_count{service="s",route="r",[^\n]*} 2', metrics())
      assert.is_nil(metrics():find('sluice_http_requests_total{service="s"', 1, true))
      stop()
    end)
  end)
end)
