-- SPDX-License-Identifier: Apache-2.0
local phases = require "sluice.phases"

describe("phases", function()
  it("have the numbers of bridge.h", function()
    local file = assert(io.open("core/bridge.h"))
    local text = file:read("*a"):match("enum phase {(.-)}")
    file:close()
    local number = 0
    for name in text:gmatch("PHASE_([%u_]+)") do
      if name ~= "COUNT" then assert.equal(phases.names[number], name:lower()) end
      number = number + 1
    end
    assert.equal(number - 1, #phases.names + 1)
  end)

  it("tell which of them may wait", function()
    assert.is_true(phases.may_wait(phases.numbers.access))
    assert.is_false(phases.may_wait(phases.numbers.header_filter))
    assert.is_false(phases.may_wait(phases.numbers.balancer))
  end)

  it("refuse a call in another phase, naming those that allow it", function()
    local mask = phases.mask("rewrite", "access")
    local function method() phases.check(mask, phases.numbers.log, "exchange.x:y") end
    local ok, err = pcall(function() method() end)
    assert.is_false(ok)
    assert.matches("phases_spec.lua:%d+: exchange.x:y cannot be called in phase log; it can in rewrite, access$", err)
    phases.check(mask, phases.numbers.access, "exchange.x:y")
  end)
end)
