-- SPDX-License-Identifier: Apache-2.0
-- Which route takes a request: Kong's rules by example, and against a plain reading of the same rules on random input.
local ffi = require "ffi"
local core = require "spec.support.core"
local reference = require "spec.support.routes"
local router = require "sluice.cli.router"

local C = core.load("router.h")

local function build(routes)
  return assert(router.new(C, routes))
end

-- The number of the route that takes the request, 0 for none.
local function taken(routes, request)
  local found = build(routes):match(request)
  return found.route or 0
end

describe("the order of routes", function()
  it("prefers the route that asks for more attributes", function()
    local routes = {
      { paths = { "/a/very/long/path" } },
      { hosts = { "x.test" }, methods = { "GET" } },
    }
    assert.equal(2, taken(routes, { host = "x.test", path = "/a/very/long/path" }))
  end)

  it("tries the next one when the best fails on another attribute", function()
    local routes = {
      { paths = { "/a" } },
      { paths = { "/a" }, methods = { "POST" }, hosts = { "x.test" } },
      { paths = { "/a" }, hosts = { "x.test" } },
    }
    assert.equal(3, taken(routes, { method = "GET", host = "x.test", path = "/a" }))
    assert.equal(1, taken(routes, { method = "POST", host = "y.test", path = "/a" }))
  end)

  it("prefers plain hosts to wildcards, and a route with one wildcard counts as wildcard", function()
    assert.equal(2, taken({ { hosts = { "*.test" } }, { hosts = { "x.test" } } }, { host = "x.test" }))
    local routes = { { hosts = { "x.test", "*.other" }, created_at = 1 }, { hosts = { "x.test" }, created_at = 2 } }
    assert.equal(2, taken(routes, { host = "x.test" }))
  end)

  it("prefers more headers", function()
    local routes = {
      { headers = { a = { "1" } }, created_at = 1 },
      { headers = { a = { "1" }, b = { "2" } }, created_at = 2 },
    }
    assert.equal(2, taken(routes, { headers = { a = "1", b = "2" } }))
    assert.equal(1, taken(routes, { headers = { a = "1", b = "3" } }))
  end)

  it("tries regex paths before prefixes, by regex_priority, negative ones too", function()
    local routes = {
      { paths = { "/status/of/everything" } },
      { paths = { "~/status/\\w+" }, regex_priority = -5 },
      { paths = { "~/status/o" }, regex_priority = 7 },
      { paths = { "~/status" } },
    }
    assert.equal(3, taken(routes, { path = "/status/of/everything" }))
    assert.equal(4, taken(routes, { path = "/status/x" }))
    assert.equal(2, taken({ routes[1], routes[2] }, { path = "/status/of/everything" }))
  end)

  it("tries longer prefixes first, each path of a route by its own length", function()
    local routes = {
      { paths = { "/a", "/a/b/c" } },
      { paths = { "/a/b" } },
    }
    assert.equal(1, taken(routes, { path = "/a/b/c/d" }))
    assert.equal(2, taken(routes, { path = "/a/b/x" }))
    assert.equal(1, taken(routes, { path = "/abc" }))
  end)

  it("prefers the older route, then the first one", function()
    local routes = { { paths = { "/a" }, created_at = 20 }, { paths = { "/a" }, created_at = 10 } }
    assert.equal(2, taken(routes, { path = "/a" }))
    assert.equal(1, taken({ { paths = { "/a" } }, { paths = { "/a" } } }, { path = "/a" }))
  end)
end)

