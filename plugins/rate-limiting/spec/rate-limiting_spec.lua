-- SPDX-License-Identifier: Apache-2.0
local cjson = require "cjson"
local process = require "spec.support.process"
local process_gateway = require "spec.support.gateway"
local redis = require "spec.support.redis"
local spec = require "sluice.spec"

local CONSUMERS = {
  { username = "alice", keyauth_credentials = { { key = "a1" }, { key = "a2" } }, groups = { { name = "gold" } } },
  { username = "bob", keyauth_credentials = { { key = "b1" } }, groups = { { name = "gold" } } },
  { username = "nobody" },
}
local NOON = 1767268800 -- 2026-01-01 12:00:00 UTC

describe("rate-limiting", function()
  local gateway

  local function start(config, more)
    local options = { time = NOON, plugins = { { name = "rate-limiting", config = config } } }
    for key, value in pairs(more or {}) do options[key] = value end
    gateway = spec.gateway(options)
  end

  local function start_with_keys(config)
    start(config, { consumers = CONSUMERS, consumer_groups = { { name = "gold" } }, plugins = {
      { name = "rate-limiting", config = config }, { name = "key-auth", config = { anonymous = "nobody" } } } })
  end

  -- Statuses of as many requests as are given.
  local function statuses(...)
    local list = {}
    for i, request in ipairs { ... } do list[i] = gateway:request(request).status end
    return list
  end

  local function times(count, request)
    local list = {}
    for i = 1, count do list[i] = request or "/" end
    return unpack(list)
  end

  it("lets so many requests pass, and answers 429 from then on", function()
    start { minute = 3 }
    assert.same({ 200, 200, 200, 429, 429 }, statuses(times(5)))
    assert.equal(3, #gateway:requests())
    local refusal = gateway:get("/")
    assert.equal("API rate limit exceeded", refusal.json.message)
    assert.is_string(refusal.json.request_id)
  end)

  it("tells what is left, and when the window ends", function()
    start { minute = 2 }
    gateway:advance(20.5)
    local headers = gateway:get("/").headers
    assert.same({ "2", "1", "2", "1", "40" }, { headers["ratelimit-limit"], headers["ratelimit-remaining"],
      headers["x-ratelimit-limit-minute"], headers["x-ratelimit-remaining-minute"], headers["ratelimit-reset"] })
    assert.is_nil(headers["retry-after"])
    gateway:get("/")
    headers = gateway:get("/").headers
    assert.same({ "2", "0", "0", "40", "40" }, { headers["ratelimit-limit"], headers["ratelimit-remaining"],
      headers["x-ratelimit-remaining-minute"], headers["ratelimit-reset"], headers["retry-after"] })
  end)

  it("tells it in place of what the service says of itself", function()
    start({ minute = 5 }, { upstreams = { ["*"] = { headers = { ["RateLimit-Limit"] = "9" } } } })
    assert.equal("5", gateway:get("/").headers["ratelimit-limit"])
  end)

  describe("begins anew", function()
    local LAST_SECONDS = 1769903998 -- 2026-01-31 23:59:58 UTC

    local function ends_after(name, seconds, time)
      start({ [name] = 1 }, { time = time })
      local headers = gateway:get("/").headers
      assert.equal(("%d"):format(seconds), headers["ratelimit-reset"])
      assert.equal("0", headers["x-ratelimit-remaining-" .. name])
      gateway:advance(seconds - 0.5)
      assert.equal(429, gateway:get("/").status)
      gateway:advance(0.5)
      assert.equal(200, gateway:get("/").status)
    end

    it("with each second", function() ends_after("second", 1, LAST_SECONDS) end)
    it("with each minute", function() ends_after("minute", 60) end)
    it("with each hour", function() ends_after("hour", 2, LAST_SECONDS) end)
    it("with each day, in UTC", function() ends_after("day", 2, LAST_SECONDS) end)
    it("with each month", function() ends_after("month", 2, LAST_SECONDS) end)
    it("with each year", function() ends_after("year", 2, LAST_SECONDS + 334 * 86400) end)

    it("no sooner, however long the month is", function()
      for time, days in pairs { [NOON] = 31, [NOON + 31 * 86400] = 28, [NOON - 31 * 86400] = 31 } do
        start({ month = 9 }, { time = time })
        assert.equal(("%d"):format(days * 86400 - 43200), gateway:get("/").headers["ratelimit-reset"])
      end
    end)
  end)

  describe("with several limits", function()
    it("tells each, and of the tightest how long it lasts", function()
      start { second = 2, minute = 10, hour = 11 }
      local headers = gateway:get("/").headers
      assert.same({ "1", "9", "10" }, { headers["x-ratelimit-remaining-second"],
        headers["x-ratelimit-remaining-minute"], headers["x-ratelimit-remaining-hour"] })
      assert.same({ "2", "1", "1" }, { headers["ratelimit-limit"], headers["ratelimit-remaining"],
        headers["ratelimit-reset"] })
    end)

    it("tells of the longer window when as much is left in both", function()
      start { second = 2, minute = 2 }
      assert.equal("60", gateway:get("/").headers["ratelimit-reset"])
    end)

    it("counts a refused request in no window", function()
      start { second = 1, minute = 3, hour = 100 }
      assert.same({ 200, 429, 429, 429 }, statuses(times(4)))
      local headers = gateway:get("/").headers
      assert.same({ "0", "2", "99" }, { headers["x-ratelimit-remaining-second"],
        headers["x-ratelimit-remaining-minute"], headers["x-ratelimit-remaining-hour"] })
      gateway:advance(1)
      assert.same({ 200, 429 }, statuses(times(2)))
      gateway:advance(1)
      assert.same({ 200 }, statuses(times(1)))
      gateway:advance(1)
      assert.same({ 429 }, statuses(times(1)))
    end)
  end)

  describe("counts", function()
    it("each consumer, whatever key was used, and others by address", function()
      start_with_keys { minute = 2 }
      local function from(key) return { path = "/", headers = { apikey = key } } end
      assert.same({ 200, 200, 429, 200, 200, 429 },
        statuses(from "a1", from "a2", from "a1", from "b1", from "b1", from "b1"))
    end)

    it("each credential", function()
      start_with_keys { minute = 1, limit_by = "credential" }
      local function from(key) return { path = "/", headers = { apikey = key } } end
      assert.same({ 200, 429, 200, 429, 200 }, statuses(from "a1", from "a1", from "a2", from "a2", from "b1"))
    end)

    it("each consumer group", function()
      start_with_keys { minute = 2, limit_by = "consumer-group" }
      local function from(key) return { path = "/", headers = { apikey = key } } end
      assert.same({ 200, 200, 429, 200 }, statuses(from "a1", from "b1", from "b1", "/"))
    end)

    it("each address, also that which a trusted proxy names", function()
      start({ minute = 1, limit_by = "ip" }, { gateway = { trusted_ips = { "127.0.0.1" } } })
      local function from(ip) return { path = "/", headers = { ["X-Forwarded-For"] = ip } } end
      assert.same({ 200, 429, 200, 429 },
        statuses(from "192.0.2.1", from "192.0.2.1", from "2001:db8::1", from "2001:db8::1"))
      assert.same({ 200, 429, 429 }, statuses({ path = "/", client_ip = "192.0.2.7" },
        { path = "/", client_ip = "192.0.2.7" },
        { path = "/", client_ip = "192.0.2.7", headers = { ["X-Forwarded-For"] = "192.0.2.8" } }))
    end)

    it("each service", function()
      start({ minute = 1, limit_by = "service" }, { services = {
        { name = "one", url = "http://one.example", routes = { { name = "r1", paths = { "/1" } },
          { name = "r11", paths = { "/11" } } } },
        { name = "two", url = "http://two.example", routes = { { name = "r2", paths = { "/2" } } } } } })
      assert.same({ 200, 429, 200 }, statuses("/1", "/11", "/2"))
    end)

    it("each value of a header, and requests without it by address", function()
      start { minute = 1, limit_by = "header", header_name = "X-Tenant" }
      local function of(tenant) return { path = "/", headers = { ["X-Tenant"] = tenant } } end
      assert.same({ 200, 429, 200, 200, 429 }, statuses(of "a", of "a", of "b", "/", "/"))
    end)

    it("a header that names an address apart from that address", function()
      start { minute = 1, limit_by = "header", header_name = "X-Tenant" }
      assert.same({ 200, 200 }, statuses({ path = "/", headers = { ["X-Tenant"] = "127.0.0.1" } }, "/"))
    end)

    it("one path for all, and other paths by address", function()
      start { minute = 1, limit_by = "path", path = "/hot" }
      local other = "192.0.2.9"
      assert.same({ 200, 429, 200, 429, 200 }, statuses("/hot", { path = "/hot", client_ip = other }, "/cold", "/warm",
        { path = "/cold", client_ip = other }))
    end)

    it("apart for each instance of the plugin", function()
      gateway = spec.gateway { time = NOON, services = { { name = "s", url = "http://s.example", routes = {
        { name = "a", paths = { "/a" }, plugins = { { name = "rate-limiting", config = { minute = 1 } } } },
        { name = "b", paths = { "/b" }, plugins = { { name = "rate-limiting", config = { minute = 1 } } } } } } } }
      assert.same({ 200, 429, 200, 429 }, statuses("/a", "/a", "/b", "/b"))
    end)

    it("on when only the limit changes", function()
      start { minute = 2 }
      assert.same({ 200, 200, 429 }, statuses(times(3)))
      assert(gateway:reload { plugins = { { name = "rate-limiting", config = { minute = 3 } } } })
      assert.same({ 200, 429 }, statuses(times(2)))
    end)
  end)

  describe("with windows that slide", function()
    local function slide(config)
      config.window_type = "sliding"
      start(config)
    end

    it("counts of the minute before the share that the last 60 seconds have of it", function()
      slide { minute = 10 }
      gateway:advance(59)
      assert.same({ 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 429 }, statuses(times(11)))
      gateway:advance(16) -- a quarter of the next minute: 7.5 of the ten still count
      assert.same({ 200, 200, 429 }, statuses(times(3)))
      gateway:advance(30) -- 2.5 and these two
      assert.same({ 200, 200, 200, 200, 200, 429 }, statuses(times(6)))
      gateway:advance(60 + 15)
      assert.equal("9", gateway:get("/").headers["ratelimit-remaining"])
    end)

    it("tells when the next request will be let in, to the second", function()
      slide { minute = 10 }
      statuses(times(10))
      local refusal = gateway:get("/")
      assert.equal(429, refusal.status)
      -- In the next minute, once a tenth of it has gone.
      assert.same({ "66", "66", "0" }, { refusal.headers["retry-after"], refusal.headers["ratelimit-reset"],
        refusal.headers["ratelimit-remaining"] })
      gateway:advance(65)
      assert.equal("1", gateway:get("/").headers["retry-after"])
      gateway:advance(1)
      assert.same({ 200, 429 }, statuses(times(2)))
      assert.equal("6", gateway:get("/").headers["retry-after"])
      gateway:advance(6)
      assert.same({ 200, 429 }, statuses(times(2)))
    end)

    it("counts a refused request in no window", function()
      slide { second = 1, minute = 3 }
      assert.same({ 200, 429, 429, 429 }, statuses(times(4)))
      assert.equal("2", gateway:get("/").headers["x-ratelimit-remaining-minute"])
      gateway:advance(2)
      assert.same({ 200, 429 }, statuses(times(2)))
      gateway:advance(2)
      assert.same({ 200 }, statuses(times(1)))
      gateway:advance(2)
      assert.same({ 429 }, statuses(times(1)))
      assert.equal("74", gateway:get("/").headers["retry-after"]) -- a third of the next minute, from its second 6
    end)

    it("lets nothing pass where the limit is 0", function()
      slide { minute = 0 }
      assert.same({ 429 }, statuses("/"))
      assert.equal("120", gateway:get("/").headers["retry-after"])
    end)
  end)

  describe("when the table of counters is full", function()
    local FILL = [[
      local counters = require "sluice.counters"
      local fill = { version = "1", priority = 2000 }
      function fill.access()
        for i = 1, 20000 do counters.add("filler" .. i, 1, 30) end
      end
      return fill]]

    local function start_full(config)
      config.minute = 5
      start(config, { plugins_code = { fill = FILL }, plugins = { { name = "fill" },
        { name = "rate-limiting", config = config } } })
    end

    it("lets requests pass that it cannot count, says so, and counts again when there is room", function()
      start_full {}
      for _ = 1, 3 do
        local response = gateway:get("/")
        assert.equal(200, response.status)
        assert.is_nil(response.headers["ratelimit-remaining"])
      end
      assert.equal(1, #gateway:log "requests cannot be counted.*the table of shared counters is full")
      assert(gateway:reload { plugins = { { name = "rate-limiting", config = { minute = 5 } } } })
      gateway:advance(31)
      assert.equal("4", gateway:get("/").headers["ratelimit-remaining"])
    end)

    it("answers 500 when fault_tolerant is off", function()
      start_full { fault_tolerant = false }
      assert.equal(500, gateway:get("/").status)
    end)
  end)

  it("lets nothing pass where the limit is 0", function()
    start { minute = 0 }
    assert.same({ 429 }, statuses("/"))
  end)

  it("tells clients nothing when hide_client_headers is on", function()
    start { minute = 1, hide_client_headers = true }
    for _ = 1, 2 do
      for name in pairs(gateway:get("/").headers) do
        assert.is_nil(name:find("ratelimit", 1, true))
        assert.not_equal("retry-after", name)
      end
    end
  end)

  it("refuses with error_code and error_message", function()
    start { minute = 0, error_code = 403, error_message = "slow down" }
    local response = gateway:get("/")
    assert.same({ 403, "slow down" }, { response.status, response.json.message })
    start { minute = 0, error_code = 202, error_message = "later" }
    response = gateway:get("/")
    assert.same({ 202, "later" }, { response.status, response.json.message })
  end)

  it("refuses with 429 where error_code is no status", function()
    start { minute = 0, error_code = 7 }
    assert.equal(429, gateway:get("/").status)
    assert.equal(1, #gateway:log("error_code is no HTTP status"))
  end)

  it("counts exactly, whichever worker a request comes to", function()
    process.clear_of_the_hour()
    local gw = process_gateway.start({ _format_version = "3.0", routes = { { name = "r", paths = { "/" }, plugins = {
      { name = "rate-limiting", config = { year = 300 } },
      { name = "request-termination", config = { status_code = 200 } } } } } }, { workers = 2 })
    local passed, clients = 0, {}
    for i = 1, 8 do clients[i] = gw:connect() end
    for _ = 1, 50 do
      for _, one in ipairs(clients) do one:send("GET / HTTP/1.1\r\nHost: a\r\n\r\n") end
      for _, one in ipairs(clients) do
        if one:read_response().status == 200 then passed = passed + 1 end
      end
    end
    for _, one in ipairs(clients) do one:close() end
    gw:stop()
    assert.equal(300, passed)
  end)

  describe("with policy redis", function()
    local server, gw

    local function config_of(more)
      local config = { year = 3, hour = 3, policy = "redis",
        redis = { host = "127.0.0.1", port = server.port, password = "sesame", timeout = 5000 } }
      for key, value in pairs(more or {}) do config[key] = value end
      return config
    end

    local function start_process(config)
      gw = process_gateway.start { _format_version = "3.0", routes = { { name = "r", paths = { "/" }, plugins = {
        { name = "rate-limiting", config = config, id = "11111111-2222-4333-8444-555555555555" },
        { name = "request-termination", config = { status_code = 200 } } } } } }
      return gw
    end

    before_each(function()
      process.clear_of_the_hour()
      server = redis.start { password = "sesame" }
    end)
    after_each(function()
      gw:stop()
      server:stop()
    end)

    it("counts for all gateways that use it", function()
      local first = start_process(config_of())
      local second = start_process(config_of())
      local seen = {}
      for i, one in ipairs { first, second, second, first, second } do seen[i] = one:get("/").status end
      assert.same({ 200, 200, 200, 429, 429 }, seen)
      local headers = first:get("/").headers
      assert.same({ "3", "0", "0" }, { headers["ratelimit-limit"], headers["ratelimit-remaining"],
        headers["x-ratelimit-remaining-hour"] })
      first:stop()
    end)

    it("counts a refused request in no window, and lets windows end", function()
      start_process(config_of { hour = 1 })
      assert.same({ 200, 429, 429 }, { gw:get("/").status, gw:get("/").status, gw:get("/").status })
      assert.equal("2", gw:get("/").headers["x-ratelimit-remaining-year"])
      local keys = server:command("KEYS", "ratelimit:*")
      assert.equal(2, #keys)
      for _, key in ipairs(keys) do
        local left = server:command("TTL", key)
        assert.is_true(left > 0 and left <= (key:find(":hour:") and 3601 or 366 * 86400 + 1))
      end
    end)

    it("lets requests pass while it is away, and says so once", function()
      start_process(config_of { redis = { host = "127.0.0.1", port = 1 } })
      assert.same({ 200, 200, 200, 200 }, { gw:get("/").status, gw:get("/").status, gw:get("/").status,
        gw:get("/").status })
      gw:wait_log("requests cannot be counted.*cannot connect to redis at 127.0.0.1:1")
      assert.equal(1, select(2, gw:log():gsub("requests cannot be counted", "")))
    end)

    it("answers 500 while it is away when fault_tolerant is off", function()
      start_process(config_of { redis = { host = "127.0.0.1", port = 1 }, fault_tolerant = false })
      local response = gw:get("/")
      assert.equal(500, response.status)
      assert.equal("An unexpected error occurred", cjson.decode(response.body).message)
    end)
  end)

  describe("refuses a configuration", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "rate-limiting", config = config } } })
    end

    it("without any limit", function()
      assert.matches("expected at least one of second, minute, hour, day, month or year", problem {}, 1, true)
    end)

    it("with a limit below 0", function()
      assert.matches("config.minute: expected a number of at least 0, found -1", problem { minute = -1 }, 1, true)
    end)

    it("with a longer window that holds less than a shorter one", function()
      assert.matches("config.minute: The limit for minute(5.0) cannot be lower than the limit for second(6.0)",
        problem { second = 6, minute = 5 }, 1, true)
    end)

    it("that lacks what limit_by or policy need", function()
      assert.matches("config.header_name: expected a value", problem { minute = 1, limit_by = "header" }, 1, true)
      assert.matches("config.path: expected a value", problem { minute = 1, limit_by = "path" }, 1, true)
      assert.matches("config.redis.host: expected a value, or sentinel_nodes and sentinel_master, or cluster_nodes",
        problem { minute = 1, policy = "redis" }, 1, true)
      assert.matches("config.redis.host: expected a value",
        problem { minute = 1, policy = "redis", redis = { sentinel_nodes = { { host = "a.example" } } } }, 1, true)
      assert.is_nil(problem { minute = 1, policy = "redis", redis = { cluster_nodes = { { port = 7000 } } } })
    end)

    it("with a policy that comes later", function()
      assert.matches('config.policy: "cluster" needs a database, which comes with a later version; expected "local"',
        problem { minute = 1, policy = "cluster" }, 1, true)
    end)
  end)

  it("accepts the older names of Redis' options", function()
    assert(spec.check { plugins = { { name = "rate-limiting", config = { minute = 1, policy = "redis",
      redis_host = "redis.example", redis_port = 7000, redis_ssl = true, redis_database = 2 } } } })
  end)

  it("counts in this gateway while Redis is told now and then", function()
    start { minute = 2, policy = "redis", sync_rate = 1, redis = { host = "redis.example" } }
    gateway:upstream("redis.example", { refuse = true })
    assert.same({ 200, 200, 429 }, statuses(times(3)))
    gateway:advance(2)
    assert.equal(1, #gateway:log "redis has not been told what was counted")
  end)
end)
