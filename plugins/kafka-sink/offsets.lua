-- SPDX-License-Identifier: Apache-2.0
-- How far a partition has come: records are done in any order, and what may be committed is what lies behind the first
-- that is not.
--
--   41 done   42 done   43 waits   44 done   45 waits        position 43, furthest 44
--
-- Who leaves a partition does 43 before, so that 44 is not done twice, and leaves 45 to others.
local offsets = {}

local Partition = {}
Partition.__index = Partition

---@param topic string
---@param number integer
function offsets.new(topic, number)
  return setmetatable({ topic = topic, number = number, items = {}, first = 1, last = 0, position = nil,
    committed = nil, furthest = -1, lost = false }, Partition)
end

-- A record has been read; in the order of their offsets.
---@param item { offset: integer }
function Partition:begin(item)
  self.last = self.last + 1
  self.items[self.last] = item
  if not self.position then self.position, self.committed = item.offset, item.offset end
end

-- It needs not be read again.
function Partition:finish(item)
  item.done = true
  local items, first = self.items, self.first
  while first <= self.last and items[first].done do
    self.position = items[first].offset + 1
    items[first] = nil
    first = first + 1
  end
  self.first = first
end

-- It is on its way.
function Partition:set_out(item)
  if item.offset > self.furthest then self.furthest = item.offset end
end

-- Forgets what lies behind all that has been on its way.
function Partition:cut()
  while self.first <= self.last and self.items[self.last].offset > self.furthest do
    self.items[self.last] = nil
    self.last = self.last - 1
  end
end

-- Whether all that was begun is done.
---@return boolean
function Partition:is_through()
  return self.first > self.last
end

-- Whether there is something to commit.
---@return boolean
function Partition:has_moved()
  return self.position ~= self.committed
end

return offsets
