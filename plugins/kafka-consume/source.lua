-- SPDX-License-Identifier: Apache-2.0
-- Where records come from: a reader of the configured topics, and its partitions as slots from 1, which ids and
-- channels count by.
local kafka = require "sluice.kafka"

local source = {}

local Source = {}
Source.__index = Source

local function sorted_keys(offsets)
  local keys = {}
  for key in pairs(offsets) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

-- Slots in the order of topics and partitions; labels name them in ids: "2/" of one topic, "orders/2/" of several.
local function lay_slots(self)
  local places = self:places()
  for _, topic in ipairs(self.names) do
    local slots = {}
    for _, partition in ipairs(sorted_keys(places[topic])) do
      slots[partition] = #self.labels + 1
      self.labels[#self.labels + 1] = (self.several and topic .. "/" or "") .. partition .. "/"
      self.partitions[#self.partitions + 1] = { topic = topic, partition = partition }
    end
    self.slots[topic] = slots
  end
end

---@param state table of the configuration
---@param starts "latest"|"earliest"|{ timestamp: number }|table<string, table<integer, integer>> the last: offsets by
--- topic and partition
---@param range { topic: string, partition: integer }|nil that partition only
---@return table|nil
---@return string|nil err
---@return string|nil code "topic": there is none of that name
function source.open(state, starts, range)
  local only = range and range.topic or state.only
  local from = starts
  if only and type(starts) == "table" and not starts.timestamp then from = starts[only] or {} end
  local reader, err, code = kafka.reader { cluster = state.cluster, topic = only,
    topics = not only and state.names or nil, from = from, partitions = range and { range.partition } or nil }
  if not reader then return nil, err, code end
  local self = setmetatable({ reader = reader, only = only, several = #state.names > 1,
    decode_key = state.decode_key,
    names = only and { only } or state.names, labels = {}, partitions = {}, slots = {} }, Source)
  lay_slots(self)
  return self
end

---@param seconds number
---@return sluice.kafka.record|nil
---@return string|nil err as kafka.reader's next
function Source:next(seconds)
  local record, err = self.reader:next(seconds)
  if record and self.decode_key then record = self.decode_key(record) end
  return record, err
end

---@return integer|nil slot nil: of a partition that has been added since
function Source:slot_of(record)
  return self.slots[record.topic][record.partition]
end

-- The offset of the next record, by topic and partition.
function Source:places()
  local positions = self.reader:positions()
  if self.only then return { [self.only] = positions } end
  return positions
end

-- The same by slot.
---@return number[]
function Source:positions()
  local places, positions = self:places(), {}
  for slot, one in ipairs(self.partitions) do positions[slot] = places[one.topic][one.partition] end
  return positions
end

-- Positions by slot as `open` takes them.
---@param partitions table[] of a source
---@param positions number[]
function source.starts(partitions, positions)
  local starts = {}
  for slot, one in ipairs(partitions) do
    starts[one.topic] = starts[one.topic] or {}
    starts[one.topic][one.partition] = positions[slot]
  end
  return starts
end

-- Nobody remembers for these clients what they have had: their places are their own.
function Source.pass() end

function Source:close()
  self.reader:close()
end

return source
