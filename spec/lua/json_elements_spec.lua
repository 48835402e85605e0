-- SPDX-License-Identifier: Apache-2.0
local elements = require "sluice.json_elements"

local SCALARS = { "12e-3", "-7", "0.5", "true", "false", "null", '""', '"\\\\"', '"\\""', '"]}"',
  '"\\u00e9"', '","', '"[{"' }

describe("sluice.json_elements", function()
  it("gives elements as they are written, and their values", function()
    local texts, values = elements.of(' [ {"b":1, "a":2.0} ,7,"x\\"],[", [ [1],{"c":"}"}], null,true ] ')
    assert.same({ '{"b":1, "a":2.0}', "7", '"x\\"],["', '[ [1],{"c":"}"}]', "null", "true" }, texts)
    assert.same({ b = 1, a = 2 }, values[1])
    assert.equal('x"],[', values[3])
  end)

  it("gives none of an empty array", function()
    assert.same({}, (elements.of("[]")))
    assert.same({}, (elements.of(" [ \n ] ")))
  end)

  it("sees that there are more than may be, whatever they are", function()
    local function count(text, most, path)
      local texts, _, code = elements.of(text, path, { most = most })
      return texts and #texts or code
    end
    for _, element in ipairs { "1", "[2,3,[4,5]]", '{"a":1,"b":[2,3]}', '",,\\",[{"', "null", '"\\\\"' } do
      local text = "[ " .. (element .. " ,"):rep(99) .. element .. "]"
      assert.same({ 100, "many", 100 }, { count(text, 100), count(text, 99), count(text, 1000) }, element)
      assert.same({ 100, "many" }, { count('{"a":' .. text .. "}", 100, { "a" }), count('{"a":' .. text .. "}", 99,
        { "a" }) })
    end
    assert.equal("syntax", count("[1,2,3,4,5,6,7", 7))
    assert.equal("syntax", count('["a', 1))
    assert.equal("path", count('{"a":1,"b":2,"c":3,"d":4}', 1))
  end)

  it("pauses between pieces of a long work", function()
    local pauses, text = 0, "[" .. ("1,"):rep(9999) .. "1]"
    assert.equal(10000, #elements.of(text, nil, { pause = function() pauses = pauses + 1 end }))
    assert.is_true(pauses >= 2)
  end)

  it("follows members to the array", function()
    assert.same({ "1", "2" }, (elements.of('{"a":[9],"data":{"x":"}","list":[1,2]},"z":{}}', { "data", "list" })))
    assert.same({ "2" }, (elements.of('{"list":[1],"list" : [2]}', { "list" })))
    assert.same({ "3" }, (elements.of('{"\\u006cist":[3]}', { "list" })))
  end)

  it("keeps the digits of long numbers in values", function()
    local _, values = elements.of("[12345678901234567]")
    assert.equal("12345678901234567LL", tostring(values[1]))
  end)

  it("says why there are none", function()
    local cases = {
      { "[1,", nil, "syntax" }, { "", nil, "syntax" }, { "[1] x", nil, "syntax" }, { "{}", nil, "path" },
      { "7", nil, "path" }, { '"[1]"', nil, "path" }, { "[1]", { "a" }, "path" }, { '{"a":1}', { "a" }, "path" },
      { '{"a":{"b":[]}}', { "a", "c" }, "path" }, { '{"a":null}', { "a", "b" }, "path" },
    }
    for _, case in ipairs(cases) do
      local texts, err, code = elements.of(case[1], case[2])
      assert.is_nil(texts)
      assert.is_string(err)
      assert.equal(case[3], code, case[1])
    end
  end)

  it("agrees with the decoder on whatever is written", function()
    local json = require "sluice.json"
    local seed = 7
    local function random(n)
      seed = (seed * 1103515245 + 12345) % 2147483648
      return math.floor(seed / 65536) % n + 1
    end
    local function value(depth)
      local kind = random(depth > 3 and 4 or 6)
      if kind <= 4 then return SCALARS[random(#SCALARS)] end
      local parts = {}
      for i = 1, random(4) - 1 do
        parts[i] = (kind == 5 and "" or '"k' .. i .. '" : ') .. value(depth + 1) .. (random(2) == 1 and " " or "")
      end
      local inside = table.concat(parts, random(2) == 1 and "," or ",\n ")
      return kind == 5 and "[" .. inside .. "]" or "{" .. inside .. "}"
    end
    for _ = 1, 300 do
      local list = {}
      for i = 1, random(6) - 1 do list[i] = value(0) end
      local texts, values = elements.of("[" .. table.concat(list, " , ") .. "]")
      assert.equal(#list, #texts)
      for i, text in ipairs(texts) do
        assert.equal(list[i]:match("^(.-)%s*$"), text)
        assert.same(json.decode(text), values[i])
      end
    end
  end)
end)
