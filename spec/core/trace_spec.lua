-- SPDX-License-Identifier: Apache-2.0
-- W3C trace contexts: which are one, and what is written.
local ffi = require "ffi"

local C = require("spec.support.core").load("trace.h")

local TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

local function parse(text)
  local out = ffi.new("struct trace_ids")
  if not C.trace_parse(ffi.new("struct slice", { text, #text }), out) then return nil end
  return out
end

describe("a traceparent", function()
  it("is read", function()
    local ids = parse("00-" .. TRACE .. "-" .. SPAN .. "-03")
    assert.equal(TRACE, ffi.string(ids.id, 32))
    assert.equal(SPAN, ffi.string(ids.parent, 16))
    assert.equal(3, ids.flags)
    assert.is_true(ids.sampled)
    assert.is_true(ids.has_parent)
    assert.is_false(parse("00-" .. TRACE .. "-" .. SPAN .. "-02").sampled)
  end)

  it("may be of a later version, with more behind it", function()
    assert.is_truthy(parse("cc-" .. TRACE .. "-" .. SPAN .. "-01"))
    assert.is_truthy(parse("01-" .. TRACE .. "-" .. SPAN .. "-01-what-the-future-brings"))
    assert.is_nil(parse("01-" .. TRACE .. "-" .. SPAN .. "-01.what"))
  end)

  it("is none when anything else is wrong", function()
    local zeros = ("0"):rep(32)
    for _, bad in ipairs { "", "00", "00-" .. TRACE .. "-" .. SPAN, "00-" .. TRACE .. "-" .. SPAN .. "-1",
      "ff-" .. TRACE .. "-" .. SPAN .. "-01", "0g-" .. TRACE .. "-" .. SPAN .. "-01",
      "00-" .. zeros .. "-" .. SPAN .. "-01", "00-" .. TRACE .. "-" .. zeros:sub(1, 16) .. "-01",
      "00-" .. TRACE:upper() .. "-" .. SPAN .. "-01", "00-" .. TRACE .. "-" .. SPAN .. "-0x",
      "00-" .. TRACE .. "-" .. SPAN .. "-01-more", "00_" .. TRACE .. "-" .. SPAN .. "-01",
      "00-" .. TRACE .. "_" .. SPAN .. "-01", "00-" .. TRACE .. "-" .. SPAN .. "_01" } do
      assert.is_nil(parse(bad), bad)
    end
  end)

  it("is written with the flags that are known", function()
    local ids, out = parse("00-" .. TRACE .. "-" .. SPAN .. "-ff"), ffi.new("char[55]")
    ffi.copy(ids.next, "00f067aa0ba902b7", 16)
    C.trace_print(ids, out)
    assert.equal("00-" .. TRACE .. "-00f067aa0ba902b7-03", ffi.string(out, 55))
    ids.sampled, ids.flags = false, 1
    C.trace_print(ids, out)
    assert.equal("00-" .. TRACE .. "-00f067aa0ba902b7-00", ffi.string(out, 55))
  end)

  it("is sampled by where the last 56 bits of its id stand", function()
    assert.equal(0, C.trace_share(parse("00-" .. ("1"):rep(18) .. ("0"):rep(14) .. "-" .. SPAN .. "-01")))
    assert.equal(0.5, C.trace_share(parse("00-" .. ("1"):rep(18) .. "8" .. ("0"):rep(13) .. "-" .. SPAN .. "-01")))
    assert.is_true(C.trace_share(parse("00-" .. ("f"):rep(32) .. "-" .. SPAN .. "-01")) > 0.999999)
  end)
end)
