-- SPDX-License-Identifier: Apache-2.0
-- Keys and values by the schemas of a registry: what is JSON until then becomes Avro, Protobuf or checked JSON in
-- Confluent's wire format, or is refused with the place that does not fit.
local serde = require "sluice.serde"

local schemas = {}

local SECTIONS = { key = "key_schema", value = "value_schema" }

---@class kafka-upstream.schemas
---@field codec sluice.serde.codec
---@field key table|nil what keys are encoded with; no subject: the topic's
---@field value table|nil

local function target_of(given, form)
  return given and { subject = given.subject_name, version = given.schema_version, message = given.message,
    form = form }
end

-- For a configuration; nil: it names no registry.
---@return kafka-upstream.schemas|nil
function schemas.of(conf)
  local codec = serde.new(conf.schema_registry)
  if not codec then return nil end
  local confluent = conf.schema_registry.confluent
  local form = confluent.avro_form
  local key, value = target_of(confluent.key_schema, form), target_of(confluent.value_schema, form)
  if not key and not value then value = { form = form } end
  return { codec = codec, key = key, value = value }
end

-- Of several topics each may have a subject of its own.
local function for_topic(target, topic, part)
  if target.subject then return target end
  return { subject = topic .. "-" .. part, version = target.version, message = target.message, form = target.form }
end

-- A key is a text; where the schema wants something else, it is read as JSON.
local function encode_key(codec, target, key)
  local bytes, err = codec:encode(target, key)
  if bytes or err.code ~= "value" then return bytes, err end
  local read, why = codec:encode_json(target, key)
  if read then return read end
  return nil, why.path ~= "" and why or err
end

local function refusal_of(part, err)
  local fits = err.code == "value" and "the " .. part .. " does not fit its schema"
  return { status = serde.status(err), message = fits or "the " .. part .. " cannot be encoded", error = err.message,
    field = SECTIONS[part], path = err.path }
end

-- Encodes key and value of a record. nil: done; else a refusal, as sources.refuse has them, and the record is as it
-- was. May wait for the registry. Kafka's null stays what it is.
---@param it kafka-upstream.schemas
---@param record table
---@return table|nil refusal
function schemas.encode(it, record)
  local key, value = record.key, record.value
  if it.key and key then
    local err
    key, err = encode_key(it.codec, for_topic(it.key, record.topic, "key"), key)
    if not key then return refusal_of("key", err) end
  end
  if it.value and value then
    local err
    value, err = it.codec:encode_json(for_topic(it.value, record.topic, "value"), value)
    if not value then return refusal_of("value", err) end
  end
  record.key, record.value = key, value
end

return schemas
