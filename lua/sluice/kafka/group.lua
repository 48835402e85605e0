-- SPDX-License-Identifier: Apache-2.0
-- Members of consumer groups: those of one group share the partitions of its topics, in this worker, in others and
-- elsewhere; each record goes to one of them, and what is committed does not come again.
--
--   local consumer = kafka.group { group = "billing", topics = { "orders" }, from = "earliest" }
--   while true do
--     local record, err = consumer:next()
--     if record then
--       bill(record)
--       consumer:commit(record)
--     elseif err ~= "rebalance" and err ~= "gap" then
--       break
--     end
--   end

local ffi = require "ffi"
local await = require "sluice.kafka.await"
local check = require "sluice.api.check"
local clusters = require "sluice.kafka.clusters"
local core = require "sluice.api.core"
local kafka_conf = require "sluice.kafka.conf"
local records = require "sluice.kafka.record"

local C, worker, E = core.C, core.worker, core.E
local ffi_string, tonumber, tostring, type, pairs = ffi.string, tonumber, tostring, type, pairs
local yield = coroutine.yield
local new_record = records.new

local OK, AGAIN, NONE = 0, 1, 2
local GAP, REBALANCE = 3, 4
local STALE, FULL, CLOSED, TIMEOUT, FAILED = -1, -3, -4, -5, -6
local LATEST, EARLIEST = -1, -2
local COMMIT, COMMITTED, SEEK, PAUSE, RESUME, SUBSCRIBE, ASSIGN = 0, 1, 2, 3, 4, 5, 6
local ASSIGNED, LOST, ANSWER = 0, 1, 2
local PLACES = { latest = -1, earliest = -2, committed = -1000 }
local HANDOVER_SECONDS = 5

local group = {}

---@class sluice.kafka.consumer
local Consumer = {}
Consumer.__index = Consumer

local view = ffi.new("const struct kafka_record *[1]")
local place = ffi.new("struct kafka_place")
local result = ffi.new("struct kafka_result")
local request = ffi.new("struct kafka_group_request")

local ENDS = { [GAP] = "gap", [REBALANCE] = "rebalance", [TIMEOUT] = "timeout", [NONE] = "timeout", [STALE] = "closed",
  [CLOSED] = "closed" }

-- What failed, and Kafka's name of it.
local function why(self, status)
  if ENDS[status] then return nil, ENDS[status], ENDS[status] end
  if status == FULL then return nil, "too much is under way", "full" end
  if C.bridge_kafka_group_result(worker, self.handle, result) ~= OK then return nil, "closed", "closed" end
  return nil, ffi_string(result.text), ffi_string(result.name)
end

-- The next record of the partitions that this member has, in order within a partition.
-- "rebalance": partitions go to another member, and `consumer:lost()` says which. They stay this one's until the next
-- call, or for `handover` seconds: until then what was begun may be finished and committed. Records of them that were
-- fetched but not given here are the other member's.
-- "gap": records were gone before they could be read. Other errors pass unless the code is "closed" or "_FATAL".
---@param timeout? number seconds; without end unless told; 0: only what is there already
---@return sluice.kafka.record|nil
---@return "timeout"|"rebalance"|"gap"|"closed"|string|nil err
---@return string|nil code the same word, or Kafka's name of the error
function Consumer:next(timeout)
  local status = await(C.bridge_kafka_group_next, self.handle, timeout, view)
  if status == OK then return new_record(view[0]) end
  return why(self, status)
end

local function places_of(self, list)
  local places, index = {}, 0
  while C.bridge_kafka_group_place(worker, self.handle, list, index, place) == OK do
    index = index + 1
    local offset = tonumber(place.offset)
    places[index] = { topic = ffi_string(place.topic), partition = place.partition,
      offset = offset >= 0 and offset or nil, metadata = place.metadata ~= nil and ffi_string(place.metadata) or nil }
  end
  return places
end

-- What the last "rebalance" took away: topic, partition, and the offset behind the last record that was given.
---@return { topic: string, partition: integer, offset: integer|nil }[]
function Consumer:lost()
  return places_of(self, LOST)
end

-- The partitions that this member has, sorted.
---@return { topic: string, partition: integer, offset: integer|nil }[]
function Consumer:assignment()
  return places_of(self, ASSIGNED)
end

-- The offset of the next record, by topic and partition, of those that have given one.
---@return table<string, table<integer, integer>>
function Consumer:positions()
  local positions = {}
  for _, one in ipairs(places_of(self, ASSIGNED)) do
    if one.offset then
      positions[one.topic] = positions[one.topic] or {}
      positions[one.topic][one.partition] = one.offset
    end
  end
  return positions
end

local function count_of(positions)
  local count = 0
  for _, offsets in pairs(positions) do
    for _ in pairs(offsets) do count = count + 1 end
  end
  return count
end

