-- SPDX-License-Identifier: Apache-2.0
local fake = require "spec.lua.support.fake_core"

describe("locks", function()
  local lock, waiting, running, log

  -- Coroutines as the core runs them: those that wait are resumed by a wake or when their time is over.
  local function resume(number, status)
    local thread = waiting[number].thread
    waiting[number] = nil
    running = number
    assert(coroutine.resume(thread, status, 0))
    running = 0
  end

  local woken, count

  local function turn()
    while woken[1] do resume(table.remove(woken, 1), 0) end
  end

  local function advance(seconds)
    fake.now = fake.now + seconds
    for number, it in pairs(waiting) do
      if it.ends <= fake.now then resume(number, -5) end
    end
    turn()
  end

  local function start(fn)
    count = count + 1
    local thread = coroutine.create(fn)
    local number = count
    running, fake.threads[number] = number, thread
    assert(coroutine.resume(thread))
    running = 0
    return number
  end

  before_each(function()
    fake.install()
    fake.threads, waiting, woken, count, running, log = {}, {}, {}, 0, 0, {}
    fake.C.bridge_self = function() return running end
    fake.C.bridge_wait = function(_, seconds)
      waiting[running] = { thread = fake.threads[running], ends = fake.now + seconds }
      return 1
    end
    fake.C.bridge_wake = function(_, number)
      if not waiting[number] then return 2 end
      waiting[number].ends = math.huge
      table.insert(woken, number)
      return 0
    end
    lock = require "sluice.lock"
  end)

  after_each(fake.remove)

  local function note(what) log[#log + 1] = what end

  it("let one in at a time, in order", function()
    local first = lock.acquire("k", 0)
    for i = 1, 3 do
      start(function()
        lock.with("k", 10, function() note(i) end)
      end)
    end
    assert.same({}, log)
    first:release()
    turn()
    assert.same({ 1, 2, 3 }, log)
    assert.is_table(lock.acquire("k", 0))
  end)

  it("give up after the time to wait", function()
    lock.acquire("k", 0, 100)
    start(function() note { lock.acquire("k", 5) } end)
    advance(4)
    assert.same({}, log)
    advance(2)
    assert.same({ { [2] = "timeout" } }, log)
  end)

  it("end by themselves when the holder never comes back", function()
    lock.acquire("k", 0, 3)
    start(function() note(lock.acquire("k", 10) ~= nil) end)
    advance(4)
    assert.same({ true }, log)
  end)

  it("are released when the work raises", function()
    assert.error_matches(function() lock.with("k", 0, error, "no") end, "no")
    assert.is_table(lock.acquire("k", 0))
  end)

  it("pass over a waiter that is gone", function()
    local held = lock.acquire("k", 0)
    local gone = start(function() lock.acquire("k", 10) end)
    start(function() note(lock.acquire("k", 10) ~= nil) end)
    waiting[gone] = nil
    held:release()
    turn()
    assert.same({ true }, log)
  end)

  it("run one flight for all who ask, who get its results", function()
    local runs = 0
    local function work()
      runs = runs + 1
      fake.C.bridge_wait(nil, 1)
      coroutine.yield()
      return "a", nil, "b"
    end
    for _ = 1, 3 do
      start(function() note { n = select("#", lock.once("k", 10, work)) } end)
    end
    advance(1)
    assert.equal(1, runs)
    assert.same({ { n = 3 }, { n = 3 }, { n = 3 } }, log)
    start(function() lock.once("k", 10, work) end)
    assert.equal(2, runs)
  end)

  it("raise for the one who flew, and tell the others", function()
    local function work()
      fake.C.bridge_wait(nil, 1)
      coroutine.yield()
      error("broken", 0)
    end
    start(function() note { pcall(lock.once, "k", 10, work) } end)
    start(function() note { lock.once("k", 10, work) } end)
    advance(1)
    assert.same({ { false, "broken" }, { [2] = "failed: broken" } }, log)
  end)

  it("start anew when a flight never lands", function()
    local runs = 0
    local function lost()
      runs = runs + 1
      coroutine.yield()
    end
    start(function() lock.once("k", 2, lost) end)
    start(function() note { lock.once("k", 2, lost) } end)
    advance(3)
    assert.same({ { [2] = "timeout" } }, log)
    start(function() lock.once("k", 2, lost) end)
    assert.equal(2, runs)
  end)
end)
