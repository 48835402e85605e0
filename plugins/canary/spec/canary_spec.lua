-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local NOW = 1767225600 -- when specs begin

describe("canary", function()
  local gateway

  local function named(name)
    return function(request) return { json = { at = name, path = request.path, port = request.port } } end
  end

  local function options(config, extra)
    local all = { plugins = { { name = "canary", config = config } }, upstreams = {
      ["service.example"] = named("service"), ["canary.example"] = named("canary") } }
    for name, value in pairs(extra or {}) do
      if name == "plugins" then
        for _, plugin in ipairs(value) do table.insert(all.plugins, plugin) end
      elseif name == "upstreams" then
        for key, upstream in pairs(value) do all.upstreams[key] = upstream end
      else
        all[name] = value
      end
    end
    return all
  end

  local function start(config, extra)
    if not (config.upstream_port or config.upstream_uri or config.upstream_host) then
      config.upstream_host = "canary.example"
    end
    gateway = spec.gateway(options(config, extra))
  end

  -- How many of the clients with these numbers go to the canary, and which.
  local function clients(count)
    local found, those = 0, {}
    for i = 1, count do
      local at = gateway:request { path = "/", client_ip = ("10.0.%d.%d"):format(i / 250, i % 250 + 1) }.json.at
      those[i] = at == "canary"
      found = found + (those[i] and 1 or 0)
    end
    return found, those
  end

  describe("of a fixed share", function()
    it("sends that share of the clients", function()
      start { percentage = 30, hash = "ip" }
      local found = clients(300)
      assert.is_true(found > 60 and found < 120, found)
    end)

    it("sends the same ones every time, and more of them with a greater share", function()
      start { percentage = 30, hash = "ip" }
      local _, first = clients(60)
      local _, second = clients(60)
      assert.same(first, second)
      start { percentage = 60, hash = "ip" }
      local _, more = clients(60)
      for i = 1, 60 do assert.is_true(not first[i] or more[i]) end
    end)

    it("sends nobody with 0 and everybody with 100", function()
      start { percentage = 0, hash = "ip" }
      assert.equal(0, (clients(20)))
      start { percentage = 100, hash = "none" }
      assert.equal(20, (clients(20)))
    end)

    it("sends at random with `none`", function()
      start { percentage = 50, hash = "none" }
      local found = 0
      for _ = 1, 100 do found = found + (gateway:get("/").json.at == "canary" and 1 or 0) end
      assert.is_true(found > 25 and found < 75, found)
    end)

    it("takes as many groups as `steps`", function()
      start { percentage = 40, steps = 1, hash = "ip" } -- one group: all or nobody
      local found = clients(20)
      assert.is_true(found == 0 or found == 20)
    end)
  end)

  it("tells clients apart by a header, and by the address without it", function()
    start { percentage = 50, hash = "header", hash_header = "X-User" }
    local seen, there = {}, 0
    for i = 1, 40 do
      local headers = { ["X-User"] = "user" .. i }
      seen[i] = gateway:get("/", headers).json.at
      there = there + (seen[i] == "canary" and 1 or 0)
      assert.equal(seen[i], gateway:get("/", headers).json.at)
    end
    assert.is_true(there > 8 and there < 32, there)
    local _, first = clients(30)
    local _, second = clients(30)
    assert.same(first, second)
  end)

  it("tells clients apart by their consumer", function()
    local consumers = {}
    for i = 1, 20 do consumers[i] = { username = "u" .. i, keyauth_credentials = { { key = "k" .. i } } } end
    start({ percentage = 50 }, { plugins = { { name = "key-auth" } }, consumers = consumers })
    local there = 0
    for i = 1, 20 do
      local at = gateway:get("/", { apikey = "k" .. i }).json.at
      local other = gateway:request { path = "/", headers = { apikey = "k" .. i }, client_ip = "9.9.9." .. i }
      assert.equal(at, other.json.at)
      there = there + (at == "canary" and 1 or 0)
    end
    assert.is_true(there > 2 and there < 18, there)
  end)

  describe("over time", function()
    it("begins at its start, grows, and ends with everybody", function()
      start { hash = "ip", start = NOW + 100, duration = 1000 }
      local counts = {}
      for i, seconds in ipairs { 90, 260, 500, 300 } do -- to 90, 350, 850, 1150 s
        gateway:advance(seconds)
        counts[i] = clients(100)
      end
      assert.equal(0, counts[1])
      assert.is_true(counts[2] > 10 and counts[2] < 45, counts[2])
      assert.is_true(counts[3] > 55 and counts[3] < 95, counts[3])
      assert.equal(100, counts[4])
    end)

    it("takes a start that has passed", function()
      start { hash = "ip", start = NOW - 5000, duration = 1000 }
      assert.equal(10, (clients(10)))
    end)

    it("begins when it is first seen, and goes on over reloads", function()
      start { hash = "ip", duration = 1000 }
      assert.equal(0, (clients(10)))
      gateway:advance(600)
      local before = clients(60)
      assert.is_true(before > 15 and before < 55, before)
      assert(gateway:reload(options({ hash = "ip", duration = 1000, steps = 1000, upstream_host = "canary.example" },
        { plugins = { { name = "correlation-id" } } })))
      assert.equal(before, (clients(60)))
    end)

    it("is all there at once without a duration", function()
      start { hash = "none", duration = 0 }
      assert.equal("canary", gateway:get("/").json.at)
    end)
  end)

  describe("of groups", function()
    local function group_gateway(config)
      start(config, { plugins = { { name = "key-auth", config = { anonymous = "nobody" } } },
        consumer_groups = { { name = "gold" } }, consumers = { { username = "nobody" },
          { username = "ada", keyauth_credentials = { { key = "ada" } }, acls = { { group = "testers" } } },
          { username = "bob", keyauth_credentials = { { key = "bob" } }, groups = { { name = "gold" } } },
          { username = "eve", keyauth_credentials = { { key = "eve" } }, acls = { { group = "others" } } } } })
      local found = {}
      for _, name in ipairs { "ada", "bob", "eve" } do
        found[name] = gateway:get("/", { apikey = name }).json.at
      end
      found.anybody = gateway:get("/").json.at
      return found
    end

    it("sends those that are allowed", function()
      assert.same({ ada = "canary", bob = "canary", eve = "service", anybody = "service" },
        group_gateway { hash = "allow", groups = { "testers", "gold" } })
    end)

    it("sends all but those that are denied", function()
      assert.same({ ada = "service", bob = "service", eve = "canary", anybody = "canary" },
        group_gateway { hash = "deny", groups = { "testers", "gold" } })
    end)

    it("knows Kong's old names for them", function()
      assert.equal("canary", group_gateway { hash = "whitelist", groups = { "testers" } }.ada)
      assert.equal("service", group_gateway { hash = "blacklist", groups = { "testers" } }.ada)
    end)
  end)

  it("heeds a request that says always or never", function()
    start { percentage = 0, canary_by_header_name = "X-Canary" }
    assert.equal("canary", gateway:get("/", { ["X-Canary"] = "always" }).json.at)
    assert.equal("service", gateway:get("/", { ["X-Canary"] = "maybe" }).json.at)
    start { percentage = 100, canary_by_header_name = "X-Canary" }
    assert.equal("service", gateway:get("/", { ["X-Canary"] = "never" }).json.at)
  end)

  describe("sends to", function()
    it("another host, with the port of the service or its own", function()
      start { percentage = 100 }
      assert.same({ at = "canary", path = "/x", port = 80 }, gateway:get("/x").json)
      start { percentage = 100, upstream_host = "canary.example", upstream_port = 8081 }
      assert.equal(8081, gateway:get("/x").json.port)
    end)

    it("another port of the service", function()
      start { percentage = 100, upstream_port = 81 }
      assert.same({ at = "service", path = "/x", port = 81 }, gateway:get("/x").json)
    end)

    it("another path of the service", function()
      start { percentage = 100, upstream_uri = "/v2" }
      assert.same({ at = "service", path = "/v2", port = 80 }, gateway:get("/x").json)
      start { percentage = 100, upstream_uri = "v2" }
      assert.equal("/v2", gateway:get("/x").json.path)
    end)

    it("an upstream", function()
      start({ percentage = 100, upstream_host = "pool" }, { upstreams = {
        { name = "pool", targets = { { target = "canary.example:82" } } } } })
      assert.same({ at = "canary", path = "/", port = 82 }, gateway:get("/").json)
    end)
  end)

  it("goes to the service while the canary is not well, when it is told", function()
    local function with(fallback)
      start({ percentage = 100, upstream_host = "pool", upstream_fallback = fallback }, { upstreams = {
        { name = "pool", targets = { { target = "broken.example:82" } },
          healthchecks = { passive = { unhealthy = { http_failures = 1, http_statuses = { 500 } } } } },
        ["broken.example"] = { status = 500 } } })
      gateway:get("/")
      return gateway:get("/")
    end
    assert.same({ 200, "service" }, { with(true).status, gateway:get("/").json.at })
    assert.equal(503, with(false).status)
  end)

  it("says in the log who was sent", function()
    start({ percentage = 100 }, { plugins = { { name = "file-log", config = { path = "/dev/null" } },
      { name = "post-function", config = { log = {
        [[require("sluice").log.notice("canary " .. tostring(exchange:serialize().canary))]] } } } } })
    gateway:get("/")
    assert.equal(1, #gateway:log("canary true"))
  end)

  describe("refuses", function()
    local function problem(config, extra)
      return select(2, spec.check(options(config, extra)))
    end

    it("to go nowhere", function()
      assert.matches("expected at least one of upstream_uri, upstream_host or upstream_port", problem {}, 1, true)
    end)

    it("a hash without what it needs", function()
      assert.matches("config.hash_header: expected a value (because of hash)",
        problem { upstream_port = 1, hash = "header" }, 1, true)
      assert.matches("config.groups: expected a value (because of hash)",
        problem { upstream_port = 1, hash = "allow" }, 1, true)
      assert.matches("config.groups: expected a value (because of hash)",
        problem { upstream_port = 1, hash = "deny" }, 1, true)
    end)

    it("a hash that there is not", function()
      assert.matches("config.hash: expected one of consumer, ip, none, allow, deny, header",
        problem { upstream_port = 1, hash = "moon" }, 1, true)
    end)

    it("shares, steps and times out of bounds", function()
      assert.matches("config.percentage: expected a number from 0 to 100", problem { upstream_port = 1,
        percentage = 101 }, 1, true)
      assert.matches("config.steps: expected a number from 1", problem { upstream_port = 1, steps = 0 }, 1, true)
      assert.matches("config.duration: expected a number of at least 0", problem { upstream_port = 1, duration = -1 },
        1, true)
      assert.matches("config.start: expected a number of at least 0", problem { upstream_port = 1, start = -1 }, 1,
        true)
    end)

    it("a fallback without a host", function()
      assert.matches("config.upstream_host: expected a value (because of upstream_fallback)",
        problem { upstream_port = 1, upstream_fallback = true }, 1, true)
    end)
  end)
end)
