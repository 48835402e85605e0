-- SPDX-License-Identifier: Apache-2.0
-- v2: topics, partitions, offsets and brokers.
local calls = require "kafka-rest.call"
local errors = require "kafka-rest.errors"
local json = require "sluice.json"
local routes = require "kafka-rest.routes"

local v2 = {}

-- A handler of v2, which answers in one of v2's types.
function v2.add(method, pattern, class, handler)
  routes.add(method, pattern, class, function(call, ...)
    call:begin_v2()
    handler(call, ...)
  end)
end

function v2.partition(call, topic, id)
  for _, partition in ipairs(topic.partitions) do
    if partition.id == calls.integer(id) then return partition end
  end
  call:refuse(404, errors.PARTITION_NOT_FOUND, "topic " .. topic.name .. " has no partition " .. id)
end

local function partition_view(partition)
  local in_sync, replicas = {}, {}
  for _, broker in ipairs(partition.isr) do in_sync[broker] = true end
  for i, broker in ipairs(partition.replicas) do
    replicas[i] = { broker = broker, leader = broker == partition.leader, in_sync = in_sync[broker] or false }
  end
  return { partition = partition.id, leader = partition.leader, replicas = json.array(replicas) }
end

local function partition_views(topic)
  local views = {}
  for i, partition in ipairs(topic.partitions) do views[i] = partition_view(partition) end
  return json.array(views)
end

routes.add("GET", "", "read", function(call)
  call:begin_v2()
  call:answer(200, "{}")
end)

v2.add("GET", "brokers", "read", function(call)
  local ids = {}
  for i, broker in ipairs(call:must(call.admin:metadata { "__consumer_offsets" }).brokers) do ids[i] = broker.id end
  table.sort(ids)
  call:answer(200, { brokers = json.array(ids) })
end)

v2.add("GET", "topics", "read", function(call)
  local names = {}
  for i, topic in ipairs(call:must(call.admin:metadata()).topics) do names[i] = topic.name end
  table.sort(names)
  call:answer(200, json.array(names))
end)

v2.add("GET", "topics/*", "read", function(call, name)
  local topic, configs = call:must(call.admin:topic(name)), {}
  for _, entry in ipairs(call:must(call.admin:configs("topic", name))) do configs[entry.name] = entry.value end
  call:answer(200, { name = name, configs = configs, partitions = partition_views(topic) })
end)

v2.add("GET", "topics/*/partitions", "read", function(call, name)
  call:answer(200, partition_views(call:must(call.admin:topic(name))))
end)

v2.add("GET", "topics/*/partitions/*", "read", function(call, name, id)
  call:answer(200, partition_view(v2.partition(call, call:must(call.admin:topic(name)), id)))
end)

local function offset_at(call, topic, partition, at)
  local found = call:must(call.admin:offsets { { topic = topic, partition = partition, at = at } })[1]
  if found.error then call:refuse_kafka(found.error.text, found.error.code) end
  return found.offset
end

v2.add("GET", "topics/*/partitions/*/offsets", "read", function(call, name, id)
  local partition = v2.partition(call, call:must(call.admin:topic(name)), id).id
  call:answer(200, { beginning_offset = offset_at(call, name, partition, "earliest"),
    end_offset = offset_at(call, name, partition, "latest") })
end)

return v2
