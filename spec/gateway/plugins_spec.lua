-- SPDX-License-Identifier: Apache-2.0
-- Which instance of a plugin runs for whom, in what order, and what becomes of one that nothing can stop.
local gateway = require "spec.support.gateway"
local process = require "spec.support.process"

local PLUGINS = {
  -- Authenticates whoever the client says it is.
  who = [[
    local who = { version = "1.0.0", priority = 1000 }
    function who.access(_, exchange)
      local name = exchange.request:get_header("X-User")
      local consumer = name and exchange.client:load_consumer(name, true)
      if consumer then exchange.client:authenticate(consumer) end
    end
    return who
  ]],
  -- Adds its word in each phase that it runs in.
  word = [[
    local word = { version = "1.0.0", priority = 500 }
    function word.access(conf, exchange) exchange.ctx.word = conf.word end
    function word.header_filter(conf, exchange)
      exchange.response:set_header("X-Word", (exchange.ctx.word or "none") .. " " .. conf.word)
    end
    return word
  ]],
  trail_a = [[
    local trail = { version = "1.0.0", priority = 20 }
    function trail.access(_, exchange) exchange.ctx.trail = (exchange.ctx.trail or "") .. "a" end
    return trail
  ]],
  trail_b = [[
    local trail = { version = "1.0.0", priority = 30 }
    function trail.access(_, exchange) exchange.ctx.trail = (exchange.ctx.trail or "") .. "b" end
    return trail
  ]],
  answer = [[
    local answer = { version = "1.0.0", priority = 1 }
    function answer.access(_, exchange)
      local path = exchange.request:get_path()
      if path == "/swallow" then return pcall(function() exchange.response:exit(201, "first") end) end
      if path == "/pattern" then return (("a"):rep(40)):find(("a*"):rep(30) .. "b") end
      exchange.response:exit(200, exchange.ctx.trail or "")
    end
    return answer
  ]],
  last = [[
    local last = { version = "1.0.0", priority = 0 }
    function last.access(_, exchange) exchange.response:exit(202, "last") end
    return last
  ]],
}

local WORD_SCHEMA = 'return { word = { type = "string", required = true } }'

describe("plugins of a gateway", function()
  local gw

  setup(function()
    local plugins = {}
    for name, text in pairs(PLUGINS) do plugins[name] = { ["handler.lua"] = text } end
    plugins.word["schema.lua"] = WORD_SCHEMA
    gw = gateway.start({
      _format_version = "3.0",
      gateway = { plugin_cpu_budget_ms = 50 * process.slowness },
      routes = {
        { name = "plain", paths = { "/plain" }, plugins = { { name = "word", config = { word = "route" } } } },
        { name = "other", paths = { "/other" } },
        { name = "ordered", paths = { "/ordered" }, plugins = {
          { name = "trail_a", ordering = { before = { "trail_b" } } }, { name = "trail_b" } } },
        { name = "priorities", paths = { "/priorities" }, plugins = { { name = "trail_a" }, { name = "trail_b" } } },
        { name = "disabled", paths = { "/disabled" }, plugins = {
          { name = "trail_a" }, { name = "trail_b", enabled = false } } },
        { name = "swallow", paths = { "/swallow", "/pattern" }, plugins = { { name = "last" } } },
      },
      consumers = {
        { username = "alice", plugins = { { name = "word", config = { word = "alice" } } } },
        { username = "bob", groups = { { name = "gold" } } },
        { username = "carol" },
      },
      consumer_groups = { { name = "gold", plugins = { { name = "word", config = { word = "gold" } } } } },
      plugins = {
        { name = "who" }, { name = "answer" }, { name = "word", config = { word = "global" } },
        { name = "word", consumer = "alice", route = "plain", config = { word = "alice on plain" } },
      },
    }, { plugins = plugins })
  end)

  teardown(function() gw:stop() end)

  local function word(path, user)
    return gw:get(path, { ["X-User"] = user }).headers["x-word"]
  end

  it("run the most specific instance: for consumer and route, consumer, group, route, all", function()
    assert.equal("alice on plain alice on plain", word("/plain", "alice"))
    assert.equal("alice alice", word("/other", "alice"))
    assert.equal("gold gold", word("/plain", "bob"))
    assert.equal("gold gold", word("/other", "bob"))
    assert.equal("route route", word("/plain", "carol"))
    assert.equal("global global", word("/other", "carol"))
    assert.equal("route route", word("/plain"))
  end)

  it("run in header_filter of an answer that no route stands behind", function()
    local response = gw:get("/nothing")
    assert.equal(404, response.status)
    assert.equal("none global", response.headers["x-word"])
  end)

  it("run by priority, unless an instance asks for another order", function()
    assert.equal("ba", gw:get("/priorities").body)
    assert.equal("ab", gw:get("/ordered").body)
  end)

  it("do not run when they are disabled", function()
    assert.equal("a", gw:get("/disabled").body)
  end)

  it("end the phase with an answer, even if one catches what ends it", function()
    local response = gw:get("/swallow")
    assert.same({ 201, "first" }, { response.status, response.body })
  end)

  it("that no error can stop cost the worker, not the gateway", function()
    local client = gw:connect()
    client:send("GET /pattern HTTP/1.1\r\nHost: a\r\n\r\n")
    -- The worker gives up by itself, or the watchdog ends it, whichever comes first on a busy machine.
    gw:wait_log("plugin=answer", 20)
    client:close()
    assert.equal("global global", word("/other"))
  end)
end)
