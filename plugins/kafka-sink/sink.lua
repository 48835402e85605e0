-- SPDX-License-Identifier: Apache-2.0
-- One instance in one worker: a member of the consumer group reads, hands over, and commits what has arrived.
--
--   next ──record──> lanes ──> service          what is read and not yet done is bounded: then nothing is asked for
--    │                          │
--    └──rebalance: queued ones  └──> offsets ──> commit, a while after
--       are dropped, those on their way may arrive
local bell = require "sluice.bell"
local calls = require "sluice.calls"
local delivery = require "kafka-sink.delivery"
local kafka = require "sluice.kafka"
local offsets = require "kafka-sink.offsets"
local sluice = require "sluice"

local log, metrics, time = sluice.log, sluice.metrics, sluice.time

local sink = {}

local LOOK_S = 0.5         -- how often it looks whether it is still wanted
local WAIT_S = 0.1         -- the same before
local LIVE_S = 60          -- a configuration that has not come into use by then will not
local PULSE_S = 1
local SILENT_S = 10        -- without a pulse the code of this sink has been replaced
local AGAIN_S, AGAIN_MOST_S = 1, 30
local COMMIT_S = 5         -- that a commit may take
local LAG_EVERY_S = 5
local HANDOVER_S = 15      -- that records on their way have, when their partition goes to another member
local RECORD_BYTES = 1024  -- that a record takes beside its texts

local lag = metrics.gauge("sluice_kafka_sink_lag", "Records of a partition that have not been committed yet",
  { "group", "topic", "partition" })

local Sink = {}
Sink.__index = Sink

-- ---- Partitions -----------------------------------------------------------------------------------------------------

local function partition_of(self, topic, number)
  local of_topic = self.partitions[topic]
  if not of_topic then
    of_topic = {}
    self.partitions[topic] = of_topic
  end
  local partition = of_topic[number]
  if not partition then
    partition = offsets.new(topic, number)
    of_topic[number] = partition
  end
  return partition
end

local function each_partition(self, fn)
  for _, of_topic in pairs(self.partitions) do
    for _, partition in pairs(of_topic) do fn(partition) end
  end
end

local function size_of(record)
  local size = RECORD_BYTES + #(record.value or "") + #(record.key or "")
  for _, header in ipairs(record.headers) do size = size + #header[1] + #(header[2] or "") end
  return size
end

local function take(self, record)
  local partition = partition_of(self, record.topic, record.partition)
  local item = { record = record, offset = record.offset, partition = partition, size = size_of(record),
    read_at = time.monotonic(), done = false }
  if self.conf.order == "partition" then
    item.key = partition
  else -- a record without a key stands in no order
    item.key = record.key and record.topic .. "\1" .. record.partition .. "\1" .. record.key or item
  end
  partition:begin(item)
  self.delivery:add(item)
end

-- ---- Commit ---------------------------------------------------------------------------------------------------------

