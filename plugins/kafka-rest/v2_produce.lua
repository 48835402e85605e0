-- SPDX-License-Identifier: Apache-2.0
-- v2: a list of records into a topic or one of its partitions. The answer tells where each of them is, in their order,
-- or why it is nowhere.
local errors = require "kafka-rest.errors"
local formats = require "kafka-rest.formats"
local json = require "sluice.json"
local kafka = require "sluice.kafka"
local record_traces = require "sluice.record_traces"
local records = require "sluice.records"
local slices = require "kafka-rest.slices"
local v2 = require "kafka-rest.v2"

local null = json.null

local WAITING_MAX = 1000 -- records of a batch have places, and are asked for in rounds

-- How v3 calls the embedded formats.
local TYPES = { binary = "BINARY", json = "JSON", avro = "AVRO", jsonschema = "JSONSCHEMA", protobuf = "PROTOBUF" }
-- Media types that name no format.
local BINARY = { ["application/vnd.kafka.v2+json"] = true, ["application/vnd.kafka.v1+json"] = true,
  ["application/vnd.kafka+json"] = true, ["application/json"] = true, ["application/octet-stream"] = true }

local function type_of(call)
  local media = call:content_type()
  if not media or BINARY[media] then return "BINARY" end
  local kind = TYPES[media:match("^application/vnd%.kafka%.(%a+)%.v[12]%+json$")]
  if not kind then call:refuse(415, 415, "there are no records of type " .. media) end
  return kind
end

local function unprocessable(call, message, code)
  call:refuse(422, code or 422, message)
end

local function is_nothing(value)
  return value == nil or value == null
end

-- By what the keys or values of a request are encoded: fields that each datum gets.
local function schema_of(call, kind, body, topic, part)
  if not formats.SCHEMA_TYPES[kind] then return { type = kind } end
  local text, id = body[part .. "_schema"], body[part .. "_schema_id"]
  if is_nothing(text) and is_nothing(id) then return nil end
  if not is_nothing(text) and type(text) ~= "string" then unprocessable(call, part .. "_schema must be a text") end
  if not is_nothing(id) and type(id) ~= "number" then unprocessable(call, part .. "_schema_id must be an integer") end
  return { type = kind, subject = topic .. "-" .. part, schema = not is_nothing(text) and text or nil,
    schema_id = is_nothing(text) and id or nil }
end

local MISSING = { key = errors.KEY_SCHEMA_MISSING, value = errors.VALUE_SCHEMA_MISSING }

-- A key or value as bytes, and the id of its schema.
local function bytes_of(call, record, raw, part, schema)
  if is_nothing(record[part]) then return nil end
  if not schema then unprocessable(call, "there are " .. part .. "s, and no schema of them", MISSING[part]) end
  local datum = { type = schema.type, data = record[part], raw = raw[part], subject = schema.subject,
    schema = schema.schema, schema_id = schema.schema_id }
  local bytes, code, message, found = formats.encode(call.codec, datum)
  if code then
    if code == errors.BAD_REQUEST then code = 422 end
    call:refuse(code < 1000 and code or math.floor(code / 100), code, part .. ": " .. message)
  end
  return bytes, found and found.id
end

local function partition_of(call, record, fixed)
  if fixed then return fixed end
  if is_nothing(record.partition) then return nil end
  local partition = record.partition
  if type(partition) ~= "number" or partition % 1 ~= 0 or partition < 0 then
    unprocessable(call, "partition must be an integer from 0")
  end
  return partition
end

-- All records of the request, before any of them is sent: a body that is wrong is wrong as a whole.
local function read(call, topic, partition)
  local kind = type_of(call)
  local body, text = call:body()
  if type(body.records) ~= "table" or #body.records == 0 then
    unprocessable(call, "records must be a list of records")
  end
  local keys, values = schema_of(call, kind, body, topic, "key"), schema_of(call, kind, body, topic, "value")
  local raws, list, ids = slices.elements(slices.members(text).records), {}, {}
  for i, record in ipairs(body.records) do
    if type(record) ~= "table" then unprocessable(call, "a record must be an object") end
    local raw, made = slices.members(raws[i]), { topic = topic, partition = partition_of(call, record, partition) }
    local id
    made.key, id = bytes_of(call, record, raw, "key", keys)
    ids.key = id or ids.key
    made.value, id = bytes_of(call, record, raw, "value", values)
    ids.value = id or ids.value
    list[i] = made
  end
  return list, ids
