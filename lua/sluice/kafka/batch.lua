-- SPDX-License-Identifier: Apache-2.0
-- Many records at once: queued one after the other, their fates told together or one by one.
--
--   local batch = kafka.batch { timeout = 10 }
--   for i, order in ipairs(orders) do batch:add { topic = "orders", value = order } end
--   batch:wait()
--   for i = 1, #orders do local at, err, code = batch:result(i) end
--
-- A stream without end goes the same way, in bounded memory: a record has one of 1024 places until batch:result was
-- asked for it, and batch:next says whose fate is known.
--
--   local index, err, code = batch:add(record)
--   while code == "full" and batch:next(10) do ... batch:result ... batch:add(record) ... end

local ffi = require "ffi"
local check = require "sluice.api.check"
local core = require "sluice.api.core"
local message = require "sluice.kafka.message"
local produce = require "sluice.kafka.produce"

local C, worker = core.C, core.worker
local tonumber, setmetatable, type = tonumber, setmetatable, type
local yield = coroutine.yield
local text_of, lay = message.text, message.lay
local refused, told = produce.refused, produce.told

local OK, AGAIN, NONE = 0, 1, 2
local STALE, FULL, CLOSED, TIMEOUT = -1, -3, -4, -5
local FOREVER = 1e9
local PLACES = 1024

local batching = {}

---@class sluice.kafka.batch
local Batch = {}
Batch.__index = Batch

local index_cell = ffi.new("double[1]")
local result = ffi.new("struct kafka_result")

local WAIT_ENDS = { [TIMEOUT] = "timeout", [NONE] = "empty", [STALE] = "closed", [CLOSED] = "closed" }

-- Queues a record. Its `cluster` and `timeout` are the batch's.
---@param record sluice.kafka.message
---@return integer|nil index from 1
---@return string|nil err
---@return string|nil code as of kafka.produce; "full" also when 1024 records have no result that was asked for
function Batch:add(record)
  check.table("batch:add", "record", record)
  local key = text_of("batch:add", "key", record.key)
  local value = text_of("batch:add", "value", record.value)
  local message_ = lay("batch:add", record, self.cluster, key, value, self.timeout)
  local status = C.bridge_kafka_batch_add(worker, self.handle, message_, index_cell)
  if status == OK then
    local index = tonumber(index_cell[0])
    self.topics[index % PLACES] = record.topic
    return index
  end
  if status == STALE then return nil, "the batch is closed", "closed" end
  return refused(status)
end

-- True: go on; else why not.
local function wait(self, all, seconds)
  local deadline = seconds and C.bridge_mono(worker) + seconds
  local left = seconds or FOREVER
  while true do
    local status = C.bridge_kafka_batch_wait(worker, self.handle, all, left)
    if status == AGAIN then
      status = yield()
      if status == OK then status = AGAIN end
    end
    if status == OK then return true end
    if status ~= AGAIN then return nil, WAIT_ENDS[status] or core.reason(status) end
    if deadline then left = deadline - C.bridge_mono(worker) end
  end
end

local function check_seconds(name, seconds)
  if seconds ~= nil and (type(seconds) ~= "number" or seconds ~= seconds or seconds < 0) then
    check.fail(name, "seconds must be a number from 0", 4)
  end
end

-- Waits until the fate of each record is known.
---@param seconds? number without end unless told; the batch's `timeout` ends it all the same
---@return boolean|nil
---@return "timeout"|"closed"|string|nil err
function Batch:wait(seconds)
  check_seconds("batch:wait", seconds)
  local done, err = wait(self, true, seconds)
  return done, err
end

-- The index of a record whose fate became known, each once, in the order of their becoming known.
---@param seconds? number to wait for one; without end unless told; 0: one that is known already
---@return integer|nil index
---@return "timeout"|"empty"|"closed"|string|nil err empty: none is waited for
function Batch:next(seconds)
  check_seconds("batch:next", seconds)
  while true do
    local status = C.bridge_kafka_batch_next(worker, self.handle, index_cell)
    if status == OK then return tonumber(index_cell[0]) end
    local ready, err = wait(self, false, seconds)
    if not ready then return nil, err end
  end
end

-- What became of a record; its place is free for another then.
---@param index integer
---@return { topic: string, partition: integer, offset: integer }|nil
---@return string|nil err
---@return string|nil code as of kafka.produce; "waiting": not known yet; "unknown": none of that index, or its place is
--- another's now
function Batch:result(index)
  check.number("batch:result", "index", index)
  local status = C.bridge_kafka_batch_result(worker, self.handle, index, result)
  if status == OK then return told(result, self.topics[index % PLACES]) end
  if status == AGAIN then return nil, "not known yet", "waiting" end
  if status == NONE then return nil, "there is no result of this index", "unknown" end
  return nil, "the batch is closed", "closed"
end

-- Ends it: records that are queued go out, and nobody hears of them. Closing twice is no error.
function Batch:close()
  C.bridge_kafka_batch_close(worker, self.handle)
end

local function close(cell)
  C.bridge_kafka_batch_close(worker, cell[0])
end

-- A batch that its plugin forgot is closed when it is collected.
---@param options? { cluster?: string, timeout?: number } "main"; seconds that each record has, as long as
--- message.timeout.ms unless told
---@return sluice.kafka.batch|nil
---@return string|nil err
function batching.batch(options)
  check.table_or_nil("kafka.batch", "options", options)
  local cluster, timeout = options and options.cluster, options and options.timeout or 0
  check.string_or_nil("kafka.batch", "cluster", cluster)
  check.number("kafka.batch", "timeout", timeout)
  local handle = C.bridge_kafka_batch(worker, timeout)
  if handle == 0 then return nil, core.reason(FULL) end
  local held = ffi.gc(ffi.new("double[1]", handle), close)
  return setmetatable({ handle = handle, cluster = cluster, timeout = timeout, topics = {}, held = held }, Batch)
end

return batching