-- Where the given partitions (all) have come to, as the group is told; nil: nowhere new.
local function moved(self, is_wanted)
  local positions, list = {}, {}
  each_partition(self, function(partition)
    if partition:has_moved() and (not is_wanted or is_wanted(partition)) then
      positions[partition.topic] = positions[partition.topic] or {}
      positions[partition.topic][partition.number] = partition.position
      list[#list + 1] = { partition = partition, position = partition.position }
    end
  end)
  return list[1] and positions, list
end

local function commit(self, is_wanted)
  self.committed_at = time.monotonic()
  local positions, list = moved(self, is_wanted)
  if not positions then return end
  local ok, err, code = self.consumer:commit(positions, COMMIT_S)
  if ok then
    for _, one in ipairs(list) do one.partition.committed = one.position end
  elseif code ~= "closed" then
    log.warn("how far a group has come was not committed; it will be tried again",
      { group = self.conf.group, error = err, code = code })
  end
end

local function commit_if_due(self)
  if time.monotonic() - self.committed_at >= self.conf.commit_interval / 1000 then commit(self) end
end

-- ---- Partitions that go ---------------------------------------------------------------------------------------------

-- Lets what was begun in some partitions arrive, and forgets the rest of them. Not when the service is away.
local function wind_up(self, list, how_long)
  for _, partition in ipairs(list) do partition:cut() end
  local leaving = {}
  for _, partition in ipairs(list) do leaving[partition] = true end
  self.delivery.lanes:drop(function(item) return leaving[item.partition] and item.offset > item.partition.furthest end)
  local deadline = time.monotonic() + how_long
  for _, partition in ipairs(list) do
    while not partition:is_through() and not self.delivery.away do
      local left = deadline - time.monotonic()
      if left <= 0 then break end
      self.room:wait(math.min(left, LOOK_S))
    end
    partition.lost = true
  end
  self.delivery.lanes:drop(function(item) return item.partition.lost end)
end

local function is_lost(partition)
  return partition.lost
end

-- Others go on behind what is committed before the next look at the topic.
local function hand_over(self)
  local list = {}
  for _, place in ipairs(self.consumer:lost()) do
    local of_topic = self.partitions[place.topic]
    list[#list + 1] = of_topic and of_topic[place.partition]
  end
  wind_up(self, list, HANDOVER_S - 1)
  commit(self, is_lost)
  for _, partition in ipairs(list) do
    self.partitions[partition.topic][partition.number] = nil
    lag:set(0, self.conf.group, partition.topic, ("%d"):format(partition.number))
  end
end

-- ---- Reading --------------------------------------------------------------------------------------------------------

local function is_wanted(self)
  return calls.is_live(self.conf) and not self.consumer:is_draining() and time.monotonic() - self.pulse < SILENT_S
end

-- One look. False: the consumer is of no more use.
local function look(self)
  if self.delivery.failed then error(self.delivery.failed, 0) end
  if self.delivery:is_full() then
    self.room:wait(LOOK_S)
    return true
  end
  local record, err, code = self.consumer:next(LOOK_S)
  if record then
    take(self, record)
  elseif err == "rebalance" then
    hand_over(self)
  elseif err == "gap" then
    log.warn("records were gone before they could be read", { group = self.conf.group })
  elseif err ~= "timeout" then
    if code == "closed" or code == "_FATAL" then return false, err end
    if time.monotonic() - self.said_at > 10 then
      self.said_at = time.monotonic()
      log.warn("a topic cannot be read", { group = self.conf.group, error = err, code = code })
    end
    sluice.sleep(LOOK_S)
  end
  return true
end

-- What is on its way may arrive; the rest is for others.
local function finish(self)
  local list = {}
  each_partition(self, function(partition) list[#list + 1] = partition end)
  wind_up(self, list, self.conf.timeout / 1000)
  self.delivery.stopping = true
  commit(self)
end

local function read(self)
  while is_wanted(self) do
    local good, err = look(self)
    if not good then return err end
    commit_if_due(self)
    self.delivery:publish()
  end
  finish(self)
end

-- ---- Lag ------------------------------------------------------------------------------------------------------------

-- How far the ends of its partitions are; in a coroutine of its own, since the cluster is asked.
local function measure_lag(self)
  if not self.consumer then return end
  local asked = {}
  for _, place in ipairs(self.consumer:assignment()) do
    asked[#asked + 1] = { topic = place.topic, partition = place.partition }
  end
  if not asked[1] then return end
  for _, place in ipairs(kafka.admin(self.cluster):offsets(asked) or {}) do
    local partition = (self.partitions[place.topic] or {})[place.partition]
    if partition and partition.position and not place.error then
      lag:set(math.max(0, place.offset - partition.committed), self.conf.group, place.topic,
        ("%d"):format(place.partition))
    end
  end
end

-- ---- Life -----------------------------------------------------------------------------------------------------------

local function on_room(self)
  self.room:ring()
end

local function begin(self)
  self.partitions, self.committed_at, self.said_at = {}, time.monotonic(), 0
  self.delivery = delivery.new(self.conf, self.cluster, on_room, self)
  local service = calls.service(self.conf)
  self.delivery.service = service and service.name or ""
end

local function join(self)
  local conf = self.conf
  return kafka.group { cluster = self.cluster, group = conf.group, topics = conf.topics, from = conf.from,
    handover = HANDOVER_S, through_drain = true }
end

local function has_pulse(self)
  return time.monotonic() - self.pulse < SILENT_S
end

-- Whether the instance comes into use, or is back soon, as when its service was disabled for a moment.
local function comes_live(self)
  local deadline = time.monotonic() + LIVE_S
  while not calls.is_live(self.conf) and has_pulse(self) and time.monotonic() < deadline do sluice.sleep(WAIT_S) end
  return calls.is_live(self.conf) and has_pulse(self)
end

-- One membership, to its end. True: the worker ends; nil and why: it could not be had, or failed.
local function serve(self)
  local consumer, err = join(self)
  if not consumer then return nil, err end
  self.consumer = consumer
  begin(self)
  local ok, why = pcall(read, self)
  self.consumer = nil
  self.delivery.stopping = true
  local draining = consumer:is_draining()
  consumer:close()
  self.delivery:unpublish()
  if not ok then log.err("a sink failed, and begins anew", { group = self.conf.group, error = why }) end
  return draining, why
end

-- As long as the instance is one of the running configuration.
local function run(self)
  local pause = AGAIN_S
  while comes_live(self) do
    local draining, err = serve(self)
    if draining then break end
    if err then
      log.warn("a group cannot be joined, trying again", { group = self.conf.group, error = err })
      sluice.sleep(pause)
      pause = math.min(pause * 2, AGAIN_MOST_S)
    else
      pause = AGAIN_S
    end
  end
  self.pulses:cancel()
  self.lags:cancel()
  self.ended = true
end

local function beat(self)
  self.pulse = time.monotonic()
end

-- Begins as soon as the configuration comes into use.
---@param conf table
---@param cluster string
function sink.start(conf, cluster)
  local self = setmetatable({ conf = conf, cluster = cluster, pulse = time.monotonic(), room = bell.new() }, Sink)
  self.pulses = sluice.timer.every(PULSE_S, beat, self)
  self.lags = sluice.timer.every(LAG_EVERY_S, measure_lag, self)
  sluice.timer.at(0, run, self)
  return self
end

return sink
