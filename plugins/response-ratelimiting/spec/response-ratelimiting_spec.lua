-- SPDX-License-Identifier: Apache-2.0
local process = require "spec.support.process"
local process_gateway = require "spec.support.gateway"
local redis = require "spec.support.redis"
local spec = require "sluice.spec"
local upstream = require "spec.support.upstream"

local NOON = 1767268800 -- 2026-01-01 12:00:00 UTC

describe("response-ratelimiting", function()
  local gateway

  -- The service answers with what the request has in X-Cost.
  local function service(request)
    return { headers = { ["X-Kong-Limit"] = request.headers["x-cost"], ["X-Cost-Too"] = request.headers["x-cost"] },
      body = "made" }
  end

  local function start(config, more)
    local options = { time = NOON, plugins = { { name = "response-ratelimiting", config = config } },
      upstreams = { ["*"] = service } }
    for key, value in pairs(more or {}) do options[key] = value end
    gateway = spec.gateway(options)
  end

  local function spend(cost, more)
    local request = { path = "/", headers = { ["X-Cost"] = cost } }
    for key, value in pairs(more or {}) do request[key] = value end
    return gateway:request(request)
  end

  local VIDEOS = { limits = { videos = { minute = 10, hour = 12 } } }

  it("adds up what the service says, and tells what is left", function()
    start(VIDEOS)
    local response = spend "videos=3"
    assert.same({ 200, "made" }, { response.status, response.body })
    assert.same({ "10", "7", "12", "9" }, { response.headers["x-ratelimit-limit-videos-minute"],
      response.headers["x-ratelimit-remaining-videos-minute"], response.headers["x-ratelimit-limit-videos-hour"],
      response.headers["x-ratelimit-remaining-videos-hour"] })
    assert.equal("5", spend("videos=2").headers["x-ratelimit-remaining-videos-minute"])
    assert.equal("5", spend(nil).headers["x-ratelimit-remaining-videos-minute"])
  end)

  it("hides what the service said", function()
    start(VIDEOS)
    assert.is_nil(spend("videos=1").headers["x-kong-limit"])
  end)

  it("tells the service what is left, in the window that has least", function()
    start { limits = { videos = { minute = 10, hour = 12 }, images = { day = 5 } } }
    spend "videos=3, images=1"
    spend "videos=1"
    gateway:advance(60)
    spend "images=1"
    local requests = gateway:requests()
    local function told(i)
      local headers = requests[i].headers
      return { headers["x-ratelimit-remaining-videos"], headers["x-ratelimit-remaining-images"] }
    end
    assert.same({ { "10", "5" }, { "7", "4" }, { "8", "4" } }, { told(1), told(2), told(3) })
  end)

  it("makes a response that takes of what is used up a refusal, which takes nothing", function()
    start { limits = { videos = { minute = 2 }, images = { minute = 5 } } }
    assert.equal(200, spend("videos=3").status)
    local response = spend "videos=1, images=1"
    assert.same({ 429, "" }, { response.status, response.body })
    assert.same({ "0", "5" }, { response.headers["x-ratelimit-remaining-videos-minute"],
      response.headers["x-ratelimit-remaining-images-minute"] })
    assert.is_nil(response.headers["x-kong-limit"])
    response = spend "images=1"
    assert.same({ 200, "4" }, { response.status, response.headers["x-ratelimit-remaining-images-minute"] })
    assert.equal(200, spend("videos=0").status)
    gateway:advance(60)
    assert.equal(200, spend("videos=1").status)
  end)

  it("lets no request through once a limit is used up, with block_on_first_violation", function()
    start { limits = { videos = { minute = 2 }, images = { minute = 5 } }, block_on_first_violation = true }
    spend "videos=2"
    local response = spend "images=1"
    assert.same({ 429, "API rate limit exceeded for 'videos'" }, { response.status, response.json.message })
    assert.equal(1, #gateway:requests())
  end)

  it("reads several fields, and passes over what is no cost", function()
    start({ limits = { videos = { minute = 50 }, images = { minute = 50 } } }, { upstreams = { ["*"] = {
      headers = { ["X-Kong-Limit"] = { " videos = 3 ", "images=2,other=9,videos=-1,images=1.5,images=x,=3,videos" } },
    } } })
    local headers = gateway:get("/").headers
    assert.same({ "47", "48" }, { headers["x-ratelimit-remaining-videos-minute"],
      headers["x-ratelimit-remaining-images-minute"] })
  end)

  it("reads the field that header_name names", function()
    start { limits = VIDEOS.limits, header_name = "X-Cost-Too" }
    local response = spend "videos=4"
    assert.same({ "6", "videos=4" }, { response.headers["x-ratelimit-remaining-videos-minute"],
      response.headers["x-kong-limit"] })
    assert.is_nil(response.headers["x-cost-too"])
  end)

  it("tells clients nothing when hide_client_headers is on", function()
    start { limits = { videos = { minute = 1 } }, hide_client_headers = true }
    for _, status in ipairs { 200, 429 } do
      local response = spend "videos=1"
      assert.equal(status, response.status)
      for name in pairs(response.headers) do assert.is_nil(name:find("ratelimit", 1, true)) end
    end
  end)

  it("counts nothing for an answer that is not the service's", function()
    start(VIDEOS, { plugins = { { name = "response-ratelimiting", config = VIDEOS },
      { name = "request-termination", config = { status_code = 403 } } } })
    local response = spend "videos=4"
    assert.same({ 403, "10" }, { response.status, response.headers["x-ratelimit-remaining-videos-minute"] })
  end)

  it("counts exactly what comes at the same time", function()
    start({ limits = { videos = { minute = 3 } } }, { upstreams = { ["*"] = { delay = 1,
      headers = { ["X-Kong-Limit"] = "videos=1" } } } })
    local pending, seen = {}, {}
    for i = 1, 5 do pending[i] = gateway:send "/" end
    for i = 1, 5 do seen[i] = pending[i]:receive(5).status end
    table.sort(seen)
    assert.same({ 200, 200, 200, 429, 429 }, seen)
  end)

  describe("counts", function()
    local CONSUMERS = {
      { username = "alice", keyauth_credentials = { { key = "a1" }, { key = "a2" } } },
      { username = "bob", keyauth_credentials = { { key = "b1" } } },
    }

    local function left(limit_by, ...)
      local config = { limits = { videos = { minute = 10 } }, limit_by = limit_by }
      start(config, { consumers = CONSUMERS, plugins = { { name = "response-ratelimiting", config = config },
        { name = "key-auth" } } })
      local list = {}
      for i, key in ipairs { ... } do
        local response = gateway:request { path = "/", headers = { apikey = key, ["X-Cost"] = "videos=1" } }
        list[i] = response.headers["x-ratelimit-remaining-videos-minute"]
      end
      return list
    end

    it("each consumer", function() assert.same({ "9", "8", "9" }, left("consumer", "a1", "a2", "b1")) end)
    it("each credential", function() assert.same({ "9", "9", "8" }, left("credential", "a1", "a2", "a1")) end)
    it("each address", function() assert.same({ "9", "8", "7" }, left("ip", "a1", "a2", "b1")) end)

    it("anonymous clients by address", function()
      start(VIDEOS)
      spend("videos=1", { client_ip = "192.0.2.1" })
      assert.equal("9", spend("videos=1", { client_ip = "192.0.2.2" }).headers["x-ratelimit-remaining-videos-minute"])
    end)
  end)

  describe("with policy redis", function()
    local server, behind, gw

    local function start_process(more)
      local config = { limits = { videos = { year = 10 } }, policy = "redis",
        redis = { host = "127.0.0.1", port = server.port, timeout = 5000 } }
      for key, value in pairs(more or {}) do config[key] = value end
      gw = process_gateway.start { _format_version = "3.0", services = { { name = "s", host = "127.0.0.1",
        port = behind.port, routes = { { name = "r", paths = { "/" } } } } },
        plugins = { { name = "response-ratelimiting", config = config } } }
      return gw
    end

    before_each(function()
      process.clear_of_the_hour()
      server = redis.start()
      behind = upstream.start(function(_, connection)
        connection:respond(200, { ["X-Kong-Limit"] = "videos=6" }, "made")
      end)
    end)
    after_each(function()
      gw:stop()
      behind:stop()
      server:stop()
    end)

    local function used()
      local keys = server:command("KEYS", "ratelimit:*")
      return keys and keys[1] and tonumber((server:command("GET", keys[1])))
    end

    it("adds there once the response has gone, and refuses by what stands there", function()
      start_process()
      assert.equal("4", gw:get("/").headers["x-ratelimit-remaining-videos-year"])
      process.wait_until(function() return used() == 6 end, 5, "6 in Redis")
      assert.equal("0", gw:get("/").headers["x-ratelimit-remaining-videos-year"])
      process.wait_until(function() return used() == 12 end, 5, "12 in Redis")
      assert.equal(429, gw:get("/").status)
      assert.equal(12, used())
    end)

    it("lets requests pass while it is away, or not", function()
      start_process { redis = { host = "127.0.0.1", port = 1 } }
      assert.equal(200, gw:get("/").status)
      gw:wait_log("responses cannot be counted.*cannot connect to redis")
      gw:stop()
      start_process { redis = { host = "127.0.0.1", port = 1 }, fault_tolerant = false }
      assert.equal(500, gw:get("/").status)
    end)
  end)

  describe("refuses a configuration", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "response-ratelimiting", config = config } } })
    end

    it("without a limit", function()
      assert.matches("config.limits: expected", problem {}, 1, true)
      assert.matches("config.limits: expected", problem { limits = {} }, 1, true)
      assert.matches("config.limits.videos: expected at least one of second, minute, hour, day, month or year",
        problem { limits = { videos = {} } }, 1, true)
    end)

    it("with a limit that is none, or a longer window that holds less than a shorter one", function()
      assert.matches("limits.videos.minute: expected", problem { limits = { videos = { minute = 0 } } }, 1, true)
      assert.matches("limits.videos.hour: The limit for hour(1.0) cannot be lower than the limit for minute(2.0)",
        problem { limits = { videos = { minute = 2, hour = 1 } } }, 1, true)
    end)

    it("whose policy lacks what it needs", function()
      local videos = { videos = { minute = 1 } }
      assert.matches("config.redis.host: expected a value", problem { limits = videos, policy = "redis" }, 1, true)
      assert.matches('policy: "cluster" needs a database', problem { limits = videos, policy = "cluster" }, 1, true)
      assert.is_nil(problem { limits = videos, policy = "redis", redis_host = "redis.example" })
    end)
  end)
end)