describe("paths", function()
  it("matches prefixes, not segments, as Kong does", function()
    assert.equal(1, taken({ { paths = { "/admin" } } }, { path = "/administrator" }))
    assert.equal(0, taken({ { paths = { "/admin/" } } }, { path = "/admin" }))
  end)

  it("compares with the canonical form of a configured prefix", function()
    assert.equal(1, taken({ { paths = { "/caf\195\169" } } }, { path = "/caf%C3%A9/menu" }))
    assert.equal(1, taken({ { paths = { "//%61dmin/./x" } } }, { path = "/admin/x" }))
  end)

  it("files prefixes longer than an index key, and tells them apart behind it", function()
    local long = "/" .. ("x"):rep(200)
    local routes = { { paths = { long .. "/a" } }, { paths = { long .. "/b" } }, { paths = { long } } }
    assert.equal(2, taken(routes, { path = long .. "/b/c" }))
    assert.equal(3, taken(routes, { path = long .. "/c" }))
    assert.equal(0, taken(routes, { path = "/" .. ("x"):rep(199) }))
  end)

  it("anchors every alternative of a regex at the start", function()
    assert.equal(0, taken({ { paths = { "~/a|/admin" } } }, { path = "/public/admin" }))
    assert.equal(1, taken({ { paths = { "~/a|/b" } } }, { path = "/b" }))
  end)

  it("takes $ as the very end", function()
    assert.equal(1, taken({ { paths = { "~/a$" } } }, { path = "/a" }))
    assert.equal(0, taken({ { paths = { "~/a$" } } }, { path = "/a/" }))
  end)

  it("gives captures by number and by name, also of groups that took no part", function()
    local found = build({ { paths = { "~/users/(?<id>\\d+)(/(?P<part>\\w+))?(/x)?" } } })
      :match { path = "/users/42/orders" }
    assert.equal("42", found.captures.id)
    assert.equal("42", found.captures[1])
    assert.equal("orders", found.captures.part)
    assert.is_false(found.captures[4])
    assert.equal(#"/users/42/orders", found.path_len)
  end)

  it("keeps 32 groups of a regex that has more", function()
    local found = build({ { paths = { "~/" .. ("(.)"):rep(40) } } }):match { path = "/" .. ("ab"):rep(20) }
    assert.equal(32, #found.captures)
    assert.equal("b", found.captures[32])
    assert.equal(41, found.path_len)
  end)

  it("finds a regex whose beginning only seems to be literal", function()
    local cases = {
      { "~/ab?c", "/ac" }, { "~/ab*c", "/ac" }, { "~/ab{0,1}c", "/ac" }, { "~/ab|/cd", "/cd" },
      { "~(?i)/ab", "/AB" }, { "~/a(?i)b", "/aB" }, { "~/a(b|c)d", "/acd" }, { "~/x[|]y", "/x|y" },
      { "~/a(?x) b", "/ab" }, { "~/\\Qa|b\\E", "/a|b" }, { "~/[]|(]z", "/|z" }, { "~/a(?:b|c)|/z", "/z" },
      { "~/[\\]|]y", "/]y" }, { "~", "/anything" }, { "~/a\\|b", "/a|b" }, { "~/caf\195\169?$", "/caf" },
    }
    for _, case in ipairs(cases) do
      assert.equal(1, taken({ { paths = { case[1] } } }, { path = case[2] }), case[1] .. " for " .. case[2])
    end
  end)

  it("answers overrun, and no lower route, when a regex passes its limits", function()
    local evil = "~/(a+)+(b+)+$"
    local routes = { { paths = { "/a" } }, { paths = { evil } } }
    local found = build(routes):match { path = "/" .. ("a"):rep(40) .. ("b"):rep(40) .. "c" }
    assert.equal("overrun", found.outcome)
    assert.equal(2, found.route)
    assert.equal("found", build(routes):match({ path = "/ac" }).outcome)
  end)

  it("does not care for an overrun below the route that takes the request", function()
    local routes = { { paths = { "~/a" }, regex_priority = 1 }, { paths = { "~/(a+)+(b+)+$" } } }
    local found = build(routes):match { path = "/" .. ("a"):rep(40) .. ("b"):rep(40) .. "c" }
    assert.equal("found", found.outcome)
    assert.equal(1, found.route)
  end)
end)

describe("a path that servers may read in several ways", function()
  local routes = {
    { paths = { "/" } }, { paths = { "/open" } }, { paths = { "/admin/" } }, { paths = { "~/x/[^/]+$" } },
  }
  local compiled

  setup(function() compiled = build(routes) end)

  local function outcome(path)
    return compiled:match({ path = path }).outcome
  end

  it("is refused when another reading leads to a better route", function()
    for _, path in ipairs { "/admin;x/keys", "/admin;/keys", "/admin%2Fkeys", "/admin%5Ckeys", "/admin%3Bx/keys",
      "/admin;a=b;c/keys", "/open/%2F..;/..%2F..%2Fadmin/keys" } do
      assert.equal("ambiguous", outcome(path), path)
    end
  end)

  it("is refused when dot segments come to light in it", function()
    for _, path in ipairs { "/open/..%2Fadmin/keys", "/open/x%2F..", "/open%2F../admin/", "/open/.%5Cx", "/..%2F",
      "/open/%2F..%2F..%2Fadmin" } do
      assert.equal("ambiguous", outcome(path), path)
    end
  end)

  it("goes through when all readings lead to the same route, or another one to a lesser", function()
    assert.equal("found", outcome("/open;v=1/a"))
    assert.equal("found", outcome("/open/a%2Fb"))
    assert.equal("found", outcome("/open/..a%2F...;x"))
    assert.equal(4, compiled:match({ path = "/x/group%2Fproject" }).route)
    assert.equal("found", outcome("/admin/keys;x"))
    assert.equal("found", outcome("/100%25;"))
  end)

  it("gives no answer that a route would not take anyway", function()
    local guarded = build { { paths = { "/admin/" } } }
    assert.equal("nothing", guarded:match({ path = "/admin;x/keys" }).outcome)
  end)

  it("may be longer than any before", function()
    assert.equal("ambiguous", outcome("/admin;" .. ("x"):rep(20000) .. "/keys"))
    assert.equal("found", outcome("/open/" .. ("x;y/"):rep(5000)))
    assert.equal("ambiguous", outcome("/open/%2F" .. ("x;y/"):rep(5000)), "too long for all its readings")
  end)
end)

describe("hosts", function()
  it("matches wildcards at either end, over several labels, but not for nothing", function()
    local routes = { { hosts = { "*.example.com" } }, { hosts = { "shop.*" } } }
    assert.equal(1, taken(routes, { host = "a.b.example.com" }))
    assert.equal(2, taken(routes, { host = "shop.example.org" }))
    assert.equal(0, taken(routes, { host = "example.com" }))
    assert.equal(0, taken(routes, { host = "shop." }))
  end)

  it("takes any host for a star alone", function()
    assert.equal(1, taken({ { hosts = { "*" } } }, { host = "x" }))
    assert.equal(0, taken({ { hosts = { "*" } } }, { host = "" }))
  end)

  it("asks for a port where the route has one", function()
    local routes = { { hosts = { "x.test:8443" } }, { hosts = { "*.y.test:81" } }, { hosts = { "[::1]:90" } } }
    assert.equal(1, taken(routes, { host = "x.test", port = 8443 }))
    assert.equal(0, taken(routes, { host = "x.test", port = 80 }))
    assert.equal(2, taken(routes, { host = "a.y.test", port = 81 }))
    assert.equal(3, taken(routes, { host = "[::1]", port = 90 }))
    assert.equal(1, taken({ { hosts = { "[::1]" } } }, { host = "[::1]", port = 90 }))
  end)

  it("tells which host matched, in lower case", function()
    assert.equal("*.example.com", build({ { hosts = { "*.Example.COM" } } }):match({ host = "a.example.com" }).host)
  end)

  it("goes on when a route has more hosts and paths than are filed apart", function()
    local hosts, paths = {}, {}
    for i = 1, 40 do
      hosts[i] = "h" .. i .. ".test"
      paths[i] = "/p" .. i .. "/"
    end
    local routes = { { hosts = hosts, paths = paths }, { paths = { "/p40/" } } }
    local found = build(routes):match { host = "h40.test", path = "/p40/x" }
    assert.same({ 1, "h40.test", "/p40/" }, { found.route, found.host, found.path })
    assert.equal(2, taken(routes, { host = "other.test", path = "/p40/x" }))
  end)
end)

describe("methods, headers and snis", function()
  it("matches one of several methods, letter by letter", function()
    local routes = { { methods = { "GET", "PURGE" } } }
    assert.equal(1, taken(routes, { method = "PURGE" }))
    assert.equal(0, taken(routes, { method = "purge" }))
    assert.equal(0, taken(routes, { method = "POST" }))
  end)

  it("wants every header, with one of its values, in any case", function()
    local routes = { { headers = { ["X-Plan"] = { "gold", "Silver" }, ["x-region"] = { "eu" } } } }
    assert.equal(1, taken(routes, { headers = { ["x-plan"] = "SILVER", ["X-Region"] = "EU" } }))
    assert.equal(1, taken(routes, { headers = { ["x-plan"] = { "none", "gold" }, ["X-Region"] = "eu" } }))
    assert.equal(0, taken(routes, { headers = { ["x-plan"] = "gold" } }))
    assert.equal(0, taken(routes, { headers = { ["x-plan"] = "golden", ["x-region"] = "eu" } }))
  end)

  it("searches a header for a regex behind ~*", function()
    local routes = { { headers = { ["user-agent"] = { "~*mobile|^curl/" } } } }
    assert.equal(1, taken(routes, { headers = { ["User-Agent"] = "Some Mobile Thing" } }))
    assert.equal(0, taken(routes, { headers = { ["User-Agent"] = "not curl/7" } }))
  end)

  it("asks for a server name on TLS only", function()
    local routes = { { snis = { "a.test." } } }
    assert.equal(1, taken(routes, { scheme = "https", sni = "a.test" }))
    assert.equal(0, taken(routes, { scheme = "https", sni = "b.test" }))
    assert.equal(0, taken(routes, { scheme = "https" }))
    assert.equal(1, taken(routes, { scheme = "http" }))
  end)
end)

describe("protocols", function()
  it("wants TLS for the best route, rather than falling to one that takes plain HTTP", function()
    local routes = { { paths = { "/a" } }, { paths = { "/a/b" }, protocols = { "https" } } }
    local found = build(routes):match { path = "/a/b", scheme = "http" }
    assert.same({ "needs_tls", 2 }, { found.outcome, found.route })
    assert.equal("found", build(routes):match({ path = "/a/b", scheme = "https" }).outcome)
  end)

  it("is content with the TLS of a trusted proxy", function()
    local found = build({ { paths = { "/" }, protocols = { "https" } } }):match { scheme = "https", tls = false }
    assert.equal("found", found.outcome)
  end)

  it("takes HTTPS on a route for http, as Kong does", function()
    assert.equal("found", build({ { paths = { "/" }, protocols = { "http" } } }):match({ scheme = "https" }).outcome)
  end)
end)

describe("a route that cannot be", function()
  local function refusal(route)
    local _, err = router.new(C, { route })
    return err
  end

  it("is refused with the reason", function()
    assert.matches("invalid regex: .* at character 4", refusal { paths = { "~/(a" } })
    assert.matches("invalid regex", refusal { headers = { a = { "~*[" } } })
    assert.matches("a path begins with", refusal { paths = { "a" } })
    assert.matches("invalid wildcard", refusal { hosts = { "a.*.b" } })
    assert.matches("invalid wildcard", refusal { hosts = { "*.b.*" } })
    assert.matches("invalid length of a host", refusal { hosts = { ("h"):rep(256) } })
  end)

  it("is refused for a 65th method", function()
    local methods = {}
    for i = 1, 65 do methods[i] = "M" .. i end
    assert.matches("more than 64 different methods", refusal { methods = methods })
  end)

  it("is refused for a header value without a name, and for a match out of turn", function()
    local handle = ffi.gc(C.router_new(), C.router_free)
    local err = ffi.new("struct error")
    local route = C.router_add(handle, ffi.new("struct router_route"))
    assert.equal(C.ERROR_INVALID, C.router_add_match(handle, route, C.MATCH_HEADER_VALUE, "x", 1, err))
    assert.matches("without a name", ffi.string(err.text))
    C.router_add(handle, ffi.new("struct router_route"))
    assert.equal(C.ERROR_INVALID, C.router_add_match(handle, route, C.MATCH_PATH, "/", 1, err))
  end)
end)

describe("compiling", function()
  it("stops when its budget is spent, goes on where it stopped, and gives the same router", function()
    local routes = reference.random_routes(reference.randomiser(7), 3000)
    local sliced = assert(router.new(C))
    for _, route in ipairs(routes) do assert(sliced:add(route)) end
    assert.is_true(sliced:compile(0) > 100)
    local whole, random = build(routes), reference.randomiser(8)
    for _ = 1, 500 do
      local request = reference.random_request(random)
      assert.same(whole:match(request), sliced:match(request))
    end
  end)

  it("gives a router without routes", function()
    assert.equal("nothing", build({}):match({ path = "/" }).outcome)
  end)
end)

describe("the router", function()
  -- Each seed makes a set of routes and requests that nearly fit them.
  for _, size in ipairs { 1, 3, 12, 60, 400 } do
    it("agrees with a plain reading of the rules on random sets of " .. size .. " routes", function()
      local hits = 0
      for seed = 1, math.floor(3600 / (size + 10)) + 3 do
        local random = reference.randomiser(1000 * size + seed)
        local routes = reference.random_routes(random, size)
        local compiled = build(routes)
        for _ = 1, 60 do
          local request = reference.random_request(random)
          local wanted, found = reference.match(routes, request), compiled:match(request)
          if wanted.route then hits = hits + 1 end
          assert.same(wanted, { route = found.route, path = found.path, outcome = found.outcome }, "seed " .. seed)
        end
      end
      assert.is_true(hits > 50)
    end)
  end
end)

describe("reasons", function()
  it("say how each attribute fares", function()
    local routes = build {
      {
        paths = { "/a", "/a/b" },
        hosts = { "*.test" },
        methods = { "POST" },
        headers = { a = { "1" }, b = { "2" } },
        protocols = { "https" },
      },
    }
    local reasons = routes:explain({ method = "GET", host = "x.test", path = "/a/b/c", headers = { a = "1" } }, 1)
    reasons.priority = nil
    assert.same({
      methods = "failed",
      hosts = "matched",
      paths = "matched",
      headers = "failed",
      snis = "unset",
      tls_missing = true,
      host = "*.test",
      path = "/a/b",
      header = "b",
    }, reasons)
  end)

  it("give priorities in the order in which routes are tried", function()
    local routes = build { { paths = { "/a" } }, { paths = { "~/a" } }, { paths = { "/a" }, methods = { "GET" } } }
    local function priority(route)
      return routes:explain({ path = "/a" }, route).priority
    end
    assert.is_true(priority(3) > priority(2) and priority(2) > priority(1))
  end)
end)

describe("the upstream path", function()
  -- Kong's table: service path, route path, request path, then with strip_path v0 and v1, and without v0 and v1.
  local cases = {
    { "/", "/", "/req", "/req", "/req", "/req", "/req" },
    { "/s", "/", "/req", "/s/req", "/sreq", "/s/req", "/sreq" },
    { "/s/", "/", "/req", "/s/req", "/s/req", "/s/req", "/s/req" },
    { "/", "/fv0", "/fv0/req", "/req", "/req", "/fv0/req", "/fv0/req" },
    { "/", "/fv0", "/fv0req", "/req", "/req", "/fv0req", "/fv0req" },
    { "/s", "/fv0", "/fv0/req", "/s/req", "/s/req", "/s/fv0/req", "/sfv0/req" },
    { "/s", "/fv0", "/fv0req", "/s/req", "/sreq", "/s/fv0req", "/sfv0req" },
    { "/s/", "/fv0", "/fv0/req", "/s/req", "/s/req", "/s/fv0/req", "/s/fv0/req" },
    { "/s/", "/fv0/", "/fv0/req", "/s/req", "/s/req", "/s/fv0/req", "/s/fv0/req" },
    { "/s", "/fv0/", "/fv0/req", "/s/req", "/sreq", "/s/fv0/req", "/sfv0/req" },
    { "/", "/a", "/a", "/", "/", "/a", "/a" },
    { "/s", "/a", "/a", "/s", "/s", "/s/a", "/sa" },
    { "/s/", "/a", "/a", "/s", "/s/", "/s/a", "/s/a" },
    { "/s/", "/a/", "/a/", "/s/", "/s/", "/s/a/", "/s/a/" },
    { "/s", "/a/", "/a/", "/s/", "/s", "/s/a/", "/sa/" },
    { "/s", "/", "/", "/s", "/s", "/s", "/s" },
    { "", "/a", "/a/b", "/b", "/b", "/a/b", "/a/b" },
  }

  local function join(service, route, path, strip, v1)
    return router.upstream_path(C, service, path, #route, strip, v1)
  end

  it("joins as Kong's table has it", function()
    for _, case in ipairs(cases) do
      local service, route, path = case[1], case[2], case[3]
      local got = { join(service, route, path, true, false), join(service, route, path, true, true),
        join(service, route, path, false, false), join(service, route, path, false, true) }
      assert.same({ case[4], case[5], case[6], case[7] }, got, table.concat({ service, route, path }, " "))
    end
  end)

  it("takes the path whole for a route without paths", function()
    assert.equal("/s/a/b", router.upstream_path(C, "/s", "/a/b", 0, true, false))
  end)

  it("leaves no dot segment that would climb out of the service's path", function()
    for _, path in ipairs { "/api..", "/api../", "/api../secret", "/api./secret", "/api." } do
      assert.not_matches("/%.%.?/", join("/public", "/api", path, true, false) .. "/")
      assert.not_matches("/%.%.?/", join("/public/", "/api", path, true, true) .. "/")
    end
    assert.equal("/public/..secret", join("/public", "/api", "/api..secret", true, false))
  end)

  it("says when the buffer is too small", function()
    local base, path = ffi.new("struct slice", { "/s", 2 }), ffi.new("struct slice", { "/abc", 4 })
    local buffer = ffi.new("char[8]", "????????")
    assert.equal(C.ERROR_MEMORY, C.router_upstream_path(base, path, 0, false, false, buffer, 5))
    assert.equal("???", ffi.string(buffer + 5, 3))
    assert.equal(6, C.router_upstream_path(base, path, 0, false, false, buffer, 6))
  end)
end)
