-- SPDX-License-Identifier: Apache-2.0
-- Records out of Kafka, one after the other.

local ffi = require "ffi"
local check = require "sluice.api.check"
local clusters = require "sluice.kafka.clusters"
local core = require "sluice.api.core"
local records = require "sluice.kafka.record"

local C, worker, E = core.C, core.worker, core.E
local tostring, type, pairs = tostring, type, pairs
local yield = coroutine.yield
local record_of = records.shared

local OK, AGAIN, NONE = 0, 1, 2
local GAP, TIMEOUT, STALE, CLOSED = 3, -5, -1, -4
local LATEST, EARLIEST = -1, -2

local reading = {}

---@class sluice.kafka.reader
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
  local deadline = timeout and C.bridge_mono(worker) + timeout or math.huge
  local left = timeout or math.huge
  while true do
    local status = C.bridge_kafka_reader_next(worker, self.handle, left, view)
    if status == OK then return record_of(view[0]) end
    if status == AGAIN then
      status = yield()
      if status == OK then
        left = deadline - C.bridge_mono(worker)
        if left <= 0 then left = 0 end
      end
    end
    if status ~= OK then return nil, ENDS[status] or core.reason(status) end
  end
end

-- Where it stands: the offset of the next record, by partition.
---@return table<integer, integer>
function Reader:positions()
  local positions, index = {}, 0
  while C.bridge_kafka_reader_position(worker, self.handle, index, position) == OK do
    positions[position.partition] = tonumber(position.offset)
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

local STARTS = { latest = LATEST, earliest = EARLIEST }

local function lay_positions(name, from)
  local cells, count = ffi.new("struct kafka_position[?]", 1024), 0
  for partition, offset in pairs(from) do
    if type(partition) ~= "number" or type(offset) ~= "number" or count == 1024 then
      check.fail(name, "from must be \"latest\", \"earliest\" or offsets by partition", 4)
    end
    cells[count].partition, cells[count].offset = partition, offset
    count = count + 1
  end
  return cells, count
end

-- Opens a reader; waits until its place in the topic is known.
---@param options { cluster?: string, topic: string, from?: "latest"|"earliest"|table<integer, integer>,
--- otherwise?: "latest"|"earliest", behind?: "catch up"|"skip", through_drain?: boolean } `from`: offsets by
--- partition, and where to start in partitions that it does not name is `otherwise`, "earliest" unless told. `behind`:
--- what a reader does that falls behind what is kept in memory. `through_drain`: it stays until the worker's last
--- exchange has ended, for these need what it reads
---@return sluice.kafka.reader|nil
---@return string|nil err
---@return "topic"|"failed"|nil code "topic": there is none of that name
function reading.reader(options)
  check.table("kafka.reader", "options", options)
  check.string("kafka.reader", "topic", options.topic)
  if draining and not options.through_drain then return nil, "this worker ends", "failed" end
  local from = options.from or "latest"
  local wanted = ffi.new("struct kafka_reader_options")
  wanted.cluster, wanted.topic = options.cluster or clusters.DEFAULT, options.topic
  wanted.skip_when_behind = options.behind == "skip"
  local cells, count
  if type(from) == "table" then
    cells, count = lay_positions("kafka.reader", from)
    wanted.positions, wanted.position_count = cells, count
    from = options.otherwise or "earliest"
  end
  if not STARTS[from] then check.fail("kafka.reader", "no such start: " .. tostring(from), 3) end
  wanted.from = STARTS[from]
  local status, handle = C.bridge_kafka_reader_open(worker, wanted), nil
  cells = nil -- luacheck: ignore 311 (held until here, while C read it)
  if status == AGAIN then status, handle = yield() end
  if status ~= OK then
    local err = core.reason(status)
    return nil, err, err:find("Unknown topic", 1, true) and "topic" or "failed"
  end
  local reader = setmetatable({ handle = handle, held = keep(handle),
    through_drain = options.through_drain or false }, Reader)
  open_readers[reader] = true
  return reader
end

assert(E.KAFKA_GAP == GAP and E.KAFKA_LATEST == LATEST and E.KAFKA_EARLIEST == EARLIEST)

return reading
