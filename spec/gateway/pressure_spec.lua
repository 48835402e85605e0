-- SPDX-License-Identifier: Apache-2.0
-- Clients and services that are slow, greedy or silent: what they may cost, and what they may not.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

local LARGE = [[
local large = { version = "1.0.0", priority = 10 }
local body = ("x"):rep(30000)
function large.access(_, exchange) exchange.response:exit(200, body) end
return large
]]

-- About a millisecond of CPU a request; and how many there were.
local BUSY = [[
local busy = { version = "1.0.0", priority = 10 }
local served = 0
function busy.access(_, exchange)
  if exchange.request:get_path() == "/busy/served" then exchange.response:exit(200, tostring(served)) end
  served = served + 1
  local stop = os.clock() + 0.001
  while os.clock() < stop do end
  exchange.response:exit(204)
end
return busy
]]

local CALL = [[
local sluice = require "sluice"
local call = { version = "1.0.0", priority = 10 }
local body = ("x"):rep(2e7)
function call.access(conf, exchange)
  local response, err = sluice.http.request { url = conf.url, method = "POST", body = body, timeout = 20 }
  exchange.response:exit(200, { status = response and response.status, err = err })
end
return call
]]

local CALL_SCHEMA = 'return { url = { type = "string", required = true } }'

describe("a worker that stands still", function()
  -- Busy for one or two seconds, soon after the request has gone to the service.
  local HELD_UP = [[
local sluice = require "sluice"
local function spin()
  local stop = os.time() + 2
  while os.time() < stop do end
end
return { version = "1", priority = 10, access = function() sluice.timer.at(0.2, spin) end }
]]

  local up, gw

  setup(function()
    up = upstream.start(function(_, connection)
      connection:sleep(0.3)
      connection:respond(200, {}, "in time")
    end)
    local function service(name, read_timeout, plugins)
      return { name = name, url = up:url(), read_timeout = read_timeout, retries = 0,
        routes = { { name = name, paths = { "/" .. name }, plugins = plugins } } }
    end
    gw = gateway.start({ _format_version = "3.0", gateway = { plugin_cpu_budget_ms = 20000 * process.slowness },
      services = { service("busy", 600, { { name = "held-up" } }), service("stopped", 1500) } },
      { plugins = { ["held-up"] = HELD_UP } })
  end)

  teardown(function()
    gw:stop()
    up:stop()
  end)

  it("because it is busy does not take that for the silence of a service, which has answered meanwhile", function()
    local client = gw:connect({ timeout = 30 })
    local response, why = client:request({ path = "/busy" })
    assert.equal("in time", response and response.body or why .. gw:log())
    client:close()
  end)

  it("because it is stopped does not either", function()
    local client, worker = gw:connect({ timeout = 30 }), gw:workers()[1]
    up:forget()
    client:send("GET /stopped HTTP/1.1\r\nHost: a\r\n\r\n")
    process.wait_until(function() return up:stats().requests == 1 end, 5, "the request at the service")
    process.hold(worker)
    posix.pause(1.7)
    process.go_on(worker)
    assert.equal("in time", assert(client:read_response()).body)
    client:close()
  end)
end)

