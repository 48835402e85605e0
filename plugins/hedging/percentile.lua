-- SPDX-License-Identifier: Apache-2.0
-- How long a service takes, of this worker's requests of the last minute or so: counts in classes whose bounds grow by
-- a twelfth, in two halves of a window, of which the older one is dropped in turn.
local ceil, floor, log, max, min = math.ceil, math.floor, math.log, math.max, math.min

local percentile = {}
percentile.__index = percentile

local FIRST_MS = 0.1
local GROWTH = log(2) / 8
local CLASSES = 184     -- up to 800 s
local HALF_S = 30
local FEWEST = 20       -- requests, before anything is known
local LOOK_EVERY_S = 1

local function zeros()
  local list = {}
  for i = 1, CLASSES do list[i] = 0 end
  return list
end

---@param percent number
---@return table
function percentile.new(percent)
  return setmetatable({ share = percent / 100, now = zeros(), before = zeros(), count = 0, count_before = 0,
    turned_at = 0, looked_at = -LOOK_EVERY_S, known = nil }, percentile)
end

local function turn(self, now)
  local long_ago = now - self.turned_at >= 2 * HALF_S
  self.before, self.now = self.now, zeros()
  self.count_before, self.count = self.count, 0
  if long_ago then self.before, self.count_before = zeros(), 0 end
  self.turned_at = now
end

---@param ms number
---@param now number seconds
function percentile:add(ms, now)
  if now - self.turned_at >= HALF_S then turn(self, now) end
  local class = max(1, min(CLASSES, ceil(log(max(ms, FIRST_MS) / FIRST_MS) / GROWTH)))
  self.now[class] = self.now[class] + 1
  self.count = self.count + 1
end

local function find(self)
  local total = self.count + self.count_before
  if total < FEWEST then return nil end
  local wanted, seen = ceil(total * self.share), 0
  for class = 1, CLASSES do
    seen = seen + self.now[class] + self.before[class]
    if seen >= wanted then return FIRST_MS * math.exp(class * GROWTH) / 1000 end
  end
end

-- Seconds; nil: there have been too few requests.
---@param now number seconds
---@return number|nil
function percentile:get(now)
  if now - self.looked_at >= LOOK_EVERY_S then
    if now - self.turned_at >= HALF_S then turn(self, floor(now)) end
    self.looked_at = now
    self.known = find(self)
  end
  return self.known
end

return percentile
