-- SPDX-License-Identifier: Apache-2.0
-- `ngx` in code that was written for Kong.
local spec = require "sluice.spec"

describe("ngx", function()
  local function with(config, more)
    local options = { plugins = { { name = "pre-function", config = config } } }
    for name, value in pairs(more or {}) do options[name] = value end
    return spec.gateway(options)
  end

  -- What expressions are, by their texts: as the client is told it.
  local function values_of(expressions, request)
    local code = { "local values = {}" }
    for _, text in ipairs(expressions) do code[#code + 1] = ("values[%q] = (%s)"):format(text, text) end
    code[#code + 1] = "kong.response.exit(200, values)"
    return with({ access = { table.concat(code, "\n") } }):request(request or { path = "/" }).json
  end

  local function sent(gateway)
    return gateway:requests()[1]
  end

  describe("var", function()
    it("tells of the request", function()
      local request = { path = "/a%20b/c?x=1&y", headers = { ["X-Some-Thing"] = "yes", Cookie = "a=1; b=2",
        Host = "shop.test" } }
      local expected = {
        request_uri = "/a%20b/c?x=1&y", uri = "/a b/c", args = "x=1&y", query_string = "x=1&y", is_args = "?",
        arg_x = "1", arg_y = "", http_x_some_thing = "yes", cookie_b = "2", http_host = "shop.test", host = "shop.test",
        request_method = "GET", request = "GET /a%20b/c?x=1&y HTTP/1.1", scheme = "http", https = "",
        server_protocol = "HTTP/1.1", remote_addr = "127.0.0.1",
      }
      local texts = {}
      for name in pairs(expected) do texts[#texts + 1] = "ngx.var." .. name end
      local seen = values_of(texts, request)
      for name, value in pairs(expected) do assert.same({ name, value }, { name, seen["ngx.var." .. name] }) end
      texts = {}
      for _, name in ipairs { "arg_z", "cookie_z", "http_z", "content_type" } do
        texts[#texts + 1] = "ngx.var." .. name .. " == nil"
      end
      for _, name in ipairs { "server_port", "remote_port", "request_id", "msec", "time_iso8601", "request_time" } do
        texts[#texts + 1] = "type(ngx.var." .. name .. ") == 'string'"
      end
      for text, value in pairs(values_of(texts, request)) do assert.same({ text, true }, { text, value }) end
    end)

    it("tells of the response", function()
      local gateway = with({ header_filter = {
        'kong.response.set_header("X-Seen", ngx.var.status .. " " .. ngx.var.sent_http_x_from .. " " '
          .. '.. ngx.var.upstream_http_x_from .. " " .. ngx.var.upstream_status)' },
        log = { 'kong.log.notice("via ", ngx.var.upstream_addr, " ", ngx.var.bytes_sent)' } },
        { upstreams = { ["service.example"] = { status = 201, headers = { ["X-From"] = "here" } } } })
      assert.equal("201 here here 201", gateway:get("/").headers["x-seen"])
      assert.equal(1, #gateway:log("via %S+:%d+ %d+"))
    end)

    it("changes what goes to the service", function()
      local gateway = with { access = { [[
        ngx.var.upstream_uri = "/new/path?z=9"
        ngx.var.upstream_host = "inside.test"
        ngx.var.upstream_x_forwarded_host = nil
        ngx.var.upstream_x_forwarded_proto = "https"
        ngx.var.upstream_x_forwarded_for = "10.1.2.3"
      ]] } }
      assert.equal(200, gateway:get("/a?b=c").status)
      local headers = sent(gateway).headers
      assert.same({ "/new/path?z=9", "inside.test", nil, "https", "10.1.2.3" }, { sent(gateway).target, headers.host,
        headers["x-forwarded-host"], headers["x-forwarded-proto"], headers["x-forwarded-for"] })
      assert.equal("127.0.0.1", headers["x-real-ip"])
    end)

    it("leaves what plugins see of the client as it is", function()
      local gateway = with({ access = { 'ngx.var.upstream_x_forwarded_for = "10.1.2.3"' } }, { plugins = {
        { name = "pre-function", config = { access = { 'ngx.var.upstream_x_forwarded_for = "10.1.2.3"' } } },
        { name = "ip-restriction", config = { deny = { "10.1.2.3" } } } } })
      assert.equal(200, gateway:get("/").status)
      assert.equal("10.1.2.3", sent(gateway).headers["x-forwarded-for"])
    end)

    it("says what cannot be set", function()
      local gateway = with { access = { "\nngx.var.scheme = 'https'" } }
      assert.equal(500, gateway:get("/").status)
      assert.equal(1, #gateway:log("pre%-function.access%[1%]:2.*ngx.var.scheme cannot be set here"))
    end)
  end)

  describe("ctx", function()
    it("changes timeouts and retries by balancer_data, one at a time", function()
      local gateway = with({ access = { [[
        ngx.ctx.balancer_data.connect_timeout = 100
        ngx.ctx.balancer_data.read_timeout = 300
        ngx.ctx.balancer_data.retries = 0
        local data = ngx.ctx.balancer_data
        kong.log.notice("times ", data.connect_timeout, " ", data.send_timeout, " ", data.read_timeout)
      ]] } }, { upstreams = { ["service.example"] = { hang = true } } })
      assert.equal(504, gateway:get("/").status)
      assert.equal(1, #gateway:log("times 100 60000 300"))
    end)

    it("knows who the consumer is, the route, and how long it took", function()
      local gateway = spec.gateway {
        consumers = { { username = "ada", keyauth_credentials = { { key = "k" } } } },
        plugins = { { name = "key-auth" }, { name = "post-function", config = { header_filter = { [[
          kong.response.set_header("X-Who", ngx.ctx.authenticated_consumer.username .. " "
            .. type(ngx.ctx.authenticated_credential.id) .. " " .. type(ngx.ctx.route.id))
          kong.response.set_header("My-Custom-Proxy-Latency", ngx.ctx.KONG_PROXY_LATENCY)
          kong.response.set_header("My-Custom-Upstream-Latency", ngx.ctx.KONG_WAITING_TIME)
        ]] } } } } }
      local headers = gateway:get("/", { apikey = "k" }).headers
      assert.equal("ada string string", headers["x-who"])
      assert.is_truthy(headers["my-custom-proxy-latency"]:match("^%d+$"))
      assert.is_truthy(headers["my-custom-upstream-latency"]:match("^%d+$"))
    end)

    it("is what plugins share", function()
      local gateway = with { access = { "ngx.ctx.mark = 'a' kong.response.exit(200, kong.ctx.shared.mark)" } }
      assert.equal("a", gateway:get("/").body)
    end)
  end)

  it("answers by say and exit", function()
    local gateway = with { access = {
      "ngx.status = ngx.HTTP_FORBIDDEN ngx.header.content_type = 'text/x' ngx.say('no', ' ', { 'en', 'try' }) "
        .. "return ngx.exit(ngx.HTTP_OK)" } }
    local response = gateway:get("/")
    assert.same({ 403, "no entry\n", "text/x" }, { response.status, response.body, response.headers["content-type"] })
    assert.equal(0, #gateway:requests())
  end)

  it("answers an error in the gateway's form when nothing was said", function()
    local gateway = with { access = { "return ngx.exit(ngx.HTTP_UNAUTHORIZED)" } }
    local response = gateway:get("/")
    assert.same({ 401, "Unauthorized" }, { response.status, response.json.message })
  end)

  it("goes on with ngx.exit(ngx.OK)", function()
    local gateway = with { access = { "if true then return ngx.exit(ngx.OK) end" } }
    assert.equal(200, gateway:get("/").status)
    assert.equal(1, #gateway:requests())
  end)

  it("sends elsewhere by redirect", function()
    local gateway = with { access = { "return ngx.redirect('/other')" } }
    local response = gateway:get("/")
    assert.same({ 302, "/other" }, { response.status, response.headers.location })
  end)

  it("reads and changes the request by req", function()
    local gateway = with { access = { [[
      ngx.req.read_body()
      local form = assert(ngx.req.get_post_args())
      ngx.req.set_header("X-Form", form.a .. ngx.req.get_method() .. ngx.req.get_uri_args().q)
      ngx.req.set_header("X-Has", ngx.req.get_headers()["x-gone"])
      ngx.req.clear_header("X-Gone")
      ngx.req.set_uri_args({ n = 1 })
      ngx.req.set_body_data(ngx.req.get_body_data() .. "&b=2")
    ]] } }
    gateway:request { method = "POST", path = "/p?q=7", body = "a=1", headers = { ["X-Gone"] = "once",
      ["Content-Type"] = "application/x-www-form-urlencoded" } }
    local seen = sent(gateway)
    assert.same({ "1POST7", "once", nil, "n=1", "a=1&b=2" }, { seen.headers["x-form"], seen.headers["x-has"],
      seen.headers["x-gone"], seen.query, seen.body })
  end)

  it("changes the response by header and status", function()
    local gateway = with({ header_filter = { "ngx.header['X-Two'] = { 'a', 'b' } ngx.header.x_gone = nil",
      "ngx.status = 299 ngx.header.x_one = ngx.header.x_from" } },
      { upstreams = { ["service.example"] = { headers = { ["X-Gone"] = "1", ["X-From"] = "f" } } } })
    local response = gateway:get("/")
    assert.same({ 299, nil, "f" }, { response.status, response.headers["x-gone"], response.headers["x-one"] })
    assert.equal("a, b", type(response.headers["x-two"]) == "table" and table.concat(response.headers["x-two"], ", ")
      or response.headers["x-two"])
  end)

  it("changes the body by arg", function()
    local gateway = with({ body_filter = { [[
      local chunk, last = ngx.arg[1], ngx.arg[2]
      ngx.ctx.held = (ngx.ctx.held or "") .. (chunk or "")
      ngx.arg[1] = last and ngx.ctx.held:upper() .. "!" or nil
    ]], 'if ngx.arg[2] then ngx.arg[1] = "<" .. ngx.arg[1] .. ">" end' } },
      { upstreams = { ["service.example"] = { chunks = { "one ", "two ", "three" } } } })
    assert.equal("<ONE TWO THREE!>", gateway:get("/").body)
    gateway = with { access = { "\nlocal chunk = ngx.arg[1]" } }
    assert.equal(500, gateway:get("/").status)
    assert.equal(1, #gateway:log("pre%-function.access%[1%]:2.*there is no ngx.arg in this phase"))
  end)

  it("has regular expressions", function()
    local expected = {
      [ [[ngx.re.match("ab12", "([a-z]+)(?<n>\\d+)", "jo").n]] ] = "12",
      [ [[ngx.re.match("AB", "b", "i")[0] ]] ] = "B",
      [ [[ngx.re.match("ab", "x") == nil]] ] = true,
      [ [[ngx.re.find("hello", "l+")]] ] = 3,
      [ [[ngx.re.sub("a.b.c", "\\.", "-")]] ] = "a-b.c",
      [ [[ngx.re.gsub("a1b22", "(\\d+)", "<$1|${0}|$$1>")]] ] = "a<1|1|$1>b<22|22|$1>",
      [ [[ngx.re.gsub("abc", "", "-")]] ] = "-a-b-c-",
      [ [[ngx.re.gsub("abc", "[bc]", function(m) return m[0]:upper() end)]] ] = "aBC",
      [ [[(select(2, ngx.re.match("a", "("))):match("missing closing parenthesis")]] ] = "missing closing parenthesis",
      [ [[(function() local t = {} for m in ngx.re.gmatch("a,b,c", "[a-z]") do t[#t+1] = m[0] end
        return table.concat(t, " ") end)()]] ] = "a b c",
      [ [[(function() local ctx = { pos = 1 } ngx.re.match("a1b", "\\d", "", ctx)
        return ngx.re.find("x1", "x") .. " " .. ctx.pos end)()]] ] = "1 3",
    }
    local texts = {}
    for text in pairs(expected) do texts[#texts + 1] = text end
    assert.same(expected, values_of(texts))
  end)

  it("waits, and runs later", function()
    local gateway = with { access = { [[
      ngx.timer.at(0, function(premature, name) ngx.log(ngx.NOTICE, "later ", tostring(premature), " ", name) end, "x")
      ngx.sleep(0.01)
      kong.response.exit(200, ngx.get_phase() .. " " .. ngx.today() .. " " .. ngx.http_time(0))
    ]] } }
    assert.matches("^access %d+%-%d%d%-%d%d Thu, 01 Jan 1970 00:00:00 GMT$", gateway:get("/").body)
    assert.equal(1, #gateway:log("later false x"))
  end)
end)
