-- SPDX-License-Identifier: Apache-2.0
local process = require "spec.support.process"
local process_gateway = require "spec.support.gateway"
local redis = require "spec.support.redis"
local spec = require "sluice.spec"
local upstreams = require "spec.support.upstream"

describe("request-callout", function()
  local gateway

  -- What each test server got, and says.
  local function start(config, extra)
    local options = { plugins = { { name = "request-callout", config = config } }, upstreams = {
      ["token.example"] = { json = { token = "abc", n = 7 }, headers = { ["X-From"] = "token" } },
      ["user.example"] = function(request) return { json = { name = "ada", query = request.query } } end,
      ["broken.example"] = { status = 500, body = "oh" }, ["refused.example"] = { refuse = true },
      ["late.example"] = { json = { late = true }, delay = 2 }, ["hung.example"] = { hang = true },
      ["plain.example"] = { body = "plain text" }, ["flaky.example"] = { { status = 503 }, { json = { ok = 1 } } },
    } }
    for name, value in pairs(extra or {}) do
      if name == "plugins" then
        for _, plugin in ipairs(value) do table.insert(options.plugins, plugin) end
      elseif name == "upstreams" then
        for key, upstream in pairs(value) do options.upstreams[key] = upstream end
      else
        options[name] = value
      end
    end
    gateway = spec.gateway(options)
  end

  local function call(name, extra)
    local one = { name = name, request = { url = ("http://%s.example/path"):format(name) },
      response = { body = { decode = true } } }
    for key, value in pairs(extra or {}) do
      if key == "request" then
        for field, given in pairs(value) do one.request[field] = given end
      else
        one[key] = value
      end
    end
    return one
  end

  local function sent(name)
    return gateway:requests(name .. ".example")[1]
  end

  describe("puts an answer into", function()
    it("a header", function()
      start { callouts = { call("token") },
        upstream = { headers = { custom = { Authorization = "Bearer $(callouts.token.response.body.token)" } } } }
      assert.equal(200, gateway:get("/x").status)
      assert.equal("Bearer abc", sent("service").headers.authorization)
      assert.same({ "GET", "/path" }, { sent("token").method, sent("token").path })
    end)

    it("the query", function()
      start { callouts = { call("token") }, upstream = { query = { custom = {
        t = "$(callouts.token.response.body.token)", more = true } } } }
      gateway:get("/x?a=1")
      assert.equal("a=1&more&t=abc", sent("service").query)
    end)

    it("the body, as what it is", function()
      start { callouts = { call("token") }, upstream = { body = { custom = {
        n = "$(callouts.token.response.body.n)", all = "$(callouts.token.response.body)", text = "n is $(callouts.token"
          .. ".response.body.n)", deep = { list = { "$(1 + 1)" } } } } } }
      gateway:post("/x", { own = 1, n = 2 })
      assert.same({ own = 1, n = 7, all = { token = "abc", n = 7 }, text = "n is 7", deep = { list = { 2 } } },
        sent("service").json)
      assert.equal("application/json", sent("service").headers["content-type"])
    end)
  end)

  it("tells status, headers and body of an answer", function()
    start { callouts = { call("token", { response = {} }) }, upstream = { headers = { custom = {
      ["X-A"] = "$(callouts.token.response.status) $(callouts.token.response.headers['x-from'])",
      ["X-B"] = "$(callouts.token.response.body:sub(1, 1))" } } } }
    gateway:get("/")
    assert.same({ "200 token", "{" }, { sent("service").headers["x-a"], sent("service").headers["x-b"] })
  end)

  it("keeps neither headers nor body when it is told", function()
    start { callouts = { call("token", { response = { headers = { store = false }, body = { store = false } } }) },
      upstream = { headers = { custom = { ["X-A"] = "$(tostring(callouts.token.response.headers)) "
        .. "$(tostring(callouts.token.response.body))" } } } }
    gateway:get("/")
    assert.equal("nil nil", sent("service").headers["x-a"])
  end)

  describe("calls with", function()
    it("a method, arguments, fields and members of its own", function()
      start { callouts = { call("user", { request = { method = "POST", query = { custom = { q = "$(headers.x_q)" } },
        headers = { custom = { ["X-Own"] = "1" } }, body = { custom = { id = "$(query_params.id)" } } } }) } }
      gateway:get("/x?id=i7", { ["X-Q"] = "what" })
      local got = sent("user")
      assert.same({ "POST", "q=what", "1" }, { got.method, got.query, got.headers["x-own"] })
      assert.equal("i7", got.json.id)
      assert.is_nil(got.headers["x-q"])
    end)

    it("what the client sent, when it is to be forwarded", function()
      start { callouts = { call("user", { request = { method = "PUT", query = { forward = true },
        headers = { forward = true, custom = { ["X-Two"] = "new" } }, body = { forward = true } } }) } }
      gateway:request { method = "POST", path = "/x?a=1&b", headers = { ["X-One"] = "1", ["X-Two"] = "old",
        ["Content-Type"] = "text/plain" }, body = "as it is" }
      local got = sent("user")
      assert.same({ "a=1&b", "1", "new", "as it is", "user.example" },
        { got.query, got.headers["x-one"], got.headers["x-two"], got.body, got.headers.host })
      assert.equal("as it is", sent("service").body)
    end)

    it("the client's JSON and members of its own", function()
      start { callouts = { call("user", { request = { method = "POST", body = { forward = true, decode = true,
        custom = { b = 2 } } } }) } }
      gateway:post("/", { a = 1, b = 1 })
      assert.same({ a = 1, b = 2 }, sent("user").json)
      assert.same({ a = 1, b = 1 }, sent("service").json)
    end)

    it("a URL that is made of the request", function()
      start { callouts = { call("user", { request = { url = "http://$(query_params.who).example/of" } }) } }
      gateway:get("/?who=user")
      assert.equal("/of", sent("user").path)
    end)

    it("TLS", function()
      start { callouts = { call("user", { request = { url = "https://user.example/" } }) } }
      assert.equal(200, gateway:get("/").status)
      assert.equal(443, sent("user").port)
      start { callouts = { call("user", { request = { url = "https://user.example/",
        http_opts = { ssl_verify = true } } }) } }
      assert.equal(400, gateway:get("/").status) -- the kit's certificates are self-signed
    end)
  end)

  describe("takes away from the service's request", function()
    it("fields", function()
      start { callouts = { call("token") }, upstream = { headers = { forward = false, custom = { ["X-New"] = "1" } } } }
      gateway:get("/", { ["X-Old"] = "1" })
      assert.same({ nil, "1" }, { sent("service").headers["x-old"], sent("service").headers["x-new"] })
    end)

    it("the query and the body", function()
      start { callouts = { call("token") }, upstream = { query = { forward = false }, body = { forward = false } } }
      gateway:post("/?a=1", "body")
      assert.same({ "", "" }, { sent("service").query or "", sent("service").body or "" })
    end)
  end)

  describe("of several callouts", function()
    it("makes those at once that do not need each other", function()
      start({ callouts = { call("late"), call("other", {}) } },
        { upstreams = { ["other.example"] = { json = {}, delay = 2 } } })
      local began = gateway:now()
      gateway:get("/")
      local took = gateway:now() - began
      assert.is_true(took >= 2 and took < 3, took)
    end)

    it("makes one behind those that it depends on", function()
      start { callouts = {
        call("user", { depends_on = { "token" }, request = { query = { custom = {
          key = "$(callouts.token.response.body.token)" } } } }),
        call("token") }, upstream = { headers = { custom = { ["X-Q"] = "$(callouts.user.response.body.query)" } } } }
      gateway:get("/")
      assert.equal("key=abc", sent("service").headers["x-q"])
    end)
  end)

  describe("that fails", function()
    it("answers 400 and calls no service", function()
      start { callouts = { call("refused") } }
      local response = gateway:get("/")
      assert.same({ 400, "service callout error" }, { response.status, response.json.message })
      assert.equal(0, #gateway:requests("service.example"))
      assert.equal(1, #gateway:log("callout failed"))
    end)

    it("answers with its own status and message", function()
      start { callouts = { call("refused", { request = { error = { error_response_code = 502,
        error_response_msg = "no $(callouts.refused.request.params.method)" } } }) } }
      local response = gateway:get("/")
      assert.same({ 502, "no GET" }, { response.status, response.json.message })
    end)

    it("takes statuses for errors that it is told", function()
      start { callouts = { call("broken", { response = {} }) } }
      assert.equal(200, gateway:get("/").status)
      start { callouts = { call("broken", { request = { error = { http_statuses = { 500 } } } }) } }
      assert.equal(400, gateway:get("/").status)
    end)

    it("is made again", function()
      start { callouts = { call("flaky", { request = { error = { on_error = "retry", http_statuses = { 503 } } } }) },
        upstream = { headers = { custom = { ["X-N"] = "$(callouts.flaky.request.n_retries) "
          .. "$(callouts.flaky.request.retries[1].reason) $(callouts.flaky.request.retries[1].http_code)" } } } }
      assert.equal(200, gateway:get("/").status)
      assert.equal("1 code 503", sent("service").headers["x-n"])
      assert.equal(2, #gateway:requests("flaky.example"))
    end)

    it("is made so many times again, and fails then", function()
      start { callouts = { call("broken", { request = { error = { on_error = "retry", retries = 3,
        http_statuses = { 500 } } } }) } }
      assert.equal(400, gateway:get("/").status)
      assert.equal(4, #gateway:requests("broken.example"))
    end)

    it("may not matter", function()
      start { callouts = { call("refused", { request = { error = { on_error = "continue" } } }) },
        upstream = { headers = { custom = { ["X-A"] = "$(tostring(callouts.refused.response))" } } } }
      assert.equal(200, gateway:get("/").status)
      assert.equal("nil", sent("service").headers["x-a"])
    end)

    it("takes its time-outs", function()
      start { callouts = { call("hung", { request = { http_opts = { timeouts = { connect = 100, write = 200,
        read = 700 } } } }) } }
      local began = gateway:now()
      assert.equal(400, gateway:get("/").status)
      assert.is_true(gateway:now() - began < 1.2)
    end)

    it("passes the deadline of them all", function()
      start { callouts = { call("hung", { request = { error = { on_error = "retry", retries = 50 } } }) },
        deadline = 1500 }
      local began = gateway:now()
      local response = gateway:get("/")
      assert.is_true(response.status == 504 or response.status == 400)
      assert.is_true(gateway:now() - began < 2)
    end)

    it("has an answer that is too long", function()
      start { callouts = { call("plain", { response = { body = { max_bytes = 5 } } }) } }
      assert.equal(400, gateway:get("/").status)
    end)

    it("says in the log that its body is no JSON", function()
      start { callouts = { call("plain") } }
      assert.equal(200, gateway:get("/").status)
      assert.equal(1, #gateway:log("callout's body is no JSON"))
    end)

    it("has an expression that fails: 500, with the place in the log", function()
      start { callouts = { call("token") }, upstream = { headers = { custom = {
        ["X-A"] = "$(callouts.nobody.response.status)" } } } }
      assert.equal(500, gateway:get("/").status)
      assert.equal(1, #gateway:log("attempt to index"))
    end)
  end)

  describe("with Lua code", function()
    it("changes the call before it is made", function()
      start { callouts = { call("user", { request = { by_lua = [[
        local params = exchange.ctx.callouts.user.request.params
        params.headers["X-Code"] = "1"
        params.query.a = exchange.request:get_method()
      ]] } }) } }
      gateway:get("/")
      assert.same({ "1", "a=GET" }, { sent("user").headers["x-code"], sent("user").query })
    end)

    it("changes the answer", function()
      start { callouts = { call("token", { response = { body = { decode = true },
        by_lua = "local body = exchange.ctx.callouts.token.response.body; body.token = body.token:upper()" } }) },
        upstream = { headers = { custom = { ["X-A"] = "$(callouts.token.response.body.token)" } } } }
      gateway:get("/")
      assert.equal("ABC", sent("service").headers["x-a"])
    end)

    it("answers out of several answers", function()
      start { callouts = { call("token"), call("user") }, upstream = { by_lua = [[
        local callouts = exchange.ctx.callouts
        exchange.response:exit(200, { token = callouts.token.response.body.token,
          name = callouts.user.response.body.name })
      ]] } }
      assert.same({ token = "abc", name = "ada" }, gateway:get("/").json)
      assert.equal(0, #gateway:requests("service.example"))
    end)
  end)

  describe("written for Kong", function()
    it("changes the URL by code", function()
      start { callouts = { call("token", { request = { by_lua = 'kong.ctx.shared.callouts.token.request.params.url = '
        .. '"http://user.example/" .. (kong.request.get_header("x-custom-header") or "")' } }) } }
      gateway:get("/", { ["x-custom-header"] = "there" })
      assert.equal("/there", sent("user").path)
    end)

    it("takes the URL from an expression", function()
      start { callouts = { call("token", { request = { url = "$(kong.request.get_header('x-custom-url'))" } }) } }
      gateway:get("/", { ["x-custom-url"] = "http://user.example/mine" })
      assert.equal("/mine", sent("user").path)
    end)

    it("answers out of several answers", function()
      start { callouts = { call("token"), call("user") }, upstream = { by_lua = "kong.response.exit(200, { "
        .. "token = kong.ctx.shared.callouts.token.response.body.token, "
        .. "name = kong.ctx.shared.callouts.user.response.body.name})" } }
      assert.same({ token = "abc", name = "ada" }, gateway:get("/").json)
    end)
  end)

  describe("by a proxy", function()
    local function by(proxy, url)
      start({ callouts = { call("token", { request = { url = url, http_opts = { proxy = proxy } } }) } },
        { upstreams = { ["proxy.example:3128"] = function(request)
          if request.method == "CONNECT" then return { status = 407 } end
          return { json = { token = request.target } }
        end } })
      return gateway:get("/"), gateway:requests("proxy.example:3128")[1]
    end
    local PROXY = "http://proxy.example:3128"

    it("asks http URLs, with a name and password", function()
      local response, seen = by({ http_proxy = PROXY, auth_username = "ada", auth_password = "s:p" },
        "http://token.example/path")
      assert.equal(200, response.status)
      assert.same({ "http://token.example/path", "Basic YWRhOnM6cA==" }, { seen.target,
        seen.headers["proxy-authorization"] })
    end)

    it("asks for a tunnel to https URLs, and fails when there is none", function()
      local response, seen = by({ https_proxy = PROXY, auth_username = "ada", auth_password = "s:p" },
        "https://token.example/path")
      assert.same({ 400, "service callout error" }, { response.status, response.json.message })
      assert.same({ "CONNECT", "token.example:443", "Basic YWRhOnM6cA==" }, { seen.method, seen.target,
        seen.headers["proxy-authorization"] })
    end)

    it("that code of the configuration names", function()
      start({ callouts = { call("token", { request = {
        by_lua = "kong.ctx.shared.callouts.token.request.params.proxy = { http_proxy = 'http://proxy.example:3128' }",
      } }) } },
        { upstreams = { ["proxy.example:3128"] = { json = { token = "by it" } } } })
      assert.equal(200, gateway:get("/").status)
      assert.equal(1, #gateway:requests("proxy.example:3128"))
    end)

    it("goes without where it is for the other kind of URL", function()
      local response, seen = by({ https_proxy = PROXY }, "http://token.example/path")
      assert.equal(200, response.status)
      assert.is_nil(seen)
    end)
  end)

  describe("that caches", function()
    local function cached(extra, more)
      local config = { callouts = { call("token", extra) }, cache = { strategy = "memory", cache_ttl = 10 },
        upstream = { headers = { custom = { ["X-T"] = "$(callouts.token.response.body.token)" } } } }
      start(config, more)
    end

    it("calls once in its time", function()
      cached()
      for _ = 1, 3 do gateway:get("/") end
      assert.equal(1, #gateway:requests("token.example"))
      assert.equal("abc", gateway:requests("service.example")[3].headers["x-t"])
      gateway:advance(11)
      gateway:get("/")
      assert.equal(2, #gateway:requests("token.example"))
    end)

    it("tells calls apart by what they send", function()
      cached { request = { headers = { custom = { ["X-Who"] = "$(query_params.who)" } } } }
      for _, who in ipairs { "a", "b", "a" } do gateway:get("/?who=" .. who) end
      assert.equal(2, #gateway:requests("token.example"))
    end)

    it("tells consumers apart", function()
      cached({}, { plugins = { { name = "key-auth" } }, consumers = {
        { username = "ada", keyauth_credentials = { { key = "a" } } },
        { username = "bob", keyauth_credentials = { { key = "b" } } } } })
      for _, key in ipairs { "a", "b", "a" } do gateway:get("/", { apikey = key }) end
      assert.equal(2, #gateway:requests("token.example"))
    end)

    it("takes a key of the configuration's code", function()
      cached { request = { headers = { custom = { ["X-Who"] = "$(query_params.who)" } },
        by_lua = "exchange.ctx.callouts.token.caching.cache_key = 'mine'" } }
      for _, who in ipairs { "a", "b" } do gateway:get("/?who=" .. who) end
      assert.equal(1, #gateway:requests("token.example"))
    end)

    it("leaves one out that is to be", function()
      cached { cache = { bypass = true } }
      for _ = 1, 2 do gateway:get("/") end
      assert.equal(2, #gateway:requests("token.example"))
    end)

    describe("in Redis", function()
      local server, gateways, up

      local function ask(url, redis_port, path)
        local gw = process_gateway.start { _format_version = "3.0", routes = { { paths = { "/" }, plugins = {
          { name = "request-callout", config = { callouts = { { name = "a", request = { url = url .. path } } },
            cache = { strategy = "redis", redis = { port = redis_port, connect_timeout = 5000, send_timeout = 5000,
              read_timeout = 5000 } } } },
          { name = "post-function", config = { access = {
            "exchange.response:exit(200, kong.ctx.shared.callouts.a.response.body)" } } } } } } }
        gateways[#gateways + 1] = gw
        return gw:get("/")
      end

      before_each(function()
        gateways, server, up = {}, redis.start(), upstreams.start()
      end)
      after_each(function()
        for _, gw in ipairs(gateways) do gw:stop() end
        server:stop()
        up:stop()
      end)

      it("calls once for all gateways", function()
        local first, second = ask(up:url(), server.port, "/echo"), ask(up:url(), server.port, "/echo")
        assert.same({ 200, 200 }, { first.status, second.status })
        assert.equal(first.body, second.body)
        assert.matches("/echo", first.body, 1, true)
        assert.equal(1, up:stats().requests)
        local key = server:command("KEYS", "request-callout:*")
        assert.is_true(tonumber(server:command("TTL", key[1] or key)) > 200)
      end)

      it("calls all the same while Redis is away", function()
        assert.matches("/echo", ask(up:url(), process.free_port(), "/echo").body, 1, true)
        assert.is_truthy(gateways[1]:wait_log("callouts' cache cannot be asked"))
        assert.is_truthy(gateways[1]:wait_log("callout not cached"))
      end)
    end)

    it("keeps no failure", function()
      start({ callouts = { call("flaky", { request = { error = { http_statuses = { 503 } } } }) },
        cache = { strategy = "memory" } })
      assert.equal(400, gateway:get("/").status)
      assert.equal(200, gateway:get("/").status)
      assert.equal(200, gateway:get("/").status)
      assert.equal(2, #gateway:requests("flaky.example"))
    end)
  end)

  describe("refuses", function()
    local function problem(config)
      return select(2, spec.check { plugins = { { name = "request-callout", config = config } } })
    end

    it("names twice, that there are not, and in a ring", function()
      assert.matches('two callouts are named "token"', problem { callouts = { call("token"), call("token") } }, 1, true)
      assert.matches('"token" depends on "none", which there is not',
        problem { callouts = { call("token", { depends_on = { "none" } }) } }, 1, true)
      assert.matches('callouts wait for each other in a ring', problem { callouts = {
        call("a", { depends_on = { "b" } }), call("b", { depends_on = { "a" } }) } }, 1, true)
    end)

    it("code and expressions that are none", function()
      assert.matches("config.callouts[0].request.by_lua: expected Lua code (line 1",
        problem { callouts = { call("token", { request = { by_lua = "not lua" } }) } }, 1, true)
      assert.matches("config.upstream.headers.custom: expected Lua expressions in $(...)",
        problem { callouts = { call("token") }, upstream = { headers = { custom = { a = "$(1 +)" } } } }, 1, true)
    end)

    it("a URL that is none, and a name that is none", function()
      assert.matches("config.callouts[0].request.url: expected a URL", problem { callouts = { { name = "a",
        request = { url = "nowhere" } } } }, 1, true)
      assert.matches("config.callouts[0].name: expected a name that Lua code can use", problem { callouts = {
        call("a-b", {}) } }, 1, true)
    end)

    it("a proxy that is none, and a cache that there is not", function()
      local function by(proxy)
        return problem { callouts = { call("a", { request = { http_opts = { proxy = proxy } } }) } }
      end
      assert.matches("http_opts.proxy.https_proxy: expected a URL of http", by { https_proxy = "https://p" }, 1, true)
      assert.matches("auth_username and auth_password or none", by { auth_username = "a" }, 1, true)
      assert.matches("config.cache.strategy: expected one of off, memory or redis", problem { callouts = { call("a") },
        cache = { strategy = "disk" } }, 1, true)
    end)

    it("no callouts", function()
      assert.matches("config.callouts", problem {}, 1, true)
    end)
  end)
end)
