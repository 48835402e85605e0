-- SPDX-License-Identifier: Apache-2.0
-- What each worker's clusters count, added once a second to what all workers have counted, for a scrape of any of them.

local ffi = require "ffi"
local core = require "sluice.api.core"
local metrics = require "sluice.metrics"
local timer = require "sluice.timer"

local C, worker, E = core.C, core.worker, core.E
local ffi_string, tonumber, pairs = ffi.string, tonumber, pairs

local OK = 0
local PERIOD_SECONDS = 1
local LAGS_MOST = 1024
local BUCKETS = tonumber(E.KAFKA_LATENCY_BUCKETS)

local reporting = {}

local CLUSTER, TOPIC = { "cluster" }, { "cluster", "topic" }
local WHOLE = { scale = 1 }
local HIGHEST = { scale = 1, merge = "max" }

local families -- made for the first cluster

local function define()
  local bounds = {}
  for i = 0, BUCKETS - 2 do bounds[i + 1] = C.bridge_kafka_latency_bound(i) end
  families = {
    topics = { -- by field of struct kafka_topic_status
      delivered = metrics.counter("sluice_kafka_produced_records_total", "Records that brokers acknowledged", TOPIC),
      delivered_bytes = metrics.counter("sluice_kafka_produced_bytes_total",
        "Bytes of keys and values in records that brokers acknowledged", TOPIC),
      failed = metrics.counter("sluice_kafka_failed_records_total",
        "Records that were queued and not delivered", TOPIC),
      consumed = metrics.counter("sluice_kafka_consumed_records_total", "Records that came from brokers", TOPIC),
      consumed_bytes = metrics.counter("sluice_kafka_consumed_bytes_total",
        "Bytes of keys and values in records that came from brokers", TOPIC),
    },
    refused = metrics.counter("sluice_kafka_refused_records_total", "Records for which the queue had no room", CLUSTER),
    queued = metrics.gauge("sluice_kafka_queued_records",
      "Records that wait for their acknowledgement", CLUSTER, WHOLE),
    readers = metrics.gauge("sluice_kafka_readers", "Readers of topics, which share consumers", CLUSTER, WHOLE),
    consumers = metrics.gauge("sluice_kafka_consumers", "Consumers, members of groups among them", CLUSTER, WHOLE),
    up = metrics.gauge("sluice_kafka_cluster_up", "Whether a worker reaches a broker of the cluster", CLUSTER, HIGHEST),
    latency = metrics.histogram("sluice_kafka_delivery_seconds", "From being queued to being acknowledged", CLUSTER,
      { buckets = bounds, scale = 1e6 }),
    lag = metrics.gauge("sluice_kafka_lag_records",
      "Records behind the last one that was read, by group (\"\": readers of no group)",
      { "cluster", "group", "topic", "partition" }, WHOLE),
  }
end

-- ---- Counters: what has been added of a cluster, or of a topic, by field ----

local added = {}  -- by cluster: { refused =, latency = { [i] = }, latency_s =, topics = { name = { field = } } }

local function state_of(name)
  local state = added[name]
  if not state then
    state = { refused = 0, latency = {}, latency_s = 0, topics = {} }
    for i = 0, BUCKETS - 1 do state.latency[i] = 0 end
    added[name] = state
  end
  return state
end

-- What is new: a cluster that was defined anew counts from 0.
local function grown(before, now)
  return now >= before and now - before or now
end

local topic_status = ffi.new("struct kafka_topic_status")

local function add_topics(state, index, cluster)
  local nth = 0
  while C.bridge_kafka_topic_at(worker, index, nth, topic_status) == OK do
    local name = ffi_string(topic_status.name)
    local before = state.topics[name]
    if not before then
      before = {}
      state.topics[name] = before
    end
    for field, counter in pairs(families.topics) do
      local now = topic_status[field]
      local more = grown(before[field] or 0, now)
      if more > 0 then counter:add(more, cluster, name) end
      before[field] = now
    end
    nth = nth + 1
  end
end

local function add_latency(state, status, cluster)
  local seconds = grown(state.latency_s, status.latency_s)
  for i = 0, BUCKETS - 1 do
    local now = status.latency[i]
    local more = grown(state.latency[i], now)
    if more > 0 then
      families.latency:add(i + 1, more, seconds, cluster)
      seconds = 0
    end
    state.latency[i] = now
  end
  state.latency_s = status.latency_s
end

-- ---- Gauges ----

local gone = {} -- by cluster: those that were there last
local lags = ffi.new("struct kafka_lag[?]", LAGS_MOST)
local lagging = {} -- by cluster, group, topic and partition: { cluster, group, topic, partition }, as told last

local function set_lags(index, cluster, seen)
  for i = 0, C.bridge_kafka_lags(worker, index, lags, LAGS_MOST) - 1 do
    local it = lags[i]
    if it.records >= 0 then
      local group, topic, partition = ffi_string(it.group), ffi_string(it.topic), tonumber(it.partition)
      families.lag:set(it.records, cluster, group, topic, partition)
      seen[cluster .. "\0" .. group .. "\0" .. topic .. "\0" .. partition] = { cluster, group, topic, partition }
    end
  end
end

local function set_gauges(status, cluster)
  families.queued:set(tonumber(status.queued), cluster)
  families.readers:set(tonumber(status.readers), cluster)
  families.consumers:set(tonumber(status.consumers), cluster)
  families.up:set(ffi_string(status.state) == "up" and 1 or 0, cluster)
end

local function clear_gauges(cluster)
  families.queued:set(0, cluster)
  families.readers:set(0, cluster)
  families.consumers:set(0, cluster)
  families.up:set(0, cluster)
end

-- Partitions that are another's now, or nobody's.
local function clear_lags(seen)
  for key, labels in pairs(lagging) do
    if not seen[key] then families.lag:set(0, labels[1], labels[2], labels[3], labels[4]) end
  end
  lagging = seen
end

-- ---- All of it ----

local status = ffi.new("struct kafka_cluster_status")

-- Brings the shared numbers up to date with this worker's.
function reporting.publish()
  if not families then define() end
  local index, here, seen = 0, {}, {}
  while C.bridge_kafka_cluster_at(worker, index, status) == OK do
    local cluster = ffi_string(status.name)
    local state = state_of(cluster)
    here[cluster] = true
    local more = grown(state.refused, status.refused)
    if more > 0 then families.refused:add(more, cluster) end
    state.refused = status.refused
    add_topics(state, index, cluster)
    add_latency(state, status, cluster)
    set_gauges(status, cluster)
    set_lags(index, cluster, seen)
    index = index + 1
  end
  for cluster in pairs(gone) do
    if not here[cluster] then
      clear_gauges(cluster)
      added[cluster] = nil
    end
  end
  gone = here
  clear_lags(seen)
end

local started = false

-- Called when a worker has its first cluster.
function reporting.start()
  if started then return end
  started = true
  timer.every(PERIOD_SECONDS, reporting.publish)
end

return reporting
