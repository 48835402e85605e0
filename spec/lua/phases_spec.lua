-- SPDX-License-Identifier: Apache-2.0
local exchanges = require "sluice.exchanges"
local phases = require "sluice.phases"

describe("phases", function()
  it("have the numbers of bridge.h", function()
    local file = assert(io.open("core/bridge.h"))
    local text = file:read("*a"):match("enum phase {(.-)}")
    file:close()
    local number = 0
    for name in text:gmatch("PHASE_([%u_]+)") do
      local of_stream = name:match("^STREAM_([%u_]+)$")
      local written = of_stream and of_stream:lower() .. " (stream)" or name:lower()
      if name ~= "COUNT" then assert.equal(phases.names[number], written) end
      number = number + 1
    end
    assert.equal(number - 1, #phases.names + 1)
  end)

  it("tell which of them may wait", function()
    assert.is_true(phases.may_wait(phases.numbers.access))
    assert.is_false(phases.may_wait(phases.numbers.header_filter))
    assert.is_false(phases.may_wait(phases.numbers.balancer))
  end)

  describe("of an exchange", function()
    local mask = phases.mask("rewrite", "access")
    local exchange

    local function method(handle) phases.check(mask, handle, "exchange.x:y") end

    before_each(function()
      exchange = { handle = 7, phase = 0 }
      exchanges.keep(7, exchange)
    end)

    after_each(function()
      exchanges.keep(7, nil)
      exchanges.running.handle = 0
    end)

    it("allow a call in one of its own, whatever runs beside it", function()
      local outer = exchanges.enter(exchange, phases.numbers.access)
      method(7)
      local other = { handle = 8, phase = 0 }
      exchanges.enter(other, phases.numbers.log)
      method(7)
      exchanges.leave(other, 0)
      method(7)
      assert.equal(0, outer)
    end)

    it("refuse a call in another phase, naming those that allow it", function()
      exchanges.enter(exchange, phases.numbers.log)
      local ok, err = pcall(function() method(7) end)
      assert.is_false(ok)
      assert.matches("phases_spec.lua:%d+: exchange.x:y cannot be called in phase log; "
        .. "it can in rewrite, access, produce, consume$", err)
      exchanges.running.handle = 0
      assert.equal(err, select(2, pcall(function() method(7) end)):gsub(":%d+:", err:match(":%d+:"), 1))
    end)

    it("end with it", function()
      exchanges.keep(7, nil)
      local ok, err = pcall(function() method(7) end)
      assert.is_false(ok)
      assert.matches("phases_spec.lua:%d+: the exchange has ended$", err)
    end)

    it("come back when one inside of another is over", function()
      local outer = exchanges.enter(exchange, phases.numbers.access)
      local inner = exchanges.enter(exchange, phases.numbers.header_filter)
      assert.is_false((pcall(method, 7)))
      exchanges.leave(exchange, inner)
      method(7)
      exchanges.leave(exchange, outer)
      assert.is_false((pcall(method, 7)))
    end)
  end)
end)
