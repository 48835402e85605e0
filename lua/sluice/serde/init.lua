-- SPDX-License-Identifier: Apache-2.0
-- Values in records as schemas of a registry say: Avro, JSON Schema and Protobuf in Confluent's wire format.
--
--   local codec = serde.new(conf.schema_registry)                     -- in `configure`
--   local bytes, err = codec:encode("orders-value", { id = 7 })       -- the subject's latest schema
--   local bytes, err = codec:encode_json({ subject = "orders-value", version = 3 }, text)
--   local value, err = codec:decode(record.value)
--   local text, err = codec:decode_json(record.value)
--
-- An err tells by its `code` whose fault it is:
--   value         what is to be encoded, or the bytes, do not fit the schema: err.path is a JSON pointer to where
--   not_found     the registry has no such subject, version or id
--   refused       it does not take the schema that was to be registered
--   schema        the schema itself cannot be used
--   framing       the bytes name no schema (decoding only)
--   unauthorized, unavailable   the registry refuses the gateway, cannot be asked
-- serde.status(err) is the status that says so to a client.

local check = require "sluice.api.check"
local codecs = require "sluice.serde.codecs"
local framing = require "sluice.serde.framing"
local names = require "sluice.serde.names"
local schema_registry = require "sluice.schema_registry"

local setmetatable, type = setmetatable, type

---@class sluice.serde
local serde = {}

serde.fields = schema_registry.fields

---@class sluice.serde.error
---@field code string
---@field message string
---@field path? string of code "value"
---@field errors? sluice.json_schema.error[] of JSON Schema: all that is wrong

---@class sluice.serde.target
---@field subject? string
---@field version? "latest"|integer of the subject, latest unless told
---@field id? integer instead of a subject
---@field register? { text: string, type?: "AVRO"|"JSON"|"PROTOBUF", references?: table[] } a schema that the subject is
---  to have: it is registered when it is not there yet
---@field message? string of Protobuf: full name; the first of the schema unless told
---@field form? "plain"|"avro" of Avro: "plain" unless told, see sluice.avro

---@class sluice.serde.codec
local Codec = {}
local codec_mt = { __index = Codec, __metatable = false }

local STATUS = { value = 422, framing = 422, not_found = 502, refused = 422, schema = 502, unauthorized = 502,
  unavailable = 503 }

-- The status of an answer to a client whose value was to be encoded.
---@param err sluice.serde.error
---@return integer
function serde.status(err)
  return STATUS[err.code] or 502
end

---@param conf { confluent: table } Kong's record `schema_registry`
---@return sluice.serde.codec|nil nil: no registry is configured
function serde.new(conf)
  check.table_or_nil("sluice.serde.new", "conf", conf)
  local confluent = conf and conf.confluent
  if not confluent or not confluent.url then return nil end
  return setmetatable({ registry = schema_registry.open(confluent) }, codec_mt)
end

-- ---- Encoding ----

local function described(err, code)
  return { code = code, message = err }
end

local function registered(self, target)
  local id, err, code = self.registry:register(target.subject, target.register)
  if not id then return nil, described(err, code) end
  local schema, why, kind = self.registry:by_id(id)
  if not schema then return nil, described(why, kind) end
  return schema
end

local function found(self, target)
  if target.register then return registered(self, target) end
  local schema, err, code
  if target.id then
    schema, err, code = self.registry:by_id(target.id)
  else
    schema, err, code = self.registry:by_subject(target.subject, target.version)
  end
  if schema then return schema end
  local what = target.id and "schema " .. target.id or "subject " .. target.subject
  return nil, described(code == "not_found" and what .. ": " .. err or err, code)
end

local function target_of(name, target)
  if type(target) == "string" then return { subject = target } end
  check.table(name, "target", target)
  if not target.id and type(target.subject) ~= "string" then check.fail(name, "target needs a subject or an id", 4) end
  return target
end

local function encode_by(self, method, target, value)
  local schema, err = found(self, target)
  if not schema then return nil, err end
  local codec
  codec, err = codecs.of(schema)
  if not codec then return nil, err end
  local bytes, why = codec[method](codec, value, target)
  if not bytes then return nil, why end
  return framing.head(schema.id) .. bytes, schema
