-- SPDX-License-Identifier: Apache-2.0
-- Readers over readers: several topics as one, and those that end.

local ffi = require "ffi"
local core = require "sluice.api.core"
local records = require "sluice.kafka.record"

local C, worker = core.C, core.worker
local pairs, ipairs = pairs, ipairs
local yield = coroutine.yield
local record_of = records.shared

local OK, AGAIN, NONE = 0, 1, 2
local GAP, TIMEOUT, STALE, CLOSED = 3, -5, -1, -4

local several = {}

local view = ffi.new("const struct kafka_record *[1]")

local ENDS = { [GAP] = "gap", [TIMEOUT] = "timeout", [STALE] = "closed", [CLOSED] = "closed" }

local function handles_of(readers)
  local cells = ffi.new("double[?]", #readers)
  for i, reader in ipairs(readers) do cells[i - 1] = reader.handle end
  return cells
end

-- OK when one of them may have something, TIMEOUT, or their end.
local function wait_for(handles, count, seconds)
  local status = C.bridge_kafka_readers_wait(worker, handles, count, seconds)
  if status == AGAIN then return (yield()) end
  return status
end

-- ---- Several topics ----

---@class sluice.kafka.readers what a reader of several topics has
local Readers = {}
Readers.__index = Readers

-- One round of all readers, behind the one that had something last. Status, and whose it was.
local function take(self)
  local readers, count, turn = self.readers, self.count, self.turn
  for i = 1, count do
    turn = turn % count + 1
    local status = C.bridge_kafka_reader_next(worker, readers[turn].handle, 0, view)
    if status ~= NONE then
      self.turn = turn
      return status, readers[turn]
    end
    if i == count then return NONE end
  end
end

-- As a reader's next, in order within a partition; "gap" comes with the topic in which records were lost.
---@param timeout? number seconds
---@return sluice.kafka.record|nil
---@return "timeout"|"gap"|"closed"|string|nil err
---@return string|nil topic
function Readers:next(timeout)
  local deadline = timeout and C.bridge_mono(worker) + timeout or math.huge
  while true do
    local status, reader = take(self)
    if status == OK then return record_of(view[0]) end
    if status ~= NONE then return nil, ENDS[status] or core.reason(status), reader.topic end
    local left = deadline - C.bridge_mono(worker)
    if left <= 0 then return nil, "timeout" end
    status = wait_for(self.handles, self.count, left)
    if status ~= OK then return nil, ENDS[status] or core.reason(status) end
  end
end

-- The offset of the next record, by topic and partition.
---@return table<string, table<integer, integer>>
function Readers:positions()
  local positions = {}
  for _, reader in ipairs(self.readers) do positions[reader.topic] = reader:positions() end
  return positions
end

function Readers:close()
  for _, reader in ipairs(self.readers) do reader:close() end
end

---@param readers sluice.kafka.reader[] of one topic each
---@return sluice.kafka.readers
function several.all(readers)
  return setmetatable({ readers = readers, count = #readers, handles = handles_of(readers), turn = 0 }, Readers)
end

-- ---- Up to an end ----

---@class sluice.kafka.range what a reader with `to` has
local Range = {}
Range.__index = Range

-- Whether all have come to their ends, also those whose last offsets hold no record: marks of transactions, or records
-- that compaction took.
local function is_over(self)
  for _, reader in ipairs(self.readers) do
    local ends = self.ends[reader.topic]
    for partition, offset in pairs(reader:positions()) do
      if not ends[partition] or offset < ends[partition] then return false end
    end
  end
  return true
end

-- As a reader's next, and "end" when every partition has come to its own.
---@param timeout? number seconds
---@return sluice.kafka.record|nil
---@return "end"|"timeout"|"gap"|"closed"|string|nil err
---@return string|nil topic
function Range:next(timeout)
  local deadline = timeout and C.bridge_mono(worker) + timeout or math.huge
  while not self.over do
    local record, err, topic = self.whole:next(0)
    if record then
      local last = self.ends[record.topic][record.partition]
      if not last or record.offset < last then return record end
    elseif err ~= "timeout" then
      return nil, err, topic
    end
    self.over = is_over(self)
    local left = deadline - C.bridge_mono(worker)
    if not record and not self.over then
      local status = left > 0 and wait_for(self.handles, self.count, left) or TIMEOUT
      if status ~= OK then return nil, ENDS[status] or core.reason(status) end
    end
  end
  return nil, "end"
end

function Range:positions()
  return self.whole:positions()
end

function Range:close()
  self.whole:close()
end

---@param whole sluice.kafka.reader|sluice.kafka.readers
---@param readers sluice.kafka.reader[] that it is made of
---@param ends table<string, table<integer, integer>> by topic and partition
---@return sluice.kafka.range
function several.range(whole, readers, ends)
  return setmetatable({ whole = whole, readers = readers, count = #readers, handles = handles_of(readers), ends = ends,
    over = false }, Range)
end

return several
