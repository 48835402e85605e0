-- SPDX-License-Identifier: Apache-2.0
local core = require "spec.support.core"
local ffi = require "ffi"

local C = core.load("json.h", "bridge.h", "json_edit.h")

local STEPS = { remove = C.JSON_REMOVE, rename = C.JSON_RENAME, replace = C.JSON_REPLACE, add = C.JSON_ADD,
  append = C.JSON_APPEND, allow = C.JSON_ALLOW }

-- A path as the spec writes it: names, and numbers for elements (0: all).
local function steps_of(path)
  local list = ffi.new("struct bytes[?]", #path)
  for i, step in ipairs(path) do
    if type(step) == "string" then
      list[i - 1].data, list[i - 1].len = step, #step
    else
      list[i - 1].len = step
    end
  end
  return list
end

-- edits: { step, path, value } each.
local function edited(text, edits)
  local list = ffi.gc(C.json_edits_new(), C.json_edits_free)
  for _, edit in ipairs(edits) do
    local path, value = type(edit[2]) == "table" and edit[2] or { edit[2] }, edit[3] or ""
    local given = ffi.new("struct slice", value, #value)
    assert.equal(0, C.json_edits_add(list, STEPS[edit[1]], steps_of(path), #path, given))
  end
  local out = ffi.new("struct slice[1]")
  assert.equal(0, C.json_check(ffi.new("struct slice", text, #text), 512, nil))
  assert.equal(0, C.json_edits_run(list, ffi.new("struct slice", text, #text), out))
  local result = ffi.string(out[0].data, out[0].len)
  assert.equal(0, C.json_check(out[0], 512, nil), result)
  return result
end

describe("edits of JSON", function()
  for name, case in pairs {
    ["remove a member"] = { '{"a":1,"b":2,"c":3}', { { "remove", "b" } }, '{"a":1,"c":3}' },
    ["remove the only member"] = { ' { "a" : 1 } ', { { "remove", "a" } }, "{}" },
    ["remove every member of that name"] = { '{"a":1,"b":2,"a":3}', { { "remove", "a" } }, '{"b":2}' },
    ["find a name however it is written"] =
      { '{"\\u0061":1,"\\ud83d\\ude00":2,"q\\"\\/":3}',
        { { "remove", "a" }, { "remove", "😀" }, { "remove", 'q"/' } }, "{}" },
    ["do not take a name that begins alike"] = {
      '{"ab":1,"\\u0061b":2}', { { "remove", "a" } }, '{"ab":1,"\\u0061b":2}' },
    ["keep order, digits and spelling of the rest"] =
      { '{"z":1.50, "big":12345678901234567890 ,"e":[ ],"s":"\\u00e9","x":0}', { { "remove", "x" } },
        '{"z":1.50,"big":12345678901234567890,"e":[ ],"s":"\\u00e9"}' },
    ["rename where it stands"] = { '{"a":1,"b":2}', { { "rename", "a", "c" } }, '{"c":1,"b":2}' },
    ["rename over what has the name"] = { '{"c":0,"a":1,"c":2}', { { "rename", "a", "c" } }, '{"c":1}' },
    ["rename to what needs escapes"] = { '{"a":1}', { { "rename", "a", 'b"\\\n' } }, '{"b\\"\\\\\\u000a":1}' },
    ["replace what is there"] = { '{"a":{"b":1},"c":2}', { { "replace", "a", '"x"' } }, '{"a":"x","c":2}' },
    ["replace the last of a name, and those before go"] = {
      '{"a":1,"b":2,"a":3}', { { "replace", "a", "4" } }, '{"b":2,"a":4}' },
    ["do not replace what is not there"] = { '{"a":1}', { { "replace", "b", "4" } }, '{"a":1}' },
    ["replace null"] = { '{"a":null}', { { "replace", "a", "4" } }, '{"a":4}' },
    ["add what is not there"] = { '{"a":1}', { { "add", "b", "true" }, { "add", "a", "2" } }, '{"a":1,"b":true}' },
    ["add to an empty object"] = { "{ }", { { "add", "a", "1" }, { "add", "b", "2" } }, '{"a":1,"b":2}' },
    ["append to a list"] = { '{"a":[1]}', { { "append", "a", "2" }, { "append", "a", "3" } }, '{"a":[1,2,3]}' },
    ["append to what is none"] = { '{"a":{"b":1}}', { { "append", "a", "2" } }, '{"a":[{"b":1},2]}' },
    ["append to null and to nothing"] = {
      '{"a":null}', { { "append", "a", "1" }, { "append", "b", "2" } }, '{"a":[1],"b":[2]}' },
    ["append to what an edit has changed"] =
      { '{"a":{"b":1,"c":2}}', { { "remove", { "a", "b" } }, { "append", "a", "9" } }, '{"a":[{"c":2},9]}' },
    ["see what the edits before have left"] =
      { '{"a":1}', { { "rename", "a", "b" }, { "add", "a", "2" }, { "remove", "b" }, { "append", "a", "3" } },
        '{"a":[2,3]}' },
    ["go down a path"] =
      { '{"a":{"b":{"c":1,"d":2}},"e":3}', { { "remove", { "a", "b", "c" } }, { "add", { "a", "x" }, "0" } },
        '{"a":{"b":{"d":2},"x":0},"e":3}' },
    ["stop where a path does not lead on"] =
      { '{"a":1,"c":{"d":[]}}',
        { { "remove", { "a", "b" } }, { "add", { "x", "y" }, "1" }, { "remove", { "c", "d", "e" } } },
        '{"a":1,"c":{"d":[]}}' },
    ["reach every element of a list"] =
      { '{"l":[{"p":1,"q":2},3,{"p":4}]}', { { "remove", { "l", 0, "p" } }, { "add", { "l", 0, "z" }, "9" } },
        '{"l":[{"q":2,"z":9},3,{"z":9}]}' },
    ["reach one element of a list"] =
      { '{"l":[1,2,3]}',
        { { "replace", { "l", 2 }, '"two"' }, { "remove", { "l", 1 } }, { "append", { "l", 2 }, "4" } },
        '{"l":["two",[3,4]]}' },
    ["remove all elements"] = { '{"l":[1,2]}', { { "remove", { "l", 0 } } }, '{"l":[]}' },
    ["reach into a list at the top"] = { '[{"a":1},{"a":2}]', { { "remove", { 2, "a" } } }, '[{"a":1},{}]' },
    ["leave a list alone that is asked for a member"] = { "[1]", { { "add", "a", "1" }, { "allow", "a" } }, "[1]" },
    ["leave a text alone"] = { ' "x" ', { { "add", "a", "1" } }, '"x"' },
    ["let only some members stay"] =
      { '{"a":1,"b":2,"\\u0063":3,"d":4}', { { "allow", { "c", "a" } } }, '{"a":1,"\\u0063":3}' },
    ["let no member stay"] = { '{"a":1,"b":2}', { { "allow", {} } }, "{}" },
    ["are not misled by brackets and quotes in texts"] =
      { '{"a":"}]\\"{","b":{"x":"]}\\\\"},"c":1}', { { "remove", "c" }, { "remove", { "b", "y" } } },
        '{"a":"}]\\"{","b":{"x":"]}\\\\"}}' },
  } do
    it(name, function() assert.equal(case[3], edited(case[1], case[2])) end)
  end

  it("take another value for a run", function()
    local list = ffi.gc(C.json_edits_new(), C.json_edits_free)
    local out, text = ffi.new("struct slice[1]"), ffi.new("struct slice", '{"a":1}', 7)
    C.json_edits_add(list, C.JSON_REPLACE, steps_of { "a" }, 1, ffi.new("struct slice", "2", 1))
    assert.equal(0, C.json_edits_value(list, 0, ffi.new("struct slice", "33", 2)))
    assert.equal(0, C.json_edits_run(list, text, out))
    assert.equal('{"a":33}', ffi.string(out[0].data, out[0].len))
    assert.is_true(C.json_edits_value(list, 1, ffi.new("struct slice", "33", 2)) < 0)
    C.json_edits_add(list, C.JSON_RENAME, steps_of { "a" }, 1, ffi.new("struct slice", "b", 1))
    assert.is_true(C.json_edits_value(list, 1, ffi.new("struct slice", "c", 1)) < 0) -- a name would stand there bare
  end)

  it("hold a large text once, and give its room back", function()
    local list = ffi.gc(C.json_edits_new(), C.json_edits_free)
    local out, parts = ffi.new("struct slice[1]"), {}
    C.json_edits_add(list, C.JSON_REMOVE, steps_of { "m777" }, 1, ffi.new("struct slice", "", 0))
    for i = 1, 50000 do parts[i] = ('"m%d":"%s"'):format(i, ("v"):rep(30)) end
    local text = "{" .. table.concat(parts, ",") .. "}"
    assert.equal(0, C.json_edits_run(list, ffi.new("struct slice", text, #text), out))
    table.remove(parts, 777)
    assert.equal("{" .. table.concat(parts, ",") .. "}", ffi.string(out[0].data, out[0].len))
    assert.equal(0, C.json_edits_run(list, ffi.new("struct slice", '{"m777":1}', 10), out))
    assert.equal("{}", ffi.string(out[0].data, out[0].len))
  end)

  it("refuse steps that there are not, and paths without end", function()
    local list = ffi.gc(C.json_edits_new(), C.json_edits_free)
    local path = {}
    for i = 1, C.JSON_PATH_MOST + 1 do path[i] = "a" end
    local none = ffi.new("struct slice", "", 0)
    assert.is_true(C.json_edits_add(list, 99, steps_of { "a" }, 1, none) < 0)
    assert.is_true(C.json_edits_add(list, C.JSON_REMOVE, steps_of {}, 0, none) < 0)
    assert.is_true(C.json_edits_add(list, C.JSON_REMOVE, steps_of(path), #path, none) < 0)
  end)
end)
