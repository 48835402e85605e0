-- SPDX-License-Identifier: Apache-2.0
-- The replies that were read lately, by correlation id, bounded in bytes. There are two halves: the young one takes
-- what comes; once it is full it becomes the old one, and what that held goes. For each partition it is known from
-- which offset on all replies are here: what has gone is to be looked for in the topic.
local kept = {}

local RECORD_BYTES = 1024 -- that a record takes beside its texts

local Kept = {}
Kept.__index = Kept

---@param most_bytes integer
---@param positions table<integer, integer> where the reader stands: what was before has not been read
function kept.new(most_bytes, positions)
  local self = setmetatable({ young = {}, old = {}, bytes = 0, most = most_bytes / 2, known_from = {} }, Kept)
  self.highest, self.highest_old = {}, {} -- offset behind the last record, by partition, of each half
  for partition, offset in pairs(positions) do self.known_from[partition] = offset end
  return self
end

local function size_of(record)
  local size = RECORD_BYTES + #(record.value or "") + #(record.key or "")
  for i = 1, #record.headers do size = size + #record.headers[i][1] + #(record.headers[i][2] or "") end
  return size
end

local function turn_over(self)
  for partition, offset in pairs(self.highest_old) do self.known_from[partition] = offset end
  self.old, self.young, self.bytes = self.young, {}, 0
  self.highest_old, self.highest = self.highest, {}
end

-- False: there is a reply of that id already, which stays.
---@return boolean
function Kept:put(id, record)
  if self.young[id] or self.old[id] then return false end
  local size = size_of(record)
  if self.bytes + size > self.most then turn_over(self) end
  self.highest[record.partition] = record.offset + 1
  if size > self.most then
    self.known_from[record.partition] = record.offset + 1
    return true
  end
  self.young[id], self.bytes = record, self.bytes + size
  return true
end

---@return sluice.kafka.record|nil
function Kept:get(id)
  return self.young[id] or self.old[id]
end

-- Records were passed over: what was before these positions is not here.
---@param positions table<integer, integer>
function Kept:lost(positions)
  for partition, offset in pairs(positions) do self.known_from[partition] = offset end
end

-- From which offset on all replies of the partition are here.
---@return integer
function Kept:from(partition)
  return self.known_from[partition] or 0
end

return kept
