-- SPDX-License-Identifier: Apache-2.0
-- Records out of Kafka, one after the other: of one topic or several, from a place on, and up to one if wanted.

local ffi = require "ffi"
local await = require "sluice.kafka.await"
local check = require "sluice.api.check"
local clusters = require "sluice.kafka.clusters"
local core = require "sluice.api.core"
local positions_at = require "sluice.kafka.offsets"
local records = require "sluice.kafka.record"
local several = require "sluice.kafka.readers"

local C, worker, E = core.C, core.worker, core.E
local tostring, type, pairs = tostring, type, pairs
local yield = coroutine.yield
local record_of = records.shared

local OK, AGAIN, NONE = 0, 1, 2
local GAP, TIMEOUT, STALE, CLOSED = 3, -5, -1, -4
local LATEST, EARLIEST, NOWHERE = -1, -2, -3

local reading = {}

---@class sluice.kafka.reader
---@field topic string
local Reader = {}
Reader.__index = Reader

local view = ffi.new("const struct kafka_record *[1]")
local position = ffi.new("struct kafka_position")

local ENDS = { [GAP] = "gap", [TIMEOUT] = "timeout", [NONE] = "timeout", [STALE] = "closed", [CLOSED] = "closed" }

-- The next record. "gap": records were lost to this reader, and the next call goes on behind them.
---@param timeout? number seconds; without end unless told; 0: only what is there already
---@return sluice.kafka.record|nil
---@return "timeout"|"gap"|"closed"|string|nil err
function Reader:next(timeout)
  local status = await(C.bridge_kafka_reader_next, self.handle, timeout, view)
  if status == OK then return record_of(view[0]) end
  return nil, ENDS[status] or core.reason(status)
end

-- Where it stands: the offset of the next record, by partition.
---@return table<integer, integer>
function Reader:positions()
  local positions, index = {}, 0
  while C.bridge_kafka_reader_position(worker, self.handle, index, position) == OK do
    if position.offset >= 0 then positions[position.partition] = tonumber(position.offset) end
    index = index + 1
  end
  return positions
end

-- Ends it; the topic's consumer ends with its last reader. Closing twice is no error.
function Reader:close()
  C.bridge_kafka_reader_close(worker, self.handle)
end

-- A reader whose plugin forgot it is closed when it is collected.
local function keep(handle)
  return ffi.gc(ffi.new("double[1]", handle), function(cell) C.bridge_kafka_reader_close(worker, cell[0]) end)
end

local open_readers = setmetatable({}, { __mode = "k" })
local draining = false

-- A worker that drains ends its readers: their clients go on elsewhere, instead of holding it to the last moment.
if worker ~= nil then
  require("sluice.runtime").on("stop", function()
    draining = true
    for reader in pairs(open_readers) do
      if not reader.through_drain then reader:close() end
    end
  end)
end

local STARTS = { latest = LATEST, earliest = EARLIEST, nowhere = NOWHERE }

local function lay_positions(name, from)
  local cells, count = ffi.new("struct kafka_position[?]", 1024), 0
  for partition, offset in pairs(from) do
    if type(partition) ~= "number" or type(offset) ~= "number" or count == 1024 then
      check.fail(name, "positions must be \"latest\", \"earliest\", { timestamp = ms } or offsets by partition", 6)
    end
    cells[count].partition, cells[count].offset = partition, offset
    count = count + 1
  end
  return cells, count
end

-- Opens a reader of one topic. `from`: a word, or offsets by partition.
local function open(options, topic, from, otherwise)
  check.string("kafka.reader", "topic", topic)
  if draining and not options.through_drain then return nil, "this worker ends", "failed" end
  local wanted = ffi.new("struct kafka_reader_options")
  wanted.cluster, wanted.topic = options.cluster or clusters.DEFAULT, topic
  wanted.skip_when_behind = options.behind == "skip"
  local cells, count
  if type(from) == "table" then
    cells, count = lay_positions("kafka.reader", from)
    wanted.positions, wanted.position_count = cells, count
    from = otherwise
  end
  if not STARTS[from] then check.fail("kafka.reader", "no such start: " .. tostring(from), 5) end
  wanted.from = STARTS[from]
  local status, handle = C.bridge_kafka_reader_open(worker, wanted), nil
  cells = nil -- luacheck: ignore 311 (held until here, while C read it)
  if status == AGAIN then status, handle = yield() end
  if status ~= OK then
    local err = core.reason(status)
    return nil, err, err:find("Unknown topic", 1, true) and "topic" or "failed"
  end
  local reader = setmetatable({ handle = handle, topic = topic, held = keep(handle),
    through_drain = options.through_drain or false }, Reader)
  open_readers[reader] = true
  return reader
