-- SPDX-License-Identifier: Apache-2.0
local fake = require "spec.lua.support.fake_core"

describe("timers", function()
  local timer

  before_each(function()
    fake.install()
    package.loaded["sluice.runtime"] = {
      plugin = function() return 0 end,
      generation = function() return 1 end,
      on = function() end,
      call = function(_, _, _, fn, a) return pcall(fn, a) end,
    }
    timer = require "sluice.timer"
  end)

  after_each(fake.remove)

  local function due()
    return (next(fake.timers))
  end

  local function fire()
    local id = due()
    fake.timers[id] = nil
    timer.fire(id)
  end

  it("run once with their arguments", function()
    local got
    timer.at(5, function(...) got = { n = select("#", ...), ... } end, "a", nil, "c")
    assert.equal(5, fake.timers[due()])
    fire()
    assert.same({ n = 3, "a", nil, "c" }, got)
    assert.is_nil(due())
    assert.equal(0, timer.count())
  end)

  it("repeat, and go on after an error", function()
    local runs = 0
    timer.every(1, function()
      runs = runs + 1
      error("no")
    end)
    fire()
    fire()
    assert.equal(2, runs)
    assert.is_number(due())
  end)

  it("stop with their owner, even while one of them runs", function()
    local mine, other = { name = "mine" }, { name = "other" }
    timer.bind(mine).every(1, function() timer.stop(mine) end)
    fire()
    assert.is_nil(due())
    timer.bind(mine).at(1, error)
    timer.bind(other).at(1, error)
    timer.stop(mine)
    assert.same({ 0, 1 }, { timer.count(mine), timer.count(other) })
  end)

  it("can be cancelled", function()
    local it_runs = timer.every(1, error)
    it_runs:cancel()
    assert.is_nil(due())
    assert.equal(0, timer.count())
  end)

  it("refuse what is no time or no function", function()
    assert.error_matches(function() timer.at("x", print) end, "seconds must be a number of at least 0, got x")
    assert.error_matches(function() timer.every(0, print) end, "seconds must be a number of at least 0.001, got 0")
    assert.error_matches(function() timer.at(1) end, "fn must be a function, got nil")
  end)
end)
