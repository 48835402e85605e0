-- SPDX-License-Identifier: Apache-2.0
local round_robin = require "sluice.balancer.round_robin"

describe("round-robin", function()
  local function policy(...)
    local targets = {}
    for i, weight in ipairs { ... } do targets[i] = { host = "t" .. i, port = 80, weight = weight } end
    return round_robin.new({ name = "up" }, targets)
  end

  it("gives equal targets equal turns", function()
    assert.same({ 1, 2, 3 }, policy(100, 100, 100):schedule())
  end)

  it("spreads the turns of a heavy target", function()
    assert.same({ 1, 1, 2, 1, 3, 1, 1 }, policy(5, 1, 1):schedule())
    assert.same({ 1, 2, 1 }, policy(200, 100):schedule())
  end)

  it("leaves out a target without weight", function()
    assert.same({ 2 }, policy(0, 100):schedule())
    assert.same({}, policy(0, 0):schedule())
    assert.same({}, policy():schedule())
  end)

  it("rounds weights that would make a round too long, and starves nobody", function()
    local order = policy(65535, 65534, 1):schedule()
    local turns = { 0, 0, 0 }
    for _, target in ipairs(order) do turns[target] = turns[target] + 1 end
    assert.is_true(#order <= 4100)
    assert.equal(1, turns[3])
    assert.is_true(math.abs(turns[1] - turns[2]) <= 1)
  end)

  it("goes round when it is asked for each try", function()
    local its = policy(100, 100)
    assert.same({ 1, 2, 1 }, { its:pick(), its:pick(), its:pick() })
    assert.is_nil(policy(0):pick())
  end)
end)
