-- SPDX-License-Identifier: Apache-2.0
-- What happens when files change while the gateway serves, and when a plugin misbehaves.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local process = require "spec.support.process"
local upstream = require "spec.support.upstream"


local function greeter(text)
  return ([[
local greeter = { version = "1.0.0", priority = 10 }
function greeter.header_filter(conf, exchange)
  exchange.response:set_header("X-Greeting", "%s")
end
return greeter
]]):format(text)
end

describe("while the gateway serves", function()
  local up, gw

  local function config(changes)
    local whole = {
      _format_version = "3.0",
      gateway = { plugin_cpu_budget_ms = 50 * process.slowness },
      services = { { name = "up", url = up:url(), routes = { { name = "all", paths = { "/" }, strip_path = false,
        plugins = { { name = "greeter" } } } } } },
      routes = { { name = "bad", paths = { "/bad" }, plugins = { { name = "bad" } } } },
    }
    for key, value in pairs(changes or {}) do whole[key] = value end
    return whole
  end

  local bad = [[
local bad = { version = "2.3.4", priority = 1 }
function bad.access(conf, exchange)
  local what = exchange.request:get_path()
  if what == "/bad/loop" then
    while true do end
  elseif what == "/bad/raise" then
    error("on purpose")
  end
  exchange.response:exit(200, "fine")
end
return bad
]]

  before_each(function()
    up = upstream.start()
    gw = gateway.start(config(), { plugins = { greeter = greeter("one"), bad = bad } })
  end)

  after_each(function()
    gw:stop()
    up:stop()
  end)

  local function greeting(client)
    return (client and assert(client:request({})) or gw:get("/")).headers["x-greeting"]
  end

  local function wait_for(text)
    local client = gw:connect()
    process.wait_until(function() return greeting(client) == text end, 5,
      function() return "greeting " .. text .. ": " .. gw:log() end)
    client:close()
  end

  describe("a plugin's file that is saved", function()
    it("is live by itself", function()
      assert.equal("one", greeting())
      gw:write_plugin("greeter", greeter("two"))
      wait_for("two")
    end)

    it("keeps connections open", function()
      local client = gw:connect()
      assert.equal("one", greeting(client))
      gw:write_plugin("greeter", greeter("two"))
      wait_for("two")
      assert.equal("two", greeting(client))
      client:close()
    end)

    it("never goes live broken, and the status says where it broke", function()
      gw:write_plugin("greeter", "local greeter = {}\nreturn greeter +\n")
      gw:wait_log("greeter/handler%.lua")
      assert.equal("one", greeting())
      process.wait_until(function()
        return select(2, gw:command("status")):find("greeter/handler%.lua:%d")
      end, 5, "the place in the status")
      gw:write_plugin("greeter", greeter("mended"))
      wait_for("mended")
    end)

    it("never goes live when it raises as it loads", function()
      gw:write_plugin("greeter", "error('no')")
      gw:wait_log("greeter/handler%.lua")
      assert.equal("one", greeting())
    end)

    it("reloads the plugin when it is one of its modules", function()
      gw:write_plugin("greeter", {
        ["words.lua"] = "return { 'three' }",
        ["handler.lua"] = greeter("%s"):gsub('"%%s"', 'require("greeter.words")[1]'),
      })
      wait_for("three")
      gw:write_plugin("greeter", { ["words.lua"] = "return { 'four' }" })
      wait_for("four")
    end)
  end)

  describe("the configuration that is saved", function()
    it("takes effect without closing a connection", function()
      local client = gw:connect()
      assert.equal(200, client:request({ path = "/x" }).status)
      gw:write_config(config({ services = { { name = "up", url = up:url(),
        routes = { { name = "all", paths = { "/only" } } } } } }))
      process.wait_until(function() return client:request({ path = "/x" }).status == 404 end, 5,
        function() return "the new route: " .. gw:log() end)
      assert.equal(200, client:request({ path = "/only" }).status)
      client:close()
    end)

    it("stays as it was when the new one is wrong, and all errors are told", function()
      local wrong = config({ services = { { name = "up", url = up:url(), retries = "many",
        routes = { { name = "all", pathz = { "/" } } } } } })
      gw:write_config(wrong)
      gw:wait_log("retries")
      gw:wait_log("pathz")
      assert.equal("one", greeting())
    end)

    it("may use a plugin that was added a moment ago", function()
      gw:write_plugin("late", greeter("late"))
      gw:write_config(config({ services = { { name = "up", url = up:url(), routes = { { name = "all", paths = { "/" },
        plugins = { { name = "late" } } } } } } }))
      wait_for("late")
    end)

    it("does not lose a plugin whose folder was removed", function()
      os.execute(("rm -rf '%s/plugins/greeter'"):format(gw.directory))
      gw:wait_log("greeter")
      assert.equal("one", greeting())
    end)

    it("is live when `sluice reload` returns", function()
      gw:write_plugin("greeter", greeter("told"))
      assert.equal(0, (gw:command("reload")))
      assert.equal("told", greeting())
    end)
  end)

  describe("a plugin that", function()
    it("raises answers 500 with a request id, and the log holds where", function()
      local response = gw:get("/bad/raise")
      assert.equal(500, response.status)
      assert.matches("^%x+$", cjson.decode(response.body).request_id)
      local line = gw:wait_log("on purpose")
      assert.matches("bad", line)
      assert.matches("2%.3%.4", line)
      assert.matches("handler%.lua:7", line)
    end)

    it("never ends is stopped within its budget, and others are served meanwhile", function()
      local other = gw:connect()
      assert.equal("fine", gw:get("/bad/fine").body)
      local looping = gw:connect()
      looping:send("GET /bad/loop HTTP/1.1\r\nHost: a\r\n\r\n")
      assert.equal(500, looping:read_response().status)
      assert.equal(200, other:request({}).status)
      local line = gw:wait_log("budget")
      assert.matches("bad", line)
      assert.matches("2%.3%.4", line)
      assert.matches("handler%.lua:5", line)
      assert.equal("fine", gw:get("/bad/fine").body)
      looping:close()
      other:close()
    end)
  end)
end)

describe("while the gateway starts", function()
  -- Half a second of work in every worker, before the first generation is live.
  local SLOW = [[
local slow = { version = "1.0.0", priority = 10 }
function slow.configure()
  local ends = os.clock() + 0.5
  while os.clock() < ends do end
end
return slow
]]

  it("a configuration that is saved takes effect, too", function()
    local function config(path)
      return { _format_version = "3.0", gateway = { plugin_cpu_budget_ms = 5000,
        limits = { watchdog_timeout = 60000 } }, routes = { { name = "only",
        paths = { path }, plugins = { { name = "slow" }, { name = "request-termination" } } } } }
    end
    local gw = gateway.start(config("/before"), { plugins = { slow = SLOW }, wait = false })
    process.wait_until(function() return #gw:workers() > 0 end)
    gw:write_config(config("/after"))
    gw:wait_ready()
    process.wait_until(function() return gw:get("/after").status == 503 end, 10, function() return gw:log() end)
    assert.equal(404, gw:get("/before").status)
    gw:stop()
  end)
end)
