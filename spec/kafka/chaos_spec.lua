-- SPDX-License-Identifier: Apache-2.0
-- Producers while a broker, the network or the gateway fails: no acknowledged record is lost, none comes twice or out
-- of order within its key, and every answer is true. spec/bench/chaos.lua does the same for longer, with figures.
local chaos = require "spec.kafka.chaos"

local LOAD_SECONDS, AWAY_SECONDS = 0.3, 1.2

describe("under load", function()
  local world, reports

  -- One after the other, and what became of it in the end: records may arrive late.
  setup(function()
    world = chaos.start { clients = 4, timeout = 500, message_timeout = 8000 }
    local runs = {}
    for i, it_happens in ipairs(chaos.disturbances) do
      runs[i] = world:load(LOAD_SECONDS, function(inside) it_happens[2](inside, AWAY_SECONDS) end)
    end
    reports = world:judge(runs)
  end)

  teardown(function() if world then world:stop() end end)

  for i, it_happens in ipairs(chaos.disturbances) do
    it("answers what is so: " .. it_happens[1], function()
      local report = reports[i]
      assert.is_true(report.acknowledged > 0)
      assert.same({ lost = 0, untrue = 0, twice = 0, out_of_order = 0 }, { lost = report.lost,
        untrue = report.untrue, twice = report.twice, out_of_order = report.out_of_order })
    end)
  end
end)