end

-- What `place` (from, or to) says of this topic: a word or offsets by partition.
local function place_in(options, topic, place, of_several)
  if type(place) ~= "table" then return place end
  if place.timestamp then
    return positions_at.offsets { cluster = options.cluster, topic = topic, at = place.timestamp }
  end
  if of_several then return place[topic] or {} end
  return place
end

-- Of the offsets only those of the partitions that are wanted; for these, where there are none, `otherwise`.
local function only(partitions, from, otherwise)
  local offsets = {}
  local start = STARTS[type(from) == "table" and otherwise or from]
  for _, partition in ipairs(partitions) do
    offsets[partition] = type(from) == "table" and from[partition] or start
  end
  return offsets, "nowhere"
end

local function open_topic(options, topic)
  local otherwise = options.otherwise or "earliest"
  local from, err, code = place_in(options, topic, options.from or "latest", options.topics)
  if not from then return nil, err, code == "UNKNOWN_TOPIC_OR_PART" and "topic" or "failed" end
  if options.partitions then from, otherwise = only(options.partitions, from, otherwise) end
  return open(options, topic, from, otherwise)
end

-- Offsets by partition at which the reader of a topic ends.
local function ends_of(options, reader)
  local ends, err, code = place_in(options, reader.topic, options.to, options.topics)
  if type(ends) == "string" then
    ends, err, code = positions_at.offsets { cluster = options.cluster, topic = reader.topic, at = ends }
  end
  if not ends then return nil, err, code end
  local bounded = {}
  for partition in pairs(reader:positions()) do bounded[partition] = ends[partition] end
  return bounded
end

local function close_all(readers)
  for _, reader in ipairs(readers) do reader:close() end
end

local function bounded(options, whole, readers)
  local ends = {}
  for _, reader in ipairs(readers) do
    local of_topic, err, code = ends_of(options, reader)
    if not of_topic then
      close_all(readers)
      return nil, err, code == "UNKNOWN_TOPIC_OR_PART" and "topic" or "failed"
    end
    ends[reader.topic] = of_topic
  end
  return several.range(whole, readers, ends)
end

---@class sluice.kafka.reader_options
---@field cluster? string
---@field topic? string
---@field topics? string[] instead of `topic`: one reader of all of them; each record knows its topic
---@field from? "latest"|"earliest"|{ timestamp: number }|table where to begin, "latest" unless told; `timestamp`:
--- milliseconds since 1970; offsets by partition; with `topics`, such tables by topic
---@field otherwise? "latest"|"earliest" where to begin in partitions that `from` does not name, "earliest" unless told
---@field to? "latest"|{ timestamp: number }|table where it ends, each partition for itself: next says "end" when all
--- have come there. "latest": what is there now. In partitions that a table does not name it has no end
---@field partitions? integer[] only these are read
---@field behind? "catch up"|"skip" what a reader does that falls behind what is kept in memory
---@field through_drain? boolean it stays until the worker's last exchange has ended, for these need what it reads

-- Opens a reader; waits until its place in the topic is known.
---@param options sluice.kafka.reader_options
---@return sluice.kafka.reader|nil
---@return string|nil err
---@return "topic"|"failed"|nil code "topic": there is none of that name
function reading.reader(options)
  check.table("kafka.reader", "options", options)
  if not options.topics then check.string("kafka.reader", "topic", options.topic) end
  local readers = {}
  for i, topic in ipairs(options.topics or { options.topic }) do
    local reader, err, code = open_topic(options, topic)
    if not reader then
      close_all(readers)
      return nil, err, code
    end
    readers[i] = reader
  end
  local whole = options.topics and several.all(readers) or readers[1]
  if options.to == nil then return whole end
  return bounded(options, whole, readers)
end

assert(E.KAFKA_GAP == GAP and E.KAFKA_LATEST == LATEST and E.KAFKA_EARLIEST == EARLIEST and E.KAFKA_NOWHERE == NOWHERE)

return reading
