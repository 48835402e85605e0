-- SPDX-License-Identifier: Apache-2.0
-- Keys and values between JSON and records: as JSON, as text, as bytes in base64, or by schemas of a registry.
local errors = require "kafka-rest.errors"
local json = require "sluice.json"
local sluice = require "sluice"

local null = json.null

local formats = {}

-- Names in v3, and those of a registry.
local SCHEMA_TYPES = { AVRO = "AVRO", JSONSCHEMA = "JSON", PROTOBUF = "PROTOBUF" }
local NAMES = { AVRO = "AVRO", JSON = "JSONSCHEMA", PROTOBUF = "PROTOBUF" }

---@class kafka-rest.datum
---@field type "BINARY"|"JSON"|"STRING"|"AVRO"|"JSONSCHEMA"|"PROTOBUF"|nil nil: by the schema
---@field data any
---@field raw string|nil the data as they were written
---@field subject string of the schema
---@field schema? string text of a schema that the subject is to have
---@field schema_id? integer
---@field schema_version? integer

local function is_nothing(value)
  return value == nil or value == null
end

local function plain(datum)
  if is_nothing(datum.data) then return nil end
  if datum.type == "JSON" then return datum.raw end
  if type(datum.data) ~= "string" then return nil, errors.BAD_REQUEST, "data must be a text" end
  if datum.type == "STRING" then return datum.data end
  local bytes = sluice.crypto.base64_decode(datum.data)
  if not bytes then return nil, errors.BAD_REQUEST, "data must be in base64" end
  return bytes
end

local function target_of(datum)
  local target = { subject = datum.subject, form = "avro" }
  if datum.schema then
    target.register = { text = datum.schema, type = SCHEMA_TYPES[datum.type] }
  elseif datum.schema_id then
    target.id = datum.schema_id
  else
    target.version = datum.schema_version
  end
  return target
end

local CODES = { value = errors.CONVERSION_FAILED, refused = errors.INVALID_SCHEMA, schema = errors.INVALID_SCHEMA,
  not_found = errors.INVALID_SCHEMA, unauthorized = errors.KAFKA, unavailable = errors.RETRIABLE }

local function told(err)
  return nil, CODES[err.code] or errors.KAFKA, err.message -- which begins with the path of what does not fit
end

-- Which version of the subject a schema is; nil where the registry does not say.
local function version_of(codec, datum, schema)
  if not datum.schema and not datum.schema_id then
    local _, version = codec.registry:by_subject(datum.subject, datum.schema_version)
    return type(version) == "number" and version or nil
  end
  local id, version = codec.registry:lookup(datum.subject, { text = schema.text, type = schema.type,
    references = schema.direct })
  return id and version or nil
end

local function no_registry()
  return nil, errors.INVALID_SCHEMA, "no schema registry is configured: type must be BINARY, JSON or STRING"
end

-- What the schema of a datum calls its record; nil, an error code and a message.
---@param codec sluice.serde.codec|nil
---@param datum kafka-rest.datum with schema or schema_id
---@return string|nil name
---@return integer|nil error_code
---@return string|nil message
function formats.record_name(codec, datum)
  if not codec then return no_registry() end
  local name, err = codec:record_name(target_of(datum))
  if not name then return told(err) end
  return name
end

local function by_schema(codec, datum)
  if not codec then return no_registry() end
  if is_nothing(datum.data) then return nil end
  local bytes, schema = codec:encode_json(target_of(datum), datum.raw)
  if not bytes then return told(schema) end
  return bytes, nil, nil, schema
end

-- The bytes of a datum; nil without a code is Kafka's null.
---@param codec sluice.serde.codec|nil
---@param datum kafka-rest.datum
---@return string|nil bytes
---@return integer|nil error_code
---@return string|nil message
---@return table|nil schema
function formats.encode(codec, datum)
  if datum.type == "BINARY" or datum.type == "JSON" or datum.type == "STRING" then return plain(datum) end
  return by_schema(codec, datum)
end

-- What v3 says of a datum that was produced.
function formats.described(codec, datum, bytes, schema)
  if not schema then return { type = datum.type or null, size = #bytes } end
  return { type = NAMES[schema.type], subject = datum.subject, schema_id = schema.id,
    schema_version = version_of(codec, datum, schema) or null, size = #bytes }
end

formats.SCHEMA_TYPES = SCHEMA_TYPES

-- ---- Out of records ------------------------------------------------------------------------------------------------

local decoders = {}

function decoders.binary(_, bytes)
  return assert(json.encode(sluice.crypto.base64_encode(bytes)))
end

function decoders.json(_, bytes)
  local _, err = json.decode(bytes)
  if err then return nil, "the record holds no JSON: " .. err end
  return bytes
end

local function by_registry(codec, bytes)
  if not codec then return nil, "no schema registry is configured" end
  local text, err = codec:decode_json(bytes, "avro")
  if not text then return nil, err.message end
  return text
end

decoders.avro, decoders.jsonschema, decoders.protobuf = by_registry, by_registry, by_registry

-- A key or value of a record as JSON text.
---@param codec sluice.serde.codec|nil
---@param format "binary"|"json"|"avro"|"jsonschema"|"protobuf"
---@param bytes string|nil
---@return string|nil text
---@return string|nil err
function formats.decode(codec, format, bytes)
  if bytes == nil then return "null" end
  local text, err = decoders[format](codec, bytes)
  return text, err
end

return formats
