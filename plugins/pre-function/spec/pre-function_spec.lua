-- SPDX-License-Identifier: Apache-2.0
local posix = require "spec.support.posix"
local spec = require "sluice.spec"
local tls = require "spec.support.tls"

describe("pre-function", function()
  local function with(config, more)
    local options = { plugins = { { name = "pre-function", config = config } } }
    for key, value in pairs(more or {}) do options[key] = value end
    return spec.gateway(options)
  end

  local function refused(config)
    local ok, err = spec.check { plugins = { { name = "pre-function", config = config } } }
    assert.is_nil(ok)
    return err
  end

  it("runs code in access", function()
    local gateway = with { access = { 'exchange.service.request:set_header("X-New", "1")' } }
    assert.equal("1", gateway:get("/").json.headers["x-new"])
  end)

  it("answers, and what follows does not run", function()
    local gateway = with { access = {
      'exchange.response:exit(418, "tea")', 'exchange.response:set_header("X-Second", "1")' } }
    local response = gateway:get("/")
    assert.equal(418, response.status)
    assert.equal("tea", response.body)
    assert.is_nil(response.headers["x-second"])
    assert.equal(0, #gateway:requests())
  end)

  it("runs in rewrite, before there is a route, when it is for all requests", function()
    local gateway = with { rewrite = { 'exchange.ctx.word = exchange.router and "early"' },
      header_filter = { 'exchange.response:set_header("X-Word", exchange.ctx.word)' } }
    assert.equal("early", gateway:get("/").headers["x-word"])
  end)

  it("runs in certificate", function()
    local directory = posix.temporary_directory()
    local made = tls.make_certificate(directory, { name = "shop.example" })
    local gateway = with({ certificate = {
      'require("sluice").log.notice("asked for", { name = exchange.client.tls:get_server_name() })' } },
      { certificates = { { cert = made.certificate_pem, key = made.key_pem } } })
    gateway:request { path = "/", tls = "shop.example" }
    os.execute(("rm -rf '%s'"):format(directory))
    assert.equal(1, #gateway:log("asked for.*shop.example"))
  end)

  it("runs in header_filter", function()
    local gateway = with { header_filter = {
      'exchange.response:set_header("X-Status", exchange.response:get_status())' } }
    assert.equal("200", gateway:get("/").headers["x-status"])
  end)

  it("runs in log", function()
    local gateway = with { log = {
      'require("sluice").log.notice("done", { status = exchange.response:get_status() })' } }
    gateway:get("/")
    assert.equal(1, #gateway:log("done.*status=200"))
  end)

  describe("in body_filter", function()
    local function filtered(...)
      local gateway = with({ body_filter = { ... } }, { upstreams = { ["*"] = { chunks = { "one", "two" } } } })
      return gateway:get("/").body
    end

    it("passes a chunk on unless the code returns another", function()
      assert.equal("onetwo", filtered("local seen = ..."))
      assert.equal("ONETWO", filtered("local _, _, chunk = ... return chunk:upper()"))
      assert.equal("", filtered('return ""'))
    end)

    it("takes what is given to set_raw_body", function()
      assert.equal("xx", filtered(
        'local _, _, chunk = ... if chunk ~= "" then exchange.response:set_raw_body("x") end'))
    end)

    it("gives the whole body when it is asked for", function()
      assert.equal("[onetwo]", filtered([[
        local body = exchange.response:get_raw_body()
        if body then exchange.response:set_raw_body("[" .. body .. "]") end
      ]]))
    end)

    it("gives each function what the one before has passed on", function()
      assert.equal("(ONE)(TWO)", filtered("local _, _, chunk = ... return chunk:upper()",
        'local _, _, chunk = ... if chunk ~= "" then return "(" .. chunk .. ")" end'))
    end)
  end)

  it("runs several functions in order", function()
    local gateway = with { access = { 'exchange.ctx.trail = "a"', 'exchange.ctx.trail = exchange.ctx.trail .. "b"' },
      header_filter = { 'exchange.response:set_header("X-Trail", exchange.ctx.trail)' } }
    assert.equal("ab", gateway:get("/").headers["x-trail"])
  end)

  it("runs before the plugins, and sees the configuration and the exchange as arguments", function()
    local gateway = with({ access = { "local conf, it = ... it.ctx.first = #conf.access" } }, {
      plugins = {
        { name = "second" },
        { name = "pre-function", config = { access = { "local conf, it = ... it.ctx.first = #conf.access" } } },
      },
      plugins_code = { second = [[
        return { version = "1", priority = 1001, access = function(_, exchange)
          exchange.response:exit(200, tostring(exchange.ctx.first))
        end }
      ]] },
    })
    assert.equal("1", gateway:get("/").body)
  end)

  describe("with code that returns a function", function()
    local COUNTING = [[
      local count = 0
      return function()
        count = count + 1
        exchange.response:set_header("X-Count", count)
        exchange.response:set_header("X-Path", exchange.request:get_path())
      end
    ]]

    it("runs the code once, and the function for each request, with its upvalues and the exchange at hand", function()
      local gateway = with { access = { COUNTING } }
      for i = 1, 3 do
        local response = gateway:get("/" .. i)
        assert.equal(tostring(i), response.headers["x-count"])
        assert.equal("/" .. i, response.headers["x-path"])
      end
    end)

    it("keeps the upvalues over a reload that does not change it", function()
      local gateway = with { access = { COUNTING } }
      gateway:get("/")
      assert(gateway:reload { consumers = { { username = "alice" } } })
      assert.equal("2", gateway:get("/").headers["x-count"])
    end)
  end)

  it("keeps exchanges apart that wait at the same time", function()
    local gateway = with { access = { [[
      require("sluice").sleep(exchange.request:get_path() == "/slow" and 2 or 1)
      exchange.response:exit(200, exchange.request:get_path())
    ]] } }
    local slow, quick = gateway:send("/slow"), gateway:send("/quick")
    assert.equal("/quick", quick:receive().body)
    assert.equal("/slow", slow:receive().body)
  end)

  it("sees what plugins see, and nothing more", function()
    local gateway = with { access = { 'io.open("/etc/passwd")' } }
    assert.equal(500, gateway:get("/").status)
    assert.matches("pre%-function.access%[1%]:1", gateway:log("undefined global 'io'")[1])
  end)

  it("has globals of its own, which its functions share", function()
    local gateway = with { access = { 'word = "shared"' },
      header_filter = { 'exchange.response:set_header("X-Word", word)' } }
    assert.equal("shared", gateway:get("/").headers["x-word"])
  end)

  it("answers 500 when the code fails, and the log says where", function()
    local gateway = with { access = { "local a = 1\nlocal b = a.b.c" } }
    assert.equal(500, gateway:get("/").status)
    assert.matches("pre%-function.access%[1%]:2", gateway:log("plugin failed")[1])
  end)

  it("costs a phase only where it has code for it", function()
    local gateway = with { log = { "local x = 1" } }
    assert.matches("%d", gateway:get("/").headers["content-length"])
  end)

  it("refuses code that is no Lua, with its line", function()
    assert.matches("config.access%[1%]: expected Lua code %(line 2: .*near",
      refused { access = { "return", "local a\nlocal =" } })
    assert.matches("config.ws_close%[0%]: expected Lua code", refused { ws_close = { "end" } })
  end)

  it("refuses precompiled code", function()
    assert.matches("config.access%[0%]: expected Lua code", refused { access = { "\27LJ" } })
  end)

  it("refuses a phase that there is not", function()
    assert.matches("config.acess: unknown field.*access", refused { acess = { "return" } })
  end)

  it("runs code for WebSocket messages", function()
    local gateway = spec.gateway { plugins = { { name = "pre-function", config = {
      ws_client_frame = { "local _, _, frame = ... "
        .. "if frame.type == 'text' then frame:set_data(frame.data .. ' c') end" },
      ws_upstream_frame = { "return function(_, exchange, frame) if frame.type == 'text' then "
        .. "exchange.websocket.upstream:set_frame_data(frame.data .. ' u') end end" } } } } }
    local socket = gateway:websocket("/")
    socket:send("a")
    assert.same({ type = "text", data = "a c u" }, socket:receive())
    socket:send("b")
    assert.same({ type = "text", data = "b c u" }, socket:receive())
  end)

  it("runs code for a WebSocket's handshake and its end, and for no other request", function()
    local gateway = spec.gateway { plugins = { { name = "pre-function", config = {
      access = { "exchange.ctx.order = 'access'" },
      ws_handshake = { "exchange.service.request:set_header('X-Order', exchange.ctx.order .. ' handshake')",
        "if exchange.request:get_path() == '/no' then exchange.response:exit(403, 'no') end" },
      ws_close = { "require('sluice').log.notice('closed ' .. exchange.request:get_path())" } } } } }
    local socket = gateway:websocket("/a")
    assert.equal("access handshake", gateway:requests()[1].headers["x-order"])
    assert.equal(0, #gateway:log("closed /a"))
    socket:close(1000)
    assert.equal("close", socket:receive().type)
    gateway:advance(1)
    assert.equal(1, #gateway:log("closed /a"))
    local none, response = gateway:websocket("/no")
    assert.same({ nil, 403 }, { none, response.status })
    assert.is_nil(gateway:get("/no").json.headers["x-order"])
    assert.equal(1, #gateway:log("closed /no"))
  end)

  it("cannot be for one consumer", function()
    local ok, err = spec.check { consumers = { { username = "alice",
      plugins = { { name = "pre-function", config = {} } } } } }
    assert.is_nil(ok)
    assert.matches("consumer", err)
  end)
end)
