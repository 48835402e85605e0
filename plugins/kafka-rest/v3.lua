-- SPDX-License-Identifier: Apache-2.0
-- v3: the cluster, its brokers, topics, partitions and replicas.
local calls = require "kafka-rest.call"
local errors = require "kafka-rest.errors"
local json = require "sluice.json"
local resources = require "kafka-rest.resources"
local routes = require "kafka-rest.routes"
local sluice = require "sluice"

local v3 = {}

local null = json.null
local KNOWN_S = 60 -- how long a cluster's id is believed

local ids = {} -- by name of the cluster: { id, at }

local function not_found(call, what)
  call:refuse(404, 404, what .. " cannot be found")
end

v3.not_found = not_found

local function note_id(call, metadata)
  ids[call.cluster] = { id = metadata.id, at = sluice.time.monotonic() }
  call.cluster_id = metadata.id
end

-- Whether the id in the path is the cluster's: asked of the cluster now and then.
local function check_id(call, id)
  local known = ids[call.cluster]
  if not known or known.id ~= id or sluice.time.monotonic() - known.at > KNOWN_S then
    local metadata = call:must(call.admin:metadata { "__consumer_offsets" }) -- for one topic: not the list of all
    note_id(call, metadata)
    known = ids[call.cluster]
  end
  call.cluster_id = known.id
  if known.id ~= id then not_found(call, "cluster " .. id) end
end

-- A handler below /v3/clusters/{id}.
function v3.add(method, pattern, class, handler)
  routes.add(method, "v3/clusters/*" .. pattern, class, function(call, id, ...)
    check_id(call, id)
    handler(call, ...)
  end)
end

-- What the client library has no request for. Confluent's proxy says the same of what its brokers are too old for.
function v3.unsupported(method, pattern, class, what)
  v3.add(method, pattern, class, function(call)
    call:refuse(400, errors.BAD_REQUEST, "this gateway cannot " .. what)
  end)
end

-- One topic, or the end of the phase.
function v3.topic(call, name)
  return call:must(call.admin:topic(name))
end

local function partition_of(call, topic, id)
  for _, partition in ipairs(topic.partitions) do
    if partition.id == calls.integer(id) then return partition end
  end
  call:refuse(404, errors.UNKNOWN_TOPIC_OR_PARTITION, "topic " .. topic.name .. " has no partition " .. id)
end

-- ---- Clusters and brokers ------------------------------------------------------------------------------------------

routes.add("GET", "v3/clusters", "read", function(call)
  local metadata = call:must(call.admin:metadata { "__consumer_offsets" })
  note_id(call, metadata)
  call:answer(200, resources.list("KafkaClusterList", call:base_url() .. "/v3/clusters",
    { resources.cluster(call, metadata) }))
end)

v3.add("GET", "", "read", function(call)
  call:answer(200, resources.cluster(call, call:must(call.admin:metadata { "__consumer_offsets" })))
end)

local function brokers_of(call)
  local brokers = call:must(call.admin:metadata { "__consumer_offsets" }).brokers
  table.sort(brokers, function(a, b) return a.id < b.id end)
  return brokers
end

v3.brokers = brokers_of

-- One broker, or the end of the phase.
function v3.broker(call, id)
  for _, broker in ipairs(brokers_of(call)) do
    if broker.id == calls.integer(id) then return broker end
  end
  not_found(call, "broker " .. id)
end

v3.add("GET", "/brokers", "read", function(call)
  local data = {}
  for i, broker in ipairs(brokers_of(call)) do data[i] = resources.broker(call, broker) end
  call:answer(200, resources.list("KafkaBrokerList", resources.url(call, "brokers"), data))
end)

v3.add("GET", "/brokers/*", "read", function(call, id)
  call:answer(200, resources.broker(call, v3.broker(call, id)))
end)

