-- SPDX-License-Identifier: Apache-2.0
-- v3: configurations of topics and brokers.
local json = require "sluice.json"
local resources = require "kafka-rest.resources"
local v3 = require "kafka-rest.v3"

local null = json.null

local function topic_owner(name)
  return { type = "topic", id = name, kind = "KafkaTopicConfig", path = { "topics", name, "configs" },
    name = "/topic=" .. name .. "/config=", fields = { topic_name = name } }
end

local function broker_owner(id)
  return { type = "broker", id = id, kind = "KafkaBrokerConfig", path = { "brokers", id, "configs" },
    name = "/broker=" .. id .. "/config=", fields = { broker_id = tonumber(id) } }
end

local function cluster_owner()
  return { kind = "KafkaClusterConfig", path = { "broker-configs" }, name = "/broker-config=",
    fields = { config_type = "BROKER" } }
end

local function sorted(entries)
  table.sort(entries, function(a, b) return a.name < b.name end)
  return entries
end

local function answer_list(call, owner, entries)
  local data = {}
  for i, entry in ipairs(sorted(entries)) do data[i] = resources.config(call, owner, entry) end
  call:answer(200, resources.list(owner.kind .. "List", resources.url(call, unpack(owner.path)), data))
end

local function answer_one(call, owner, entries, name)
  for _, entry in ipairs(entries) do
    if entry.name == name then call:answer(200, resources.config(call, owner, entry)) end
  end
  v3.not_found(call, "config " .. name)
end

local function alter(call, owner, changes, validate_only)
  call:must(call.admin:alter_configs(owner.type, owner.id, changes, validate_only))
  call:answer(204)
end

-- { data = { { name, value }, { name, operation = "DELETE" } } } to values by name, false for those to be deleted.
local function changes_of(call)
  local body, changes = call:body(), {}
  if type(body.data) ~= "table" then call:refuse(400, 400, "data must be a list of changes") end
  for _, change in ipairs(body.data) do
    if type(change) ~= "table" or type(change.name) ~= "string" then
      call:refuse(400, 400, "data must be a list of changes, each with a name")
    end
    local operation = change.operation
    if operation == nil or operation == null then operation = "SET" end
    if operation ~= "SET" and operation ~= "DELETE" then call:refuse(400, 400, "operation must be SET or DELETE") end
    local unset = operation == "DELETE" or change.value == nil or change.value == null
    changes[change.name] = not unset and tostring(change.value)
  end
  return changes, body.validate_only == true
end

-- The same for topics and for brokers; `owner_of` gives what is in the path, or ends the phase.
local function add_all(path, owner_of)
  v3.add("GET", path .. "/configs", "read", function(call, id)
    local owner = owner_of(call, id)
    answer_list(call, owner, call:must(call.admin:configs(owner.type, owner.id)))
  end)
  v3.add("POST", path .. "/configs:alter", "admin", function(call, id)
    local owner = owner_of(call, id)
    local changes, validate_only = changes_of(call)
    alter(call, owner, changes, validate_only)
  end)
  v3.add("GET", path .. "/configs/*", "read", function(call, id, name)
    local owner = owner_of(call, id)
    answer_one(call, owner, call:must(call.admin:configs(owner.type, owner.id)), name)
  end)
  v3.add("PUT", path .. "/configs/*", "admin", function(call, id, name)
    local owner, value = owner_of(call, id), call:body().value
    local unset = value == nil or value == null
    alter(call, owner, { [name] = not unset and tostring(value) })
  end)
  v3.add("DELETE", path .. "/configs/*", "admin", function(call, id, name)
    alter(call, owner_of(call, id), { [name] = false })
  end)
end

add_all("/topics/*", function(_, name) return topic_owner(name) end)
add_all("/brokers/*", function(call, id)
  v3.broker(call, id)
  return broker_owner(id)
end)

-- Of all topics.
v3.add("GET", "/topics/-/configs", "read", function(call)
  local data = {}
  for _, topic in ipairs(call:must(call.admin:metadata()).topics) do
    local owner = topic_owner(topic.name)
    for _, entry in ipairs(sorted(call:must(call.admin:configs("topic", topic.name)))) do
      data[#data + 1] = resources.config(call, owner, entry)
    end
  end
  call:answer(200, resources.list("KafkaTopicConfigList", resources.url(call, "topics", "-", "configs"), data))
end)

-- What was set while they ran, of all brokers.
v3.add("GET", "/brokers/-/configs", "read", function(call)
  local data = {}
  for _, broker in ipairs(v3.brokers(call)) do
    local owner = broker_owner(broker.id)
    for _, entry in ipairs(sorted(call:must(call.admin:configs("broker", broker.id)))) do
      if entry.source:find("^DYNAMIC") then data[#data + 1] = resources.config(call, owner, entry) end
    end
  end
  call:answer(200, resources.list("KafkaBrokerConfigList", resources.url(call, "brokers", "-", "configs"), data))
end)

local DEFAULT = "DYNAMIC_DEFAULT_BROKER_CONFIG"

-- What holds for every broker that has nothing of its own: each broker tells it among the synonyms of its own.
local function cluster_entries(call)
  local entries = {}
  for _, entry in ipairs(call:must(call.admin:configs("broker", v3.brokers(call)[1].id))) do
    local synonyms = {}
    for _, synonym in ipairs(entry.synonyms) do
      if synonym.source == DEFAULT or #synonyms > 0 then synonyms[#synonyms + 1] = synonym end
    end
    if synonyms[1] then
      entry.value, entry.source, entry.default, entry.synonyms = synonyms[1].value, DEFAULT, false, synonyms
      entries[#entries + 1] = entry
    end
  end
  return entries
end

v3.add("GET", "/broker-configs", "read", function(call)
  answer_list(call, cluster_owner(), cluster_entries(call))
end)

v3.add("GET", "/broker-configs/*", "read", function(call, name)
  answer_one(call, cluster_owner(), cluster_entries(call), name)
end)

local CHANGE = "change what holds for all brokers: change each of them"
v3.unsupported("POST", "/broker-configs:alter", "admin", CHANGE)
v3.unsupported("PUT", "/broker-configs/*", "admin", CHANGE)
v3.unsupported("DELETE", "/broker-configs/*", "admin", CHANGE)
