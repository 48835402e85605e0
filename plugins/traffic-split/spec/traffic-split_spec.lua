-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

describe("traffic-split", function()
  local gateway

  local function named(name)
    return function(request)
      return { json = { at = name, path = request.path, host = request.headers.host, tls = request.port == 443 } }
    end
  end

  local function options(config, extra)
    local all = {
      services = {
        { name = "old", url = "http://old.example", routes = { { name = "route", paths = { "/" } } } },
        { name = "new", url = "http://new.example:8080/base" },
        { name = "secure", url = "https://secure.example" },
        { name = "off", url = "http://off.example", enabled = false },
      },
      upstreams = {
        { name = "pool", targets = { { target = "pool1.example:81" }, { target = "pool2.example:82" } } },
        ["old.example"] = named("old"), ["new.example"] = named("new"), ["secure.example"] = named("secure"),
        ["pool1.example"] = named("pool"), ["pool2.example"] = named("pool"), ["bare.example"] = named("bare"),
      },
      plugins = { { name = "traffic-split", config = config } },
    }
    for name, value in pairs(extra or {}) do
      if name == "plugins" then
        for _, plugin in ipairs(value) do table.insert(all.plugins, plugin) end
      else
        all[name] = value
      end
    end
    return all
  end

  local function start(config, extra)
    gateway = spec.gateway(options(config, extra))
  end

  local function where(path, headers)
    return gateway:get(path or "/", headers).json.at
  end

  local function counts(times, headers)
    local found = {}
    for _ = 1, times do
      local at = where("/", headers)
      found[at] = (found[at] or 0) + 1
    end
    return found
  end

  local function rule(list, match)
    return { rules = { { weighted_upstreams = list, match = match } } }
  end

  describe("by weight", function()
    it("gives each its share of every round", function()
      start(rule { { service = "new", weight = 3 }, { weight = 7 } })
      assert.same({ new = 3, old = 7 }, counts(10))
      assert.same({ new = 27, old = 63 }, counts(90))
    end)

    it("mixes them well", function()
      start(rule { { service = "new" }, { weight = 1 } })
      local first, second = where(), where()
      assert.are_not.equal(first, second)
    end)

    it("counts 1 for a weight that is not told", function()
      start(rule { { service = "new" }, {}, { service = "secure" } })
      assert.same({ new = 2, old = 2, secure = 2 }, counts(6))
    end)

    it("gives nothing to weight 0", function()
      start(rule { { service = "new", weight = 0 }, {} })
      assert.same({ old = 5 }, counts(5))
    end)

    it("leaves a request alone where all weights are 0", function()
      start(rule { { service = "new", weight = 0 } })
      assert.same({ old = 2 }, counts(2))
    end)

    it("keeps its turns over a reload that does not touch it", function()
      start(rule { { service = "new", weight = 1 }, { weight = 1 } })
      local first = where()
      local all = options(rule { { service = "new", weight = 1 }, { weight = 1 } })
      assert(gateway:reload { plugins = { all.plugins[1], { name = "correlation-id" } } })
      assert.are_not.equal(first, where())
    end)
  end)

  describe("sends to", function()
    it("a service, with all that it says", function()
      start(rule { { service = "new" } })
      local seen = gateway:get("/x/y?a=1").json
      assert.same({ at = "new", path = "/base/x/y", host = "new.example:8080", tls = false }, seen)
      assert.equal("new.example:8080", gateway:requests()[1].headers.host)
    end)

    it("a service over TLS", function()
      start(rule { { service = "secure" } })
      assert.is_true(gateway:get("/").json.tls)
    end)

    it("an upstream", function()
      start(rule { { upstream = "pool" } })
      assert.equal("pool", where())
      where()
      assert.same({ 1, 1 }, { #gateway:requests("pool1.example"), #gateway:requests("pool2.example") })
    end)

    it("a host and port, with a protocol", function()
      start(rule { { target = "bare.example:9090" } })
      assert.equal("bare", where("/p"))
      assert.same({ 9090, "/p" }, { gateway:requests()[1].port, gateway:requests()[1].path })
      start(rule { { target = "bare.example:443", protocol = "https" } })
      assert.is_true(gateway:get("/").json.tls)
    end)

    it("an IPv6 address", function()
      start(rule { { target = "[fd00::7]:9090" } }, { upstreams = { ["fd00::7"] = named("six") } })
      assert.equal("six", where())
    end)

    it("the path that a plugin has set", function()
      start(rule { { service = "new" } }, { plugins = { { name = "request-transformer",
        config = { replace = { uri = "/else" } } } } })
      assert.equal("/else", gateway:get("/x").json.path)
    end)
  end)

  describe("with rules", function()
    before_each(function()
      start { rules = {
        { match = 'http.headers.x_beta == "yes"', weighted_upstreams = { { service = "new" } } },
        { match = 'http.path ^= "/pool"', weighted_upstreams = { { upstream = "pool" } } },
      } }
    end)

    it("goes by the first that a request meets", function()
      assert.equal("new", where("/pool", { ["X-Beta"] = "yes" }))
      assert.equal("pool", where("/pool/1"))
    end)

    it("leaves a request alone that meets none", function()
      assert.equal("old", where("/"))
    end)
  end)

  describe("that sticks", function()
    local HALF = { { service = "new" }, { name = "here" } }

    it("by a cookie", function()
      start { rules = { { weighted_upstreams = HALF } }, sticky = { by = "cookie" } }
      local response = gateway:get("/")
      local first, set = response.json.at, response.headers["set-cookie"]
      assert.matches("^sluice_split=%w+; Path=/; HttpOnly; SameSite=Lax$", set)
      local name = set:match("=(%w+)")
      for _ = 1, 4 do
        response = gateway:get("/", { Cookie = "a=b; sluice_split=" .. name })
        assert.same({ first, nil }, { response.json.at, response.headers["set-cookie"] })
      end
    end)

    it("by a cookie as it is told", function()
      start { rules = { { weighted_upstreams = { { service = "new", name = "v2 beta" } } } }, sticky = { by = "cookie",
        name = "track", cookie_ttl = 60, cookie_path = "/x", cookie_domain = "example.com", cookie_secure = true,
        cookie_http_only = false, cookie_same_site = "None" } }
      assert.equal("track=v2%20beta; Path=/x; Max-Age=60; Domain=example.com; Secure; SameSite=None",
        gateway:get("/").headers["set-cookie"])
      assert.is_nil(gateway:get("/", { Cookie = "track=v2%20beta" }).headers["set-cookie"])
    end)

    it("keeps the cookies of the service", function()
      start({ rules = { { weighted_upstreams = HALF } }, sticky = { by = "cookie" } },
        { upstreams = { ["*"] = { headers = { ["Set-Cookie"] = "own=1" }, json = {} } } })
      assert.matches("own=1, sluice_split=", gateway:get("/").headers["set-cookie"], 1, true)
    end)

    it("chooses anew where the cookie names nothing, or what gets no requests", function()
      start { rules = { { weighted_upstreams = { { service = "new", weight = 0 }, { name = "here" } } } },
        sticky = { by = "cookie" } }
      for _, value in ipairs { "new", "nothing", "" } do
        local response = gateway:get("/", { Cookie = "sluice_split=" .. value })
        assert.equal("old", response.json.at)
        assert.matches("sluice_split=here", response.headers["set-cookie"], 1, true)
      end
    end)

    it("by a header", function()
      start { rules = { { weighted_upstreams = HALF } }, sticky = { by = "header", name = "X-User" } }
      local seen = {}
      for user = 1, 40 do
        local headers = { ["X-User"] = "user" .. user }
        local at = where("/", headers)
        assert.equal(at, where("/", headers))
        seen[at] = (seen[at] or 0) + 1
      end
      assert.is_true(seen.new > 8 and seen.old > 8)
      assert.same({ new = 2, old = 2 }, counts(4)) -- without the header
    end)

    it("moves few clients when a weight changes", function()
      local function all(weight)
        start { rules = { { weighted_upstreams = { { service = "new", weight = weight }, { weight = 50 } } } },
          sticky = { by = "header", name = "X-User" } }
        local found = {}
        for user = 1, 60 do found[user] = where("/", { ["X-User"] = "user" .. user }) end
        return found
      end
      local before, after = all(50), all(100)
      for user = 1, 60 do
        if before[user] == "new" then assert.equal("new", after[user]) end
      end
    end)

    it("by the client's address", function()
      start { rules = { { weighted_upstreams = HALF } }, sticky = { by = "ip" } }
      local seen = {}
      for host = 1, 20 do
        local at
        for _ = 1, 2 do
          local now = gateway:request { path = "/", client_ip = "10.0.0." .. host }.json.at
          assert.is_true(at == nil or at == now)
          at = now
        end
        seen[at] = true
      end
      assert.is_true(seen.new and seen.old)
    end)

    it("by the consumer", function()
      local consumers = {}
      for i = 1, 12 do consumers[i] = { username = "u" .. i, keyauth_credentials = { { key = "k" .. i } } } end
      start({ rules = { { weighted_upstreams = HALF } }, sticky = { by = "consumer" } },
        { plugins = { { name = "key-auth" } }, consumers = consumers })
      local seen = {}
      for i = 1, 12 do
        local at = where("/", { apikey = "k" .. i })
        assert.equal(at, where("/", { apikey = "k" .. i }))
        seen[at] = true
      end
      assert.is_true(seen.new and seen.old)
    end)
  end)

  it("says in a field of the response which one was chosen", function()
    local config = rule({ { service = "new" } }, 'http.path == "/new"')
    config.response_header = "X-Split"
    start(config)
    assert.equal("new", gateway:get("/new").headers["x-split"])
    assert.is_nil(gateway:get("/").headers["x-split"])
  end)

  it("says in the log which one was chosen", function()
    start(rule { { service = "new", name = "v2" } }, { plugins = { { name = "file-log",
      config = { path = "/dev/null" } }, { name = "post-function", config = { log = {
        [[require("sluice").log.notice("split " .. tostring(exchange:serialize().traffic_split))]] } } } } })
    gateway:get("/")
    assert.equal(1, #gateway:log("split v2"))
  end)

  describe("refuses", function()
    local function problem(config)
      return select(2, spec.check(options(config)))
    end

    it("a service or upstream that there is not", function()
      assert.matches('config.rules[0].weighted_upstreams[1].service: expected the name of a service in the '
        .. 'configuration, found "none"', problem(rule { {}, { service = "none" } }), 1, true)
      assert.matches('config.rules[0].weighted_upstreams[0].upstream: expected the name of an upstream in the '
        .. 'configuration, found "none"', problem(rule { { upstream = "none" } }), 1, true)
    end)

    it("an expression that is none", function()
      assert.matches("config.rules[0].match: expected an expression (column 1: there is no field x)",
        problem(rule({ {} }, 'x == "a"')), 1, true)
    end)

    it("two targets of one name", function()
      assert.matches('expected names that differ, found two of "default"', problem(rule { {}, {} }), 1, true)
    end)

    it("more than one place for a target, and a protocol for a service", function()
      assert.matches("expected at most one of service, upstream or target", problem(rule { { service = "new",
        target = "a:1" } }), 1, true)
      assert.matches("expected at most one of service or protocol", problem(rule { { service = "new",
        protocol = "http" } }), 1, true)
    end)

    it("a target without a port", function()
      assert.matches("target: expected a host and a port", problem(rule { { target = "bare.example" } }), 1, true)
    end)

    it("no rules, and rules without targets", function()
      assert.matches("config.rules: expected a list", problem {}, 1, true)
      assert.matches("config.rules", problem { rules = {} }, 1, true)
      assert.matches("weighted_upstreams", problem { rules = { {} } }, 1, true)
    end)

    it("a header without a name to stick by", function()
      assert.matches("config.sticky.name: expected a value (because of by), found nothing",
        problem { rules = { { weighted_upstreams = { {} } } }, sticky = { by = "header" } }, 1, true)
    end)
  end)

  it("answers 500 where the service is disabled, and says so in the log", function()
    start(rule { { service = "off" } })
    assert.equal(500, gateway:get("/").status)
    assert.equal(1, #gateway:log("could not find a service named 'off'"))
  end)
end)
