-- SPDX-License-Identifier: Apache-2.0
require "sluice.spec"
local slices = dofile "plugins/kafka-rest/slices.lua"

describe("pieces of JSON", function()
  it("are an object's members as they were written", function()
    local members = slices.members [[ { "a" : 1.0 ,"b":[1, {"c":"]}"}], "d\"e": "x\\", "f":{} , "g":true, "a":-2e5 } ]]
    assert.same({ a = "-2e5", b = '[1, {"c":"]}"}]', ['d"e'] = [["x\\"]], f = "{}", g = "true" }, members)
    assert.same({}, slices.members "{}")
  end)

  it("are an array's elements", function()
    assert.same({ "1", '"a,]"', "[[],{}]", "null" }, slices.elements '[1 , "a,]",[[],{}],null ]')
    assert.same({}, slices.elements "[ ]")
  end)

  local TEXT = [[{"a":"}\\\"{"} , {"b":[{},{"c":"["}]}
    [{"d":1},{}]{"e":"\\"}]]
  local WHOLE = { [[{"a":"}\\\"{"}]], [[{"b":[{},{"c":"["}]}]], [[{"d":1}]], "{}", [[{"e":"\\"}]] }

  it("are the objects of a stream, wherever it is cut", function()
    for size = 1, #TEXT do
      local splitter, found = slices.splitter(1000), {}
      for at = 1, #TEXT, size do
        splitter:feed(TEXT:sub(at, at + size - 1))
        for text in function() return splitter:next() end do found[#found + 1] = text end
      end
      assert.same(WHOLE, found)
      assert.is_false(splitter:is_inside())
    end
  end)

  it("are garbage, or too large", function()
    local splitter = slices.splitter(20)
    splitter:feed '{"a":1} nonsense'
    assert.equal('{"a":1}', (splitter:next()))
    assert.equal("garbage", select(2, splitter:next()))
    splitter = slices.splitter(20)
    splitter:feed('{"a":"' .. ("x"):rep(30))
    assert.equal("large", select(2, splitter:next()))
    splitter = slices.splitter(20)
    splitter:feed('{"a":')
    assert.is_nil((splitter:next()))
    assert.is_true(splitter:is_inside())
  end)
end)
