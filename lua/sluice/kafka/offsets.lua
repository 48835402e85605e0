-- SPDX-License-Identifier: Apache-2.0
-- Where the partitions of a topic begin, end, or stood at a time.

local ffi = require "ffi"
local administration = require "sluice.kafka.admin"
local check = require "sluice.api.check"
local core = require "sluice.api.core"

local C, worker, E = core.C, core.worker, core.E
local tonumber, tostring, type, ipairs = tonumber, tostring, type, ipairs

local OK, FAILED = 0, -6
local TIMES = { latest = -1, earliest = -2 }

local positions = {}

local cell = ffi.new("double[1]")

-- Of topics in memory. Nil: there is a cluster to ask.
local function in_memory(topic, at)
  local offsets, partition = {}, 0
  local status = C.bridge_kafka_memory_offset(worker, topic, partition, at, cell)
  if status == FAILED then return nil end
  while status == OK do
    offsets[partition] = tonumber(cell[0])
    partition = partition + 1
    status = C.bridge_kafka_memory_offset(worker, topic, partition, at, cell)
  end
  return offsets
end

local function partitions_of(admin, options)
  local topic, err, code = admin:topic(options.topic)
  if not topic then return nil, err, code end
  local list = {}
  for _, partition in ipairs(topic.partitions) do
    list[#list + 1] = { topic = options.topic, partition = partition.id, at = options.at }
  end
  return list
end

-- Asks for `list`; partitions that have nothing so late are listed again, to be asked for their ends.
local function ask(admin, list, offsets)
  local found, err, code = admin:offsets(list)
  if not found then return nil, err, code end
  local late = {}
  for _, one in ipairs(found) do
    if one.error then return nil, one.error.text, one.error.code end
    if one.offset and one.offset >= 0 then
      offsets[one.partition] = one.offset
    else
      late[#late + 1] = { topic = one.topic, partition = one.partition, at = "latest" }
    end
  end
  return late
end

-- One offset a partition: "earliest", of the oldest record that is there; "latest", behind the newest one; a time in
-- milliseconds since 1970, of the first record not older, or "latest" where there is none.
---@param options { cluster?: string, topic: string, at: "earliest"|"latest"|number, timeout?: number }
---@return table<integer, integer>|nil offsets by partition
---@return string|nil err
---@return string|nil code "full", "cluster", "closed" or Kafka's name, such as "UNKNOWN_TOPIC_OR_PART"
function positions.offsets(options)
  check.table("kafka.offsets", "options", options)
  check.string("kafka.offsets", "topic", options.topic)
  local at = TIMES[options.at] or options.at
  if type(at) ~= "number" then check.fail("kafka.offsets", "no such time: " .. tostring(at), 3) end
  local offsets = in_memory(options.topic, at)
  if offsets then return offsets end
  local admin = administration.admin(options.cluster, { timeout = options.timeout })
  local list, err, code = partitions_of(admin, options)
  if not list then return nil, err, code end
  offsets = {}
  list, err, code = ask(admin, list, offsets)
  if list and #list > 0 then list, err, code = ask(admin, list, offsets) end
  if not list then return nil, err, code end
  return offsets
end

assert(E.KAFKA_LATEST == TIMES.latest and E.KAFKA_EARLIEST == TIMES.earliest)

return positions
