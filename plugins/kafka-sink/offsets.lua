-- SPDX-License-Identifier: Apache-2.0
-- How far a partition has come: records are done in any order, and what may be committed is what lies behind the first
-- that is not.
--
--   41 done   42 done   43 at work   44 done        position 43
local offsets = {}

local Partition = {}
Partition.__index = Partition

---@param topic string
---@param number integer
function offsets.new(topic, number)
  return setmetatable({ topic = topic, number = number, items = {}, first = 1, last = 0, position = nil,
    committed = nil, lost = false }, Partition)
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

-- Whether there is something to commit.
---@return boolean
function Partition:has_moved()
  return self.position ~= self.committed
end

return offsets
