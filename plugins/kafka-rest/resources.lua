-- SPDX-License-Identifier: Apache-2.0
-- Things of a cluster as v3 shows them: each says its kind, where it is, and where what belongs to it is.
local json = require "sluice.json"

local null = json.null

local resources = {}

local INTERNAL = { __consumer_offsets = true, __transaction_state = true, __share_group_state = true,
  __cluster_metadata = true }

local STATES = { Stable = "STABLE", Empty = "EMPTY", Dead = "DEAD", PreparingRebalance = "PREPARING_REBALANCE",
  CompletingRebalance = "COMPLETING_REBALANCE" }

local function escape(text)
  return (tostring(text):gsub("[^%w%-._~]", function(char) return ("%%%02X"):format(char:byte()) end))
end

-- A URL below the cluster.
---@return string
function resources.url(call, ...)
  local parts = { call:base_url(), "v3", "clusters", escape(call.cluster_id) }
  for i = 1, select("#", ...) do parts[#parts + 1] = escape((select(i, ...))) end
  return table.concat(parts, "/")
end

local url = resources.url

local function related(...)
  return { related = url(...) }
end

local function crn(call, rest)
  return "crn:///kafka=" .. call.cluster_id .. (rest or "")
end

local function whole(call, kind, self, name, fields)
  fields.kind = kind
  fields.metadata = { self = self, resource_name = crn(call, name) }
  fields.cluster_id = call.cluster_id
  return fields
end

-- A list of them.
---@param kind string of the list
---@param self string
---@param data table[]
function resources.list(kind, self, data)
  return { kind = kind, metadata = { self = self, next = null }, data = json.array(data) }
end

function resources.cluster(call, metadata)
  return whole(call, "KafkaCluster", url(call), nil, {
    controller = metadata.controller >= 0 and related(call, "brokers", metadata.controller) or nil,
    acls = related(call, "acls"), brokers = related(call, "brokers"), broker_configs = related(call, "broker-configs"),
    consumer_groups = related(call, "consumer-groups"), topics = related(call, "topics"),
    partition_reassignments = related(call, "topics", "-", "partitions", "-", "reassignment"),
  })
end

function resources.broker(call, broker)
  return whole(call, "KafkaBroker", url(call, "brokers", broker.id), "/broker=" .. broker.id, {
    broker_id = broker.id, host = broker.host, port = broker.port,
    configs = related(call, "brokers", broker.id, "configs"),
    partition_replicas = related(call, "brokers", broker.id, "partition-replicas"),
  })
end

function resources.topic(call, topic)
  local name, partitions = topic.name, topic.partitions
  return whole(call, "KafkaTopic", url(call, "topics", name), "/topic=" .. name, {
    topic_name = name, is_internal = INTERNAL[name] or false, partitions_count = #partitions,
    replication_factor = partitions[1] and #partitions[1].replicas or 0,
    partitions = related(call, "topics", name, "partitions"), configs = related(call, "topics", name, "configs"),
    partition_reassignments = related(call, "topics", name, "partitions", "-", "reassignment"),
  })
end

function resources.partition(call, topic, partition)
  local id = partition.id
  return whole(call, "KafkaPartition", url(call, "topics", topic, "partitions", id),
    "/topic=" .. topic .. "/partition=" .. id, {
      topic_name = topic, partition_id = id,
      leader = partition.leader >= 0 and
        related(call, "topics", topic, "partitions", id, "replicas", partition.leader) or nil,
      replicas = related(call, "topics", topic, "partitions", id, "replicas"),
      reassignment = related(call, "topics", topic, "partitions", id, "reassignment"),
    })
end

function resources.replica(call, topic, partition, broker)
  local in_sync = false
  for _, id in ipairs(partition.isr) do in_sync = in_sync or id == broker end
  return whole(call, "KafkaReplica", url(call, "topics", topic, "partitions", partition.id, "replicas", broker),
    "/topic=" .. topic .. "/partition=" .. partition.id .. "/replica=" .. broker, {
      topic_name = topic, partition_id = partition.id, broker_id = broker,
      is_leader = partition.leader == broker, is_in_sync = in_sync, broker = related(call, "brokers", broker),
    })
end

-- `owner`: what it is a configuration of: { kind, path (below the cluster), name (in the crn), fields }.
function resources.config(call, owner, entry)
  local synonyms = {}
  for i, synonym in ipairs(entry.synonyms) do
    synonyms[i] = { name = synonym.name, value = synonym.value or null, source = synonym.source }
  end
  local path = { unpack(owner.path) }
  path[#path + 1] = entry.name
  local fields = {
    name = entry.name, value = entry.value or null, is_default = entry.default, is_read_only = entry.read_only,
    is_sensitive = entry.sensitive, source = entry.source, synonyms = json.array(synonyms),
  }
  for name, value in pairs(owner.fields) do fields[name] = value end
  return whole(call, owner.kind, url(call, unpack(path)), owner.name .. entry.name, fields)
end

function resources.group_state(group)
  return STATES[group.state] or "UNKNOWN"
end

function resources.group(call, group)
  local id = group.id
  return whole(call, "KafkaConsumerGroup", url(call, "consumer-groups", id), "/consumer-group=" .. id, {
    consumer_group_id = id, is_simple = group.simple, partition_assignor = group.assignor or "",
    state = resources.group_state(group), coordinator = related(call, "brokers", group.coordinator or -1),
    consumers = related(call, "consumer-groups", id, "consumers"),
    consumer = related(call, "consumer-groups", id, "consumers"),
    lag_summary = related(call, "consumer-groups", id, "lag-summary"),
  })
end

function resources.consumer(call, group, member)
  return whole(call, "KafkaConsumer", url(call, "consumer-groups", group, "consumers", member.id),
    "/consumer-group=" .. group .. "/consumer=" .. member.id, {
      consumer_group_id = group, consumer_id = member.id, instance_id = member.instance_id or null,
      client_id = member.client_id, assignments = related(call, "consumer-groups", group, "consumers", member.id,
        "assignments"),
    })
end

function resources.assignment(call, group, member, place)
  local topic, partition = place.topic, place.partition
  return whole(call, "KafkaConsumerAssignment",
    url(call, "consumer-groups", group, "consumers", member.id, "assignments", topic, "partitions", partition),
    "/consumer-group=" .. group .. "/consumer=" .. member.id .. "/assignment=" .. topic .. "/partition=" .. partition, {
      consumer_group_id = group, consumer_id = member.id, topic_name = topic, partition_id = partition,
      partition = related(call, "topics", topic, "partitions", partition),
      lag = related(call, "consumer-groups", group, "lags", topic, "partitions", partition),
    })
end

-- `lag`: see v3_groups.
function resources.lag(call, group, lag)
  return whole(call, "KafkaConsumerLag",
    url(call, "consumer-groups", group, "lags", lag.topic, "partitions", lag.partition),
    "/consumer-group=" .. group .. "/lag=" .. lag.topic .. "/partition=" .. lag.partition, {
      consumer_group_id = group, topic_name = lag.topic, partition_id = lag.partition, current_offset = lag.current,
      log_end_offset = lag.log_end, lag = lag.lag, consumer_id = lag.member and lag.member.id or "",
      instance_id = lag.member and lag.member.instance_id or null,
      client_id = lag.member and lag.member.client_id or "",
    })
end

function resources.lag_summary(call, group, most, total)
  local member = most.member
  return whole(call, "KafkaConsumerGroupLagSummary", url(call, "consumer-groups", group, "lag-summary"),
    "/consumer-group=" .. group .. "/lag-summary", {
      consumer_group_id = group, max_lag_consumer_id = member and member.id or "",
      max_lag_instance_id = member and member.instance_id or null,
      max_lag_client_id = member and member.client_id or "",
      max_lag_topic_name = most.topic, max_lag_partition_id = most.partition, max_lag = most.lag, total_lag = total,
      max_lag_consumer = related(call, "consumer-groups", group, "consumers", member and member.id or ""),
      max_lag_partition = related(call, "topics", most.topic, "partitions", most.partition),
    })
end

local ACL_FIELDS = { "resource_type", "resource_name", "pattern_type", "principal", "host", "operation", "permission" }

function resources.acl(call, acl)
  local query, fields = {}, {}
  for i, name in ipairs(ACL_FIELDS) do
    query[i] = name .. "=" .. escape(acl[name] or "")
    fields[name] = acl[name]
  end
  local made = whole(call, "KafkaAcl", url(call, "acls") .. "?" .. table.concat(query, "&"), nil, fields)
  made.metadata.resource_name = nil
  return made
end

resources.ACL_FIELDS = ACL_FIELDS

return resources
