-- SPDX-License-Identifier: Apache-2.0
-- The target that is likely to answer first: the peak of its latencies, which fades (peak EWMA), times the requests
-- that it has in flight, for its weight. Both are known of all workers. A target that has not answered yet is taken to
-- be as fast as the others are on average.

local ffi = require "ffi"
local native = require "sluice.ffi"

local C, worker = native.C, native.worker

local latency = {}
latency.__index = latency

local cell = ffi.new("const struct target_state *[1]")

---@return table policy
function latency.new()
  return setmetatable({ spread = "latency", at = 0 }, latency)
end

local function average(states, count)
  local sum, known = 0, 0
  for i = 0, count - 1 do
    local us = states[i].latency_us
    if us > 0 then sum, known = sum + us, known + 1 end
  end
  return known > 0 and sum / known or 1
end

function latency:pick(exchange)
  local count = C.bridge_target_states(worker, exchange, self.generation, self.index, cell)
  if count == 0 then return nil end
  local states, at = cell[0], self.at
  local usual = average(states, count)
  local best, least = nil, math.huge
  for i = 0, count - 1 do
    local place = (at + i) % count
    local state = states[place]
    if state.usable then
      local us = state.latency_us > 0 and state.latency_us or usual
      local cost = us * (state.in_flight + 1) / state.weight
      if cost < least then best, least = place, cost end
    end
  end
  if not best then return nil end
  self.at = best + 1
  return best + 1
end

return latency
