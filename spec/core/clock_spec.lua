-- SPDX-License-Identifier: Apache-2.0
-- The clock that a spec moves, and the timers that follow it.
local core = require "spec.support.core"
local ffi = require "ffi"
local C = core.load("clock.h")

-- Timers without a callback into Lua: what fired is no longer in the heap. `on_fire` is a C function that does nothing
-- to the heap but what the spec asks for.
local function fired(timer)
  return timer.slot < 0
end

describe("the clock", function()
  it("stands still when it is moved by hand, and moves both of its times together", function()
    local clock = ffi.new("struct clock")
    C.clock_init(clock)
    clock.manual = true
    local mono, real = clock.mono_us, clock.real_us
    C.clock_update(clock)
    assert.equal(mono, clock.mono_us)
    C.clock_advance(clock, 1500)
    assert.equal(mono + 1500, clock.mono_us)
    assert.equal(real + 1500, clock.real_us)
  end)

  it("tells the date as HTTP wants it, and anew when the second changes", function()
    local clock = ffi.new("struct clock")
    C.clock_init(clock)
    clock.manual = true
    clock.real_us = 784111777LL * 1000000
    assert.equal("Sun, 06 Nov 1994 08:49:37 GMT", ffi.string(C.clock_http_date(clock)))
    C.clock_advance(clock, 1000000)
    assert.equal("Sun, 06 Nov 1994 08:49:38 GMT", ffi.string(C.clock_http_date(clock)))
  end)
end)

describe("timers", function()
  local timers, held, order

  -- FFI callbacks are fine in a spec: nothing here is compiled.
  local function new(on_fire)
    local timer = ffi.new("struct timer")
    local callback = ffi.cast("void (*)(struct timer *)", function(fired_timer)
      order[#order + 1] = tonumber(fired_timer.at_us)
      if on_fire then on_fire(fired_timer) end
    end)
    C.timer_init(timer, callback)
    held[#held + 1] = { timer, callback }
    return timer
  end

  before_each(function()
    timers, held, order = ffi.new("struct timers"), {}, {}
    C.timers_init(timers)
  end)

  after_each(function()
    C.timers_close(timers)
    for _, entry in ipairs(held) do entry[2]:free() end
  end)

  it("fire in the order of their time, and only when it has come", function()
    for _, at in ipairs({ 50, 10, 40, 20, 30, 60 }) do C.timer_set(timers, new(), at) end
    C.timers_run(timers, 45)
    assert.same({ 10, 20, 30, 40 }, order)
    assert.equal(50, tonumber(C.timers_next(timers)))
  end)

  it("can be moved and cancelled", function()
    local early, late = new(), new()
    C.timer_set(timers, early, 10)
    C.timer_set(timers, late, 20)
    C.timer_set(timers, late, 5)
    C.timer_cancel(timers, early)
    C.timers_run(timers, 100)
    assert.same({ 5 }, order)
    assert.is_true(fired(early))
    assert.equal(0, timers.count)
  end)

  it("keep a heap in order through many changes", function()
    math.randomseed(7)
    local all, expected = {}, {}
    for index = 1, 500 do all[index] = new() end
    for _ = 1, 3000 do
      local timer = all[math.random(#all)]
      if math.random(4) == 1 then C.timer_cancel(timers, timer) else C.timer_set(timers, timer, math.random(10000)) end
    end
    for _, timer in ipairs(all) do
      if timer.slot >= 0 then expected[#expected + 1] = tonumber(timer.at_us) end
    end
    table.sort(expected)
    C.timers_run(timers, 10000)
    assert.same(expected, order)
  end)

  it("that one sets again for now waits for the next turn, however many others there are", function()
    local again
    again = new(function(timer) C.timer_set(timers, timer, 10) end)
    for _ = 1, 20 do C.timer_set(timers, new(), 1000) end
    C.timer_set(timers, again, 10)
    C.timers_run(timers, 10)
    assert.same({ 10 }, order)
    C.timers_run(timers, 10)
    assert.same({ 10, 10 }, order)
  end)
end)
