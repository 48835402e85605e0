-- SPDX-License-Identifier: Apache-2.0
-- What a schema is compiled to, by its type. A codec has
--
--   encode(value, target) -> bytes behind the id | nil, err         encode_json(text, target): the same of a JSON text
--   decode(bytes, form, as) -> value | nil, err                     decode_json: the same as JSON text
--
-- `as` is the codec of the schema that values are wanted by, where that is another: Avro resolves the two.
-- `bytes` of decode are whole, with magic byte and id. An err is { code, message, path }.

local avro = require "sluice.avro"
local framing = require "sluice.serde.framing"
local json = require "sluice.json"
local json_schema = require "sluice.json_schema"
local protobuf_errors = require "sluice.serde.protobuf_errors"
local protobuf_texts = require "sluice.serde.protobuf_texts"

local find, format, sub = string.find, string.format, string.sub
local ipairs, setmetatable = ipairs, setmetatable

local codecs = {}

local BYTES = framing.BYTES
local EXACT = { exact = true }

local LONG_NUMBER = ("%d"):rep(16) -- digits that a double may not keep; reading exactly takes four times as long

local function decoded(text)
  local value, err = json.decode(text, find(text, LONG_NUMBER) and EXACT or nil)
  return value, err
end

local function wrong(message, path)
  return { code = "value", message = message, path = path or "" }
end

local function no_json(err)
  return wrong("no JSON: " .. err)
end

local function encoded(value)
  local text, err = json.encode(value)
  if not text then return nil, wrong(err) end
  return text
end

-- ---- Avro ----

local Avro = {}
Avro.__index = Avro

local function of_failure(err)
  return wrong(err.message, err.path)
end

function Avro:encode(value, target)
  local bytes, err = self.schema:encode(value, target.form)
  if not bytes then return nil, of_failure(err) end
  return bytes
end

function Avro:encode_json(text, target)
  local value, err = decoded(text)
  if err then return nil, no_json(err) end
  return self:encode(value, target)
end

-- What reads this schema's values as those of the other. Kept as long as that one.
local function resolved(self, as)
  local reader = self.readers[as]
  if not reader then
    local why
    reader, why = as.schema:reader(self.schema)
    if not reader then
      return nil, { code = "schema", message = "the schema it was written with cannot be read as the wanted one: "
        .. why.message }
    end
    self.readers[as] = reader
  end
  return reader
end

function Avro:decode(bytes, form, as)
  local reader = self.schema
  if as and as ~= self and as.readers then
    local refused
    reader, refused = resolved(self, as)
    if not reader then return nil, refused end
  end
  local value, err = reader:decode(bytes, form, BYTES)
  if err then return nil, of_failure(err) end
  return value
end

function Avro:decode_json(bytes, form, as)
  local value, err = self:decode(bytes, form, as)
  if err then return nil, err end
  return encoded(value)
end

local function compile_avro(schema)
  local references = {}
  for i, reference in ipairs(schema.references) do references[i] = reference.text end
  local compiled, err = avro.parse(schema.text, { references = references, lenient = true })
  if not compiled then return nil, err end
  return setmetatable({ schema = compiled, readers = setmetatable({}, { __mode = "k" }) }, Avro)
end

-- ---- JSON Schema: the value is the JSON text ----

local Json = {}
Json.__index = Json

function Json:check(value)
  local ok, errors = self.validator:validate(value)
  if ok then return true end
  local err = wrong(json_schema.text(errors[1]), errors[1].instance)
  err.errors = errors
  return nil, err
end

function Json:encode(value)
  local ok, err = self:check(value)
  if not ok then return nil, err end
  return encoded(value)
end

function Json:encode_json(text)
  local value, err = json.decode(text)
  if err then return nil, no_json(err) end
  local ok, why = self:check(value)
  if not ok then return nil, why end
  return text
end

-- What is in the topic was checked by whoever put it there.
function Json.decode(_, bytes)
  local value, err = decoded(sub(bytes, BYTES + 1))
  if err then return nil, no_json(err) end
  return value
end

function Json.decode_json(_, bytes)
  local text = sub(bytes, BYTES + 1)
  local _, err = json.decode(text)
  if err then return nil, no_json(err) end
  return text
end

local function compile_json(schema)
  local document, err = json.decode(schema.text)
  if err then return nil, "no JSON: " .. err end
  local documents = {}
  for _, reference in ipairs(schema.references) do
    documents[reference.name], err = json.decode(reference.text)
    if err then return nil, "reference " .. reference.name .. ": no JSON: " .. err end
  end
  local validator
  validator, err = json_schema.compile(document, { draft = "7", documents = documents })
  if not validator then return nil, err end
  return setmetatable({ validator = validator }, Json)
end

-- ---- Protobuf ----

local Protobuf = {}
Protobuf.__index = Protobuf

local function message_of(self, target)
  local name = target.message or self.first
  local head = self.heads[name]
  if head == nil then
    local steps = self.schema:place(name)
    head = steps and framing.steps(steps) or false
    self.heads[name] = head
  end
  if not head then return nil, { code = "schema", message = "the schema defines no message " .. name } end
  return name, head
end

function Protobuf:encode_json(text, target)
  local name, head = message_of(self, target)
  if not name then return nil, head end
  local bytes, err = self.schema:to_binary(name, text, self.flags)
  if not bytes then
    local path, why = protobuf_errors.of(self.schema, name, err)
    return nil, wrong(why, path)
  end
  return head .. bytes
end

function Protobuf:encode(value, target)
  local text, err = encoded(value)
  if not text then return nil, err end
  return self:encode_json(text, target)
end

function Protobuf:decode_json(bytes)
  local steps, from = framing.steps_of(bytes)
  if not steps then return nil, wrong("malformed message indexes") end
  local name = self.schema:message_at(steps)
  if not name then return nil, wrong("the schema has no message of the indexes " .. table.concat(steps, ", ")) end
  local text, err = self.schema:to_json(name, sub(bytes, from + 1))
  if not text then return nil, wrong(err) end
  return text
end

function Protobuf:decode(bytes)
  local text, err = self:decode_json(bytes)
  if not text then return nil, err end
  return (decoded(text))
end

local function compile_protobuf(schema)
  local compiled, err = protobuf_texts.load(schema)
  if not compiled then return nil, err end
  local first = compiled:message_at { 0 }
  if not first then return nil, "it defines no message" end
  local flags = require("sluice.protobuf").flags { known_only = true, ordered = true }
  return setmetatable({ schema = compiled, first = first, heads = {}, flags = flags }, Protobuf)
end

-- ---- By type ----

local COMPILE = { AVRO = compile_avro, JSON = compile_json, PROTOBUF = compile_protobuf }

local made = setmetatable({}, { __mode = "k" }) -- by schema of a registry

---@param schema sluice.schema_registry.schema
---@return table|nil codec
---@return table|nil err
function codecs.of(schema)
  local codec = made[schema]
  if codec == nil then
    local err
    codec, err = COMPILE[schema.type](schema)
    if not codec then
      codec = { refused = { code = "schema",
        message = format("the schema %d of the registry cannot be used: %s", schema.id, err) } }
    end
    made[schema] = codec
  end
  if codec.refused then return nil, codec.refused end
  return codec
end

return codecs
