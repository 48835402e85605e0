-- SPDX-License-Identifier: Apache-2.0
-- What the REST Proxy API of kafka-rest has of events: any topic's records in by v2 and v3, and out by the instances of
-- v2. Topics are parameters, for clients name them.
local rest = {}

local STRING, INTEGER, ANY = { type = "string" }, { type = "integer" }, {}
local NULLABLE = { type = { "integer", "null" } }
local TEXT = { type = { "string", "null" } }

local function list_of(properties)
  return { type = "array", items = { type = "object", properties = properties } }
end

local DATUM = { type = "object", description = "a key or value", properties = {
  type = { type = "string", enum = { "BINARY", "JSON", "STRING", "AVRO", "JSONSCHEMA", "PROTOBUF" } }, data = ANY,
  schema = STRING, schema_id = INTEGER, schema_version = INTEGER, subject = STRING } }

local MESSAGES = {
  ["rest.records"] = { name = "records", title = "Records of a topic",
    contentType = "application/vnd.kafka.json.v2+json", payload = { type = "object", required = { "records" },
      properties = { records = list_of { key = ANY, value = ANY, partition = INTEGER } } } },
  ["rest.offsets"] = { name = "offsets", title = "Where each record is, or why it is nowhere",
    contentType = "application/vnd.kafka.v2+json", payload = { type = "object", properties = {
      key_schema_id = NULLABLE, value_schema_id = NULLABLE,
      offsets = list_of { partition = NULLABLE, offset = NULLABLE, error_code = NULLABLE, error = TEXT } } } },
  ["rest.record"] = { name = "record", title = "A record, or several one behind the other",
    contentType = "application/json", payload = { type = "object", properties = { key = DATUM, value = DATUM,
      partition_id = INTEGER, timestamp = { type = "string", format = "date-time" },
      headers = list_of { name = STRING, value = STRING } } } },
  ["rest.delivery"] = { name = "delivery", title = "Where a record is, or with another error_code than 200 why not",
    contentType = "application/json", payload = { type = "object", required = { "error_code" }, properties = {
      error_code = INTEGER, message = STRING, cluster_id = STRING, topic_name = STRING, partition_id = INTEGER,
      offset = INTEGER, timestamp = STRING } } },
  ["rest.fetched"] = { name = "fetched", title = "Records that an instance is given",
    contentType = "application/vnd.kafka.json.v2+json",
    payload = list_of { topic = STRING, key = ANY, value = ANY, partition = INTEGER, offset = INTEGER } },
}

local TOPIC = { description = "a topic" }
local CLUSTER = { description = "the cluster's id, as GET /v3/clusters tells it" }

-- By what of kafka-rest's `operations` has to allow them.
local OFFERS = {
  { class = "produce", key = "topics", address = "/topics/{topic}", action = "receive", method = "POST",
    parameters = { topic = TOPIC }, message = "rest.records", reply = "rest.offsets",
    summary = "Records into a topic (v2)" },
  { class = "produce", key = "records", address = "/v3/clusters/{cluster}/topics/{topic}/records", action = "receive",
    method = "POST", parameters = { topic = TOPIC, cluster = CLUSTER }, message = "rest.record",
    reply = "rest.delivery", summary = "Records into a topic (v3); the entries of a stream come while it is sent" },
  { class = "consume", key = "instances", address = "/consumers/{group}/instances/{instance}/records", action = "send",
    method = "GET", message = "rest.fetched", parameters = { group = { description = "a consumer group" },
      instance = { description = "an instance that was made by POST /consumers/{group}, and subscribed" } },
    summary = "Records for an instance of a consumer group (v2)" },
}

local function allows(conf, class)
  for _, one in ipairs(conf.operations or { class }) do
    if one == class then return true end
  end
  return false
end

-- What the API stands below: see kafka-rest.
local function prefix_of(conf, path)
  if conf.prefix then return (conf.prefix:gsub("/+$", "")) end
  if path:sub(1, 1) == "~" then return "" end
  return (path:gsub("/+$", ""):gsub("/v3$", ""):gsub("/topics$", ""):gsub("/consumers$", ""):gsub("/brokers$", ""))
end

-- The places of the API that a route has events at.
---@param route table
---@param conf table of kafka-rest
---@return table[] those of OFFERS, each with the address below the route's first path
function rest.offers(route, conf)
  local paths = type(route.paths) == "table" and route.paths or {}
  local prefix, list = prefix_of(conf, paths[1] or "/"), {}
  for _, offer in ipairs(OFFERS) do
    if allows(conf, offer.class) then
      local copy = {}
      for name, value in pairs(offer) do copy[name] = value end
      copy.address = prefix .. offer.address
      list[#list + 1] = copy
    end
  end
  return list
end

-- Puts a message into `components` and gives its name there.
function rest.message(context, name)
  context.components.messages[name] = MESSAGES[name]
  return name
end

return rest
