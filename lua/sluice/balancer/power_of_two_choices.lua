-- SPDX-License-Identifier: Apache-2.0
-- Of two targets drawn at random, by weight, the one with fewer requests in flight. Nearly as even as
-- least-connections, without all gateways running to the same target at the same moment.

local ffi = require "ffi"
local native = require "sluice.ffi"
local random = require "sluice.random"

local C, worker = native.C, native.worker

local two_choices = {}
two_choices.__index = two_choices

local cell = ffi.new("const struct target_state *[1]")

---@return table policy
function two_choices.new()
  return setmetatable({ spread = "load" }, two_choices)
end

-- A usable target by weight, other than `but`; nil: there is none.
local function draw(states, count, total, but)
  local left, last = random() * total, nil
  for i = 0, count - 1 do
    local state = states[i]
    if state.usable and i ~= but then
      last = i
      left = left - state.weight
      if left < 0 then return i end
    end
  end
  return last
end

function two_choices:pick(exchange)
  local count = C.bridge_target_states(worker, exchange, self.generation, self.index, cell)
  if count == 0 then return nil end
  local states, total = cell[0], 0
  for i = 0, count - 1 do
    if states[i].usable then total = total + states[i].weight end
  end
  local one = draw(states, count, total, -1)
  if not one then return nil end
  local other = draw(states, count, total - states[one].weight, one)
  if other and states[other].in_flight < states[one].in_flight then return other + 1 end
  return one + 1
end

return two_choices
