-- SPDX-License-Identifier: Apache-2.0
local worker = require "spec.support.worker"

local BUDGET_MS = 50

-- Each is a plugin's access; all would run for ever.
local ENDLESS = {
  ["an empty loop"] = "while true do end",
  ["a loop that gets compiled"] = "local i = 0; while true do i = i + 1; if i > 1e9 then i = 0 end end",
  ["a loop behind pcall"] = "pcall(function() while true do end end) while true do end",
  ["a loop that catches what stops it"] = "while true do pcall(function() while true do end end) end",
  ["a loop that catches with a handler"] =
    "while true do xpcall(function() while true do end end, function() while true do end end) end",
  ["a loop in a coroutine of its own"] =
    "local run = coroutine.wrap(function() while true do pcall(function() while true do end end) end end) run()",
  ["deep recursion that catches"] = "local function deep() return pcall(deep) end; while true do deep() end",
  ["long strings"] = "while true do local s = ('x'):rep(1e6) end",
  ["substitutions"] = "local s = ('x'):rep(1e4); while true do s:gsub('x', function() return 'y' end) end",
  ["tables"] = "while true do local t = {}; for i = 1, 100 do t[i] = { i } end end",
}

describe("the CPU budget of a plugin call", function()
  local w

  before_each(function() w = worker.new { budget_ms = BUDGET_MS } end)
  after_each(function() w:close() end)

  local function plugin(body, version)
    return ('local sluice = require "sluice"\nreturn { version = "%s", priority = 10, access = '
      .. "function(_, exchange)\n%s\nend }"):format(version or "1.0.0", body)
  end

  local function cpu_ms()
    return os.clock() * 1000
  end

  for name, body in pairs(ENDLESS) do
    it("stops " .. name .. ", and the worker works on", function()
      w:stage { plugins = { evil = plugin("if exchange.ctx.good then return end " .. body) } }
      for _ = 1, 2 do
        local began = cpu_ms()
        assert.equal("failed", w:run("access"))
        local used = cpu_ms() - began
        assert.is_true(used >= BUDGET_MS * 0.9, "stopped too early: " .. used)
        assert.is_true(used < BUDGET_MS * 10, "stopped too late: " .. used)
      end
      local place = w:place("evil")
      assert.equal(2, tonumber(w.board.plugin_stops[place]))
      assert.equal(2, tonumber(w.board.plugin_errors[place]))
      assert.matches("stopped: passed its CPU budget of 50 ms", w:log())
      w:stage { plugins = { evil = plugin("for i = 1, 1e5 do exchange.ctx[i % 10] = i end", "2.0.0") } }
      for _ = 1, 20 do assert.equal("done", w:run("access")) end
    end)
  end

  it("names plugin, version and line", function()
    w:stage { plugins = { evil = plugin("while true do\nend", "6.6.6") } }
    w:run("access")
    local log = w:log()
    assert.matches("plugin=evil", log)
    assert.matches("version=\"?6.6.6", log)
    assert.matches("at=\"?/plugins/evil/handler.lua:3", log)
  end)

  it("is one call's: many short calls pass", function()
    w:stage { plugins = { busy = plugin("local t = 0; for i = 1, 1e5 do t = t + i % 7 end") } }
    local began = cpu_ms()
    while cpu_ms() - began < 4 * BUDGET_MS do assert.equal("done", w:run("access")) end
    assert.equal(0, tonumber(w.board.plugin_stops[w:place("busy")]))
  end)

  it("may change with a reload", function()
    w:stage { plugins = { evil = plugin("while true do end") }, gateway = { plugin_cpu_budget_ms = 20 } }
    assert.equal("failed", w:run("access"))
    assert.matches("passed its CPU budget of 20 ms", w:log())
  end)

  it("counts no time that a plugin waits", function()
    w:stage { plugins = { slow = plugin("sluice.sleep(0.15); sluice.log.notice('woken')") } }
    assert.equal("waiting", w:run("access"))
    w:turn_until(function() return w:log():find("woken", 1, true) end)
    assert.equal(0, tonumber(w.board.plugin_stops[w:place("slow")]))
  end)

  it("holds in timers", function()
    w:stage { plugins = { evil = plugin("sluice.timer.at(0, function() while true do end end)") } }
    assert.equal("done", w:run("access"))
    w:turn_until(function() return w:log():find("passed its CPU budget", 1, true) end)
    assert.matches("phase=timer", w:log())
  end)

  it("leaves CPU time of each plugin on the board", function()
    w:stage { plugins = { busy = plugin("local t = 0; for i = 1, 2e5 do t = t + i % 7 end"), idle = plugin("") } }
    local began = cpu_ms()
    while cpu_ms() - began < 300 do w:run("access") end
    local busy, idle = w:place("busy"), w:place("idle")
    assert.is_true(tonumber(w.board.plugin_cpu_us[busy]) > 150000)
    assert.is_true(tonumber(w.board.plugin_cpu_us[idle]) < 50000)
    assert.equal(w.board.plugin_calls[busy], w.board.plugin_calls[idle])
  end)
end)

describe("coroutines", function()
  it("are used again, however many wait at once", function()
    local w = worker.new()
    w:stage { plugins = { probe = [[
      local sluice = require "sluice"
      local done = 0
      return { version = "1", priority = 1, access = function()
        sluice.sleep(0)
        done = done + 1
        if done == 3000 then sluice.log.notice("all done") end
      end }
    ]] } }
    for _ = 1, 3000 do assert.equal("waiting", w:run("access")) end
    w:turn_until(function() return w:log():find("all done", 1, true) end)
    w:close()
  end)
end)
