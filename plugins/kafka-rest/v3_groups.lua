-- SPDX-License-Identifier: Apache-2.0
-- v3: consumer groups, their members, and how far they are behind.
local calls = require "kafka-rest.call"
local resources = require "kafka-rest.resources"
local v3 = require "kafka-rest.v3"

local url = resources.url

-- Kafka says of a group that does not exist that it is dead.
local function group_of(call, id)
  local group = call:must(call.admin:group(id))
  if group.state == "Dead" then v3.not_found(call, "consumer group " .. id) end
  return group
end

local function member_of(call, group, id)
  for _, member in ipairs(group.members) do
    if member.id == id then return member end
  end
  v3.not_found(call, "consumer " .. id)
end

v3.add("GET", "/consumer-groups", "read", function(call)
  local ids, data = {}, {}
  for i, group in ipairs(call:must(call.admin:groups())) do ids[i] = group.id end
  table.sort(ids)
  for _, group in ipairs(call:must(call.admin:describe_groups(ids))) do
    if not group.error then data[#data + 1] = resources.group(call, group) end
  end
  call:answer(200, resources.list("KafkaConsumerGroupList", url(call, "consumer-groups"), data))
end)

v3.add("GET", "/consumer-groups/*", "read", function(call, id)
  call:answer(200, resources.group(call, group_of(call, id)))
end)

v3.add("GET", "/consumer-groups/*/consumers", "read", function(call, id)
  local data = {}
  for i, member in ipairs(group_of(call, id).members) do data[i] = resources.consumer(call, id, member) end
  call:answer(200, resources.list("KafkaConsumerList", url(call, "consumer-groups", id, "consumers"), data))
end)

v3.add("GET", "/consumer-groups/*/consumers/*", "read", function(call, id, consumer)
  call:answer(200, resources.consumer(call, id, member_of(call, group_of(call, id), consumer)))
end)

v3.add("GET", "/consumer-groups/*/consumers/*/assignments", "read", function(call, id, consumer)
  local member, data = member_of(call, group_of(call, id), consumer), {}
  for i, place in ipairs(member.assignment) do data[i] = resources.assignment(call, id, member, place) end
  call:answer(200, resources.list("KafkaConsumerAssignmentList",
    url(call, "consumer-groups", id, "consumers", consumer, "assignments"), data))
end)

v3.add("GET", "/consumer-groups/*/consumers/*/assignments/*/partitions/*", "read",
  function(call, id, consumer, topic, partition)
    local member = member_of(call, group_of(call, id), consumer)
    for _, place in ipairs(member.assignment) do
      if place.topic == topic and place.partition == calls.integer(partition) then
        call:answer(200, resources.assignment(call, id, member, place))
      end
    end
    v3.not_found(call, "assignment of " .. topic .. "/" .. partition)
  end)

-- ---- Lags ----------------------------------------------------------------------------------------------------------

local function place_key(place)
  return place.partition .. "/" .. place.topic
end

local function members_by_place(group)
  local members = {}
  for _, member in ipairs(group.members) do
    for _, place in ipairs(member.assignment) do members[place_key(place)] = member end
  end
  return members
end

---@class kafka-rest.lag
---@field topic string
---@field partition integer
---@field current integer offset that the group has committed
---@field log_end integer
---@field lag integer
---@field member table|nil

-- Of each partition that the group has committed, where it still exists.
---@return kafka-rest.lag[]
local function lags_of(call, id)
  local group = group_of(call, id)
  local committed, places = call:must(call.admin:committed(id)), {}
  for _, place in ipairs(committed) do
    if place.offset >= 0 and not place.error then places[#places + 1] = place end
  end
  local members, lags = members_by_place(group), {}
  for i, last in ipairs(call:must(call.admin:offsets(places))) do
    local place = places[i]
    if not last.error and last.offset >= 0 then
      lags[#lags + 1] = { topic = place.topic, partition = place.partition, current = place.offset,
        log_end = last.offset, lag = math.max(0, last.offset - place.offset), member = members[place_key(place)] }
    end
  end
  table.sort(lags, function(a, b)
    if a.topic ~= b.topic then return a.topic < b.topic end
    return a.partition < b.partition
  end)
  return lags
end

v3.add("GET", "/consumer-groups/*/lags", "read", function(call, id)
  local data = {}
  for i, lag in ipairs(lags_of(call, id)) do data[i] = resources.lag(call, id, lag) end
  call:answer(200, resources.list("KafkaConsumerLagList", url(call, "consumer-groups", id, "lags"), data))
end)

v3.add("GET", "/consumer-groups/*/lags/*/partitions/*", "read", function(call, id, topic, partition)
  for _, lag in ipairs(lags_of(call, id)) do
    if lag.topic == topic and lag.partition == calls.integer(partition) then
      call:answer(200, resources.lag(call, id, lag))
    end
  end
  v3.not_found(call, "lag of " .. topic .. "/" .. partition)
end)

v3.add("GET", "/consumer-groups/*/lag-summary", "read", function(call, id)
  local total, most = 0, nil
  for _, lag in ipairs(lags_of(call, id)) do
    total = total + lag.lag
    if not most or lag.lag > most.lag then most = lag end
  end
  if not most then v3.not_found(call, "lag of group " .. id .. ", which has committed nothing,") end
  call:answer(200, resources.lag_summary(call, id, most, total))
end)