end

-- The bytes of a value, with the id of the schema before them. May wait for the registry.
---@param target string|sluice.serde.target a subject, or what to encode with
---@param value any as sluice.json has values
---@return string|nil bytes
---@return sluice.schema_registry.schema|sluice.serde.error
function Codec:encode(target, value)
  target = target_of("codec:encode", target)
  local bytes, schema = encode_by(self, "encode", target, value)
  return bytes, schema
end

-- The same of a value as JSON text.
---@param target string|sluice.serde.target
---@param text string
---@return string|nil bytes
---@return sluice.schema_registry.schema|sluice.serde.error
function Codec:encode_json(target, text)
  check.string("codec:encode_json", "text", text)
  target = target_of("codec:encode_json", target)
  local bytes, schema = encode_by(self, "encode_json", target, text)
  return bytes, schema
end

-- What the record of a schema is called: full name of an Avro type or of the first Protobuf message, title of a JSON
-- Schema. Nothing is registered. May wait for the registry.
---@param target { id: integer }|{ register: { text: string, type?: "AVRO"|"JSON"|"PROTOBUF" } }
---@return string|nil name
---@return sluice.serde.error|nil
function Codec:record_name(target)
  check.table("codec:record_name", "target", target)
  local schema, err
  if target.register then
    schema = { text = target.register.text, type = target.register.type or "AVRO", references = {} }
  else
    schema, err = found(self, target)
    if not schema then return nil, err end
  end
  local name, why = names.of(schema)
  if not name then return nil, described(why or "the schema has no name", "schema") end
  return name
end

-- ---- Decoding ----

local NO_OPTIONS = {}

local function options_of(name, how)
  if how == nil then return NO_OPTIONS end
  if type(how) == "string" then return { form = how } end
  check.table(name, "how", how)
  return how
end

-- The codec of the schema that values are wanted by.
local function wanted(self, as)
  local schema, err = found(self, target_of("codec:decode", as))
  if not schema then return nil, err end
  local codec, refused = codecs.of(schema)
  return codec, refused
end

local function decode_by(self, method, bytes, how)
  local id, wrong = framing.id(bytes)
  if not id then return nil, described(wrong, "framing") end
  local schema, err, code = self.registry:by_id(id)
  if not schema then return nil, described(code == "not_found" and "schema " .. id .. ": " .. err or err, code) end
  local codec, refused = codecs.of(schema)
  if not codec then return nil, refused end
  local as
  if how.as then
    as, refused = wanted(self, how.as)
    if not as then return nil, refused end
  end
  local value, why = codec[method](codec, bytes, how.form, as)
  if why then return nil, why end
  return value, nil, schema
end

---@class sluice.serde.how
---@field form? "plain"|"avro" of Avro: "plain" unless told
---@field as? string|sluice.serde.target of Avro: values are wanted as this schema has them, whatever they were written
---  with: fields that it does not have are left out, those that were not written have their defaults

-- The value of bytes that name their schema. May wait for the registry.
---@param bytes string
---@param how? "plain"|"avro"|sluice.serde.how
---@return any value as sluice.json has values: null is json.null
---@return sluice.serde.error|nil
---@return sluice.schema_registry.schema|nil
function Codec:decode(bytes, how)
  check.string("codec:decode", "bytes", bytes)
  how = options_of("codec:decode", how)
  local value, err, schema = decode_by(self, "decode", bytes, how)
  return value, err, schema
end

-- The same as JSON text.
---@param bytes string
---@param how? "plain"|"avro"|sluice.serde.how
---@return string|nil text
---@return sluice.serde.error|nil
---@return sluice.schema_registry.schema|nil
function Codec:decode_json(bytes, how)
  check.string("codec:decode_json", "bytes", bytes)
  how = options_of("codec:decode_json", how)
  local text, err, schema = decode_by(self, "decode_json", bytes, how)
  return text, err, schema
end

return serde
