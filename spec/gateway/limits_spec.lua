-- SPDX-License-Identifier: Apache-2.0
-- Limits as whole gateways keep them: exactly, whoever counts together; and what becomes of requests when the Redis
-- that counts has stopped, hangs, is slow, wants TLS, or is a cluster.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local redis = require "spec.support.redis"
local tls = require "spec.support.tls"

local gateways, server = {}, nil

local function start(config, options)
  local gw = gateway.start({ _format_version = "3.0", routes = { { name = "r", paths = { "/" } } }, plugins = {
    { name = "rate-limiting", config = config }, { name = "prometheus" },
    { name = "request-termination", config = { status_code = 200 } } } }, options)
  gateways[#gateways + 1] = gw
  return gw
end

local function with_redis(more)
  local config = { limit_by = "header", header_name = "X-Who", policy = "redis",
    redis = { host = "127.0.0.1", port = server.port, timeout = 10000 } }
  for key, value in pairs(more) do
    if key == "redis" then
      for name, field in pairs(value) do config.redis[name] = field end
    else
      config[key] = value
    end
  end
  return config
end

-- Sends `count` requests over 8 connections to these gateways in turn, at most 5 under way on each; how many pass.
local function passed(targets, who, count)
  local clients, sum = {}, 0
  for i = 1, 8 do clients[i] = targets[i % #targets + 1]:connect() end
  local request = ("GET / HTTP/1.1\r\nHost: a\r\nX-Who: %s\r\n\r\n"):format(who)
  for _ = 1, count / 40 do
    for _, client in ipairs(clients) do client:send(request:rep(5)) end
    for _, client in ipairs(clients) do
      for _ = 1, 5 do
        local status = client:read_response().status
        assert(status == 200 or status == 429)
        if status == 200 then sum = sum + 1 end
      end
    end
  end
  for _, client in ipairs(clients) do client:close() end
  return sum
end

-- The same within one minute by the clock: once more, with somebody new, should a minute begin meanwhile.
local function passed_in_a_minute(targets, count)
  local attempt, minute, sum = 0
  repeat
    attempt = attempt + 1
    minute = math.floor(os.time() / 60)
    sum = passed(targets, "client" .. attempt, count)
  until math.floor(os.time() / 60) == minute
  return sum
end

describe("1,000 a minute", function()
  before_each(function()
    process.clear_of_the_hour()
    server = redis.start()
  end)
  after_each(function()
    for i = 1, #gateways do gateways[i]:stop() end
    gateways = {}
    server:stop()
  end)

  local LIMIT = { minute = 1000, limit_by = "header", header_name = "X-Who" }

  it("are exactly so many over 8 connections and 2 workers", function()
    assert.equal(1000, passed_in_a_minute({ start(LIMIT, { workers = 2 }) }, 1200))
  end)

  it("are exactly so many with Redis", function()
    assert.equal(1000, passed_in_a_minute({ start(with_redis { minute = 1000 }, { workers = 2 }) }, 1200))
  end)

  it("are exactly so many over two gateways with one Redis", function()
    local config = with_redis { minute = 1000 }
    local both = { start(config, { workers = 2 }), start(config, { workers = 2 }) }
    assert.equal(1000, passed_in_a_minute(both, 1200))
  end)

  it("are never more in any 60 seconds that slide", function()
    for _, config in ipairs { { limit_by = "header", header_name = "X-Who" }, with_redis {} } do
      config.minute, config.window_type = 1000, "sliding"
      local targets, from = { start(config, { workers = 2 }) }, posix.now()
      local sum = passed(targets, "a", 1200)
      -- Should a minute begin meanwhile, what was counted before slides out as the seconds go.
      assert.is_true(sum >= 1000 and sum <= 1001 + (posix.now() - from) * 1000 / 60)
    end
  end)

  it("are told to Redis every so often, and learned from there, with sync_rate", function()
    local config = with_redis { year = 1000, sync_rate = 0.05 }
    local both = { start(config, { workers = 2 }), start(config, { workers = 2 }) }
    local sum = passed({ both[1] }, "a", 1000)
    assert.equal(1000, sum)
    local asked = 0
    local function left_at(gw)
      asked = asked + 1
      return tonumber(gw:get("/", { ["X-Who"] = "a" }).headers["ratelimit-remaining"])
    end
    -- The other gateway lets some pass until it has heard of the first one's.
    process.wait_until(function() return left_at(both[2]) == 0 end, 10, "what the first gateway has counted")
    local total
    process.wait_until(function()
      for _, key in ipairs(server:command("KEYS", "ratelimit:*")) do
        total = tonumber(server:command("HGET", key, "n"))
        assert.is_true(server:command("TTL", key) > 0)
      end
      return total and total > 1000
    end, 10, "all of both in Redis")
    assert.is_true(total <= 1000 + asked)
  end)
end)

describe("a Redis that", function()
  before_each(function()
    process.clear_of_the_hour()
    server = redis.start()
  end)
  after_each(function()
    for i = 1, #gateways do gateways[i]:stop() end
    gateways = {}
    server:stop()
  end)

  local function seconds_of(gw)
    local from = posix.now()
    local response = gw:get("/")
    return posix.now() - from, response.status
  end

  local function metric(gw, name)
    return tonumber(http.get(gw.status_port, "/metrics").body:match("\n" .. name .. "{[^}]*} (%d+)"))
  end

  it("stops has requests pass at once, uncounted, and counts again when it is back", function()
    local gw = start(with_redis { year = 3 })
    assert.equal("2", gw:get("/").headers["ratelimit-remaining"])
    local port = server.port
    server:stop()
    local from = posix.now()
    for _ = 1, 5 do
      local response = gw:get("/")
      assert.equal(200, response.status)
      assert.is_nil(response.headers["ratelimit-remaining"])
    end
    assert.equal(5, metric(gw, "sluice_limits_uncounted_total"))
    -- It is left alone for a second each time.
    local told = select(2, gw:log():gsub("requests cannot be counted", ""))
    assert.is_true(told >= 1 and told <= 1 + (posix.now() - from), told)
    server = redis.start { port = port }
    process.wait_until(function() return gw:get("/").headers["ratelimit-remaining"] end, 5, "counting")
  end)

  it("hangs delays few requests, and those no longer than the timeout", function()
    local gw = start(with_redis { year = 3, redis = { timeout = 900 } })
    gw:get("/")
    server:hang()
    local seconds, status = seconds_of(gw)
    assert.equal(200, status)
    assert.is_true(seconds >= 0.9)
    -- Then it is left alone for a second: of those that come in that time none waits, of others one.
    local quick = 0
    for _ = 1, 5 do
      if seconds_of(gw) < 0.9 then quick = quick + 1 end
    end
    assert.is_true(quick >= 4)
    gw:wait_log("requests cannot be counted.*error=timeout")
    server:go_on()
    process.wait_until(function() return gw:get("/").headers["ratelimit-remaining"] end, 5, "counting")
  end)

  it("hangs has requests refused when fault_tolerant is off", function()
    local gw = start(with_redis { year = 3, fault_tolerant = false, redis = { timeout = 200 } })
    server:hang()
    for _ = 1, 3 do assert.equal(500, select(2, seconds_of(gw))) end
    assert.equal("An unexpected error occurred", cjson.decode(gw:get("/").body).message)
  end)

  it("is slow is waited for within the timeout", function()
    local gw = start(with_redis { year = 3, redis = { timeout = 5000 } })
    server:hang()
    local client = gw:connect()
    client:send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert.is_nil(client:read_response("GET", 0.2))
    server:go_on()
    assert.equal("2", client:read_response().headers["ratelimit-remaining"])
    client:close()
  end)

  it("refuses the password is away", function()
    local gw = start(with_redis { year = 3, redis = { password = "wrong" } })
    assert.equal(200, gw:get("/").status)
    gw:wait_log("requests cannot be counted.*ERR AUTH")
  end)

  it("hangs costs no request anything with sync_rate, and is told later", function()
    local gw = start(with_redis { year = 100, sync_rate = 0.05, redis = { timeout = 200 } })
    server:hang()
    for i = 1, 10 do assert.equal(("%d"):format(100 - i), gw:get("/").headers["ratelimit-remaining"]) end
    gw:wait_log("redis has not been told what was counted")
    server:go_on()
    process.wait_until(function()
      local keys = server:command("KEYS", "ratelimit:*")
      return keys and keys[1] and server:command("HGET", keys[1], "n") == "10"
    end, 5, "all ten")
    -- What had been sent while it hung arrived too, and was told again: it counts once.
    gw:get("/")
    process.wait_until(function()
      return tonumber(server:command("HGET", server:command("KEYS", "ratelimit:*")[1], "n")) > 10
    end, 5, "the next")
    assert.equal("11", server:command("HGET", server:command("KEYS", "ratelimit:*")[1], "n"))
  end)

  it("is told by a worker that ends what it still had", function()
    local gw = start(with_redis { year = 100, sync_rate = 3600 })
    for _ = 1, 7 do gw:get("/") end
    gw:stop()
    gateways = {}
    assert.equal("7", server:command("HGET", server:command("KEYS", "ratelimit:*")[1], "n"))
  end)

  it("speaks TLS is verified", function()
    local directory = posix.temporary_directory()
    local made = tls.make_certificate(directory, { name = "redis.example" })
    local secure = redis.start { tls = made }
    local env = { SSL_CERT_FILE = made.certificate }
    local function remaining(fields)
      fields.port, fields.ssl, fields.ssl_verify = secure.port, true, true
      local gw = start(with_redis { year = 3, redis = fields }, { env = env })
      return gw:get("/").headers["ratelimit-remaining"], gw
    end
    assert.equal("2", (remaining { server_name = "redis.example" }))
    local none, gw = remaining { server_name = "other.example" }
    assert.is_nil(none)
    gw:wait_log("requests cannot be counted.*certificate")
    secure:stop()
    process.remove(directory)
  end)

  it("is a cluster is asked where the counters are", function()
    local one = redis.start { arguments = { "--cluster-enabled", "yes", "--cluster-port", process.free_port() } }
    one:command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    process.wait_until(function()
      return (one:command("CLUSTER", "INFO") or ""):find("cluster_state:ok", 1, true)
    end, 10, "a cluster")
    local nodes = { { ip = "127.0.0.1", port = one.port } }
    local gw = start(with_redis { hour = 5, year = 5, redis = { cluster_nodes = nodes } })
    for i = 1, 5 do assert.equal(("%d"):format(5 - i), gw:get("/").headers["ratelimit-remaining"]) end
    assert.equal(429, gw:get("/").status)
    one:stop()
  end)
end)