describe("under pressure", function()
  local MOST_KB = 8192
  local up, rude, gw

  setup(function()
    up = upstream.start()
    rude = upstream.start(function(_, connection)
      connection:sleep(0.2)
      connection:reset()
    end)
    gw = gateway.start({
      _format_version = "3.0",
      gateway = { limits = { send_timeout = 1500, keepalive_timeout = 200, client_body_timeout = 20000 } },
      services = {
        { name = "brief", url = up:url(), read_timeout = 500,
          routes = { { name = "brief", paths = { "/brief" } } } },
        { name = "up", url = up:url(), routes = {
          { name = "up", paths = { "/" }, strip_path = false },
          { name = "large", paths = { "/large" }, plugins = { { name = "large" } } },
          { name = "call", paths = { "/call" }, plugins = { { name = "call", config = { url = rude:url() } } } },
          { name = "busy", paths = { "/busy" }, plugins = { { name = "busy" } } },
        } },
        -- An address that nobody can connect to: each try fails at once.
        { name = "nowhere", url = "http://255.255.255.255:80", retries = 10000,
          routes = { { name = "nowhere", paths = { "/nowhere" } } } },
      },
    }, { plugins = { large = LARGE, busy = BUSY, call = { ["handler.lua"] = CALL, ["schema.lua"] = CALL_SCHEMA } } })
  end)

  teardown(function()
    gw:stop()
    up:stop()
    rude:stop()
  end)

  local function resident_kilobytes()
    return tonumber(process.read_file("/proc/" .. gw:workers()[1] .. "/status"):match("VmRSS:%s*(%d+)"))
  end

  -- Seconds of CPU that the worker has used.
  local function cpu_seconds()
    local fields = process.read_file("/proc/" .. gw:workers()[1] .. "/stat"):match("%) (.*)")
    local user, system = fields:match("^%S+" .. (" %S+"):rep(10) .. " (%d+) (%d+)")
    return (tonumber(user) + tonumber(system)) / 100
  end

  local function get(path, more)
    return "GET " .. path .. " HTTP/1.1\r\nHost: a\r\n" .. (more or "") .. "\r\n"
  end

  -- A client whose kernel takes little, so that the gateway soon has to wait for it.
  local function narrow_client()
    local client = gw:connect({ timeout = 20 })
    client.socket:receive_buffer(16384)
    return client
  end

  local function bytes_on_the_way()
    local sum = 0
    for line in io.lines("/proc/net/tcp") do
      local port, remote, sent, received = line:match("^%s*%d+: %x+:(%x+) %x+:(%x+) %x+ (%x+):(%x+)")
      local ours = port and (tonumber(port, 16) == gw.port or tonumber(remote, 16) == gw.port)
      if ours then sum = sum + tonumber(sent, 16) + tonumber(received, 16) end
    end
    return sum
  end

  -- Bytes that the kernel holds on the way from the gateway to a client that does not read.
  local function kernel_bytes()
    local client, most, same = narrow_client(), 0, 0
    client:send(get("/bytes/100000000"))
    process.wait_until(function()
      local now = bytes_on_the_way()
      same = now > most and 0 or same + 1
      most = math.max(most, now)
      posix.pause(0.02)
      return most > 100000 and same >= 5
    end, 5, "full buffers")
    client:close()
    return most
  end

  it("a client that reads slowly but steadily gets all of it", function()
    local client = narrow_client()
    local size = kernel_bytes() + 1000000
    client:send(get("/bytes/" .. size))
    client:read_head()
    local have, start = 0, posix.now()
    while have < size do
      if posix.now() - start < 1 then posix.pause(0.05) end
      have = have + #assert(client.socket:receive_some())
    end
    assert.equal(size, have)
    client:close()
  end)

  it("a client that does not read at all is let go", function()
    local client = narrow_client()
    up:forget()
    client:send(get("/bytes/100000000"))
    process.wait_until(function() return bytes_on_the_way() > 100000 end, 5, "full buffers")
    process.wait_until(function() -- it has a body once the service has sent all, or heard that nobody takes it
      local entry = up:stats().log[1]
      return entry and entry.body
    end, 10, "the end for the service")
    local body, why = client.socket:receive_all()
    assert.is_true(#body < 100000000)
    assert(why == nil or why == "reset", why)
    client:close()
  end)

  it("the end of a response is not cut off by keepalive_timeout", function()
    local client = narrow_client()
    local size = kernel_bytes() + 150000
    client:send(get("/bytes/" .. size))
    posix.pause(0.3)
    assert.equal(size, #assert(client:read_response()).body)
    client:close()
  end)

  it("requests without end are answered as fast as their answers are read", function()
    local client = gw:connect()
    gw:get("/large")
    local before = resident_kilobytes()
    client:send(get("/large"):rep(1000))
    posix.pause(0.2)
    assert.is_true(resident_kilobytes() - before < MOST_KB * process.slowness)
    for _ = 1, 1000 do assert.equal(30000, #assert(client:read_response()).body) end
    client:close()
  end)

  it("requests that come at once leave others their turn", function()
    local served, all = 0, 0
    for _ = 1, 5 do -- again where this process stood still until all had been served
      local greedy = gw:connect({ timeout = 20 })
      all = all + 500
      greedy:send(get("/busy"):rep(500))
      assert.equal(204, greedy:read_response().status)
      served = tonumber(gw:get("/busy/served").body)
      for _ = 2, 500 do assert.equal(204, greedy:read_response().status) end
      greedy:close()
      if served < all then break end
    end
    assert.is_true(served < all)
  end)

  it("what comes behind the last request costs nothing", function()
    for _, path in ipairs({ "/bytes/" .. kernel_bytes() + 150000, "/" }) do
      local client = narrow_client()
      client:send(get(path, "Connection: close\r\n") .. ("x"):rep(300000))
      posix.pause(0.05)
      local before = cpu_seconds()
      posix.pause(0.3)
      assert.is_true(cpu_seconds() - before < 0.1, path)
      client:close()
    end
  end)

  it("a body in tiny chunks takes no more memory and time than another", function()
    local client = gw:connect({ timeout = 20 })
    local memory, cpu = resident_kilobytes(), cpu_seconds()
    client:send("POST /delay/0.5 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    client:send(("1\r\nx\r\n"):rep(300000) .. "0\r\n\r\n")
    posix.pause(0.3)
    assert.is_true(resident_kilobytes() - memory < MOST_KB * process.slowness)
    assert.is_true(cpu_seconds() - cpu < 0.3 * process.slowness)
    assert.equal(200, client:read_response().status)
    client:close()
  end)

  it("a plugin that sends to somebody who hangs up hears of it at once", function()
    local client = gw:connect({ timeout = 20 })
    local response = assert(client:request({ path = "/call" }))
    assert.equal(200, response.status, response.body)
    local told = cjson.decode(response.body)
    assert.is_string(told.err, response.body)
    assert.not_equal("timeout", told.err)
    client:close()
  end)

  it("tries without end leave others their turn", function()
    local early = false
    for _ = 1, 5 do -- again where this process stood still until the tries were over
      local client = gw:connect({ timeout = 20 })
      client:send(get("/nowhere"))
      assert.equal(200, gw:get("/").status)
      early = not net.wait(client.socket.fd, posix.POLLIN, posix.now())
      assert.equal(502, client:read_response().status)
      client:close()
      if early then break end
    end
    assert.is_true(early)
  end)

  describe("a tunnel", function()
    local function open(path)
      local client = narrow_client()
      local response = client:request({ path = path or "/tunnel",
        headers = { Connection = "Upgrade", Upgrade = "echo" } })
      assert.equal(101, response.status)
      return client
    end

    it("that once had to wait goes on", function()
      local client, text = open(), ("x"):rep(1000000)
      local sent = 0
      while sent < #text do -- as much as passes while nobody reads
        local ok, _, count = client.socket:send(text:sub(sent + 1), 0.1)
        sent = sent + (ok and #text - sent or count)
        if not ok then break end
      end
      assert.equal(sent, #client.socket:receive_exact(sent))
      posix.pause(2) -- longer than send_timeout
      client:send("still here")
      assert.equal("still here", client.socket:receive_exact(10))
      client:close()
    end)

    it("passes what is on its way when one side has finished", function()
      local client, text = open(), ("y"):rep(300000)
      client:send(text)
      client.socket:finish()
      assert.equal(text, client.socket:receive_all())
      client:close()
    end)

    it("in which nothing has moved for read_timeout ends", function()
      local from = posix.now()
      local client = open("/brief/tunnel")
      assert.is_true(client:closes_within(5 * process.slowness))
      assert.is_true(posix.now() - from >= 0.5)
      client:close()
    end)
  end)
end)
