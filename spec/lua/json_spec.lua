-- SPDX-License-Identifier: Apache-2.0
local json = require "sluice.json"

describe("json", function()
  local function again(text, options)
    local value, err = json.decode(text, options)
    assert.is_nil(err)
    return json.encode(value)
  end

  it("gives back empty arrays and empty objects as they were", function()
    assert.equal("[]", again("[]"))
    assert.equal("{}", again("{}"))
    assert.equal('{"a":[[],{}]}', again('{"a":[ [ ],{ } ]}'))
    assert.equal("[]", json.encode(json.array()))
    assert.equal("{}", json.encode {})
  end)

  it("keeps null, which is not the same as nothing", function()
    assert.equal(json.null, (json.decode("null")))
    assert.equal('{"a":null}', again('{"a":null}'))
    assert.equal("[null,1]", json.encode { json.null, 1 })
  end)

  it("writes numbers so that they read back the same", function()
    assert.equal("1700000000123456", json.encode(1700000000123456))
    assert.equal("0.1", json.encode(0.1))
    for _, number in ipairs { 1 / 3, 1e300, -2.5e-8, 123456789.123 } do
      assert.equal(number, json.decode(json.encode(number)))
    end
  end)

  it("refuses a second member of one name when asked to", function()
    for _, text in ipairs { '{"a":1,"a":1}', '{"a":null,"b":2,"a":3}', '[{"a":false,"a":1}]',
      [[{"a":1,"\u0061":2}]] } do
      assert.matches("a second member of that name at byte", select(2, json.decode(text, { unique = true })))
      assert.is_not_nil(json.decode(text))
    end
    assert.same({ a = { a = 1 }, b = { a = 1 } }, json.decode('{"a":{"a":1},"b":{"a":1}}', { unique = true }))
  end)

  it("keeps integers beyond 2^53 when asked to be exact", function()
    assert.equal("[12345678901234567890,-9223372036854775808,9007199254740993]",
      again("[12345678901234567890,-9223372036854775808,9007199254740993]", { exact = true }))
    assert.equal("number", type(json.decode("[1]", { exact = true })[1]))
  end)

  it("escapes what a string cannot hold, and reads every escape", function()
    assert.equal([["a\"\\\n\u0000\u007fé"]], json.encode('a"\\\n\0\127é'))
    for _, options in ipairs { false, { exact = true } } do
      assert.equal('"\\/\b\f\n\r\t€😀', (json.decode([["\"\\\/\b\f\n\r\t\u20ac\ud83d\ude00"]], options or nil)))
    end
  end)

  it("refuses what is no JSON, and says where", function()
    local wrong = { "", "{", "[1,]", '{"a":1,}', "[1 2]", '{"a" 1}', "{a:1}", "nul", "01", "0x10", "1e", "-", "NaN",
      "[Infinity]", '"a', '"\\x"', '"\\ud800"', "[1]x", "'a'" }
    for _, text in ipairs(wrong) do
      for _, options in ipairs { false, { exact = true } } do
        local value, err = json.decode(text, options or nil)
        assert.is_nil(value, text)
        assert.is_string(err, text)
      end
    end
    assert.equal("expected , or ] at byte 4", select(2, json.decode("[1 2]", { exact = true })))
  end)

  it("stops at a depth, both ways", function()
    local deep = ("["):rep(10000) .. ("]"):rep(10000)
    assert.is_nil((json.decode(deep)))
    assert.is_nil((json.decode(deep, { exact = true })))
    local cycle = {}
    cycle[1] = cycle
    local text, err = json.encode(cycle)
    assert.is_nil(text)
    assert.equal("more than 512 levels", err)
  end)

  it("returns an error for what has no JSON", function()
    for _, value in ipairs { { print }, { 1 / 0 }, { 0 / 0 }, { [true] = 1 } } do
      local text, err = json.encode(value)
      assert.is_nil(text)
      assert.matches("^cannot encode", err)
    end
  end)

  it("writes sparse numbers as members rather than endless nulls", function()
    assert.equal("[1,null,3]", json.encode { 1, nil, 3 })
    assert.same({ ["1"] = 1, ["1000000"] = 2 }, json.decode(json.encode { [1] = 1, [1000000] = 2 }))
  end)
end)
