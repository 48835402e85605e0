-- SPDX-License-Identifier: Apache-2.0
local core = require "spec.support.core"
local ffi = require "ffi"

local C = core.load("json.h")

-- nil when the text passes, else what is wrong.
local function fault(text, depth)
  local slice, err = ffi.new("struct slice", { text, #text }), ffi.new("struct error")
  local status = C.json_check(slice, depth or 100, err)
  if status == 0 then return nil end
  return ffi.string(err.text)
end

describe("json_check", function()
  for _, text in ipairs {
    "{}", "[]", "0", "-0", "1.5e-7", "1E+2", '""', "true", "false", "null", ' [ 1 , { "a" : [ ] } , "x" ] \n',
    [["\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"]],
    '"\194\128\223\191\224\160\128\237\159\191\240\144\128\128\244\143\191\191"',
    '{"a":{"b":[{"c":null},[[]]]},"d":"e"}', '"\127"',
  } do
    it("passes " .. text, function()
      assert.is_nil(fault(text))
    end)
  end

  for text, expected in pairs {
    [""] = "expected a value at byte 1",
    ["{"] = "expected a name at byte 2",
    ["[1,]"] = "expected a value at byte 4",
    ['{"a":1,}'] = "expected a name at byte 8",
    ["{a:1}"] = "expected a name at byte 2",
    ["{'a':1}"] = "expected a name at byte 2",
    ['{"a" 1}'] = "expected : at byte 6",
    ['{"a":1]'] = "expected , or } at byte 7",
    ["[1}"] = "expected , or ] at byte 3",
    ["[1 2]"] = "expected , or ] at byte 4",
    ["1 2"] = "something follows the value at byte 3",
    ['{},"x":1'] = "something follows the value at byte 3",
    ["01"] = "an invalid number at byte 3",
    ["1."] = "an invalid number at byte 3",
    ["-"] = "an invalid number at byte 2",
    ["1e"] = "an invalid number at byte 3",
    ["nul"] = "expected a value at byte 1",
    ["NaN"] = "expected a value at byte 1",
    ['"a'] = "a string without an end at byte 3",
    ['"a\\'] = "an invalid escape at byte 4",
    ['"\\x"'] = "an invalid escape at byte 3",
    ['"\\u12g4"'] = "an invalid escape at byte 3",
    ['"\\u12'] = "an invalid escape at byte 3",
    ['"\\ud800"'] = "half of a surrogate pair at byte 8",
    ['"\\ud800\\u0041"'] = "half of a surrogate pair at byte 8",
    ['"\\udc00"'] = "half of a surrogate pair at byte 3",
    ['"\10"'] = "a control character in a string at byte 2",
    ['"\0"'] = "a control character in a string at byte 2",
    ['"\255"'] = "invalid UTF-8 at byte 2",
    ['"\192\128"'] = "invalid UTF-8 at byte 2",      -- overlong
    ['"\224\128\128"'] = "invalid UTF-8 at byte 2",  -- overlong
    ['"\237\160\128"'] = "invalid UTF-8 at byte 2",  -- a surrogate
    ['"\244\144\128\128"'] = "invalid UTF-8 at byte 2",
    ['"\226\130"'] = "invalid UTF-8 at byte 2",
    ['"\226'] = "invalid UTF-8 at byte 2",
    ["1\0"] = "something follows the value at byte 2",
  } do
    it(("refuses %q"):format(text), function()
      assert.equal(expected, fault(text))
    end)
  end

  it("bounds the depth", function()
    assert.is_nil(fault(("["):rep(100) .. ("]"):rep(100)))
    assert.equal("nested too deeply at byte 101", fault(("["):rep(101) .. ("]"):rep(101)))
    assert.equal("nested too deeply at byte 513", fault(("["):rep(100000), 100000))
    assert.equal("nested too deeply at byte 601", fault(('{"a":'):rep(100000), 120))
  end)

  it("leaves the encoding to others when it is asked for the form alone", function()
    local text = '{"caf\233":"\255"}'
    local slice = ffi.new("struct slice", text, #text)
    assert.matches("invalid UTF%-8", fault(text))
    assert.equal(0, C.json_check_form(slice, 100, nil))
    assert.is_true(C.json_check_form(ffi.new("struct slice", '{"caf\233"}', 8), 100, nil) < 0)
  end)
end)
