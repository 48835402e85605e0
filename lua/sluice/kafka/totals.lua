-- SPDX-License-Identifier: Apache-2.0
-- What all workers together have done with each cluster, out of the metrics that they share: for `sluice status` and
-- `sluice top`, which any one worker answers.
local metrics = require "sluice.metrics"

local totals = {}

local PREFIX = "sluice_kafka_"
local MOST_TOPICS, MOST_LAGS = 50, 50 -- that are told of a cluster, the busiest and the longest

-- By metric: the field of a topic, and of its cluster as the sum.
local OF_TOPICS = {
  sluice_kafka_produced_records_total = "produced", sluice_kafka_produced_bytes_total = "produced_bytes",
  sluice_kafka_failed_records_total = "failed",
  sluice_kafka_consumed_records_total = "consumed", sluice_kafka_consumed_bytes_total = "consumed_bytes",
}
local OF_CLUSTERS = {
  sluice_kafka_refused_records_total = "refused", sluice_kafka_queued_records = "queued",
  sluice_kafka_readers = "readers", sluice_kafka_consumers = "consumers", sluice_kafka_cluster_up = "up",
}

local function cluster_in(all, name)
  local cluster = all[name]
  if not cluster then
    cluster = { name = name, topics = {}, lags = {}, lag = 0 }
    for _, field in pairs(OF_TOPICS) do cluster[field] = 0 end
    for _, field in pairs(OF_CLUSTERS) do cluster[field] = 0 end
    all[name] = cluster
  end
  return cluster
end

local function add_topic(cluster, name, field, value)
  local topic = cluster.topics[name]
  if not topic then
    topic = { name = name }
    for _, one in pairs(OF_TOPICS) do topic[one] = 0 end
    cluster.topics[name] = topic
  end
  topic[field] = topic[field] + value
  cluster[field] = cluster[field] + value
end

local function add_lag(cluster, labels, value)
  local key = labels.group .. "\0" .. labels.topic
  local lag = cluster.lags[key]
  if not lag then
    lag = { group = labels.group, topic = labels.topic, records = 0 }
    cluster.lags[key] = lag
  end
  lag.records, cluster.lag = lag.records + value, cluster.lag + value
end

local function add_series(all, family, series)
  local labels = series.labels
  if not labels.cluster then return end
  local cluster = cluster_in(all, labels.cluster)
  if OF_TOPICS[family] and labels.topic then
    add_topic(cluster, labels.topic, OF_TOPICS[family], series.value)
  elseif OF_CLUSTERS[family] then
    cluster[OF_CLUSTERS[family]] = series.value
  elseif family == "sluice_kafka_lag_records" then
    add_lag(cluster, labels, series.value)
  elseif family == "sluice_kafka_delivery_seconds" then
    cluster.latency = series.buckets
  end
end

local function listed(map, most, before)
  local list = {}
  for _, one in pairs(map) do list[#list + 1] = one end
  table.sort(list, before)
  for i = #list, most + 1, -1 do list[i] = nil end
  return list
end

local function busier(a, b)
  local first, second = a.produced + a.consumed, b.produced + b.consumed
  if first ~= second then return first > second end
  return a.name < b.name
end

local function longer(a, b)
  if a.records ~= b.records then return a.records > b.records end
  if a.group ~= b.group then return a.group < b.group end
  return a.topic < b.topic
end

-- The last bucket has no bound, which JSON has no number for.
local function shown_buckets(buckets)
  local list = {}
  for i, bucket in ipairs(buckets or {}) do
    list[i] = { bound = bucket.bound < math.huge and bucket.bound or nil, count = bucket.count }
  end
  return list
end

---@class sluice.kafka.totals
---@field name string of the cluster
---@field produced number records that brokers acknowledged; with `produced_bytes`
---@field failed number
---@field refused number
---@field consumed number; with `consumed_bytes`
---@field queued number
---@field readers number
---@field consumers number
---@field up number 1: some worker reaches a broker
---@field lag number records
---@field lags { group: string, topic: string, records: number }[] the longest first
---@field topics table[] the busiest first, with the fields above
---@field latency { bound?: number, count: number }[] acknowledgements by seconds, in order

---@return table<string, sluice.kafka.totals> by cluster
function totals.by_cluster()
  local all = {}
  for _, family in ipairs(metrics.families(nil, PREFIX)) do
    for _, series in ipairs(family.series) do add_series(all, family.name, series) end
  end
  for _, cluster in pairs(all) do
    cluster.topics, cluster.lags = listed(cluster.topics, MOST_TOPICS, busier), listed(cluster.lags, MOST_LAGS, longer)
    cluster.latency = shown_buckets(cluster.latency)
  end
  return all
end

return totals
