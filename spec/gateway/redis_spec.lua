-- SPDX-License-Identifier: Apache-2.0
-- `sluice.redis` against the real server: TLS, Sentinel, a cluster; and against peers that are none.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local redis = require "spec.support.redis"
local tls = require "spec.support.tls"

local RUN = [[
local sluice = require "sluice"
local run = { version = "1.0.0", priority = 10 }

function run.access(conf, exchange)
  local fn = assert(load("local redis, sluice = ...; " .. exchange.request:get_raw_body(), "=code"))
  exchange.response:exit(200, { fn(sluice.redis, sluice) })
end

return run
]]

describe("sluice.redis", function()
  local gw, directory

  setup(function()
    directory = posix.temporary_directory()
    local authority = tls.make_certificate(directory, { name = "authority.example" })
    local made = tls.make_certificate(directory, { name = "redis.example", ca = authority, names = { "127.0.0.1" } })
    gw = gateway.start({ _format_version = "3.0", routes = { { name = "all", paths = { "/" } } },
      plugins = { { name = "run" } } }, { plugins = { run = RUN } })
    gw.authority, gw.made = authority, made
  end)

  teardown(function()
    gw:stop()
    process.remove(directory)
  end)

  local function results(response)
    if response.status ~= 200 then error(response.body .. gw:log(), 3) end
    return unpack(cjson.decode(response.body))
  end

  local function run(text, ...)
    return results(gw:request { method = "POST", body = text:format(...) })
  end

  -- A request that is under way; `finish(it)` gives its results.
  local function begin(text, ...)
    local client = gw:connect()
    local body = text:format(...)
    client:send(("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
    return client
  end

  local function finish(client)
    local response = assert(client:read_response())
    client:close()
    return results(response)
  end

  describe("over TLS", function()
    local server

    setup(function() server = redis.start { tls = gw.made, password = "sesame" } end)
    teardown(function() server:stop() end)

    local function ping(options)
      return run([[local client, err = redis.connect { host = "127.0.0.1", port = %d, password = "sesame",
          tls = { %s } }
        if not client then return err end
        return client:ping()]], server.port, options)
    end

    local function with_authority(options)
      return ("ca = %q, %s"):format(gw.authority.certificate_pem, options)
    end

    it("verifies the certificate and its name", function()
      assert.equal("PONG", ping(with_authority 'name = "redis.example"'))
      assert.equal("PONG", ping(with_authority ""))
      assert.matches("certificate", ping(with_authority 'name = "other.example"'))
      assert.matches("certificate", ping 'name = "redis.example"')
    end)

    it("does not when it is told not to", function()
      assert.equal("PONG", ping 'verify = false, name = "other.example"')
    end)
  end)

  it("speaks as a user of its own", function()
    local server = redis.start()
    server:command("ACL", "SETUSER", "alice", "on", ">sesame", "+get", "+ping", "~a*")
    local code = [[local client, err = redis.connect { port = %d, username = "alice", password = %q }
      if not client then return err end
      return client:ping(), select(2, client:set("a", 1))]]
    assert.same({ "PONG", "NOPERM this user has no permissions to run the 'set' command" },
      { run(code, server.port, "sesame") })
    assert.matches("^WRONGPASS", (run(code, server.port, "wrong")))
    server:stop()
  end)

  describe("within a deadline", function()
    local fd, port

    before_each(function() fd, port = posix.listen("127.0.0.1", process.free_port()) end)
    after_each(function() posix.C.sys_close_fd(fd) end)

    local function accept()
      assert(net.wait(fd, posix.POLLIN, posix.now() + 5))
      return net.wrap(posix.accept(fd))
    end

    local ASK = [[local from = sluice.time.monotonic()
      local value, err = redis.use({ port = %d, timeout = 60, deadline = %g }, function(c) return c:get("a") end)
      return err or value, sluice.time.monotonic() - from < 30]]

    it("gives up on a server that takes connections and never answers", function()
      assert.same({ "timeout", true }, { run(ASK, port, 0.3) })
    end)

    it("gives up on one that answers a byte at a time", function()
      local client = begin(ASK, port, 0.3)
      local there = accept()
      there:send("$99999\r\n")
      while not net.wait(client.socket.fd, posix.POLLIN, posix.now() + 0.05) do there:send("x\r") end
      assert.same({ "timeout", true }, { finish(client) })
      there:close()
    end)

    local function answered(bytes)
      local client = begin(ASK, port, 60)
      local there = accept()
      there:send(bytes)
      there:close()
      return (finish(client))
    end

    it("tells of what is no Redis", function()
      assert.equal("a reply of no known kind", answered("HTTP/1.1 400 Bad Request\r\n\r\n"))
      assert.equal("an invalid length", answered("$99999999999\r\n"))
      assert.equal("an invalid count", answered("*-7\r\n"))
      assert.equal("closed", answered("$5\r\nab"))
      assert.equal("closed", answered(""))
      assert.equal("a reply nested too deeply", answered(("*1\r\n"):rep(40)))
    end)

    it("does not give a connection to the next that was given up", function()
      local client = begin(ASK, port, 0.2)
      local first = accept()
      assert.equal("timeout", (finish(client)))
      first:send("$4\r\nlate\r\n")
      client = begin(ASK, port, 60)
      local second = accept()
      second:send("$4\r\ngood\r\n")
      assert.equal("good", (finish(client)))
      first:close()
      second:close()
    end)
  end)

  describe("with few connections", function()
    local server

    before_each(function() server = redis.start() end)
    after_each(function() server:stop() end)

    local CODE = [[local done, err = redis.use({ port = %d, max_connections = 2, backlog = %d, deadline = %g },
      function(client) client:call("INCR", "in"); sluice.sleep(%g); return (client:call("INCR", "out")) end)
      return done or err]]

    it("has the others wait for one", function()
      local clients, done = {}, 0
      for i = 1, 6 do clients[i] = begin(CODE, server.port, 10, 10, 0.02) end
      for _, client in ipairs(clients) do done = math.max(done, (finish(client))) end
      assert.equal(6, done)
      process.wait_until(function() -- with the one that asks; those that asked before may yet have to end
        return server:command("INFO", "clients"):match("connected_clients:(%d+)") == "3"
      end, 5, "two connections that are kept")
    end)

    it("tells whoever finds too many waiting, and whoever waited too long", function()
      local long = {}
      for i = 1, 2 do
        long[i] = begin([[redis.use({ port = %d, max_connections = 2 }, function(client)
          client:call("INCR", "in")
          repeat sluice.sleep(0.02) until client:call("GET", "go") == "1"
        end)]], server.port)
      end
      process.wait_until(function() return server:command("GET", "in") == "2" end, 5, "both at work")
      assert.matches("cannot connect to redis at 127.0.0.1:%d+: too many wait for a connection",
        run(CODE, server.port, 0, 5, 0))
      assert.matches("cannot connect to redis at 127.0.0.1:%d+: timeout %(all connections are in use%)",
        run(CODE, server.port, 10, 0.05, 0))
      server:command("SET", "go", 1)
      for _, client in ipairs(long) do finish(client) end
      assert.is_number((run(CODE, server.port, 1, 5, 0)))
    end)

    it("counts no longer those that failed or were forgotten", function()
      local options = ("{ port = %d, max_connections = 1, deadline = 5 }"):format(server.port)
      for _ = 1, 3 do
        run("return pcall(redis.use, %s, function() error('no') end)", options)
      end
      run("local client = redis.connect(%s); client = nil; return 1", options)
      process.wait_until(function()
        -- What is kept is made: tables that nobody uses the compiler leaves out, and the collector rests.
        return run("local t = {} for i = 1, 1e5 do t[i] = { i } end "
          .. "return (redis.use(%s, function(c) return c:ping() end))",
          options:gsub("deadline = 5", "deadline = 0.5")) == "PONG"
      end, 20, "a connection")
    end)
  end)

  it("runs a script that the server has forgotten", function()
    local server = redis.start()
    local code = ([[return redis.eval({ port = %d }, "return { KEYS[1], ARGV[1] }", { "k" }, { 7 })]])
      :format(server.port)
    assert.same({ "k", "7" }, (run("%s", code)))
    server:command("SCRIPT", "FLUSH")
    assert.same({ "k", "7" }, (run("%s", code)))
    server:stop()
  end)

  describe("with Sentinels", function()
    local servers, sentinel, port_of

    local function replicate(one, of)
      one:command("REPLICAOF", "127.0.0.1", of.port)
    end

    before_each(function()
      servers = { redis.start { arguments = { "--repl-diskless-sync-delay", 0 } }, redis.start() }
      replicate(servers[2], servers[1])
      -- Sentinels ask for replicas when they start, and then every ten seconds.
      process.wait_until(function()
        return servers[1]:command("INFO", "replication"):find("state=online", 1, true)
      end, 10, "a replica")
      local file = directory .. "/sentinel.conf"
      port_of = process.free_port()
      -- A second and a half: not so soon that a server is taken for dead because the machine is busy.
      process.write_file(file, ("port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor main 127.0.0.1 %d 1\n"
        .. "sentinel down-after-milliseconds main 1500\nsentinel failover-timeout main 500\n"):format(port_of,
        directory, servers[1].port))
      sentinel = process.start { "redis-server", file, "--sentinel" }
    end)

    after_each(function()
      sentinel:stop()
      sentinel:forget()
      for _, server in ipairs(servers) do server:stop() end
    end)

    it("asks the server that they name, and another when they name another", function()
      local options = ("{ deadline = 2, sentinel = { master = 'main', nodes = { { host = '127.0.0.1', port = 1 }, "
        .. "{ host = '127.0.0.1', port = %d } } } }"):format(port_of)
      local code = "return redis.eval(" .. options .. ", \"return redis.call('INCR', KEYS[1])\", { 'n' })"
      process.wait_until(function() return run("%s", code) == 1 end, 5, "the first")
      assert.equal("1", servers[1]:command("GET", "n"))
      process.wait_until(function() return servers[2]:command("GET", "n") == "1" end, 5, "its replica")
      servers[1]:hang()
      process.wait_until(function() return run("%s", code) == 2 end, 15, "the second")
      assert.equal("2", servers[2]:command("GET", "n"))
    end)

    it("tells when they know no such server", function()
      process.wait_until(function()
        local err = run("return select(2, redis.connect { sentinel = { master = 'other', nodes = { "
          .. "{ host = '127.0.0.1', port = %d } } } })", port_of)
        return err == "the sentinels know no master other"
      end, 5, "their answer")
    end)
  end)

  describe("with a cluster", function()
    local servers

    local function half(i) return i == 1 and { 0, 8191 } or { 8192, 16383 } end

    setup(function()
      servers = {}
      local buses = {}
      for i = 1, 2 do
        buses[i] = process.free_port() -- Redis' own choice, port + 10000, may be taken
        servers[i] = redis.start { arguments = { "--cluster-enabled", "yes", "--cluster-port", buses[i] } }
        servers[i]:command("CLUSTER", "ADDSLOTSRANGE", unpack(half(i)))
      end
      servers[1]:command("CLUSTER", "MEET", "127.0.0.1", servers[2].port, buses[2])
      for i = 1, 2 do
        process.wait_until(function()
          return (servers[i]:command("CLUSTER", "INFO") or ""):find("cluster_state:ok", 1, true)
        end, 15, "a cluster")
      end
    end)

    teardown(function()
      for _, server in ipairs(servers) do server:stop() end
    end)

    local function add(key)
      return run("return redis.eval({ cluster = { nodes = { { host = '127.0.0.1', port = %d } } } }, "
        .. "\"return redis.call('INCR', KEYS[1])\", { '%s' })", servers[1].port, key)
    end

    it("finds the node of each key", function()
      for i = 1, 20 do assert.equal(1, add("key" .. i)) end
      assert.equal(20, servers[1]:command("DBSIZE") + servers[2]:command("DBSIZE"))
      assert.is_true(servers[1]:command("DBSIZE") > 0 and servers[2]:command("DBSIZE") > 0)
    end)

    it("follows a slot that is moved", function()
      local slot = servers[1]:command("CLUSTER", "KEYSLOT", "wanderer")
      local from = slot < 8192 and 1 or 2
      local to = 3 - from
      local ids = { servers[1]:command("CLUSTER", "MYID"), servers[2]:command("CLUSTER", "MYID") }
      add "anything"
      -- On its way: what is not there yet is asked for at the other node, with ASKING.
      servers[to]:command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[from])
      servers[from]:command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to])
      assert.equal(1, add "wanderer")
      for _, one in ipairs(servers) do one:command("CLUSTER", "SETSLOT", slot, "NODE", ids[to]) end
      assert.equal(2, add "wanderer")
      assert.equal(3, add "wanderer")
    end)
  end)
end)
