-- SPDX-License-Identifier: Apache-2.0
-- Records that wait for the service, in a queue for each key: of one key never more than one batch is under way, so its
-- records arrive in their order; different keys do not wait for each other.
--
--   key a: 1 3 7      ready      take(2) gives 1 and 3 of a, or 1 of a and 2 of b; a is busy until that batch is done
--   key b: 2          ready
--   key c: 4 6        busy (4 is on its way)
local lanes = {}

local Lanes = {}
Lanes.__index = Lanes

function lanes.new()
  return setmetatable({ by_key = {}, ready = {}, first = 1, last = 0, count = 0, bytes = 0, under_way = 0,
    out = {} }, Lanes) -- out: the set of those that are under way
end

local function make_ready(self, lane)
  self.last = self.last + 1
  self.ready[self.last] = lane
end

-- `item.key`: whose order it is in; an item that is in none has a key that no other has, such as itself.
---@param item { key: any, size: integer }
function Lanes:add(item)
  local lane = self.by_key[item.key]
  if not lane then
    lane = { key = item.key, items = {}, first = 1, last = 0 }
    self.by_key[item.key] = lane
    make_ready(self, lane)
  end
  lane.last = lane.last + 1
  lane.items[lane.last] = item
  self.count, self.bytes = self.count + 1, self.bytes + item.size
end

-- Items that may be sent now, at most so many, in an order that keeps that of each key. To be followed by `done`.
---@param most integer
---@return table[] batch with `lanes` besides
function Lanes:take(most)
  local batch = { lanes = {} }
  while #batch < most and self.first <= self.last do
    local lane = self.ready[self.first]
    self.ready[self.first] = nil
    self.first = self.first + 1
    batch.lanes[#batch.lanes + 1] = lane
    while #batch < most and lane.first <= lane.last do
      local item = lane.items[lane.first]
      lane.items[lane.first] = nil
      lane.first = lane.first + 1
      batch[#batch + 1] = item
      self.under_way, self.out[item] = self.under_way + 1, true
    end
  end
  return batch
end

-- The batch is no longer under way.
function Lanes:done(batch)
  for _, item in ipairs(batch) do
    self.count, self.bytes = self.count - 1, self.bytes - item.size
    self.under_way, self.out[item] = self.under_way - 1, nil
  end
  for _, lane in ipairs(batch.lanes) do
    if lane.first <= lane.last then make_ready(self, lane) else self.by_key[lane.key] = nil end
  end
end

-- How many wait, of those that may be sent.
---@return integer
function Lanes:waiting()
  return self.count - self.under_way
end

---@return boolean
function Lanes:has_ready()
  return self.first <= self.last
end

local function without(self, lane, is_of)
  local kept = {}
  for i = lane.first, lane.last do
    local item = lane.items[i]
    if is_of(item) then
      self.count, self.bytes = self.count - 1, self.bytes - item.size
    else
      kept[#kept + 1] = item
    end
  end
  lane.items, lane.first, lane.last = kept, 1, #kept
end

-- Forgets what waits and fits; what is under way stays.
---@param is_of fun(item: table): boolean
function Lanes:drop(is_of)
  for _, lane in pairs(self.by_key) do without(self, lane, is_of) end
  local ready, last = {}, 0
  for i = self.first, self.last do
    local lane = self.ready[i]
    if lane.last > 0 then
      last = last + 1
      ready[last] = lane
    else
      self.by_key[lane.key] = nil
    end
  end
  self.ready, self.first, self.last = ready, 1, last
end

return lanes
