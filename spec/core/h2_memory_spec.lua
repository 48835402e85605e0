-- SPDX-License-Identifier: Apache-2.0
-- Memory for HTTP/2's sessions: blocks come back to who asks next, whole and apart from each other.
local ffi = require "ffi"
local core = require "spec.support.core"

local C = core.load("h2_memory.h")

describe("the memory of HTTP/2's sessions", function()
  local memory

  before_each(function() memory = ffi.new("struct h2_memory") end)
  after_each(function() C.h2_memory_close(memory) end)

  local function take(size)
    local block = C.h2_memory_take(size, memory)
    assert.is_true(block ~= nil)
    assert.equal(0, tonumber(ffi.cast("uintptr_t", block) % 16))
    ffi.fill(block, size, 0xa5)
    return block
  end

  it("gives blocks of every size, each apart from the others", function()
    local blocks = {}
    for size = 0, 3000, 7 do
      local block = take(math.max(size, 1))
      ffi.fill(block, size, size % 251)
      blocks[#blocks + 1] = { block, size }
    end
    for _, entry in ipairs(blocks) do
      local bytes, size = ffi.cast("uint8_t *", entry[1]), entry[2]
      for at = 0, size - 1 do
        if bytes[at] ~= size % 251 then error("a block of " .. size .. " bytes was overwritten at " .. at) end
      end
      C.h2_memory_give(entry[1], memory)
    end
  end)

  it("keeps a bounded number of those given back", function()
    local blocks = {}
    for number = 1, 2000 do blocks[number] = take(100) end
    for _, block in ipairs(blocks) do C.h2_memory_give(block, memory) end
    local kept = 0
    for size = 0, ffi.C.H2_MEMORY_SIZES - 1 do kept = kept + memory.count[size] end
    assert.is_true(kept <= 512)
  end)

  it("grows a block with what it holds", function()
    local block = take(10)
    ffi.copy(block, "0123456789", 10)
    for _, size in ipairs { 64, 65, 1024, 1025, 5000, 20 } do
      block = C.h2_memory_resize(block, size, memory)
      assert.equal("0123456789", ffi.string(block, 10))
    end
    C.h2_memory_give(block, memory)
    C.h2_memory_give(C.h2_memory_resize(nil, 5, memory), memory)
    C.h2_memory_give(nil, memory)
  end)

  it("gives zeros where asked, and nothing for more than there can be", function()
    C.h2_memory_give(take(200), memory)
    local block = ffi.cast("uint8_t *", C.h2_memory_take_zeroed(20, 10, memory))
    for at = 0, 199 do assert.equal(0, block[at]) end
    C.h2_memory_give(block, memory)
    assert.is_true(C.h2_memory_take_zeroed(2 ^ 40, 2 ^ 40, memory) == nil)
  end)
end)
