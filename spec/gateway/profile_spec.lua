-- SPDX-License-Identifier: Apache-2.0
-- `sluice profile`: stacks of Lua and C while requests come.
local gateway = require "spec.support.gateway"
local process = require "spec.support.process"

describe("sluice profile", function()
  local gw

  setup(function()
    gw = gateway.start({
      _format_version = "3.0",
      routes = {
        { name = "hot", paths = { "/hot" }, plugins = { { name = "burner" } } },
        { name = "digest", paths = { "/digest" }, plugins = { { name = "digester" } } },
        { name = "cold", paths = { "/cold" }, plugins = {
          { name = "request-termination", config = { status_code = 200 } } } },
      },
    }, { workers = 2, plugins = { burner = [[
      local function burn(stop)
        local sum = 0
        while os.clock() < stop do
          for i = 1, 1000 do sum = sum + i % 7 end
        end
        return sum
      end
      local burner = { version = "1", priority = 1 }
      function burner.access(_, exchange)
        local sum = burn(os.clock() + 0.03)
        exchange.response:exit(200, tostring(sum))
      end
      return burner
    ]], digester = [[
      local crypto = require "sluice.crypto"
      local text = ("x"):rep(1000000)
      return { version = "1", priority = 1, access = function(_, exchange)
        for _ = 1, 3 do crypto.digest("sha256", text) end
        exchange.response:exit(200, "done")
      end }
    ]] } })
  end)
  teardown(function() gw:stop() end)

  -- The folded stacks of the time in which `act` was at work, by stack; what the command said; the graph.
  local function during(act, ...)
    local home = os.getenv("SLUICE_HOME") or assert(io.popen("pwd")):read("*l")
    local child = process.start({ gateway.binary, "profile", "-c", gw.config_path, ... }, { cwd = gw.directory,
      env = { SLUICE_STATE_DIR = gw.directory .. "/state", SLUICE_HOME = home } })
    while child:is_running() do act() end
    local counts, prefix = {}, gw.directory .. "/sluice-profile"
    local folded = process.read_file(prefix .. ".folded")
    for stack, count in folded:gmatch("([^\n]+) (%d+)\n") do counts[stack] = tonumber(count) end
    return counts, child:stdout() .. child:stderr(), process.read_file(prefix .. ".svg")
  end

  local function sum(counts, ...)
    local total = 0
    for stack, count in pairs(counts) do
      local fits = true
      for _, part in ipairs { ... } do fits = fits and stack:find(part) ~= nil end
      if fits then total = total + count end
    end
    return total
  end

  it("names the function and the line of a plugin that burns", function()
    local counts, said, graph = during(function() gw:get("/hot") end, "--seconds", "2")
    local of_plugin = sum(counts, "^plugin burner;")
    assert.is_true(of_plugin > 0, said)
    assert.is_true(sum(counts, "^plugin burner;.*burner/handler%.lua:10%);burn %(.*burner/handler%.lua:[34]%)") > 0)
    assert.is_true(of_plugin <= sum(counts) and sum(counts) < 4000)
    assert.matches("<title>plugin burner: %d+ ms, ", graph)
    assert.matches("burn %(.-handler%.lua:%d%)", graph)
    assert.matches("</svg>\n$", graph)
    assert.matches("ITSELF +WITH CALLS +FRAME\n.*burn %(.-handler%.lua:[34]%)\n", said)
    assert.matches("\n%d+ ms of CPU time in %d+ stacks\n%./sluice%-profile%.folded\n%./sluice%-profile%.svg\n$", said)
  end)

  it("tells what C a plugin calls, and C outside of Lua", function()
    local counts, said = during(function()
      gw:get("/digest")
      for _ = 1, 40 do gw:get("/cold") end
    end, "--seconds=1.5")
    assert.is_true(sum(counts, "^plugin digester;", ";bridge_crypto_digest;") > 0, said)
    assert.is_true(sum(counts, "^ev_invoke_pending;[^;]+;[^;]") > 0, said)
    for stack in pairs(counts) do
      assert.is_nil(stack:find("worker_main", 1, true), stack)
      assert.is_nil(stack:find("coroutine_run", 1, true) and stack:find("^plugin"), stack)
    end
  end)

  it("serves as before once a profile has ended", function()
    local counts = during(function() end, "--seconds", "0.1")
    assert.is_true(sum(counts) < 1000)
    assert.equal(200, gw:get("/hot").status)
    assert.is_nil(gw:log():find("worker died", 1, true))
  end)

  it("says what is wrong with its options, and that no gateway runs", function()
    local code, _, err = gw:command("profile", "--seconds", "0")
    assert.equal(2, code)
    assert.matches("--seconds needs a number of seconds from 0.1 to 3600", err, 1, true)
    code, _, err = gw:command("profile", "--output", gw.directory .. "/none/profile")
    assert.equal(2, code)
    assert.matches("cannot write .*/none/profile%.folded: No such file", err)
    code, _, err = process.run({ gateway.binary, "profile", "-c", gw.config_path },
      { env = { SLUICE_STATE_DIR = gw.directory .. "/elsewhere", SLUICE_HOME = gw.env.SLUICE_HOME } })
    assert.equal(1, code)
    assert.matches("no gateway runs here", err, 1, true)
  end)
end)
