-- SPDX-License-Identifier: Apache-2.0
local cjson = require "cjson"
local phases = require "sluice.phases"
local stage = require "spec.lua.support.stage"

local ACCESS = phases.numbers.access

describe("a generation", function()
  local world, service, route, instance, code

  local function handler(body)
    return 'local hello = { version = "1.0.0", priority = 10 }\nfunction hello.access() end\n' .. (body or "")
      .. "\nreturn hello"
  end

  before_each(function()
    world = stage.new()
    service = { kind = "service", id = "s1", name = "one", host = "one.test", port = 80, protocol = "http", retries = 5,
      connect_timeout = 1, write_timeout = 2, read_timeout = 3 }
    route = { kind = "route", id = "r1", name = "first", service = "s1", protocols = { "http", "https" },
      paths = { "/one", "~/x/(?<a>.)" }, hosts = { "one.test" }, methods = { "GET" }, snis = { "one.test" },
      headers = { ["x-a"] = { "1", "2" } } }
    instance = { kind = "plugin", id = "p1", name = "hello", config = { greeting = "hi" }, enabled = true }
    code = world:code("hello", handler())
  end)

  after_each(function() world:close() end)

  local function live()
    return world.generation.current()
  end

  local function failure(report, revision)
    local number, text = report:match("^failed (%d+) (.*)$")
    assert.equal(tostring(revision), number)
    return cjson.decode(text)
  end

  it("goes live with all that its snapshot says", function()
    world.gateway = { limits = { max_headers = 50 }, trusted_ips = { "10.0.0.0/8" } }
    assert.equal("live 7", world:stage(world:snapshot(7, { code, service, route, instance })))
    local built = world.built[1]
    assert.equal(1, #built.bridge_gen_service)
    assert.equal(1, #built.bridge_gen_route)
    assert.same({ { "max_headers", 11, 50 } }, built.bridge_gen_setting)
    assert.same({ { "10.0.0.0/8", 10 } }, built.bridge_gen_trusted_ip)
    assert.equal(1, #built.bridge_gen_live)
    assert.equal("hi", live().plans[1][ACCESS][1].conf.greeting)
    assert.equal("p1", live().plans[1][ACCESS][1].conf.__plugin_id)
    assert.equal("first", live().routes[1].name)
    assert.equal("one", live().services[1].name)
  end)

  it("gives the router every value that a route matches on", function()
    world:stage(world:snapshot(1, { service, route }))
    local matches = {}
    for _, match in ipairs(world.built[1].bridge_gen_route_match) do matches[#matches + 1] = match[2] .. match[3] end
    table.sort(matches)
    assert.same({ "0GET", "1one.test", "2/one", "2~/x/(?<a>.)", "3one.test", "4x-a", "51", "52" }, matches)
  end)

  it("hands upstreams with their targets to the balancer's policy", function()
    world:stage(world:snapshot(1, { { kind = "upstream", id = "u1", name = "up", algorithm = "round-robin" },
      { kind = "target", id = "t1", upstream = "u1", target = "10.0.0.1:81", weight = 5 },
      { kind = "target", id = "t2", upstream = "u1", target = "[::1]:82" } }))
    assert.same({ { 1, "10.0.0.1", 81, 5 }, { 1, "::1", 82, 100 } }, world.built[1].bridge_gen_target)
    assert.equal("up", live().upstreams[1].name)
    assert.equal(1, #world.built[1].bridge_gen_schedule)
  end)

  it("leaves out the routes of a disabled service", function()
    service.enabled = false
    world:stage(world:snapshot(1, { service, route }))
    assert.is_nil(world.built[1].bridge_gen_route)
  end)

  describe("after another", function()
    it("keeps what has not changed: tables, plans and code with its state", function()
      world:stage(world:snapshot(1, { code, service, route, instance }))
      local before = live()
      local second = { kind = "route", id = "r2", name = "second", service = "s1", paths = { "/two" } }
      world:stage(world:snapshot(2, { code, service, route, second, instance }))
      local after = live()
      assert.equal(2, after.revision)
      assert.equal(before.routes[1], after.routes[1])
      assert.equal(before.plans[1], after.plans[1])
      assert.equal(before.plugins.hello, after.plugins.hello)
      assert.equal("second", after.routes[2].name)
    end)

    it("loads a plugin anew when one of its files has changed", function()
      world:stage(world:snapshot(1, { code, service, route, instance }))
      local before = live()
      world:stage(world:snapshot(2, { world:code("hello", handler(), { ["words.lua"] = "" }), service, route,
        instance }))
      assert.not_equal(before.plugins.hello, live().plugins.hello)
      assert.equal(live().plugins.hello.handler.access, live().plans[1][ACCESS][1].run)
      assert.equal(before.plugins.hello.handler.access, before.plans[1][ACCESS][1].run)
    end)

    it("is forgotten when its last exchange has ended, and its plugins' timers stop", function()
      world:stage(world:snapshot(1, { world:code("hello", handler([[
        function hello.init_worker() require("sluice").timer.every(5, function() end) end
      ]])), service, instance }))
      local every = world.timers[#world.timers]
      world:stage(world:snapshot(2, { code, service, instance }))
      assert.is_nil(world.cancelled[every])
      world:event("generation_end", 1)
      assert.is_true(world.cancelled[every])
      assert.is_nil(world.generation.get(1))
      assert.equal(2, world.generation.get(2).revision)
    end)

    it("does not stop timers of plugins that live on", function()
      local with_timer = world:code("hello", handler([[
        function hello.init_worker() require("sluice").timer.every(5, function() end) end
      ]]))
      world:stage(world:snapshot(1, { with_timer, service, instance }))
      local every = world.timers[#world.timers]
      world:stage(world:snapshot(2, { with_timer, service, route, instance }))
      world:event("generation_end", 1)
      assert.is_nil(world.cancelled[every])
    end)
  end)

  describe("with plugins", function()
    before_each(function() _G.seen = {} end)
    after_each(function() _G.seen = nil end)

    local function trusted(body)
      local record = world:code("hello", handler(body))
      record.trusted = true
      return record
    end

    it("configures each once, with all its configurations, before it goes live", function()
      local other = { kind = "plugin", id = "p2", name = "hello", service = "s1", config = { greeting = "ho" } }
      local off = { kind = "plugin", id = "p3", name = "hello", route = "r1", config = {}, enabled = false }
      world:stage(world:snapshot(1, { trusted("function hello.configure(confs) seen[#seen + 1] = confs end"), service,
        route, instance, other, off }))
      assert.equal(1, #_G.seen)
      assert.same({ "hi", "ho" }, { _G.seen[1][1].greeting, _G.seen[1][2].greeting })
      assert.equal(2, #_G.seen[1])
    end)

    it("runs init_worker once per load, before it goes live", function()
      local with_init = trusted("function hello.init_worker() seen[#seen + 1] = true end")
      world:stage(world:snapshot(1, { with_init, service, instance }))
      assert.equal(1, #_G.seen)
      world:stage(world:snapshot(2, { with_init, service, route, instance }))
      assert.equal(1, #_G.seen)
    end)

    it("does not wait for an init_worker that waits", function()
      local with_init = trusted([[
        function hello.init_worker() seen[1] = "begun"; coroutine.wrap(function() end)(); wait(); seen[2] = true end
      ]])
      local sleeping = 0
      _G.wait = function()
        sleeping = sleeping + 1
        coroutine.yield()
      end
      local step = world:begin("stage", 0, world:snapshot(1, { with_init, service, instance }))
      local waiting = world:begin("timer", world.timers[1])
      world.timers = {}
      assert.is_true(step())
      assert.equal("live 1", world.reports[1])
      assert.same({ "begun" }, _G.seen)
      assert.is_true(waiting())
      assert.same({ "begun", true }, _G.seen)
      _G.wait = nil
    end)

    it("loads only what an enabled instance uses", function()
      local broken = world:code("broken", "= syntax error")
      local off = { kind = "plugin", id = "p2", name = "broken", config = {}, enabled = false }
      assert.equal("live 1", world:stage(world:snapshot(1, { code, broken, service, instance, off })))
      assert.is_nil(live().plugins.broken)
    end)

    it("warns once of a function that looks like a phase", function()
      local odd = world:code("hello", handler("function hello.header_filer() end"))
      world:stage(world:snapshot(1, { odd, instance }))
      world:stage(world:snapshot(2, { odd, service, instance }))
      assert.equal(1, #world.log)
      assert.matches("did you mean header_filter", world.log[1].why)
    end)
  end)

  describe("that cannot be built", function()
    local first

    before_each(function()
      world:stage(world:snapshot(1, { code, service, route, instance }))
      first = live()
    end)

    local function refused(revision, records)
      local report = world:stage(world:snapshot(revision, records))
      assert.equal(first, live())
      return failure(report, revision)
    end

    it("says file and line of a plugin's syntax error", function()
      local err = refused(2, { world:code("hello", "local x\nx = = 1"), service, instance })
      assert.equal("/p/hello/handler.lua", err.file)
      assert.equal(2, err.line)
      assert.matches("unexpected symbol", err.message)
    end)

    it("says which plugin's code is missing", function()
      assert.equal("plugin hello", refused(2, { service, instance }).entity)
    end)

    it("says which route the core refused, and drops what was begun", function()
      world.refuse = "bridge_gen_route_match"
      local err = refused(2, { code, service, route, instance })
      assert.equal("route first", err.entity)
      assert.equal("refused for the spec", err.message)
      assert.equal(1, #world.built[2].bridge_gen_drop)
      assert.is_nil(world.built[2].bridge_gen_live)
      assert.is_nil(world.generation.get(2))
    end)

    it("says which plugin's configure raised, and configures the running one again", function()
      _G.seen = {}
      local good = world:code("hello", handler("function hello.configure(confs) seen[#seen + 1] = #confs end"))
      good.trusted = true
      world:stage(world:snapshot(2, { good, service, instance }))
      first = live()
      local bad = world:code("other", handler("function hello.configure() error('no such thing') end"))
      local other = { kind = "plugin", id = "p9", name = "other", config = {} }
      local err = refused(3, { good, bad, service, instance, other })
      assert.equal("other", err.plugin)
      assert.matches("/p/other/handler.lua:3: no such thing$", err.message)
      assert.equal(1, _G.seen[#_G.seen])
      _G.seen = nil
    end)

    it("says which plugin could not tell what its configuration needs", function()
      for text, message in pairs { ["error('no idea')"] = "no idea", ["return 7"] = "expected a table" } do
        local bad = world:code("hello", handler("function hello.needs() " .. text .. " end"))
        local err = refused(2, { bad, service, route, instance })
        assert.same({ "hello", "needs" }, { err.plugin, err.phase })
        assert.matches(message, err.message)
      end
    end)

    it("says when init_worker raised", function()
      local bad = world:code("hello", handler("function hello.init_worker() error('no luck') end"))
      local err = refused(2, { bad, service, instance })
      assert.same({ "hello", "init_worker" }, { err.plugin, err.phase })
    end)

    it("says when the snapshot is cut short", function()
      local path = world:snapshot(2, { service })
      local file = assert(io.open(path, "rb"))
      local bytes = file:read("*a")
      file:close()
      file = assert(io.open(path, "wb"))
      file:write(bytes:sub(1, -5))
      file:close()
      assert.matches("cut short", failure(world:stage(path), 2).message)
      assert.equal(first, live())
    end)

    it("is remembered in the status until a later one goes live", function()
      refused(2, { service, instance })
      world:event("status", 5)
      local status = cjson.decode(world.reports[#world.reports]:match("^status 5 (.*)$"))
      assert.equal("there is no code of this plugin", status.last_failure.message)
      world:stage(world:snapshot(3, { code, service, instance }))
      world:event("status", 6)
      status = cjson.decode(world.reports[#world.reports]:match("^status 6 (.*)$"))
      assert.is_nil(status.last_failure)
      assert.equal(3, status.revision)
      assert.same({ "hello", "1.0.0", 10, code.hash }, { status.plugins[1].name, status.plugins[1].version,
        status.plugins[1].priority, status.plugins[1].hash })
    end)
  end)

  describe("of many routes", function()
    local function routes(count)
      local records = { service }
      for i = 1, count do
        records[i + 1] = { kind = "route", id = "r" .. i, name = "route" .. i, service = "s1", paths = { "/" .. i } }
      end
      return records
    end

    it("is built in slices, and lets the loop run between them", function()
      world:stage(world:snapshot(1, { service }))
      world.tick, world.sleeps = 0.0001, 0
      world:stage(world:snapshot(2, routes(300)))
      assert.equal(300, #world.built[2].bridge_gen_route)
      assert.is_true(world.sleeps > 20)
    end)

    it("gives way to a newer one that begins while it is built", function()
      world:stage(world:snapshot(1, { service }))
      world.tick = 0.0001
      local older = world:begin("stage", 0, world:snapshot(2, routes(300)))
      assert.is_false(older())
      world:stage(world:snapshot(3, { service, route }))
      while not older() do end
      assert.same({ "live 1", "live 3" }, world.reports)
      assert.equal(3, live().revision)
    end)
  end)
end)
