-- SPDX-License-Identifier: Apache-2.0
-- Where records come from: a reader of the configured topics, and its partitions as slots from 1, which ids and
-- channels count by.
local kafka = require "sluice.kafka"

local source = {}

local Source = {}
Source.__index = Source

-- Slots in the order of topics and partitions; labels name them in ids: "2/" of one topic, "orders/2/" of several.
local function lay_slots(self)
  local positions = self.reader:positions()
  local slots = {}
  for partition = 0, #positions do
    slots[partition] = #self.labels + 1
    self.labels[#self.labels + 1] = partition .. "/"
    self.partitions[#self.partitions + 1] = partition
  end
  self.slots = { [self.topic] = slots }
end

-- `starts`: "latest", "earliest", or offsets by topic and partition.
---@return table|nil
---@return string|nil err
---@return string|nil code "topic": there is none of that name
function source.open(state, starts)
  local topic = state.topic
  local from = type(starts) == "table" and (starts[topic] or {}) or starts
  local reader, err, code = kafka.reader { cluster = state.cluster, topic = topic, from = from }
  if not reader then return nil, err, code end
  local self = setmetatable({ reader = reader, topic = topic, labels = {}, partitions = {} }, Source)
  lay_slots(self)
  return self
end

---@param seconds number
---@return sluice.kafka.record|nil
---@return string|nil err as kafka.reader's next
function Source:next(seconds)
  local record, err = self.reader:next(seconds)
  return record, err
end

---@return integer|nil slot nil: of a partition that has been added since
function Source:slot_of(record)
  return self.slots[record.topic][record.partition]
end

-- Of the next record, by slot.
---@return number[]
function Source:positions()
  local known, positions = self.reader:positions(), {}
  for slot, partition in ipairs(self.partitions) do positions[slot] = known[partition] end
  return positions
end

-- The same as `open` takes.
function source.starts(state, partitions, positions)
  local offsets = {}
  for slot, partition in ipairs(partitions) do offsets[partition] = positions[slot] end
  return { [state.topic] = offsets }
end

function Source:close()
  self.reader:close()
end

return source
