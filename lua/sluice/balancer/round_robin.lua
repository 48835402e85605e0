-- SPDX-License-Identifier: Apache-2.0
-- Round-robin by weight, smooth: a heavy target's turns are spread among the others' (5, 1, 1 gives a a b a c a a).

local round_robin = {}
round_robin.__index = round_robin

local MOST_TURNS = 4096 -- of one round: finer weights are rounded

local function gcd(a, b)
  while b > 0 do a, b = b, a % b end
  return a
end

-- Whole turns of each target in one round: the weights in lowest terms, scaled down when a round would be too long.
local function turns_of(targets)
  local divisor, total = 0, 0
  for _, target in ipairs(targets) do
    divisor = gcd(divisor, target.weight)
    total = total + target.weight
  end
  local scale = divisor > 0 and 1 / divisor or 0
  if total * scale > MOST_TURNS then scale = MOST_TURNS / total end
  local turns = {}
  for i, target in ipairs(targets) do
    turns[i] = target.weight > 0 and math.max(1, math.floor(target.weight * scale + 0.5)) or 0
  end
  return turns
end

-- Each turn every target gains its weight; the richest goes, and pays the sum of all.
local function spread(turns)
  local total, credit, order = 0, {}, {}
  for i, count in ipairs(turns) do
    total = total + count
    credit[i] = 0
  end
  for turn = 1, total do
    local best
    for i, count in ipairs(turns) do
      credit[i] = credit[i] + count
      if count > 0 and (not best or credit[i] > credit[best]) then best = i end
    end
    credit[best] = credit[best] - total
    order[turn] = best
  end
  return order
end

---@param _ table upstream
---@param targets table[]
---@return table policy
function round_robin.new(_, targets)
  return setmetatable({ order = spread(turns_of(targets)), at = 0 }, round_robin)
end

function round_robin:schedule()
  return self.order
end

function round_robin:pick()
  local count = #self.order
  if count == 0 then return nil end
  self.at = self.at % count + 1
  return self.order[self.at]
end

return round_robin
