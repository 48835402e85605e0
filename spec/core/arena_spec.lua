-- SPDX-License-Identifier: Apache-2.0
local core = require "spec.support.core"
local ffi = require "ffi"

local C = core.load("arena.h", "error.h")

describe("an arena", function()
  local arena

  local function new(limit)
    arena = ffi.new("struct arena")
    C.arena_init(arena, limit or 100000)
  end

  after_each(function() C.arena_close(arena) end)

  it("gives memory that is aligned for any type and not given twice", function()
    new()
    local last = -1
    for size = 1, 100 do
      local address = tonumber(ffi.cast("uintptr_t", C.arena_alloc(arena, size)))
      assert.equal(0, address % 16)
      assert.is_true(address ~= last)
      last = address
    end
  end)

  it("gives pieces larger than its blocks", function()
    new()
    local large = ffi.cast("char *", C.arena_alloc(arena, 50000))
    ffi.fill(large, 50000, 7)
    assert.is_true(C.arena_alloc(arena, 16) ~= nil)
    assert.equal(7, large[49999])
  end)

  it("gives nothing past its limit, and all of it again after a reset", function()
    new(1000)
    for _ = 1, 3 do
      assert.is_true(C.arena_alloc(arena, 990) ~= nil)
      assert.is_true(C.arena_alloc(arena, 16) == nil)
      C.arena_reset(arena)
    end
    assert.is_true(C.arena_alloc(arena, 1001) == nil)
  end)

  it("gives the same memory again after a reset, up to two blocks", function()
    new()
    local function addresses()
      local list = {}
      for i = 1, 3 do list[i] = tonumber(ffi.cast("uintptr_t", C.arena_alloc(arena, 3000))) end
      C.arena_reset(arena)
      return list
    end
    local first, again = addresses(), addresses()
    assert.equal(first[1], again[1])
    assert.is_true(first[2] == again[2] or first[3] == again[2])
    assert.is_true(arena.spare ~= nil)
    C.arena_close(arena)
    assert.is_true(arena.spare == nil and arena.blocks == nil)
  end)

  it("refuses a size that would wrap around", function()
    new(0x7fffffffffffffffULL)
    C.arena_alloc(arena, 16)
    assert.is_true(C.arena_alloc(arena, 0xffffffffffffffffULL) == nil)
    assert.is_true(C.arena_alloc(arena, 0xfffffffffffffff8ULL) == nil)
  end)

  it("keeps copies with a zero behind them", function()
    new()
    local copy = C.arena_copy(arena, "text and more", 4)
    assert.equal("text", ffi.string(copy.data))
    assert.equal(4, copy.len)
    assert.equal("", ffi.string(C.arena_copy(arena, nil, 0).data))
  end)

  it("closes what was deferred, the last first, once", function()
    new()
    local order = {}
    local close = ffi.cast("void (*)(void *)", function(what)
      order[#order + 1] = tonumber(ffi.cast("intptr_t", what))
    end)
    for number = 1, 3 do
      assert.equal(0, C.arena_defer(arena, close, ffi.cast("void *", number)))
    end
    C.arena_reset(arena)
    C.arena_reset(arena)
    assert.same({ 3, 2, 1 }, order)
    close:free()
  end)

  it("gives way to another, which then closes what it had deferred", function()
    new()
    local order = {}
    local close = ffi.cast("void (*)(void *)", function(what)
      order[#order + 1] = tonumber(ffi.cast("intptr_t", what))
    end)
    for number = 1, 3 do assert.equal(0, C.arena_defer(arena, close, ffi.cast("void *", number))) end
    local slim = ffi.new("struct arena")
    assert.equal(0, C.arena_init_exact(slim, 10000, C.arena_deferred_bytes(arena) + 16))
    local copy = C.arena_copy(slim, "kept", 4)
    assert.equal(0, C.arena_replace(arena, slim))
    assert.same({}, order)
    assert.equal("kept", ffi.string(copy.data))
    assert.equal(16 + 3 * 32, tonumber(arena.used))
    C.arena_reset(arena)
    assert.same({ 3, 2, 1 }, order)
    close:free()
  end)

  it("defers nothing when it is full", function()
    new(16)
    local close = ffi.cast("void (*)(void *)", function() error("closed") end)
    assert.equal(tonumber(C.ERROR_MEMORY), C.arena_defer(arena, close, nil))
    C.arena_reset(arena)
    close:free()
  end)
end)
