-- SPDX-License-Identifier: Apache-2.0
-- What `sluice profile` makes of the workers' answers.
local flame = require "sluice.cli.profile.flame"
local stacks = require "sluice.cli.profile.stacks"
local symbols = require "sluice.cli.profile.symbols"

local NAMES = { [1] = "read", [2] = "on_read", [3] = "ev_run", [4] = "worker_main", [5] = "main", [6] = "coroutine_run",
  [7] = "bridge_digest" }

describe("stacks of a profile", function()
  local all

  before_each(function()
    all = stacks.new({ name = function(_, _, _, address) return NAMES[address] end }, "/home")
  end)

  local function add(...)
    all:add { pid = 1, modules = {}, lost = 0, stacks = { ... } }
  end

  it("has C from the loop inwards", function()
    add({ 3, "", "", "", 1, 2, 3, 4, 5 }, { 4, "", "", "", 1, 2, 3 })
    assert.equal("ev_run;on_read;read 7\n", all:folded())
  end)

  it("has Lua under the plugin that runs, and upon it the C that it calls", function()
    add({ 2, "burner", "C", "burn\t/home/plugins/burner/handler.lua:4\n/x/y.lua:7\t/x/y.lua:9\n", 7, 6 })
    assert.equal("plugin burner;function (/x/y.lua:9);burn (plugins/burner/handler.lua:4);bridge_digest 2\n",
      all:folded())
  end)

  it("tells the garbage collector, the compiler, the runtime, and a plugin without a stack", function()
    add({ 1, "a", "G", "f\t/home/a.lua:1\n" }, { 2, "", "J", "f\t/home/a.lua:1\n" }, { 3, "a", "", "" },
      { 4, "", "", "" })
    assert.equal("[runtime] 4\n[runtime];f (a.lua:1);[compiler] 2\nplugin a 3\n" ..
      "plugin a;f (a.lua:1);[garbage collector] 1\n", all:folded())
  end)

  it("keeps what separates frames out of their names", function()
    add({ 1, "a;b", "", "x;y\t/home/a b.lua:1\n" })
    assert.equal("plugin a b;x y (a b.lua:1) 1\n", all:folded())
  end)

  it("adds up workers, and what they lost", function()
    all:add { pid = 1, modules = {}, lost = 2, stacks = { { 1, "", "", "", 2 } } }
    all:add { pid = 2, modules = {}, lost = 3, stacks = { { 5, "", "", "", 2 } } }
    assert.equal("on_read 6\n", all:folded())
    assert.equal(5, all.lost)
    assert.equal(6, all.total)
  end)

  it("orders frames by their own time, and counts one that calls itself once", function()
    add({ 1, "", "", "", 2 }, { 5, "", "", "", 1, 2, 2 })
    assert.same({ { name = "read", own = 5, total = 5 }, { name = "on_read", own = 1, total = 6 } }, all:top(10))
    assert.equal(1, #all:top(1))
  end)

  it("draws a frame as wide as its time, with its name escaped", function()
    add({ 3, "", "", "", 1, 2 }, { 1, "<p>", "", "" })
    local graph = flame.draw(all:tree(), "a & b")
    assert.matches(">a &amp; b</text>", graph, 1, true)
    assert.matches("<title>all: 4 ms, 100.0 %</title>", graph, 1, true)
    assert.matches('<title>read: 3 ms, 75.0 %</title><rect x="10.00" y="34" width="885.00"', graph, 1, true)
    assert.matches('<title>plugin &lt;p&gt;: 1 ms, 25.0 %</title><rect x="895.00" y="51" width="295.00"', graph, 1,
      true)
  end)

  it("draws nothing but its ground when no time was spent", function()
    local graph = flame.draw(all:tree(), "idle")
    assert.matches(">idle</text>", graph, 1, true)
    assert.is_nil(graph:find("<title>", 1, true))
  end)
end)

describe("symbols of a profile", function()
  it("tells the file where it has no name, and what lies in no file", function()
    local reader = symbols.reader()
    local modules = { { 0, 1000, 2000, "/none/libnone.so.1" } }
    assert.equal("[libnone.so.1]", reader:name(1, modules, 1500))
    assert.equal("[compiled]", reader:name(1, modules, 2000))
  end)

  it("reads no file that is not of its kind", function()
    local path = os.tmpname()
    for _, text in ipairs { "", "\127ELF\2\1", "\127ELF\2\1" .. ("\255"):rep(100) } do
      local file = assert(io.open(path, "wb"))
      file:write(text)
      file:close()
      assert.matches("^%[", symbols.reader():name(1, { { 0, 0, 10, path } }, 5))
    end
    os.remove(path)
  end)
end)
