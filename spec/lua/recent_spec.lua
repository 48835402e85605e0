-- SPDX-License-Identifier: Apache-2.0
require "sluice.spec" -- whose core it is
local recent = require "sluice.recent"

describe("recent", function()
  local A, B = {}, {}

  local function count(it, owner, from, to)
    local found = 0
    for i = from, to do
      if it:get(owner, "text " .. i) ~= nil then found = found + 1 end
    end
    return found
  end

  it("gives what was put, to its owner", function()
    local it = recent.new(10, 10000)
    it:put(A, "x", 1)
    it:put(B, "x", false)
    assert.same({ 1, false }, { it:get(A, "x"), it:get(B, "x") })
    assert.is_nil(it:get(A, "y"))
    it:put(A, "x", 2)
    assert.equal(2, it:get(A, "x"))
  end)

  it("holds no more entries than it may, the latest ones", function()
    local it = recent.new(100, 1e6)
    for i = 1, 1000 do it:put(A, "text " .. i, i) end
    assert.equal(0, count(it, A, 1, 900))
    assert.is_true(count(it, A, 951, 1000) == 50)
  end)

  it("keeps what is asked for", function()
    local it = recent.new(100, 1e6)
    it:put(A, "asked", true)
    for i = 1, 1000 do
      it:put(A, "text " .. i, i)
      assert.is_true(it:get(A, "asked"))
    end
  end)

  it("holds no more bytes than it may", function()
    local it = recent.new(1000, 100000, 10000)
    for i = 1, 100 do it:put(A, "text " .. i, i) end
    assert.is_true(count(it, A, 1, 100) <= 10)
    assert.equal(100, it:get(A, "text 100"))
    local text = ("x"):rep(60000)
    it:put(A, text, true)
    assert.is_nil(it:get(A, text))
  end)
end)
