-- SPDX-License-Identifier: Apache-2.0
local worker = require "spec.support.worker"

describe("a phase", function()
  local w

  before_each(function() w = worker.new() end)
  after_each(function() w:close() end)

  local function plugin(body, version)
    return 'local sluice = require "sluice"\nlocal it = { version = "' .. (version or "1.0.0")
      .. '", priority = 10 }\n' .. body .. "\nreturn it"
  end

  it("runs the plugin's function with its configuration and one exchange for all phases", function()
    w:stage { plugins = { probe = plugin [[
      function it.access(conf, exchange) exchange.ctx.seen = conf.word end
      function it.log(conf, exchange) sluice.log.notice("logged", { seen = exchange.ctx.seen }) end
    ]] }, config = { probe = { word = "hello" } } }
    local exchange = w:new_exchange()
    assert.equal("done", w:run("access", exchange))
    assert.equal("done", w:run("log", exchange))
    assert.matches("logged plugin=probe seen=hello", w:log())
  end)

  it("forgets an exchange that has ended, and never mistakes the next one of its slot for it", function()
    w:stage { plugins = { probe = plugin [[
      function it.access(_, exchange)
        sluice.log.notice("seen", { before = tostring(exchange.ctx.mark) })
        exchange.ctx.mark = true
      end
    ]] } }
    local first = w:new_exchange(3)
    w:run("access", first)
    w:run("access", first)
    w:run("access", w:new_exchange(3))
    w:forget(first)
    local last = w:new_exchange(3)
    w:run("access", last)
    w:forget(last)
    w:run("access", last)
    local seen = {}
    for mark in w:log():gmatch("before=(%a+)") do seen[#seen + 1] = mark end
    assert.same({ "nil", "true", "nil", "nil", "nil" }, seen)
  end)

  it("that raises fails, and the log says plugin, version, place, phase and traceback", function()
    w:stage { plugins = { probe = plugin([[
      local function inner() local t = nil; return t.x end
      function it.access() inner() return true end
    ]], "1.2.3") } }
    local place = w:place("probe")
    local calls = tonumber(w.board.plugin_calls[place]) -- loading was one
    assert.equal("failed", w:run("access"))
    local log = w:log()
    assert.matches("plugin failed", log)
    assert.matches("plugin=probe", log)
    assert.matches("version=\"?1.2.3", log)
    assert.matches("phase=access", log)
    assert.matches("at=\"?/plugins/probe/handler.lua:3", log)
    assert.matches("attempt to index", log)
    assert.matches("handler.lua:4: in function", log)
    assert.equal(1, tonumber(w.board.plugin_errors[place]))
    assert.equal(calls + 1, tonumber(w.board.plugin_calls[place]))
  end)

  it("goes on with the other plugins when one fails to log", function()
    w:stage { plugins = {
      first = plugin("it.priority = 20 function it.log() error('broken') end"),
      second = plugin("function it.log() sluice.log.notice('still here') end"),
    } }
    assert.equal("done", w:run("log"))
    assert.matches("still here", w:log())
  end)

  it("stops at the first plugin that fails", function()
    w:stage { plugins = {
      first = plugin("it.priority = 20 function it.access() error('broken') end"),
      second = plugin("function it.access() sluice.log.notice('still here') end"),
    } }
    assert.equal("failed", w:run("access"))
    assert.not_matches("still here", w:log())
  end)

  it("waits, while others run, and goes on", function()
    w:stage { plugins = { probe = plugin [[
      function it.access(_, exchange)
        sluice.sleep(0.01)
        sluice.log.notice("woken")
      end
    ]] } }
    assert.equal("waiting", w:run("access"))
    assert.equal("waiting", w:run("access"))
    assert.equal(0, w.board.running)
    w:turn_until(function() return select(2, w:log():gsub("woken", "")) == 2 end)
  end)

  it("may wait in a coroutine of the plugin's own", function()
    w:stage { plugins = { probe = plugin [[
      function it.access()
        local values = coroutine.wrap(function()
          sluice.sleep(0)
          coroutine.yield("one")
          sluice.sleep(0)
          return "two"
        end)
        sluice.log.notice("got", { both = values() .. values() })
      end
    ]] } }
    assert.equal("waiting", w:run("access"))
    w:turn_until(function() return w:log():find("both=onetwo", 1, true) end)
  end)

  it("that may not wait, fails when a plugin does", function()
    w:stage { plugins = { probe = plugin "function it.header_filter() sluice.sleep(0) end" } }
    assert.equal("failed", w:run("header_filter"))
    assert.matches("at=/plugins/probe/handler.lua:3", w:log())
    assert.matches("made in phase header_filter; it can in init_worker, certificate, preread, rewrite", w:log())
    assert.equal("failed", w:run("header_filter"))
  end)

  it("without plugins is done", function()
    w:stage {}
    assert.equal("done", w:run("access"))
  end)

  describe("body_filter", function()
    it("passes each chunk through the plugins in order", function()
      w:stage { plugins = {
        first = plugin("it.priority = 20 function it.body_filter(_, _, chunk) return chunk .. '1' end"),
        second = plugin("function it.body_filter(_, _, chunk, last) return chunk .. '2' .. tostring(last) end"),
      } }
      assert.same({ "abc12false", "done" }, { w:body("abc", false) })
      assert.same({ "12true", "done" }, { w:body("", true) })
    end)

    it("keeps bytes as they are", function()
      w:stage { plugins = { probe = plugin "function it.body_filter(_, _, chunk) return chunk end" } }
      local bytes = "a\0b\255" .. ("x"):rep(70000)
      assert.equal(bytes, (w:body(bytes, false)))
    end)

    it("lets a plugin gather the body", function()
      w:stage { plugins = { probe = plugin [[
        function it.body_filter(_, exchange, chunk, last)
          exchange.ctx.body = (exchange.ctx.body or "") .. chunk
          return last and exchange.ctx.body:upper() or nil
        end
      ]] } }
      local exchange = w:new_exchange()
      assert.equal("", (w:body("a", false, exchange)))
      assert.equal("", (w:body("b", false, exchange)))
      assert.equal("ABC", (w:body("c", true, exchange)))
    end)

    it("fails when a plugin raises", function()
      w:stage { plugins = { probe = plugin "function it.body_filter() error('no') end" } }
      assert.same({ "", "failed" }, { w:body("abc", true) })
    end)
  end)

  describe("after a new generation", function()
    it("runs the new code for new exchanges and the old code for old ones", function()
      local text = "function it.access() sluice.log.notice('code %s') end"
      w:stage { plugins = { probe = plugin(text:format("one"), "1.0.0") } }
      local old = w.generation
      w:stage { plugins = { probe = plugin(text:format("two"), "2.0.0") } }
      w:run("access")
      assert.matches("code two", w:log())
      assert.not_equal(old, w.generation)
    end)

    it("of broken code keeps running the old", function()
      w:stage { plugins = { probe = plugin "function it.access() sluice.log.notice('good') end" } }
      w:begin_stage { plugins = { probe = "this is no Lua" } }
      assert.equal("done", w:run("access"))
      assert.matches("good", w:log())
      assert.equal(1, w.board.generation)
    end)
  end)
end)