local function lay_place(name, cell, topic, partition, position, words)
  local offset, metadata = position, nil
  if type(position) == "table" then offset, metadata = position.offset, position.metadata end
  offset = words and PLACES[offset] or offset
  if type(topic) ~= "string" or type(partition) ~= "number" or type(offset) ~= "number"
    or (metadata ~= nil and type(metadata) ~= "string") then
    check.fail(name, "positions must be offsets by topic and partition", 5)
  end
  cell.topic, cell.partition, cell.offset, cell.metadata = topic, partition, offset, metadata
end

-- Cells for C; the texts in them are the caller's, who holds `positions` meanwhile.
local function lay_positions(name, positions, words)
  local count = count_of(positions)
  local cells, index = ffi.new("struct kafka_place[?]", count), 0
  for topic, offsets in pairs(positions) do
    for partition, position in pairs(offsets) do
      lay_place(name, cells[index], topic, partition, position, words)
      index = index + 1
    end
  end
  return cells, count
end

-- Cells for partitions; nil: all that the member has. The texts are the caller's.
local function lay_places(name, places)
  check.table_or_nil(name, "places", places)
  if not places then return nil end
  local cells = ffi.new("struct kafka_place[?]", #places)
  for i, one in ipairs(places) do lay_place(name, cells[i - 1], one.topic, one.partition, one.offset or 0) end
  return cells
end

local function pattern_of(pattern)
  return { pattern:sub(1, 1) == "^" and pattern or "^" .. pattern }
end

local function act(self, kind, cells, count, timeout)
  request.act, request.places, request.count, request.timeout_s = kind, cells, count, timeout or 0
  local status = C.bridge_kafka_group_act(worker, self.handle, request)
  request.places = nil
  if status == AGAIN then status = yield() end
  if status == OK then return true end
  return why(self, status)
end

-- Stores how far the group has come, and waits for the broker's word.
---@param what? sluice.kafka.record|table<string, table<integer, integer|{ offset: integer, metadata: string }>> a
--- record: all of its partition up to it; positions: the offsets to go on from, by topic and partition; nothing: all
--- that next has given
---@param timeout? number seconds to wait
---@return boolean|nil committed
---@return string|nil err
---@return string|nil code "timeout": it may yet come to pass; else Kafka's name, as "ILLEGAL_GENERATION" when the
--- partition has gone to another member
function Consumer:commit(what, timeout)
  if what == nil then return act(self, COMMIT, nil, 0, timeout) end
  check.table("consumer:commit", "what", what)
  if type(what.offset) == "number" and type(what.topic) == "string" then
    what = { [what.topic] = { [what.partition] = what.offset + 1 } }
  end
  local cells, count = lay_positions("consumer:commit", what)
  if count == 0 then return true end
  return act(self, COMMIT, cells, count, timeout)
end

-- Whether the worker ends: only of one that was opened with `through_drain`.
---@return boolean
function Consumer:is_draining()
  return self.holds
end

-- What the group has committed, of these partitions or of those that this member has.
---@param places? { topic: string, partition: integer }[]
---@param timeout? number seconds to wait
---@return { topic: string, partition: integer, offset: integer|nil, metadata: string|nil }[]|nil without an offset:
--- nothing is committed
---@return string|nil err
---@return string|nil code
function Consumer:committed(places, timeout)
  local ok, err, code = act(self, COMMITTED, lay_places("consumer:committed", places), places and #places or 0, timeout)
  if not ok then return nil, err, code end
  return places_of(self, ANSWER)
end

-- Goes on from other places in partitions that it has.
---@param positions table<string, table<integer, integer|"earliest"|"latest">> by topic and partition
---@param timeout? number seconds to wait
---@return boolean|nil done
---@return string|nil err
---@return string|nil code
function Consumer:seek(positions, timeout)
  check.table("consumer:seek", "positions", positions)
  local cells, count = lay_positions("consumer:seek", positions, true)
  if count == 0 then return true end
  return act(self, SEEK, cells, count, timeout)
end

-- Gives no more records of these partitions, or of all that it has, until they are resumed; it stays a member. A
-- partition that goes to another member and comes back is not paused any more.
---@param places? { topic: string, partition: integer }[]
---@return boolean|nil done
---@return string|nil err
---@return string|nil code
function Consumer:pause(places)
  return act(self, PAUSE, lay_places("consumer:pause", places), places and #places or 0)
end

-- Goes on with partitions that were paused, where they were.
---@param places? { topic: string, partition: integer }[]
---@return boolean|nil done
---@return string|nil err
---@return string|nil code
function Consumer:resume(places)
  return act(self, RESUME, lay_places("consumer:resume", places), places and #places or 0)
end

-- Other topics from now on, or a pattern, or none (`{}`). What it had goes as in any rebalance: see next.
---@param topics string[]|string names, or one regular expression
---@return boolean|nil done
---@return string|nil err
---@return string|nil code
function Consumer:subscribe(topics)
  topics = type(topics) == "string" and pattern_of(topics) or topics
  check.table("consumer:subscribe", "topics", topics)
  local cells = ffi.new("struct kafka_place[?]", #topics)
  for i, topic in ipairs(topics) do
    check.string("consumer:subscribe", "topics", topic)
    cells[i - 1].topic = topic
  end
  return act(self, SUBSCRIBE, cells, #topics)
end

-- Partitions of its own choice, beside what the group's members share: for a consumer that was opened without topics.
-- `{}`: none any more.
---@param positions table<string, table<integer, integer|"earliest"|"latest"|"committed">> by topic and partition
---@return boolean|nil done
---@return string|nil err
---@return string|nil code "_STATE": it is subscribed to topics
function Consumer:assign(positions)
  check.table("consumer:assign", "positions", positions)
  local cells, count = lay_positions("consumer:assign", positions, true)
  return act(self, ASSIGN, cells, count)
end

-- Leaves the group, whose other members take over its partitions. Closing twice is no error.
function Consumer:close()
  C.bridge_kafka_group_close(worker, self.handle)
  self.closed = true
  if not self.holds then return end
  self.holds = false
  C.bridge_hold(worker, -1)
end

-- A consumer whose plugin forgot it leaves when it is collected.
local function keep(handle)
  return ffi.gc(ffi.new("double[1]", handle), function(cell) C.bridge_kafka_group_close(worker, cell[0]) end)
end

local open_consumers = setmetatable({}, { __mode = "k" })
local draining = false

-- The worker stays until it has committed what it has begun, and is closed.
local function let_finish(consumer)
  if consumer.closed or consumer.holds then return end
  consumer.holds = true
  C.bridge_hold(worker, 1)
end

-- A worker that drains leaves its groups at once: others go on with their partitions.
if worker ~= nil then
  require("sluice.runtime").on("stop", function()
    draining = true
    for consumer in pairs(open_consumers) do
      if consumer.through_drain then let_finish(consumer) else consumer:close() end
    end
  end)
end

local STARTS = { latest = LATEST, earliest = EARLIEST }

local function topics_of(options)
  if options.pattern == nil then
    check.table("kafka.group", "topics", options.topics)
    return options.topics
  end
  check.string("kafka.group", "pattern", options.pattern)
  return pattern_of(options.pattern)
end

-- What C reads, with the texts that it points to.
local function lay_options(options, topics)
  local from = options.from or "latest"
  if not STARTS[from] then check.fail("kafka.group", "no such start: " .. tostring(from), 4) end
  for _, topic in ipairs(topics) do check.string("kafka.group", "topics", topic) end
  local wanted = ffi.new("struct kafka_group_options")
  local names = ffi.new("const char *[?]", #topics + 1, topics)
  local array, count, texts = kafka_conf.pairs_of(options.properties or {})
  wanted.cluster, wanted.group = options.cluster or clusters.DEFAULT, options.group
  wanted.topics, wanted.topic_count = names, #topics
  wanted.pairs, wanted.pair_count = array, count
  wanted.from = STARTS[from]
  wanted.handover_s = options.handover or HANDOVER_SECONDS
  return { wanted = wanted, topics = topics, names = names, array = array, texts = texts }
end

local CODES = { [FULL] = "full", [NONE] = "cluster", [FAILED] = "failed" }

-- Joins a group; its partitions come later, when the group has agreed on them.
---@param options { cluster?: string, group: string, topics?: string[], pattern?: string, from?: "latest"|"earliest",
--- properties?: table<string, string|number|boolean>, handover?: number, through_drain?: boolean } `topics`: none, for
--- one that is to `subscribe` or `assign`. `pattern`: a regular expression instead, for topics that exist and those to
--- come. `from`: where to begin where the group has committed nothing, "latest" unless told. `properties`:
--- librdkafka's, over the cluster's. `handover`: seconds that a partition which is taken away stays with this member, 5
--- unless told. `through_drain`: when the worker ends, the member stays until it is closed, which its user does as soon
--- as `consumer:is_draining()`
---@return sluice.kafka.consumer|nil
---@return string|nil err
---@return "full"|"cluster"|"invalid"|"failed"|nil code "full": `consumers_max` of the cluster is reached
function group.group(options)
  check.table("kafka.group", "options", options)
  check.string("kafka.group", "group", options.group)
  if draining then return nil, "this worker ends", "failed" end
  local held = lay_options(options, topics_of(options))
  local status, handle = C.bridge_kafka_group_open(worker, held.wanted), nil
  if status == AGAIN and held then status, handle = yield() end
  if status ~= OK then
    -- Not core.reason, which has a text of its own for "full".
    local text = C.bridge_error(worker)
    return nil, text ~= nil and ffi_string(text) or "failed", CODES[status] or "invalid"
  end
  local consumer = setmetatable({ handle = handle, held = keep(handle), closed = false, holds = false,
    through_drain = options.through_drain or false }, Consumer)
  open_consumers[consumer] = true
  return consumer
end

assert(E.KAFKA_REBALANCE == REBALANCE and E.KAFKA_COMMIT == COMMIT and E.KAFKA_ASSIGN == ASSIGN)
assert(E.KAFKA_LOST == LOST and E.KAFKA_ANSWER == ANSWER and E.KAFKA_STORED == PLACES.committed)

return group
