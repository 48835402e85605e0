-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local bare_loop = require "spec.support.loop"
local core = require "spec.support.core"
local lfs = require "lfs"

local C = core.load("errands.h")

-- What runs on a helper thread must be C, for Lua has one thread: any function that takes a pointer and returns.
local function harmless()
  return ffi.cast("void (*)(struct errand *)", C.errands_pending)
end

describe("errands", function()
  local loop, errands

  before_each(function()
    loop = bare_loop.new("errands.h")
    errands = C.errands_new(loop.raw, 3)
  end)

  after_each(function() loop:close() end)

  local function many(count)
    local ended = {}
    local on_done = ffi.cast("void (*)(struct errand *)", function(errand) ended[#ended + 1] = tostring(errand) end)
    local list = ffi.new("struct errand[?]", count)
    for i = 0, count - 1 do
      list[i].run, list[i].on_done = harmless(), on_done
      C.errands_submit(errands, list + i)
    end
    return ended, list, on_done
  end

  it("tells the loop of each one's end, with more of them than threads", function()
    local ended, list, callback = many(40)
    assert.equal(40, C.errands_pending(errands))
    loop:turn_until(function() return #ended == 40 end)
    assert.equal(0, C.errands_pending(errands))
    local different = {}
    for _, errand in ipairs(ended) do different[errand] = true end
    local count = 0
    for _ in pairs(different) do count = count + 1 end
    assert.equal(40, count)
    C.errands_free(errands)
    callback:free()
    assert.is_not_nil(list)
  end)

  it("leaves none untold when it is freed", function()
    local ended, list, callback = many(20)
    local free = function() C.errands_free(errands) end
    jit.off(free)
    free()
    assert.equal(20, #ended)
    callback:free()
    assert.is_not_nil(list)
  end)

  it("has no thread when there is nothing to do", function()
    -- By their numbers: a thread that another has waited for is still seen here for a moment.
    local function threads()
      local all = {}
      for thread in lfs.dir("/proc/self/task") do all[thread] = true end
      return all
    end
    local before = threads()
    local function helpers()
      local count = 0
      for thread in pairs(threads()) do count = count + (before[thread] and 0 or 1) end
      return count
    end
    local ended, list, callback = many(5)
    loop:turn_until(function() return #ended == 5 end)
    loop:turn_until(function() return helpers() == 0 end)
    C.errands_free(errands)
    callback:free()
    assert.is_not_nil(list)
  end)
end)