v3.add("GET", "/brokers/*/partition-replicas", "read", function(call, id)
  local broker, data = v3.broker(call, id), {}
  for _, topic in ipairs(call:must(call.admin:metadata()).topics) do
    for _, partition in ipairs(topic.partitions) do
      for _, replica in ipairs(partition.replicas) do
        if replica == broker.id then data[#data + 1] = resources.replica(call, topic.name, partition, replica) end
      end
    end
  end
  call:answer(200, resources.list("KafkaReplicaList", resources.url(call, "brokers", id, "partition-replicas"), data))
end)

-- ---- Topics --------------------------------------------------------------------------------------------------------

v3.add("GET", "/topics", "read", function(call)
  local topics, data = call:must(call.admin:metadata()).topics, {}
  table.sort(topics, function(a, b) return a.name < b.name end)
  for i, topic in ipairs(topics) do data[i] = resources.topic(call, topic) end
  call:answer(200, resources.list("KafkaTopicList", resources.url(call, "topics"), data))
end)

v3.add("GET", "/topics/*", "read", function(call, name)
  call:answer(200, resources.topic(call, v3.topic(call, name)))
end)

local function integer_or_nil(call, body, name)
  local value = body[name]
  if value == nil or value == null then return nil end
  if type(value) ~= "number" or value % 1 ~= 0 then call:refuse(400, 400, name .. " must be an integer") end
  return value
end

-- [{ partition_id, broker_ids }] to a list of brokers by partition.
local function assignment_of(call, body)
  local wanted, list = body.replicas_assignments, {}
  if wanted == nil or wanted == null then return nil end
  local function refuse()
    call:refuse(400, 400, "replicas_assignments must name the brokers of each partition from 0")
  end
  if type(wanted) ~= "table" or #wanted == 0 then refuse() end
  for _, entry in ipairs(wanted) do
    local id = type(entry) == "table" and entry.partition_id
    if type(id) ~= "number" or type(entry.broker_ids) ~= "table" or list[id + 1] then refuse() end
    for _, broker in ipairs(entry.broker_ids) do
      if type(broker) ~= "number" then refuse() end
    end
    list[id + 1] = entry.broker_ids
  end
  for i = 1, #wanted do
    if not list[i] then refuse() end
  end
  return list
end

local function configs_of(call, body)
  local configs = {}
  if body.configs == nil or body.configs == null then return configs end
  if type(body.configs) ~= "table" then call:refuse(400, 400, "configs must be a list") end
  for _, entry in ipairs(body.configs) do
    if type(entry) ~= "table" or type(entry.name) ~= "string" then
      call:refuse(400, 400, "configs must have names and values")
    end
    if entry.value ~= nil and entry.value ~= null then configs[entry.name] = tostring(entry.value) end
  end
  return configs
end

local NOT_YET = { UNKNOWN_TOPIC_OR_PART = true, LEADER_NOT_AVAILABLE = true }

-- Brokers learn of what the controller has done some time later, a busy one seconds: asks until one tells of a topic
-- with so many partitions, within the time of a request. Else the last that was told; nil: of none.
local function told_topic(call, name, partitions)
  local deadline, topic = sluice.time.monotonic() + call.conf.timeout / 1000, nil
  while true do
    local found, _, code = call.admin:topic(name)
    topic = found or topic
    if topic and #topic.partitions >= partitions then return topic end
    if not found and not NOT_YET[code] or sluice.time.monotonic() >= deadline then return topic end
    sluice.sleep(0.02)
  end
end

-- A topic that was made just now, once its metadata are out; else as it was asked for.
local function made_topic(call, wanted)
  local topic = not wanted.validate_only and told_topic(call, wanted.topic, 1)
  if topic and #topic.partitions > 0 then return topic end
  local partitions, replicas = {}, {}
  for i = 1, wanted.replicas or wanted.assignment and #wanted.assignment[1] or 0 do replicas[i] = i end
  for i = 1, wanted.partitions or wanted.assignment and #wanted.assignment or 0 do
    partitions[i] = { id = i - 1, leader = -1, replicas = replicas, isr = {} }
  end
  return { name = wanted.topic, partitions = partitions }
end

v3.add("POST", "/topics", "admin", function(call)
  local body = call:body()
  if type(body.topic_name) ~= "string" or body.topic_name == "" then
    call:refuse(400, 400, "topic_name must be the topic's name")
  end
  local wanted = {
    topic = body.topic_name, partitions = integer_or_nil(call, body, "partitions_count"),
    replicas = integer_or_nil(call, body, "replication_factor"), assignment = assignment_of(call, body),
    config = configs_of(call, body), validate_only = body.validate_only == true,
  }
  call:must(call.admin:create_topic(wanted))
  local topic = resources.topic(call, made_topic(call, wanted))
  call:answer(wanted.validate_only and 200 or 201, topic, { Location = topic.metadata.self })
end)

v3.add("DELETE", "/topics/*", "admin", function(call, name)
  call:must(call.admin:delete_topic(name))
  call:answer(204)
end)

v3.add("PATCH", "/topics/*", "admin", function(call, name)
  local count = integer_or_nil(call, call:body(), "partitions_count")
  if not count or count < 1 then call:refuse(400, 400, "partitions_count must be how many there shall be") end
  call:must(call.admin:create_partitions(name, count))
  call:answer(200, resources.topic(call, told_topic(call, name, count) or v3.topic(call, name)))
end)

-- ---- Partitions and replicas ---------------------------------------------------------------------------------------

v3.add("GET", "/topics/*/partitions", "read", function(call, name)
  local data = {}
  for i, partition in ipairs(v3.topic(call, name).partitions) do
    data[i] = resources.partition(call, name, partition)
  end
  call:answer(200, resources.list("KafkaPartitionList", resources.url(call, "topics", name, "partitions"), data))
end)

v3.add("GET", "/topics/*/partitions/*", "read", function(call, name, id)
  call:answer(200, resources.partition(call, name, partition_of(call, v3.topic(call, name), id)))
end)

v3.add("GET", "/topics/*/partitions/*/replicas", "read", function(call, name, id)
  local partition, data = partition_of(call, v3.topic(call, name), id), {}
  for i, broker in ipairs(partition.replicas) do data[i] = resources.replica(call, name, partition, broker) end
  call:answer(200, resources.list("KafkaReplicaList",
    resources.url(call, "topics", name, "partitions", id, "replicas"), data))
end)

v3.add("GET", "/topics/*/partitions/*/replicas/*", "read", function(call, name, id, broker)
  local partition = partition_of(call, v3.topic(call, name), id)
  for _, replica in ipairs(partition.replicas) do
    if replica == calls.integer(broker) then
      call:answer(200, resources.replica(call, name, partition, replica))
    end
  end
  not_found(call, "a replica at broker " .. broker)
end)

for _, pattern in ipairs { "/topics/-/partitions/-", "/topics/*/partitions/-", "/topics/*/partitions/*" } do
  v3.unsupported("GET", pattern .. "/reassignment", "read", "ask for reassignments of partitions")
end

return v3
