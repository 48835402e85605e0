-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local core = require "spec.support.core"

local C = core.load("queue.h")

describe("a queue of jobs", function()
  local queue, jobs

  before_each(function()
    queue, jobs = ffi.new("struct queue"), {}
    for i = 1, 4 do jobs[i] = ffi.new("struct job") end
  end)

  local function put(...)
    for _, i in ipairs { ... } do C.queue_put(queue, jobs[i], nil, ffi.cast("void *", i)) end
  end

  local function taken(from)
    local order = {}
    for _ = 1, 10 do
      local job = C.queue_take(from or queue)
      if job == nil then break end
      assert.is_true(job.queue == nil)
      order[#order + 1] = tonumber(ffi.cast("intptr_t", job.data))
    end
    return order
  end

  it("gives them in the order in which they came", function()
    put(1, 2, 3)
    assert.same({ 1, 2, 3 }, taken())
    assert.same({}, taken())
    put(2, 1)
    assert.same({ 2, 1 }, taken())
  end)

  it("holds a job once", function()
    put(1, 2, 1)
    assert.same({ 1, 2 }, taken())
  end)

  it("forgets those that are dropped, wherever they stand", function()
    for dropped = 1, 3 do
      put(1, 2, 3)
      C.queue_drop(jobs[dropped])
      C.queue_drop(jobs[dropped])
      put(4)
      local expected = { 1, 2, 3, 4 }
      table.remove(expected, dropped)
      assert.same(expected, taken())
    end
    put(1)
    C.queue_drop(jobs[1])
    put(2)
    assert.same({ 2 }, taken())
  end)

  it("takes over another", function()
    local other = ffi.new("struct queue")
    put(1, 2)
    C.queue_put(other, jobs[3], nil, ffi.cast("void *", 3))
    C.queue_move(other, queue)
    assert.same({}, taken())
    C.queue_drop(jobs[1])
    assert.same({ 3, 2 }, taken(other))
  end)
end)
