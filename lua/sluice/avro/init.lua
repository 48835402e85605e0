-- SPDX-License-Identifier: Apache-2.0
-- Apache Avro 1.12: schemas, and values between Lua and Avro's binary encoding.
--
--   local order = assert(avro.parse(text))
--   local bytes, err = order:encode { id = 7, note = "soon" }     -- err.path "/id", err.message
--   local value = order:decode(bytes)
--   local newer = assert(order:reader(old_schema))                -- reads what was written with another schema
--   newer:decode(bytes)
--
-- Values are those of sluice.json: null is json.null, lists are marked as arrays, integers beyond 2^53 are int64_t,
-- bytes are texts in which a character up to U+00FF stands for each. In the form "plain", that of people, a value of a
-- union stands alone and logical types are dates, times, decimals; in the form "avro", Avro's JSON encoding, a value of
-- a union but null is an object named by its branch, and logical types are as the types below them.
--
-- What is read is bounded: depth, elements that take no byte, lengths beyond the end.

local canonical = require "sluice.avro.canonical"
local check = require "sluice.api.check"
local crypto -- loaded when somebody asks for a digest
local decode = require "sluice.avro.decode"
local encode = require "sluice.avro.encode"
local parser = require "sluice.avro.schema"

local ipairs, sub, type = ipairs, string.sub, type

---@class sluice.avro
local avro = {}

local FORMS = { plain = { plain = true, logical = true }, avro = { plain = false, logical = false } }
local DEFAULTS = { plain = true, logical = false } -- how the values of defaults are written

local inner = setmetatable({}, { __mode = "k" }) -- by schema and reader: nodes, encoders, decoders

local function form_of(name, form)
  form = form or "plain"
  if not FORMS[form] then check.fail(name, 'form must be "plain" or "avro"', 4) end
  return form
end

-- ---- Schemas ----

---@class sluice.avro.schema
local Schema = {}
local schema_mt = { __index = Schema, __metatable = false }

-- Defaults are kept as bytes, which says whether they fit. They may be of any type of a union. One that needs another
-- stands behind it.
local function settle(defaults, lenient)
  local encoders = encode.new(DEFAULTS)
  for _, one in ipairs(defaults) do
    local field = one.field
    local bytes, why = encode.run(encoders:of(field.node), field.default)
    if not bytes and not lenient then return one.where .. ": " .. why.message end
    field.bytes = bytes or nil
  end
end

---@class sluice.avro.options
---@field references? (string|table)[] schemas whose named types the schema uses, each behind those that it uses
---@field lenient? boolean names that the specification does not allow and defaults that do not fit are no errors

-- Reads a schema: JSON, or what sluice.json decodes it to.
---@param given string|table
---@param options? sluice.avro.options
---@return sluice.avro.schema|nil
---@return string|nil err where in the schema, what was expected there, what was found
function avro.parse(given, options)
  if type(given) ~= "string" then check.table("sluice.avro.parse", "schema", given) end
  check.table_or_nil("sluice.avro.parse", "options", options)
  options = options or {}
  local root, defaults = parser.parse(given, options.references, options.lenient)
  if not root then return nil, defaults end
  local wrong = settle(defaults, options.lenient)
  if wrong then return nil, wrong end
  local schema = setmetatable({}, schema_mt)
  inner[schema] = { root = root, encoders = {}, decoders = {} }
  return schema
end

-- The bytes of a value.
---@param value any
---@param form? "plain"|"avro" "plain" unless told
---@return string|nil bytes
---@return sluice.avro.failure|nil err path (a JSON pointer), expected, found, message
function Schema:encode(value, form)
  form = form_of("schema:encode", form)
  local it = inner[self]
  local encoder = it.encoders[form]
  if not encoder then
    encoder = encode.new(FORMS[form]):of(it.root)
    it.encoders[form] = encoder
  end
  local bytes, err = encode.run(encoder, value)
  return bytes, err
end

local function decode_with(it, writer, reader, bytes, form, from)
  local decoder = it.decoders[form]
  if not decoder then
    local why
    decoder, why = decode.compile(writer, reader, FORMS[form])
    if not decoder then return nil, why end
    it.decoders[form] = decoder
  end
  local value, err = decode.run(decoder, bytes, from or 0)
  return value, err
end

-- The value of bytes.
---@param bytes string
---@param form? "plain"|"avro" "plain" unless told
---@param from? integer bytes to pass over, none unless told
---@return any value
---@return sluice.avro.failure|nil err
function Schema:decode(bytes, form, from)
  check.string("schema:decode", "bytes", bytes)
  form = form_of("schema:decode", form)
  local it = inner[self]
  local value, err = decode_with(it, it.root, it.root, bytes, form, from)
  return value, err
end

-- The full name of the type, "record" and the like where it has none.
---@return string
function Schema:name()
  return parser.tag(inner[self].root)
end

-- ---- Reading what was written with another schema ----

---@class sluice.avro.reader
local Reader = {}
local reader_mt = { __index = Reader, __metatable = false }

-- Reads values of this schema from what was written with another one (the specification's schema resolution).
---@param writer sluice.avro.schema
---@return sluice.avro.reader|nil
---@return sluice.avro.failure|nil err the first thing that keeps the schemas apart
function Schema:reader(writer)
  local mine, theirs = inner[self], inner[writer]
  if not theirs then check.fail("schema:reader", "writer must be a schema") end
  local decoder, why = decode.compile(theirs.root, mine.root, FORMS.plain)
  if not decoder then return nil, why end
  local reader = setmetatable({}, reader_mt)
  inner[reader] = { writer = theirs.root, root = mine.root, decoders = { plain = decoder } }
  return reader
end

---@param bytes string
---@param form? "plain"|"avro" "plain" unless told
---@param from? integer bytes to pass over, none unless told
---@return any value
---@return sluice.avro.failure|nil err
function Reader:decode(bytes, form, from)
  check.string("reader:decode", "bytes", bytes)
  form = form_of("reader:decode", form)
  local it = inner[self]
  local value, err = decode_with(it, it.writer, it.root, bytes, form, from)
  return value, err
end

-- ---- Canonical form ----

-- The parsing canonical form: the same for schemas that mean the same bytes.
---@return string
function Schema:canonical()
  local it = inner[self]
  it.canonical = it.canonical or canonical.text(it.root)
  return it.canonical
end

-- Of the canonical form, as bytes; those of crc64 lowest first.
---@param kind? "crc64"|"sha256"|"md5" "crc64" unless told
---@return string
function Schema:fingerprint(kind)
  if kind == nil or kind == "crc64" then return canonical.crc64(self:canonical()) end
  crypto = crypto or require "sluice.crypto"
  local digest = crypto.digest(kind, self:canonical())
  return digest
end

-- ---- Single objects: a value with its schema's fingerprint before it ----

local SINGLE = "\195\1"

---@param value any
---@param form? "plain"|"avro"
---@return string|nil bytes
---@return sluice.avro.failure|nil err
function Schema:encode_single(value, form)
  local bytes, err = self:encode(value, form)
  if not bytes then return nil, err end
  return SINGLE .. self:fingerprint() .. bytes
end

-- The fingerprint of a single object's schema; nil: these bytes are none. The value begins behind 10 bytes.
---@param bytes string
---@return string|nil
function avro.fingerprint_of(bytes)
  check.string("sluice.avro.fingerprint_of", "bytes", bytes)
  if sub(bytes, 1, 2) ~= SINGLE or #bytes < 10 then return nil end
  return sub(bytes, 3, 10)
end

return avro
