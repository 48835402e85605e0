-- SPDX-License-Identifier: Apache-2.0
local cjson = require "cjson"
local core = require "spec.support.core"
local ffi = require "ffi"

describe("text", function()
  local C = core.load("text.h")
  local text

  before_each(function() text = ffi.new("struct text") end)
  after_each(function() C.text_free(text) end)

  local function held()
    return ffi.string(text.data, text.len)
  end

  local function member(json, name, size)
    local out = ffi.new("char[?]", size or 256)
    local found = C.text_json_member(json, name, out, size or 256)
    return found and ffi.string(out) or nil
  end

  it("grows with what is put into it", function()
    for _ = 1, 1000 do C.text_puts(text, "0123456789") end
    assert.equal(("0123456789"):rep(1000), held())
  end)

  it("forgets what has been read", function()
    C.text_puts(text, "abcdef")
    C.text_drop(text, 4)
    assert.equal("ef", held())
  end)

  it("writes JSON strings that a parser reads back, whatever is in them", function()
    local strange = 'quote " back \\ slash / line\nbreak tab\t bell\7 delete\127 é'
    C.text_json(text, strange)
    assert.equal(strange, cjson.decode("[" .. held() .. "]")[1])
  end)

  it("writes null for nothing", function()
    C.text_json(text, nil)
    assert.equal("null", held())
  end)

  it("finds members of an object, strings unescaped and numbers as they are", function()
    local json = cjson.encode { message = 'a "b"\n\\é', line = 7, file = "x.yml" }
    assert.equal('a "b"\n\\é', member(json, "message"))
    assert.equal("7", member(json, "line"))
    assert.equal("x.yml", member(json, "file"))
  end)

  it("takes no value for a name", function()
    assert.equal("right", member('{"a":"file","file":"right"}', "file"))
    assert.is_nil(member('{"a":"file"}', "file"))
  end)

  it("cuts a value to the room there is, and reads no further than the text", function()
    assert.equal("abc", member('{"a":"abcdef"}', "a", 4))
    assert.equal("abc", member('{"a":"abc', "a"))
    assert.equal("", member('{"a\\', "a"))
    assert.equal("", member('{"a":"\\', "a"))
    assert.is_nil(member("", "a"))
  end)

  it("reads escapes by number", function()
    assert.equal("é€", member('{"a":"\\u00e9\\u20ac"}', "a"))
  end)
end)
