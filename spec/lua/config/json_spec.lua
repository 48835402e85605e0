-- SPDX-License-Identifier: Apache-2.0
local cjson = require "cjson"
local json = require "sluice.config.json"

local function error_of(text)
  local value, _, err = json.decode(text)
  assert.is_nil(value)
  return err
end

describe("JSON configuration", function()
  it("reads every kind of value", function()
    local value = json.decode [[ {"a": [1, -2.5e1, true, false, null], "b": {"c": ""}, "d": []} ]]
    assert.same({ a = { 1, -25, true, false, cjson.null }, b = { c = "" }, d = {} }, value)
  end)

  it("reads escapes, surrogate pairs included", function()
    assert.equal('a"\\/\b\f\n\r\t\195\169\240\159\152\128', json.decode [["a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"]])
  end)

  it("refuses what is no JSON, with line and column", function()
    local cases = {
      { '{"a": 1,\n "b": }', 2, 7 }, { '[1,]', 1, 4 }, { "[01]", 1, 2 }, { '{"a" 1}', 1, 6 }, { '"open', 1, 2 },
      { "[1 2]", 1, 4 }, { "", 1, 1 }, { "nul", 1, 1 }, { '{"a": 1} x', 1, 10 }, { '["\\ud83d"]', 1, 4 },
      { '["a\nb"]', 1, 4 }, { "[1.]", 1, 2 }, { '["\\x"]', 1, 3 }, { "{a: 1}", 1, 2 },
    }
    for _, case in ipairs(cases) do
      local err = error_of(case[1])
      assert.same({ case[1], case[2], case[3] }, { case[1], err.line, err.column })
    end
  end)

  it("refuses a key that stands twice", function()
    local err = error_of '{"a": 1,\n  "a": 2}'
    assert.same({ 2, 3, 'duplicate key "a"' }, { err.line, err.column, err.message })
  end)

  it("refuses nesting without end", function()
    assert.matches("nested too deeply", error_of(("["):rep(500)).message)
  end)

  it("gives the place of every node", function()
    local root = json.positions '{"a": [1,\n  {"x": 2}]}'
    assert.same({ line = 1, column = 2 }, root.keys.a)
    assert.same({ line = 2, column = 4 }, root.children.a.children[2].keys.x)
  end)
end)