end

local function failed(err, code)
  return { partition = null, offset = null, error_code = errors.of_entry(code), error = err }
end

local NOWHERE = { partition = null, offset = null, error_code = null, error = null } -- a plugin took it out

local function begin(call, record, batch, span)
  local made, err = records.run(call.exchange, "produce", record)
  if err then return { entry = failed(err, "failed") } end
  if not made then return { entry = NOWHERE } end
  span:put(made)
  local index, why, code = batch:add(made)
  if index then return { index = index, record = made } end
  return { entry = failed(why, code), code = code }
end

local function finish(one, batch, span)
  if one.entry then return one.entry, one.code end
  local at, err, code = batch:result(one.index)
  if not at then return failed(err, code), code end
  span:add(one.record)
  return { partition = at.partition, offset = at.offset, error_code = null, error = null }
end

-- The way that most requests go: a batch of one would cost more than its record.
local function produce_one(call, record)
  local made, err = records.run(call.exchange, "produce", record)
  if err then return { failed(err, "failed") } end
  if not made then return { NOWHERE } end
  made.cluster, made.timeout = call.cluster, call.conf.timeout / 1000
  local span = record_traces.send(call.exchange, made)
  local at, why, code = kafka.produce(made)
  span:done(at, why, code)
  if at then
    at.topic, at.error_code, at.error = nil, null, null
    return { at }
  end
  return { failed(why, code) }, code
end

-- Their entries, and Kafka's name of the error that all of them share, if so.
local function produce_all(call, topic, list)
  if #list == 1 then return produce_one(call, list[1]) end
  local batch = assert(kafka.batch { cluster = call.cluster, timeout = call.conf.timeout / 1000 })
  local span = record_traces.send_many(call.exchange, { topic = topic, cluster = call.cluster })
  local entries, shared = {}, nil
  for from = 1, #list, WAITING_MAX do
    local round = {}
    for i = from, math.min(#list, from + WAITING_MAX - 1) do
      round[#round + 1] = begin(call, list[i], batch, span)
    end
    batch:wait()
    for _, one in ipairs(round) do
      local entry, code = finish(one, batch, span)
      entries[#entries + 1] = entry
      if #entries == 1 then shared = code end
      if code ~= shared then shared = nil end
    end
  end
  batch:close()
  span:done()
  return entries, shared
end

-- What no record can get past is the request's: there is no such topic, the client may not, the queue is full.
local WHOLE = {
  UNKNOWN_TOPIC_OR_PART = true, _UNKNOWN_TOPIC = true, TOPIC_EXCEPTION = true, full = true, cluster = true,
  TOPIC_AUTHORIZATION_FAILED = true, _AUTHENTICATION = true, SASL_AUTHENTICATION_FAILED = true,
}

local function produce(call, topic, partition)
  if not topic:find("^[%w._-]+$") or #topic > 249 then
    call:refuse(400, errors.BAD_REQUEST, "a topic has a name of 1 to 249 letters, digits, \".\", \"_\" or \"-\"")
  end
  local list, ids = read(call, topic, partition)
  local entries, code = produce_all(call, topic, list)
  if code and WHOLE[code] then call:refuse_kafka(entries[1].error, code) end
  call:answer(200, { key_schema_id = ids.key or null, value_schema_id = ids.value or null,
    offsets = json.array(entries) })
end

v2.add("POST", "topics/*", "produce", function(call, topic) produce(call, topic) end)

v2.add("POST", "topics/*/partitions/*", "produce", function(call, topic, id)
  produce(call, topic, v2.partition(call, call:must(call.admin:topic(topic)), id).id)
end)
