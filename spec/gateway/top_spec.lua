-- SPDX-License-Identifier: Apache-2.0
-- `sluice top`: what the workers' boards said between two looks.
local cjson = require "cjson"
local gateway = require "spec.support.gateway"
local process = require "spec.support.process"
local top = require "sluice.cli.top"

describe("sluice top", function()
  local gw

  setup(function()
    gw = gateway.start({
      _format_version = "3.0",
      routes = {
        { name = "fine", paths = { "/fine" }, plugins = {
          { name = "request-termination", config = { status_code = 200 } } } },
        { name = "bad", paths = { "/bad" }, plugins = { { name = "burner" } } },
      },
    }, { plugins = { burner = [[
      return { version = "1", priority = 1, access = function(_, exchange)
        local stop = os.clock() + 0.02
        while os.clock() < stop do end
        require("sluice").sleep(0.03)
        error "bad luck"
      end }
    ]] } })
  end)
  teardown(function() gw:stop() end)

  -- What it says of the time in which `act` was at work.
  local function during(act)
    local child = process.start({ gateway.binary, "top", "--once", "--json", "--interval", "1", "-c",
      gw.directory .. "/sluice.yml" }, { cwd = gw.directory,
      env = { SLUICE_STATE_DIR = gw.directory .. "/state", SLUICE_HOME = assert(io.popen("pwd")):read("*l") } })
    while child:is_running() do act() end
    return cjson.decode(child:stdout()), child:stderr()
  end

  it("tells rates, statuses, latencies and what plugins take", function()
    local seen = during(function()
      gw:get("/fine")
      gw:get("/bad")
      gw:get("/none")
    end)
    assert.is_true(seen.seconds >= 1)
    assert.is_true(seen.requests_per_second > 3)
    for _, class in ipairs { "2xx", "4xx", "5xx" } do assert.is_true(seen.statuses_per_second[class] > 0, class) end
    assert.equal(0, seen.statuses_per_second["3xx"])
    assert.is_true(seen.latency_ms.p50 <= seen.latency_ms.p99)
    assert.is_true(seen.latency_ms.greatest >= 20)
    assert.equal(1, #seen.workers)
    assert.is_true(seen.workers[1].requests_per_second > 3)
    assert.is_true(seen.workers[1].cpu > 0)
    local burner = seen.plugins[1]
    assert.equal("burner", burner.name)
    assert.is_true(burner.cpu > 0 and burner.us_per_call > 1000 and burner.errors > 0)
  end)

  it("shows a screen, once where there is no terminal", function()
    local code, out = gw:command("top", "--interval", "0.1")
    assert.equal(0, code)
    assert.matches("^requests/s  ", out)
    assert.matches("latency     p50 %- ", out)
    assert.matches("WORKER +PID +STATE +CPU", out)
    assert.matches("PLUGIN +CALLS/S +CPU", out)
    assert.is_nil(out:find("\27", 1, true))
  end)

  it("says what is wrong with an interval, and that no gateway runs", function()
    local code, _, err = gw:command("top", "--interval", "0")
    assert.equal(2, code)
    assert.matches("--interval needs a number of seconds from 0.1", err, 1, true)
    code, _, err = gw:command("top", "--interval", "x")
    assert.equal(2, code)
    assert.matches("--interval needs", err, 1, true)
  end)

  it("knows where the steps of latencies end", function()
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20 }, (function()
      local ends = {}
      for step = 0, 12 do ends[step + 1] = top.end_of(step) end
      return ends
    end)())
  end)
end)
