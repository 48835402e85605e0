-- SPDX-License-Identifier: Apache-2.0
-- Cached responses in whole gateways: shared by workers, after a restart, while things die. What one worker can show is
-- in plugins/proxy-cache/spec.
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"

describe("cached responses", function()
  local up, gw, state

  setup(function() up = upstream.start() end)
  teardown(function() up:stop() end)

  before_each(function()
    up:forget()
    state = posix.temporary_directory()
  end)

  after_each(function()
    if gw then gw:stop() end
    gw = nil
    process.remove(state)
  end)

  local function start(config, workers, settings)
    config = config or {}
    config.strategy, config.content_type = "memory", { "*/*" }
    gw = gateway.start({
      _format_version = "3.0",
      gateway = settings,
      services = { { name = "origin", url = up:url(), routes = { { name = "all", paths = { "/" } } },
        plugins = { { name = "proxy-cache", config = config } } } },
    }, { workers = workers or 1, env = { SLUICE_STATE_DIR = state } })
  end

  local function restart(...)
    gw:stop()
    start(...)
  end

  -- By a name, for each gateway has another port.
  local function get(path)
    return assert(gw:get(path, { Host = "cached.test" }))
  end

  local function status_of(path)
    return get(path).headers["x-cache-status"]
  end

  -- Asks until a fresh connection was served by every one of the workers, most likely.
  local function statuses_of(path, count)
    local seen = {}
    for _ = 1, count or 20 do seen[status_of(path)] = true end
    return seen
  end

  it("come from one request to the service, for 1,000 clients of two workers at once", function()
    start({}, 2)
    local clients = {}
    for i = 1, 1000 do
      clients[i] = gw:connect()
      clients[i]:send("GET /delay/1 HTTP/1.1\r\nHost: x\r\n\r\n")
    end
    local first
    for i = 1, 1000 do
      local response = assert(clients[i]:read_response("GET", 20))
      assert.equal(200, response.status)
      first = first or response.body
      assert.equal(first, response.body)
      clients[i]:close()
    end
    assert.equal(1, up:stats().requests)
  end)

  it("are validated once for 200 clients of two workers at once", function()
    local service = upstream.start(function(request, connection)
      if request.headers["if-none-match"] then
        connection:sleep(0.5)
        connection:respond(304, { ETag = '"1"', ["Cache-Control"] = "max-age=1000" })
      else
        connection:respond(200, { ETag = '"1"', ["Cache-Control"] = "max-age=1" }, "content")
      end
    end)
    gw = gateway.start({
      _format_version = "3.0",
      services = { { name = "origin", url = service:url(), routes = { { name = "all", paths = { "/" } } },
        plugins = { { name = "proxy-cache",
          config = { strategy = "memory", content_type = { "*/*" }, cache_control = true, storage_ttl = 100 } } } } },
    }, { workers = 2, env = { SLUICE_STATE_DIR = state } })
    get("/")
    posix.pause(2.1) -- it is stale then
    service:forget()
    local clients, seen = {}, {}
    for i = 1, 200 do
      clients[i] = gw:connect()
      clients[i]:send("GET / HTTP/1.1\r\nHost: cached.test\r\n\r\n")
    end
    for i = 1, 200 do
      local response = assert(clients[i]:read_response("GET", 20))
      assert.equal("content", response.body)
      local label = response.headers["x-cache-status"]
      seen[label] = (seen[label] or 0) + 1
      clients[i]:close()
    end
    assert.same({ Refresh = 1, Hit = 199 }, seen)
    assert.equal(1, service:stats().requests)
    service:stop()
  end)

  it("are shared by the workers, and so is what purges them", function()
    start({}, 2)
    status_of("/bytes/100")
    assert.same({ Hit = true }, statuses_of("/bytes/100"))
    local code, out, err = gw:command("purge", "http://cached.test/bytes/100")
    assert.same({ 0, "1 response removed\n", "" }, { code, out, err })
    assert.equal("Miss", status_of("/bytes/100"))
    assert.same({ Hit = true }, statuses_of("/bytes/100"))
    assert.equal(2, up:stats().requests)
  end)

  it("are purged by prefix, key, or all of them; mistakes are told", function()
    start()
    local host, nothing = "cached.test", ""
    for _, path in ipairs { "/bytes/1", "/bytes/2?b=1&a=2", "/bytes/3", "/chunked/5" } do get(path) end
    local key = get("/bytes/3").headers["x-cache-key"]
    assert.same({ 0, "1 response removed\n", nothing }, { gw:command("purge", host .. "/bytes/2?a=2&b=1") })
    assert.same({ 0, "1 response removed\n", nothing }, { gw:command("purge", "--key", key) })
    assert.same({ 0, "1 response removed\n", nothing },
      { gw:command("purge", "--prefix", "http://" .. host .. "/bytes/") })
    assert.same({ 0, "0 responses removed\n", nothing }, { gw:command("purge", "--tag", "none") })
    assert.same({ 0, "1 response removed\n", nothing }, { gw:command("purge", "--all") })
    local code, _, err = gw:command("purge")
    assert.equal(2, code)
    assert.matches("what is to be removed", err)
    code, _, err = gw:command("purge", "--key", "abc")
    assert.equal(2, code)
    assert.matches("abc is no key", err)
  end)

  it("survive a restart, and a gateway that is killed", function()
    start()
    local small, large = get("/bytes/1000"), get("/bytes/500000")
    restart()
    for _ = 1, 2 do
      for path, before in pairs { ["/bytes/1000"] = small, ["/bytes/500000"] = large } do
        local response = get(path)
        assert.equal("Hit", response.headers["x-cache-status"])
        assert.is_true(response.body == before.body)
      end
      gw:kill()
      gw:stop()
      start()
    end
  end)

  it("go on when a worker dies while it stores one", function()
    start({}, 2)
    local workers = gw:workers()
    local client = gw:connect()
    client:send("GET /bytes/60000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    client:read_head(5)
    for _, pid in ipairs(workers) do posix.kill(pid, posix.SIGKILL) end
    client:close()
    gw:wait_ready()
    process.wait_until(function() return pcall(get, "/bytes/10") end, 10, "a worker")
    assert.equal("Hit", status_of("/bytes/10"))
    local broken_off = gw:request { method = "HEAD", path = "/bytes/60000000", headers = { Host = "x" } }
    assert.not_equal("Hit", broken_off.headers["x-cache-status"])
  end)

  it("reach a slow client whole although they are purged meanwhile, and keep no worker from writing", function()
    start({}, 1, { limits = { cache_bytes = 64 * 2 ^ 20 } })
    local before = get("/bytes/8000000")
    local client = gw:connect()
    client:send("GET /bytes/8000000 HTTP/1.1\r\nHost: cached.test\r\n\r\n")
    local head = client:read_head(5)
    assert.equal("Hit", head.headers["x-cache-status"])
    assert.equal(0, (gw:command("purge", "--all")))
    for i = 1, 10 do assert.equal("Miss", status_of("/bytes/" .. 20000 + i)) end
    assert.is_true(http.read_body(client.socket, head).body == before.body)
    client:close()
    assert.equal("Miss", status_of("/bytes/8000000"))
  end)

  it("are bounded by gateway.limits.cache_bytes: the ones not used for longest go", function()
    start({}, 1, { limits = { cache_bytes = 4 * 2 ^ 20 } })
    get("/bytes/100")
    for i = 1, 50 do
      get("/bytes/" .. 200000 + i)
      if i % 5 == 0 then assert.equal("Hit", status_of("/bytes/100")) end
    end
    assert.equal("Hit", status_of("/bytes/200050"))
    assert.equal("Miss", status_of("/bytes/200001"))
    local file = assert(io.open(state .. "/responses/data.mdb"))
    assert.is_true(file:seek("end") <= 12 * 2 ^ 20)
    file:close()
  end)

  it("that are spoilt are none", function()
    start()
    get("/bytes/10")
    for _, text in ipairs { ("rubbish "):rep(5000), "" } do
      gw:stop()
      process.write_file(state .. "/responses/data.mdb", text)
      start()
      assert.equal("Miss", status_of("/bytes/10"))
      assert.equal("Hit", status_of("/bytes/10"))
    end
  end)

  it("go to clients of HTTP/2 as well, large ones too", function()
    start()
    gw:stop()
    gw = gateway.start({
      _format_version = "3.0",
      services = { { name = "origin", url = up:url(), routes = { { name = "all", paths = { "/" } } },
        plugins = { { name = "proxy-cache", config = { strategy = "memory", content_type = { "*/*" } } } } } },
    }, { http2 = true, env = { SLUICE_STATE_DIR = state } })
    for _, label in ipairs { "Miss", "Hit", "Hit" } do
      local code, out = process.run { "curl", "-s", "--http2-prior-knowledge", "-D", "-", "-o", "/dev/null", "-w",
        "%{size_download}", "http://127.0.0.1:" .. gw.port .. "/bytes/1000000" }
      assert.equal(0, code)
      assert.matches("x%-cache%-status: " .. label:lower(), out:lower())
      assert.matches("1000000$", out)
    end
  end)
end)
