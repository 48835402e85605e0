-- SPDX-License-Identifier: Apache-2.0
-- Routes through the whole gateway: which one takes a request, what reaches the service, and that nothing leads around
-- a route that guards something.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local routes = require "spec.support.routes"
local spellings = require "spec.support.spellings"
local tls = require "spec.support.tls"
local upstream = require "spec.support.upstream"

-- Tells which route took the request, and the captures.
local mark = [[
local mark = { version = "1.0.0", priority = 1 }

function mark.header_filter(conf, exchange)
  local route = exchange.router:get_route()
  local captures = exchange.request:get_uri_captures()
  exchange.response:set_header("X-Route", route and route.name or "none")
  exchange.response:set_header("X-Named", captures.named.id or "")
  exchange.response:set_header("X-First", captures.unnamed[1] or "")
end

return mark
]]

local guard = [[
local guard = { version = "1.0.0", priority = 100 }
function guard.access(conf, exchange) exchange.response:exit(403, { message = "guarded" }) end
return guard
]]

describe("routes of the gateway", function()
  local up, gw, folder

  setup(function()
    folder = posix.temporary_directory()
    local certificate = tls.make_certificate(folder, { name = "tls.test", names = { "a.test", "b.test" } })
    up = upstream.start()
    gw = gateway.start({
      _format_version = "3.0",
      gateway = { trusted_ips = { "127.0.0.2/32" } },
      certificates = { { cert = certificate.certificate_pem, key = certificate.key_pem, snis = { { name = "*" } } } },
      plugins = { { name = "mark" } },
      services = {
        { name = "root", url = up:url(), routes = {
          { name = "everything", paths = { "/" }, strip_path = false },
          { name = "guarded", paths = { "/admin/" }, plugins = { { name = "guard" } } },
          { name = "hosted", paths = { "/h" }, hosts = { "one.test", "*.wild.test", "tail.*" }, preserve_host = true },
          { name = "ported", paths = { "/h" }, hosts = { "one.test:8099" } },
          { name = "methodical", paths = { "/m" }, methods = { "PUT", "PATCH" } },
          { name = "plain-header", paths = { "/m" }, headers = { ["X-Plan"] = { "gold", "silver" } } },
          { name = "regex-header", paths = { "/m" }, headers = { ["X-Plan"] = { "~*^gold-\\d+$" } } },
          { name = "captured", paths = { "~/c/(?<id>\\d+)/x" } },
          { name = "secure", paths = { "/secure" }, protocols = { "https" } },
          { name = "moved", paths = { "/moved" }, protocols = { "https" }, https_redirect_status_code = 308 },
          { name = "named", paths = { "/name" }, protocols = { "https" }, snis = { "a.test" } },
          { name = "slow", paths = { "~/slow/(a+)+(b+)+$" } },
        } },
        { name = "deep", url = up:url() .. "/deep", routes = {
          { name = "stripped", paths = { "/s" } },
          { name = "kept", paths = { "/k" }, strip_path = false },
          { name = "old", paths = { "/v" }, path_handling = "v1" },
        } },
      },
    }, { plugins = { mark = mark, guard = guard } })
  end)

  teardown(function()
    gw:stop()
    up:stop()
    os.execute(("rm -rf '%s'"):format(folder))
  end)

  local function route_of(request)
    return gw:request(request).headers["x-route"]
  end

  -- What the upstream saw.
  local function seen(request)
    return cjson.decode(gw:request(request).body)
  end

  it("are chosen by host, in any case, with wildcards and ports", function()
    local function by_host(host) return route_of { path = "/h", headers = { Host = host } } end
    assert.equal("hosted", by_host("ONE.test"))
    assert.equal("hosted", by_host("a.b.wild.test:8000"))
    assert.equal("hosted", by_host("tail.example"))
    assert.equal("ported", by_host("one.test:8099"))
    assert.equal("everything", by_host("wild.test"))
    assert.equal("everything", by_host("two.test"))
  end)

  it("are chosen by the host of an absolute target before that of Host", function()
    assert.equal("hosted", route_of { path = "http://one.test/h", headers = { Host = "two.test" } })
  end)

  it("are chosen by method and headers", function()
    assert.equal("methodical", route_of { path = "/m", method = "PATCH" })
    assert.equal("everything", route_of { path = "/m", method = "POST" })
    assert.equal("plain-header", route_of { path = "/m", headers = { ["x-plan"] = "SILVER" } })
    assert.equal("plain-header", route_of { path = "/m", headers = { ["x-plan"] = { "none", "gold" } } })
    assert.equal("regex-header", route_of { path = "/m", headers = { ["x-plan"] = "Gold-17" } })
    assert.equal("everything", route_of { path = "/m", headers = { ["x-plan"] = "lead" } })
  end)

  it("give captures of their regex to plugins, and strip what it matched", function()
    local response = gw:get("/c/42/xyz?q=1")
    assert.same({ "captured", "42", "42" },
      { response.headers["x-route"], response.headers["x-named"], response.headers["x-first"] })
    assert.equal("/yz?q=1", cjson.decode(response.body).target)
  end)

  it("join the service's path with the request's", function()
    assert.equal("/deep/a/b?c", seen({ path = "/s/a/b?c" }).target)
    assert.equal("/deep", seen({ path = "/s" }).target)
    assert.equal("/deep/", seen({ path = "/s/" }).target)
    assert.equal("/deep/k/a", seen({ path = "/k/a" }).target)
    assert.equal("/deepa", seen({ path = "/va" }).target)
    assert.equal("/deep/a", seen({ path = "/sa" }).target)
  end)

  it("forward the canonical path", function()
    assert.equal("/deep/a/b%2Fc", seen({ path = "/x/..//s/%61/./b%2fc" }).target)
    assert.equal("/deep/x", seen({ path = "/s../x" }).target)
  end)

  it("preserve the client's host or send the service's", function()
    assert.equal("a.wild.test:81", seen({ path = "/h", headers = { Host = "a.wild.test:81" } }).headers.host)
    assert.equal("127.0.0.1:" .. up.port, seen({ path = "/", headers = { Host = "a.wild.test" } }).headers.host)
  end)

  it("for https answer plain HTTP with 426 or a redirect", function()
    local response = gw:get("/secure/x?y")
    assert.equal(426, response.status)
    assert.equal("Please use HTTPS protocol", cjson.decode(response.body).message)
    assert.equal("TLS/1.2, HTTP/1.1", response.headers.upgrade)
    response = gw:get("/moved/x?y", { Host = "moved.test" })
    assert.equal(308, response.status)
    assert.matches("^https://moved%.test.*/moved/x%?y$", response.headers.location)
  end)

  it("for https believe X-Forwarded-Proto from nobody who is not trusted", function()
    assert.equal(426, gw:get("/secure", { ["X-Forwarded-Proto"] = "https" }).status)
  end)

  it("are chosen by the server name of TLS", function()
    local function by_sni(name)
      local client = gw:connect({ tls = { name = name } })
      local response = client:request({ path = "/name", headers = { Host = "x.test" } })
      client:close()
      return response.headers["x-route"]
    end
    assert.equal("named", by_sni("a.test"))
    assert.equal("everything", by_sni("b.test"))
    assert.equal(426, gw:get("/name").status)
  end)

  it("answer 500 when a regex passes its limits, not with the next route", function()
    assert.equal("slow", route_of { path = "/slow/aabb" })
    local response = gw:get("/slow/" .. ("a"):rep(60) .. ("b"):rep(60) .. "c")
    assert.equal(500, response.status)
  end)

  it("are explained as they are, by what runs and by the file", function()
    local running = { gateway.binary, "explain", "-H", "Host: one.test", "GET", "/h" }
    local status, text = process.run(running, { env = gw.env, cwd = gw.directory })
    assert.equal(0, status)
    assert.matches("from generation %d+ of the running gateway", text)
    assert.matches("route +hosted\n", text)
    assert.matches("mark 1.0.0 +priority 1 +in header_filter", text)
    assert.matches("http://127.0.0.1:" .. up.port, text, 1, true)
    status, text = gw:command("explain", "GET", "https://a.test/secure?x")
    assert.equal(0, status)
    assert.matches("route +secure\n", text)
    status, text = gw:command("explain", "GET", "/admin;x/y")
    assert.equal(0, status)
    assert.matches("answered 400", text)
    assert.equal(2, (gw:command("explain", "GET")))
  end)

  it("are not passed by, however the path is spelt", function()
    local random, client = routes.randomiser(11), gw:connect()
    local guarded, refused, open = 0, 0, 0
    local function try(raw)
      local response = client:request({ path = raw })
      if response.status == 400 then
        refused = refused + 1
      elseif response.status == 403 then
        guarded = guarded + 1
      else
        open = open + 1
        assert.equal(200, response.status, raw)
        local target = cjson.decode(response.body).target
        for name, serve in pairs(spellings.servers) do
          assert.is_false(serve(target):sub(1, 7) == "/admin/",
            ("%s, forwarded as %s, is guarded in a server that %s"):format(raw, target, name))
        end
      end
      if (response.headers.connection or ""):lower() == "close" then
        client:close()
        client = gw:connect()
      end
    end
    for _, raw in ipairs(spellings.tricks) do
      if raw:sub(1, 1) == "/" then try(raw) end
    end
    for _ = 1, 1500 do try(spellings.random_path(random)) end
    client:close()
    assert.is_true(guarded > 20 and refused > 20 and open > 200, ("%d %d %d"):format(guarded, refused, open))
  end)
end)
