-- SPDX-License-Identifier: Apache-2.0
-- Kafka clusters by name: those of gateway.kafka, "main" unless told, and those that plugins with Kong's
-- `bootstrap_servers` define.

local ffi = require "ffi"
local kafka_conf = require "sluice.kafka.conf"
local reporting = require "sluice.kafka.metrics"
local core = require "sluice.api.core"

local C, worker = core.C, core.worker
local pairs_of = kafka_conf.pairs_of
local ffi_string, tostring, pairs, ipairs, next = ffi.string, tostring, pairs, ipairs, next

local OK, INVALID = 0, -2

local clusters = { DEFAULT = "main" }

local configured = {} -- names from gateway.kafka
local stage = 0       -- counts generations that went live
local defined = {}    -- of plugins: canonical text to { name, stage }
local numbers = {}    -- by servers: how many clusters have been named so

local expiries = {}   -- by cluster: seconds that a record may wait to be sent, to the stage that named them last
clusters.expiries = expiries

local oauth -- loaded for the first cluster that wants tokens

local function set_tokens(name, properties, texts)
  if properties["sasl.oauthbearer.method"] == "oidc" then
    oauth = oauth or require "sluice.kafka.oauth"
    oauth.define(name, properties, table.concat(texts, "\0"))
  elseif oauth then
    oauth.drop(name)
  end
end

local function set_cluster(name, properties)
  local array, count, texts = pairs_of(properties)
  if C.bridge_kafka_cluster(worker, name, array, count) ~= OK then return nil, core.reason(INVALID) end
  set_tokens(name, properties, texts)
  reporting.start()
  return true
end

local function drop_cluster(name)
  C.bridge_kafka_cluster_drop(worker, name)
  if oauth then oauth.drop(name) end
end

-- Clusters that plugins define are kept as long as the running generation or the one before defines them.
local function drop_unused()
  for text, cluster in pairs(defined) do
    if cluster.stage < stage - 1 then
      drop_cluster(cluster.name)
      defined[text] = nil
    end
  end
end

local function drop_unused_expiries()
  for name, stages in pairs(expiries) do
    for seconds, last in pairs(stages) do
      if last < stage - 1 then
        C.bridge_kafka_expiry_drop(worker, name, seconds)
        stages[seconds] = nil
      end
    end
    if next(stages) == nil then expiries[name] = nil end
  end
end

-- The clusters of gateway.kafka, whenever a generation goes live. Raises, with nothing changed, when one is wrong.
---@param wanted table<string, table<string, string|number|boolean>>
function clusters.configure(wanted)
  for name, properties in pairs(wanted) do
    local ok, property, why = kafka_conf.check(properties)
    if not ok then error({ entity = "gateway.kafka." .. name, message = property .. ": " .. why }, 0) end
  end
  for name, properties in pairs(wanted) do
    local ok, err = set_cluster(name, properties)
    if not ok then error({ entity = "gateway.kafka." .. name, message = err }, 0) end
  end
  for name in pairs(configured) do
    if not wanted[name] then drop_cluster(name) end
  end
  configured = {}
  for name in pairs(wanted) do configured[name] = true end
  drop_unused()
  drop_unused_expiries()
  stage = stage + 1
end

-- A cluster that no name of the configuration stands for; the same properties give the same one.
---@param properties table<string, string|number|boolean>
---@return string|nil name
---@return string|nil err
function clusters.define(properties)
  local _, _, texts = pairs_of(properties)
  local text = table.concat(texts, "\0")
  local cluster = defined[text]
  if not cluster then
    local servers = tostring(properties["bootstrap.servers"]):sub(1, 80)
    numbers[servers] = (numbers[servers] or 0) + 1
    cluster = { name = servers .. "#" .. numbers[servers] }
    local ok, err = set_cluster(cluster.name, properties)
    if not ok then return nil, err end
    defined[text] = cluster
  end
  cluster.stage = stage
  return cluster.name
end

-- The certificate of security.certificate_id, in the generation that is running or being built.
local function certificate(id)
  local generation = require("sluice.generation").current()
  for _, entity in ipairs(generation and generation.entities.certificates or {}) do
    if entity.id == id then return entity end
  end
end

local function name_of(conf)
  if conf.cluster then return conf.cluster end
  if not conf.bootstrap_servers then return clusters.DEFAULT end
  local properties, err = kafka_conf.properties(conf, certificate)
  if not properties then return nil, err end
  return clusters.define(properties)
end

-- The cluster that a plugin's configuration in Kong's form means: `cluster`, or `bootstrap_servers` with what belongs
-- to them. To be called in the plugin's `configure` for each of its configurations, so that the cluster stays, and so
-- that a record which is to be there within the `timeout` of one of them is not sent later.
---@param conf table
---@return string|nil name
---@return string|nil err
function clusters.cluster_of(conf)
  local name, err = name_of(conf)
  if not name then return nil, err end
  if conf.timeout and conf.timeout > 0 then
    expiries[name] = expiries[name] or {}
    expiries[name][conf.timeout / 1000] = stage
  end
  return name
end

local cluster_status = ffi.new("struct kafka_cluster_status")
local broker = ffi.new("struct kafka_broker")

-- Brokers as librdkafka's statistics last named them.
local function brokers_of(index)
  local list = {}
  while C.bridge_kafka_broker_at(worker, index, #list, broker) == OK do
    local id = tonumber(broker.id)
    list[#list + 1] = { id = id >= 0 and id or nil, address = ffi_string(broker.name),
      state = ffi_string(broker.state) }
  end
  return list[1] and list or nil
end

-- One entry a cluster, for `sluice status` and metrics.
---@return table[]
function clusters.status()
  local list, index = {}, 0
  while C.bridge_kafka_cluster_at(worker, index, cluster_status) == OK do
    local it = cluster_status
    local error_text = ffi_string(it.error)
    list[#list + 1] = {
      name = ffi_string(it.name), brokers = ffi_string(it.servers), state = ffi_string(it.state),
      embedded = it.embedded, last_error = error_text ~= "" and error_text or nil,
      last_error_at = error_text ~= "" and it.error_at or nil,
      produced = it.produced, delivered = it.delivered, failed = it.failed, refused = it.refused,
      consumed = it.consumed, consumed_bytes = it.consumed_bytes,
      seen = brokers_of(index), queued = it.queued, readers = it.readers, consumers = it.consumers,
    }
    index = index + 1
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end
return clusters
