-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local core = require "spec.support.core"

describe("loading the core into a spec", function()
  it("declares a header with what it includes, and calls the real function", function()
    local C = core.load("loop.h")
    local clock = ffi.new("struct clock")
    C.clock_init(clock)
    assert.is_true(clock.real_us > 1.6e15)
  end)

  it("accepts the same header twice", function()
    core.load("clock.h")
    assert.equal(core.load("clock.h", "bridge.h"), core.load("bridge.h"))
  end)

  it("drops inline functions and keeps the struct beside them", function()
    core.load("slice.h")
    assert.equal(16, ffi.sizeof("struct slice"))
    assert.is_false(pcall(function() return ffi.C.slice_of end))
  end)

  it("carries the text of bridge.h byte for byte", function()
    local C = core.load("bridge.h")
    ffi.cdef "extern const char bridge_declarations[1];"
    local file = assert(io.open("core/bridge.h", "rb"))
    assert.is_true(file:read("*a") == ffi.string(ffi.cast("const char *", C.bridge_declarations)))
    file:close()
  end)
end)
