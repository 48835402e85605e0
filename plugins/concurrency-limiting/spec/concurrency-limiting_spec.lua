-- SPDX-License-Identifier: Apache-2.0
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local process_gateway = require "spec.support.gateway"
local spec = require "sluice.spec"

local CONSUMERS = {
  { username = "alice", keyauth_credentials = { { key = "a1" }, { key = "a2" } }, groups = { { name = "gold" } } },
  { username = "bob", keyauth_credentials = { { key = "b1" } }, groups = { { name = "gold" } } },
}

describe("concurrency-limiting", function()
  local gateway

  local function start(config, more)
    local options = { plugins = { { name = "concurrency-limiting", config = config } },
      upstreams = { ["*"] = { delay = 10, body = "done" } } }
    for key, value in pairs(more or {}) do options[key] = value end
    gateway = spec.gateway(options)
  end

  local function start_with_keys(config)
    start(config, { consumers = CONSUMERS, consumer_groups = { { name = "gold" } }, plugins = {
      { name = "concurrency-limiting", config = config }, { name = "key-auth" } } })
  end

  -- Sends all at once; their statuses.
  local function statuses(...)
    local pending, list = {}, {}
    for i, request in ipairs { ... } do pending[i] = gateway:send(request) end
    for i, one in ipairs(pending) do list[i] = one:receive(60).status end
    return list
  end

  local function with(key, more)
    local request = { path = "/", headers = { apikey = key } }
    for name, value in pairs(more or {}) do request[name] = value end
    return request
  end

  it("lets so many be in flight, and answers 429 to the rest", function()
    start { requests = 2 }
    assert.same({ 200, 200, 429, 429 }, statuses("/", "/", "/", "/"))
    assert.equal(2, #gateway:requests())
  end)

  it("lets others in when one is done", function()
    start { requests = 1 }
    for _ = 1, 3 do assert.equal(200, gateway:get("/").status) end
  end)

  it("forgets a client that leaves", function()
    start { requests = 1 }
    local client = gateway:connect()
    client:send("/")
    assert.same({ 429 }, statuses("/"))
    client:close()
    assert.same({ 200 }, statuses("/"))
  end)

  it("forgets a request whose service fails", function()
    start({ requests = 1 }, { upstreams = { ["*"] = { { close = true }, { status = 500 }, { body = "ok" } } } })
    local list = {}
    for i = 1, 3 do list[i] = gateway:get("/").status end
    assert.same({ 500, 200, 200 }, list) -- the first was tried twice
  end)

  it("forgets a request that a later plugin fails on or answers", function()
    local code = [[
      local plugin = { version = "1", priority = 1 }
      function plugin.access(_, exchange)
        if exchange.request:get_path() == "/fail" then error("no") end
        exchange.response:exit(202)
      end
      return plugin]]
    start({ requests = 1 }, { plugins_code = { after = code }, plugins = { { name = "after" },
      { name = "concurrency-limiting", config = { requests = 1 } } } })
    local list = {}
    for i, path in ipairs { "/fail", "/", "/fail", "/" } do list[i] = gateway:get(path).status end
    assert.same({ 500, 202, 500, 202 }, list)
  end)

  it("does not wait for those who log", function()
    local code = [[
      local slow = { version = "1", priority = 1 }
      function slow.log() require("sluice").sleep(3600) end
      return slow]]
    start({ requests = 1 }, { plugins_code = { slow = code }, upstreams = { ["*"] = { body = "ok" } }, plugins = {
      { name = "slow" }, { name = "concurrency-limiting", config = { requests = 1 } } } })
    for _ = 1, 3 do assert.equal(200, gateway:get("/").status) end
    gateway:advance(3600)
  end)

  it("holds on to a WebSocket until it is closed", function()
    start({ requests = 1 }, { upstreams = { ["*"] = { websocket = true } } })
    local socket = gateway:websocket("/")
    local none, response = gateway:websocket("/")
    assert.is_nil(none)
    assert.equal(429, response.status)
    socket:close(1000)
    assert.equal("close", socket:receive().type)
    assert.is_truthy(gateway:websocket("/"))
  end)

  it("counts on over a reload", function()
    start { requests = 1 }
    local pending = gateway:send("/")
    assert(gateway:reload { plugins = { { name = "concurrency-limiting", config = { requests = 2 } } } })
    assert.same({ 200, 429 }, statuses("/", "/"))
    assert.equal(200, pending:receive(60).status)
  end)

  describe("counts", function()
    it("each consumer", function()
      start_with_keys { requests = 1 }
      assert.same({ 200, 429, 200 }, statuses(with "a1", with "a2", with "b1"))
    end)

    it("each credential", function()
      start_with_keys { requests = 1, limit_by = "credential" }
      assert.same({ 200, 429, 200 }, statuses(with "a1", with "a1", with "a2"))
    end)

    it("each consumer group", function()
      start_with_keys { requests = 1, limit_by = "consumer-group" }
      assert.same({ 200, 429 }, statuses(with "a1", with "b1"))
    end)

    it("each address", function()
      start { requests = 1, limit_by = "ip" }
      assert.same({ 200, 429, 200 }, statuses("/", "/", { path = "/", client_ip = "192.0.2.7" }))
    end)

    it("each value of a header, and requests without it by address", function()
      start { requests = 1, limit_by = "header", header_name = "X-Tenant" }
      local function of(tenant) return { path = "/", headers = { ["X-Tenant"] = tenant } } end
      assert.same({ 200, 429, 200, 200, 429 }, statuses(of "a", of "a", of "b", "/", "/"))
    end)

    it("one path for all", function()
      start { requests = 1, limit_by = "path", path = "/hot" }
      assert.same({ 200, 429, 200 }, statuses("/hot", { path = "/hot", client_ip = "192.0.2.9" }, "/cold"))
    end)

    it("each service, or each route", function()
      local services = { { name = "one", url = "http://one.example", routes = { { name = "r1", paths = { "/1" } },
        { name = "r11", paths = { "/11" } } } } }
      start({ requests = 1, limit_by = "service" }, { services = services })
      assert.same({ 200, 429 }, statuses("/1", "/11"))
      start({ requests = 1, limit_by = "route" }, { services = services })
      assert.same({ 200, 200, 429 }, statuses("/1", "/11", "/11"))
    end)
  end)

  it("refuses as it is told to", function()
    start { requests = 1, error_code = 503, error_message = "busy", retry_after = 7 }
    gateway:send("/")
    local response = gateway:get("/")
    assert.same({ 503, "busy", "7" }, { response.status, response.json.message, response.headers["retry-after"] })
  end)

  describe("refuses a configuration", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "concurrency-limiting", config = config } } })
    end

    it("without a limit, or with one that lets nobody in", function()
      assert.matches("config.requests: expected an integer, found nothing", problem {}, 1, true)
      assert.matches("config.requests: expected", problem { requests = 0 }, 1, true)
    end)

    it("that lacks what limit_by needs", function()
      assert.matches("config.header_name: expected a value", problem { requests = 1, limit_by = "header" }, 1, true)
      assert.matches("config.path: expected a value", problem { requests = 1, limit_by = "path" }, 1, true)
    end)
  end)

  describe("in a whole gateway", function()
    local gw, fd, port, arrived, clients

    before_each(function()
      fd, port = posix.listen("127.0.0.1", process.free_port())
      arrived, clients = {}, {}
    end)
    after_each(function()
      for _, client in ipairs(clients) do client:close() end
      for _, connection in ipairs(arrived) do posix.C.sys_close_fd(connection) end
      posix.C.sys_close_fd(fd)
    end)

    local function configuration(config, of_gateway)
      return { _format_version = "3.0", gateway = of_gateway,
        services = { { name = "s", host = "127.0.0.1", port = port, routes = { { name = "r", paths = { "/" } } } } },
        plugins = { { name = "concurrency-limiting", config = config } } }
    end

    -- A service that takes connections and says nothing: who is let in stays.
    local function start_process(config)
      gw = process_gateway.start(configuration(config), { workers = 2 })
    end

    -- How many have come to the service, each over a connection of its own.
    local function arrivals()
      local connection = posix.accept(fd)
      while connection >= 0 do
        arrived[#arrived + 1] = connection
        connection = posix.accept(fd)
      end
      return #arrived
    end

    local function send()
      local client = gw:connect()
      clients[#clients + 1] = client
      client:send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      return client
    end

    -- The status, or why there is none, once there is something to say; "let in" when the service has the request.
    local function outcome()
      local before = arrivals()
      local client = send()
      return process.wait_until(function()
        if arrivals() > before then return "let in" end
        local response, why = client:read_response("GET", 0)
        return response and response.status or why ~= "timeout" and why
      end, 10, "an outcome")
    end

    local function close_all()
      for _, client in ipairs(clients) do client:close() end
      clients = {}
    end

    it("counts over all workers", function()
      start_process { requests = 5 }
      for _ = 1, 20 do send() end
      local refused = {}
      process.wait_until(function()
        for _, client in ipairs(clients) do
          local response = not refused[client] and client:read_response("GET", 0)
          if response and response.status == 429 then
            refused[client], refused[#refused + 1] = true, client
          end
        end
        return #refused + arrivals() == 20
      end, 10, "each to be let in or refused")
      assert.same({ 15, 5 }, { #refused, arrivals() })
      close_all()
      gw:stop()
    end)

    it("counts what workers hold that are being replaced", function()
      start_process { requests = 2 }
      assert.same({ "let in", "let in", 429 }, { outcome(), outcome(), outcome() })
      -- Another listener means other workers, beside which the old ones finish what they have.
      local listen = { stream_listen = { "127.0.0.1:" .. process.free_port() } }
      gw:write_config(configuration({ requests = 2 }, listen))
      gw:wait_log("generation is live revision=2", 10)
      assert.is_true(#gw:workers() > 2)
      for _ = 1, 10 do assert.equal(429, outcome()) end
      close_all()
      process.wait_until(function() return #gw:workers() == 2 end, 10, "the end of the old workers")
      assert.equal("let in", outcome())
      close_all()
      gw:stop()
    end)

    it("forgets what a worker held that died", function()
      start_process { requests = 2 }
      assert.same({ "let in", "let in", 429 }, { outcome(), outcome(), outcome() })
      for _, pid in ipairs(gw:workers()) do posix.kill(pid, 9) end
      close_all()
      process.wait_until(function() return outcome() == "let in" end, 10, "a request that is let in")
      close_all()
      gw.process:stop(10)
      gw.process:forget()
    end)
  end)
end)
