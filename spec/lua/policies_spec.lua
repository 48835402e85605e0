-- SPDX-License-Identifier: Apache-2.0
-- Balancing policies against the real core, with services that the spec plays.
local spec = require "sluice.spec"

describe("an upstream", function()
  local gateway

  -- Targets 10.0.0.1... with these weights, each answering with its address.
  local function start(fields, weights, answers, more)
    local upstream = { name = "up", targets = {} }
    for key, value in pairs(fields) do upstream[key] = value end
    local upstreams = { upstream }
    for i, weight in ipairs(weights) do
      local address = "10.0.0." .. i .. ":80"
      upstream.targets[i] = { target = address, weight = weight }
      upstreams[address] = answers and answers[i] or { body = tostring(i) }
    end
    local options = { upstreams = upstreams, services = { { name = "s", host = "up", retries = #weights,
      routes = { { name = "r", paths = { "/", "~/tenants/(?<tenant>[^/]+)" } } } } } }
    for key, value in pairs(more or {}) do options[key] = value end
    gateway = spec.gateway(options)
    return gateway
  end

  local function went(request)
    local response = gateway:request(type(request) == "table" and request or { path = request or "/" })
    assert.equal(200, response.status, response.body)
    return tonumber(response.body), response
  end

  local function counts(times, request)
    local found = {}
    for i = 1, times do
      local place = went(type(request) == "function" and request(i) or request)
      found[place] = (found[place] or 0) + 1
    end
    return found
  end

  describe("with least-connections", function()
    it("sends to whoever has the least in flight", function()
      start({ algorithm = "least-connections" }, { 100, 100, 100 },
        { { delay = 10, body = "1" }, { body = "2" }, { delay = 10, body = "3" } })
      local pending = { gateway:send { path = "/" } }
      gateway:get("/")
      pending[2] = gateway:send { path = "/" }
      assert.same({ [2] = 5 }, counts(5))
      gateway:advance(10)
      assert.same({ "1", "3" }, { pending[1]:receive().body, pending[2]:receive().body })
    end)

    it("gives a heavy target more", function()
      start({ algorithm = "least-connections" }, { 300, 100 },
        { { delay = 1, body = "1" }, { delay = 1, body = "2" } })
      local pending, found = {}, { 0, 0 }
      for i = 1, 40 do pending[i] = gateway:send { path = "/" } end
      gateway:advance(1)
      for i = 1, 40 do
        local place = tonumber(pending[i]:receive().body)
        found[place] = found[place] + 1
      end
      assert.same({ 30, 10 }, found)
    end)

    it("takes turns among equals", function()
      start({ algorithm = "least-connections" }, { 100, 100, 100 })
      assert.same({ 4, 4, 4 }, counts(12))
    end)
  end)

  describe("with power-of-two-choices", function()
    it("never sends to the busier one of two", function()
      start({ algorithm = "power-of-two-choices" }, { 100, 100 }, { { delay = 10, body = "1" }, { body = "2" } })
      local busy = {}
      repeat busy[#busy + 1] = gateway:send { path = "/" } until #gateway:requests("10.0.0.1:80") > 0
      assert.same({ [2] = 20 }, counts(20))
    end)

    it("goes by weight while nobody is busy", function()
      start({ algorithm = "power-of-two-choices" }, { 300, 100, 0 })
      local found = counts(400)
      assert.is_true(found[1] > 250 and found[1] < 350)
      assert.is_nil(found[3])
    end)
  end)

  describe("with latency", function()
    it("prefers whoever answers first, and tries the other again by and by", function()
      start({ algorithm = "latency" }, { 100, 100 }, { { delay = 0.5, body = "1" }, { delay = 0.1, body = "2" } })
      local function serve(times)
        local found = { 0, 0 }
        for _ = 1, times do
          local pending = gateway:send { path = "/" }
          gateway:advance(0.5)
          local place = tonumber(pending:receive().body)
          found[place] = found[place] + 1
        end
        return found
      end
      local found = serve(30)
      assert.is_true(found[2] >= 25, found[2])
      assert.is_true(found[1] >= 1)
      gateway:upstream("10.0.0.1:80", { delay = 0.01, body = "1" })
      gateway:advance(60)
      found = serve(30)
      assert.is_true(found[1] > found[2])
    end)
  end)

  describe("with consistent-hashing", function()
    local function hashing(fields, weights, more)
      fields.algorithm = "consistent-hashing"
      return start(fields, weights or { 100, 100, 100, 100 }, nil, more)
    end

    local function places(times, request)
      local found = {}
      for i = 1, times do found[i] = went(request(i)) end
      return found
    end

    local function by_header(i) return { path = "/", headers = { ["X-Who"] = "client " .. i } } end

    it("gives each value its target, in shares by weight", function()
      hashing({ hash_on = "header", hash_on_header = "X-Who" }, { 300, 100 })
      local first = places(400, by_header)
      assert.same(first, places(400, by_header))
      local shares = { 0, 0 }
      for _, place in ipairs(first) do shares[place] = shares[place] + 1 end
      assert.is_true(shares[1] > 260 and shares[1] < 340, shares[1])
    end)

    it("moves only what it must when a target comes or goes", function()
      hashing { hash_on = "header", hash_on_header = "X-Who" }
      local four = places(400, by_header)
      hashing({ hash_on = "header", hash_on_header = "X-Who" }, { 100, 100, 100, 100, 100 })
      local five, moved = places(400, by_header), 0
      for i, place in ipairs(five) do
        if place ~= four[i] then
          assert.equal(5, place) -- from an old target to the new one, never between old ones
          moved = moved + 1
        end
      end
      assert.is_true(moved > 50 and moved < 110, moved)
    end)

    it("spreads over the others what a target that is out had, and gives it back", function()
      hashing { hash_on = "header", hash_on_header = "X-Who",
        healthchecks = { passive = { unhealthy = { http_failures = 1 }, healthy = { successes = 1 } } } }
      local before = places(200, by_header)
      gateway:upstream("10.0.0.2:80", { status = 500, body = "2" })
      for i = 1, 200 do gateway:request(by_header(i)) end
      local without, others = places(200, by_header), {}
      for i, place in ipairs(without) do
        if before[i] ~= 2 then
          assert.equal(before[i], place)
        else
          others[place] = true
        end
      end
      assert.same({ true, nil, true, true }, others)
    end)

    for name, case in pairs {
      ip = { {}, function(i) return { path = "/", client_ip = "192.0.2." .. i } end },
      path = { {}, function(i) return { path = "/a/" .. i } end },
      query_arg = { { hash_on_query_arg = "who" }, function(i) return { path = "/?x=1&who=" .. i } end },
      uri_capture = { { hash_on_uri_capture = "tenant" }, function(i) return { path = "/tenants/" .. i } end },
      cookie = { { hash_on_cookie = "who" }, function(i)
        return { path = "/", headers = { Cookie = "a=b; who=" .. i .. "; c=d" } }
      end },
    } do
      it("goes by " .. name, function()
        case[1].hash_on = name
        hashing(case[1])
        local first, all = places(40, case[2]), {}
        assert.same(first, places(40, case[2]))
        for _, place in ipairs(first) do all[place] = true end
        assert.is_true(#all > 1)
      end)
    end

    it("goes by the consumer", function()
      local consumers = {}
      for i = 1, 20 do
        consumers[i] = { username = "c" .. i, keyauth_credentials = { { key = "a" .. i }, { key = "b" .. i } } }
      end
      hashing({ hash_on = "consumer" }, nil, { consumers = consumers, plugins = { { name = "key-auth" } } })
      local first, all = places(20, function(i) return { path = "/", headers = { apikey = "a" .. i } } end), {}
      assert.same(first, places(20, function(i) return { path = "/", headers = { apikey = "b" .. i } } end))
      for _, place in ipairs(first) do all[place] = true end
      assert.is_true(#all > 1)
    end)

    it("is what hash_on means without an algorithm", function()
      start({ hash_on = "header", hash_on_header = "X-Who" }, { 100, 100, 100 })
      local first, all = places(20, by_header), {}
      assert.same(first, places(20, by_header))
      for _, place in ipairs(first) do all[place] = true end
      assert.same({ true, true, true }, all)
      start({ hash_on = "ip", algorithm = "round-robin" }, { 100, 100 })
      assert.same({ 2, 2 }, counts(4))
    end)

    it("goes by the fallback where there is nothing else", function()
      hashing { hash_on = "header", hash_on_header = "X-None", hash_fallback = "header",
        hash_fallback_header = "X-Who" }
      local first = places(40, by_header)
      assert.same(first, places(40, by_header))
    end)

    it("takes any target where there is nothing at all", function()
      hashing {}
      local found = counts(100)
      for i = 1, 4 do assert.is_true(found[i] > 5) end
    end)

    it("gives a client without its cookie one, which brings it back", function()
      hashing { hash_on = "cookie", hash_on_cookie = "who", hash_on_cookie_path = "/shop" }
      for _ = 1, 10 do
        local place, response = went("/")
        local value, path = response.headers["set-cookie"]:match("^who=([%x-]+); Path=(.*)$")
        assert.equal("/shop", path)
        local again, second = went { path = "/", headers = { Cookie = "who=" .. value } }
        assert.equal(place, again)
        assert.is_nil(second.headers["set-cookie"])
      end
    end)

    it("tries another target after one that failed", function()
      start({ algorithm = "consistent-hashing", hash_on = "header", hash_on_header = "X-Who" }, { 100, 100, 100 },
        { { refuse = true } })
      for i = 1, 30 do assert.is_true(went(by_header(i)) ~= 1) end
    end)
  end)

  describe("with sticky-sessions", function()
    local function sticky(answers, more)
      local fields = { algorithm = "sticky-sessions", sticky_sessions_cookie = "stay",
        sticky_sessions_cookie_path = "/shop" }
      for key, value in pairs(more or {}) do fields[key] = value end
      return start(fields, { 100, 100, 100 }, answers)
    end

    local function session(response)
      return response.headers["set-cookie"]:match("^(stay=%x+%.%x+); Path=/shop; HttpOnly$")
    end

    it("keeps a client where it came to first", function()
      sticky()
      local seen = {}
      for _ = 1, 6 do
        local place, response = went("/")
        seen[place] = true
        for _ = 1, 5 do
          local again, later = went { path = "/", headers = { Cookie = session(response) } }
          assert.equal(place, again)
          assert.is_nil(later.headers["set-cookie"])
        end
      end
      assert.same({ true, true, true }, seen)
    end)

    it("moves a client whose target is out, for good", function()
      sticky(nil, { healthchecks = { passive = { unhealthy = { http_failures = 1 } } } })
      local place, response = went("/")
      local cookie = session(response)
      gateway:upstream("10.0.0." .. place .. ":80", { status = 500 })
      gateway:request { path = "/", headers = { Cookie = cookie } }
      local other, moved = went { path = "/", headers = { Cookie = cookie } }
      assert.is_true(other ~= place)
      assert.equal(other, (went { path = "/", headers = { Cookie = session(moved) } }))
    end)

    it("tells one cookie, however many targets it tried", function()
      sticky { { refuse = true }, { refuse = true } }
      for _ = 1, 4 do
        local place, response = went("/")
        assert.equal(3, place)
        local found = 0
        for _, field in ipairs(response.fields) do
          if field[1]:lower() == "set-cookie" then found = found + 1 end
        end
        assert.equal(1, found)
        assert.equal(3, (went { path = "/", headers = { Cookie = session(response) } }))
      end
    end)

    it("takes no notice of a cookie that is not its own", function()
      sticky()
      for _, value in ipairs { "", "nonsense", "a.b", "0.0123456789abcdef", ("x"):rep(5000), "a.b.c" } do
        local _, response = went { path = "/", headers = { Cookie = "stay=" .. value } }
        assert.is_string(session(response))
      end
    end)

    it("needs the name of its cookie", function()
      local _, err = spec.check { upstreams = { { name = "up", algorithm = "sticky-sessions" } } }
      assert.matches("sticky_sessions_cookie", err)
    end)
  end)

  describe("with slow_start", function()
    it("gives a target that has come a growing share", function()
      start({ slow_start = 100 }, { 100 })
      gateway:advance(200)
      local upstreams = { { name = "up", slow_start = 100,
        targets = { { target = "10.0.0.1:80" }, { target = "10.0.0.2:80" } } } }
      gateway:upstream("10.0.0.2:80", { body = "2" })
      assert(gateway:reload { upstreams = upstreams })
      local first = counts(300)[2]
      assert.is_true(first > 5 and first < 60, first) -- 10 % of its turns
      gateway:advance(50)
      local half = counts(300)[2]
      assert.is_true(half > 55 and half < 110, half)
      gateway:advance(50)
      assert.same({ 150, 150 }, counts(300))
    end)

    it("gives targets that come together equal shares", function()
      start({ slow_start = 100 }, { 100, 100 })
      local found = counts(300)
      assert.is_true(found[1] > 110 and found[2] > 110)
    end)
  end)

  for _, algorithm in ipairs { "round-robin", "least-connections", "latency", "power-of-two-choices",
    "consistent-hashing", "sticky-sessions" } do
    it("with " .. algorithm .. " leaves out a target that is out, and says so when all are", function()
      start({ algorithm = algorithm, sticky_sessions_cookie = "stay",
        healthchecks = { passive = { unhealthy = { tcp_failures = 1, http_failures = 1 } } } }, { 100, 100, 0 },
        { { refuse = true }, { body = "2" }, { body = "3" } })
      local tries = 0
      while #gateway:requests("10.0.0.2:80") < 20 and tries < 50 do
        went("/")
        tries = tries + 1
      end
      assert.same({ [2] = 20 }, counts(20))
      gateway:upstream("10.0.0.2:80", { status = 500 })
      assert.equal(500, gateway:get("/").status)
      local response = gateway:get("/")
      assert.equal(503, response.status)
      assert.matches("failure to get a peer from the ring-balancer", response.body, 1, true)
    end)
  end
end)
