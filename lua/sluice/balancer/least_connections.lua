-- SPDX-License-Identifier: Apache-2.0
-- The target with the fewest requests in flight for its weight, over all workers. Equals take turns.

local ffi = require "ffi"
local native = require "sluice.ffi"

local C, worker = native.C, native.worker

local least_connections = {}
least_connections.__index = least_connections

local cell = ffi.new("const struct target_state *[1]")

---@return table policy
function least_connections.new()
  return setmetatable({ spread = "load", at = 0 }, least_connections)
end

function least_connections:pick(exchange)
  local count = C.bridge_target_states(worker, exchange, self.generation, self.index, cell)
  if count == 0 then return nil end
  local states, at = cell[0], self.at
  local best, least = nil, math.huge
  for i = 0, count - 1 do
    local place = (at + i) % count
    local state = states[place]
    if state.usable then
      local load = (state.in_flight + 1) / state.weight
      if load < least then best, least = place, load end
    end
  end
  if not best then return nil end
  self.at = best + 1
  return best + 1
end

return least_connections
