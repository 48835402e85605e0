-- SPDX-License-Identifier: Apache-2.0
local process = require "spec.support.process"
local process_gateway = require "spec.support.gateway"
local redis = require "spec.support.redis"
local spec = require "sluice.spec"

local NOON = 1767268800 -- 2026-01-01 12:00:00 UTC
local CONSUMERS = {
  { username = "alice", keyauth_credentials = { { key = "a1" }, { key = "a2" } }, groups = { { name = "gold" } } },
  { username = "bob", keyauth_credentials = { { key = "b1" } }, groups = { { name = "gold" } } },
}

describe("rate-limiting-advanced", function()
  local gateway

  local function start(config, more)
    local options = { time = NOON, plugins = { { name = "rate-limiting-advanced", config = config } } }
    for key, value in pairs(more or {}) do options[key] = value end
    gateway = spec.gateway(options)
  end

  local function statuses(...)
    local list = {}
    for i, request in ipairs { ... } do list[i] = gateway:request(request).status end
    return list
  end

  local function times(count)
    local list = {}
    for i = 1, count do list[i] = "/" end
    return unpack(list)
  end

  it("has windows of any length", function()
    start { limit = { 2 }, window_size = { 10 }, window_type = "fixed" }
    assert.same({ 200, 200, 429 }, statuses(times(3)))
    local headers = gateway:get("/").headers
    assert.same({ "2", "0", "10", "10" }, { headers["x-ratelimit-limit-10"], headers["x-ratelimit-remaining-10"],
      headers["ratelimit-reset"], headers["retry-after"] })
    gateway:advance(9.9)
    assert.same({ 429 }, statuses "/")
    gateway:advance(0.1)
    assert.same({ 200 }, statuses "/")
  end)

  it("has several windows, by their names where they have one", function()
    start { limit = { 100, 2, 3 }, window_size = { 86400, 1, 60 }, window_type = "fixed" }
    local headers = gateway:get("/").headers
    assert.same({ "1", "2", "99" }, { headers["x-ratelimit-remaining-second"], headers["x-ratelimit-remaining-minute"],
      headers["x-ratelimit-remaining-day"] })
    assert.same({ "2", "1" }, { headers["ratelimit-limit"], headers["ratelimit-remaining"] })
  end)

  it("slides unless told otherwise", function()
    start { limit = { 10 }, window_size = { 60 }, disable_penalty = true }
    gateway:advance(59)
    assert.same({ 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 429 }, statuses(times(11)))
    gateway:advance(16)
    assert.same({ 200, 200, 429 }, statuses(times(3)))
  end)

  it("counts refused requests in windows that slide, unless disable_penalty", function()
    for penalty, last in pairs { [true] = 429, [false] = 200 } do
      start { limit = { 10 }, window_size = { 60 }, disable_penalty = not penalty }
      statuses(times(20))
      gateway:advance(60 + 15)
      assert.same({ last }, statuses "/")
    end
  end)

  describe("counts", function()
    local function with(key, path, client_ip)
      return { path = path or "/", headers = { apikey = key }, client_ip = client_ip }
    end

    local function start_with(config)
      config.limit, config.window_size = { 1 }, { 60 }
      start(config, { consumers = CONSUMERS, consumer_groups = { { name = "gold" } }, plugins = {
        { name = "rate-limiting-advanced", config = config }, { name = "key-auth" } } })
    end

    it("each consumer, credential or group", function()
      start_with {}
      assert.same({ 200, 429, 200 }, statuses(with "a1", with "a2", with "b1"))
      start_with { identifier = "credential" }
      assert.same({ 200, 200, 429 }, statuses(with "a1", with "a2", with "a2"))
      start_with { identifier = "consumer-group" }
      assert.same({ 200, 429 }, statuses(with "a1", with "b1"))
    end)

    it("each combination of a compound_identifier", function()
      start_with { compound_identifier = { "consumer", "ip" } }
      assert.same({ 200, 429, 200, 200 }, statuses(with "a1", with "a1", with("a1", "/", "192.0.2.1"), with "b1"))
      start_with { compound_identifier = { "consumer", "path" }, path = "/hot" }
      assert.same({ 200, 429, 200 }, statuses(with("a1", "/hot"), with("a1", "/hot"), with("b1", "/hot")))
    end)

    it("instances of one namespace together", function()
      local config = { limit = { 1 }, window_size = { 60 }, namespace = "both" }
      gateway = spec.gateway { time = NOON, services = { { name = "s", url = "http://s.example", routes = {
        { name = "a", paths = { "/a" }, plugins = { { name = "rate-limiting-advanced", config = config } } },
        { name = "b", paths = { "/b" }, plugins = { { name = "rate-limiting-advanced", config = config } } } } } } }
      assert.same({ 200, 429 }, statuses("/a", "/b"))
    end)
  end)

  it("refuses as it is told to", function()
    start { limit = { 0 }, window_size = { 60 }, window_type = "fixed", error_code = 503, error_message = "slow down",
      retry_after_jitter_max = 5 }
    local response = gateway:get("/")
    assert.same({ 503, "slow down" }, { response.status, response.json.message })
    local wait = tonumber(response.headers["retry-after"])
    assert.is_true(wait >= 60 and wait <= 65)
    start { limit = { 0 }, window_size = { 60 }, hide_client_headers = true }
    for name in pairs(gateway:get("/").headers) do assert.is_nil(name:find("ratelimit", 1, true)) end
  end)

  describe("with Redis", function()
    local server, gateways

    local function start_process(more)
      local config = { limit = { 3 }, window_size = { 86400 }, window_type = "fixed", strategy = "redis", sync_rate = 0,
        namespace = "n", redis = { port = server.port, timeout = 5000 } }
      for key, value in pairs(more or {}) do config[key] = value end
      local gw = process_gateway.start { _format_version = "3.0", routes = { { name = "r", paths = { "/" } } },
        plugins = { { name = "rate-limiting-advanced", config = config },
          { name = "request-termination", config = { status_code = 200 } } } }
      gateways[#gateways + 1] = gw
      return gw
    end

    before_each(function()
      process.clear_of_the_hour()
      server, gateways = redis.start(), {}
    end)
    after_each(function()
      for _, gw in ipairs(gateways) do gw:stop() end
      server:stop()
    end)

    local function seen(...)
      local list = {}
      for i, gw in ipairs { ... } do list[i] = gw:get("/").status end
      return list
    end

    it("counts for all gateways, each request or now and then", function()
      local one, two = start_process(), start_process()
      assert.same({ 200, 200, 200, 429, 429 }, seen(one, two, one, two, one))
      local often = { namespace = "m", sync_rate = 0.02 }
      one, two = start_process(often), start_process(often)
      assert.same({ 200, 200, 200, 429 }, seen(one, one, one, one))
      process.wait_until(function() return two:get("/").status == 429 end, 5, "what the other has counted")
    end)

    it("slides there too, refused requests included", function()
      local one = start_process { window_type = "sliding" }
      assert.same({ 200, 200, 200, 429, 429 }, seen(one, one, one, one, one))
      assert.equal("5", server:command("GET", server:command("KEYS", "ratelimit:*")[1]))
    end)

    it("counts here while it is away", function()
      local one = start_process { redis = { port = 1 } }
      assert.same({ 200, 200, 200, 429 }, seen(one, one, one, one))
      one:wait_log("redis cannot count: this gateway does meanwhile.*cannot connect to redis")
    end)
  end)

  describe("refuses a configuration", function()
    local function refused(pattern, more)
      local config = { limit = { 1 }, window_size = { 60 } }
      for key, value in pairs(more) do config[key] = value end
      local _, err = spec.check { plugins = { { name = "rate-limiting-advanced", config = config } } }
      assert.matches(pattern, err, 1, true)
    end

    it("whose limits and windows do not go together", function()
      refused("config.window_size: expected as many as limit has, 2, found 1", { limit = { 1, 2 } })
      refused("config.window_size: expected sizes that differ", { limit = { 1, 2 }, window_size = { 60, 60 } })
      refused("config.limit: expected that a longer window holds no less",
        { limit = { 5, 2 }, window_size = { 1, 60 } })
      refused("expected a number above 0", { window_size = { 0 } })
    end)

    it("that lacks what it needs, or asks for what there is not", function()
      refused("config.header_name: expected a value", { identifier = "header" })
      refused("config.path: expected a value", { compound_identifier = { "ip", "path" } })
      refused("config.sync_rate: expected a number (because of strategy), found nothing", { strategy = "redis" })
      refused("config.sync_rate: expected -1, 0, or at least 0.02", { strategy = "redis", sync_rate = 0.01 })
      refused('config.strategy: "cluster" needs a database', { strategy = "cluster", sync_rate = 1 })
      refused("config.enforce_consumer_groups: expected false", { enforce_consumer_groups = true })
    end)
  end)

  it("accepts Kong's addresses of Sentinels and clusters", function()
    for _, fields in ipairs {
      { sentinel_master = "m", sentinel_role = "master", sentinel_addresses = { "a.example:26379" } },
      { cluster_addresses = { "a.example:7000", "b.example:7001" } },
    } do
      assert(spec.check { plugins = { { name = "rate-limiting-advanced", config = { limit = { 1 }, window_size = { 60 },
        strategy = "redis", sync_rate = 0, redis = fields } } } })
    end
  end)
end)
