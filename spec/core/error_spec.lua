-- SPDX-License-Identifier: Apache-2.0
local core = require "spec.support.core"
local ffi = require "ffi"

local C = core.load("error.h")

ffi.cdef("int sys_close_for_error_spec(int) __asm__(\"close\");")

describe("an error", function()
  it("has a code, which is also what the function gives, and a text", function()
    local failure = ffi.new("struct error")
    local code = C.error_set(failure, C.ERROR_TIMEOUT, "%s took %d s", "it", ffi.cast("int", 3))
    assert.equal(tonumber(C.ERROR_TIMEOUT), code)
    assert.equal(code, tonumber(failure.code))
    assert.equal("it took 3 s", ffi.string(failure.text))
  end)

  it("of the system ends with its cause", function()
    local failure = ffi.new("struct error")
    C.sys_close_for_error_spec(-1)
    assert.equal(tonumber(C.ERROR_SYSTEM), C.error_system(failure, "close %s", "it"))
    assert.equal("close it: Bad file descriptor", ffi.string(failure.text))
  end)

  it("cuts off a text that does not fit", function()
    local failure = ffi.new("struct error")
    C.error_set(failure, C.ERROR_INVALID, "%s", ("x"):rep(1000))
    assert.equal(255, #ffi.string(failure.text))
    C.error_system(failure, "%s", ("y"):rep(1000))
    assert.equal(("y"):rep(255), ffi.string(failure.text))
  end)

  it("may be of no interest", function()
    assert.equal(tonumber(C.ERROR_DNS), C.error_set(nil, C.ERROR_DNS, "nobody reads this"))
    assert.equal(tonumber(C.ERROR_SYSTEM), C.error_system(nil, "nor this"))
  end)
end)
