-- SPDX-License-Identifier: Apache-2.0
-- What becomes of a record on its way to clients, the same for all of them: filters, the configuration's functions,
-- and its form as JSON. What a client's own plugins do to it (phase consume) comes behind that.
local attempt = require "sluice.attempt"
local cloudevent = require "kafka-consume.cloudevent"
local crypto = require "sluice.crypto"
local dead_letters = require "sluice.dead_letters"
local json = require "sluice.json"
local kafka = require "sluice.kafka"
local log = require "sluice.log"
local serde = require "sluice.serde"
local sleep = require "sluice.sleep"
local time = require "sluice.time"

local message = {}

-- ---- Filters -----------------------------------------------------------------------------------------------------

local function set_of(list)
  local set = {}
  for _, value in ipairs(list) do set[value] = true end
  return set
end

-- A function that says whether a record passes; nil: all do.
local function filter_of(conf)
  local filter = conf.filter
  if not filter or not (filter.keys or filter.key_prefix or filter.headers) then return nil end
  local keys, prefix, headers = filter.keys and set_of(filter.keys), filter.key_prefix, {}
  for name, values in pairs(filter.headers or {}) do headers[#headers + 1] = { name, set_of(values) } end
  local function has(record, name, values)
    for _, header in ipairs(record.headers) do
      if header[1] == name and header[2] and values[header[2]] then return true end
    end
    return false
  end
  return function(record)
    local key = record.key
    if keys and not (key and keys[key]) then return false end
    if prefix and not (key and key:sub(1, #prefix) == prefix) then return false end
    for _, wanted in ipairs(headers) do
      if not has(record, wanted[1], wanted[2]) then return false end
    end
    return true
  end
end

-- ---- Functions ---------------------------------------------------------------------------------------------------

local function compile(conf)
  local functions = {}
  for i, code in ipairs(conf.message_by_lua_functions or {}) do
    local chunk, err = loadstring(code, "=message_by_lua_functions[" .. i .. "]")
    local fn = chunk and chunk()
    if type(fn) ~= "function" then
      error("config.message_by_lua_functions[" .. i .. "]: " .. (err or "the code must return a function"), 0)
    end
    functions[i] = fn
  end
  return functions
end

-- Records are shared by all readers of the topic.
local function copy_of(record)
  local copy = {}
  for name, value in pairs(record) do copy[name] = value end
  copy.headers = {}
  for i, header in ipairs(record.headers) do copy.headers[i] = { header[1], header[2] } end
  return copy
end

local function apply(functions, record)
  local made = copy_of(record)
  for i = 1, #functions do
    made = functions[i](made)
    if made == nil then return nil end
  end
  if type(made) ~= "table" then error("a function must return the record or nil, got a " .. type(made), 0) end
  return made
end

-- A record that cannot be made ready is no client's: it is told in the log, and kept where the configuration says.
local function set_aside(state, record, err)
  log.err("a record was left out", { topic = record.topic, partition = record.partition, offset = record.offset,
    error = err })
  local conf = state.conf
  if not conf.enable_dlq or not conf.dlq_topic then return end
  local headers = dead_letters.headers(record.headers, { topic = record.topic, partition = record.partition,
    offset = record.offset, timestamp = record.timestamp, reason = tostring(err) })
  local ok, why = kafka.send { cluster = state.cluster, topic = conf.dlq_topic, key = record.raw_key or record.key,
    value = record.value, headers = headers }
  if not ok then log.err("a record could not be set aside", { topic = conf.dlq_topic, error = why }) end
end

-- ---- Schemas -----------------------------------------------------------------------------------------------------

local REGISTRY_S = 30 -- a registry that is away is asked for so long
local AWAY = { unavailable = true, unauthorized = true }

local function codec_of(conf)
  local codec = serde.new(conf)
  return codec and { codec = codec, form = conf.confluent.avro_form }
end

-- Codecs by topic: its own registry, else that of all.
local function codecs_of(conf)
  local codecs, common = {}, codec_of(conf.schema_registry)
  for _, topic in ipairs(conf.topics) do codecs[topic.name] = codec_of(topic.schema_registry) or common end
  return next(codecs) and codecs or nil
end

-- What the bytes mean; nil and why, where they are none of their schema. A registry that is away says nothing about the
-- record: then this waits, and raises in the end.
local function decode(it, method, bytes)
  local deadline = time.monotonic() + REGISTRY_S
  while true do
    local made, err = it.codec[method](it.codec, bytes, it.form)
    if not err then return made end
    if not AWAY[err.code] then return nil, err.message end
    if time.monotonic() >= deadline then error("the schema registry cannot be asked: " .. err.message, 0) end
    sleep(1)
  end
end

-- The record with its value as JSON.
local function decoded(it, record)
  if not record.value then return record end
  local text, err = decode(it, "decode_json", record.value)
  if not text then return nil, err end
  local made = copy_of(record)
  made.value = text
  return made
end

-- A key may be anything: only one that names a schema, and fits it, is more than its bytes. A text is a key as it is,
-- anything else as JSON.
local function key_of(it, key)
  local value, err = decode(it, "decode", key)
  if err then return key end
  if type(value) == "string" then return value end
  return json.encode(value) or key
end

-- A function that gives records with their keys as their schemas have them, `raw_key` being the bytes; nil: no topic
-- has a registry. Records are shared by readers, and so is what comes of them. It may wait.
function message.key_decoder(conf)
  local codecs = codecs_of(conf)
  if not codecs then return nil end
  local known = setmetatable({}, { __mode = "k" })
  return function(record)
    local it, key = codecs[record.topic], record.key
    if not it or not key or key:byte() ~= 0 then return record end
    local made = known[record]
    if not made then
      made = {}
      for name, member in pairs(record) do made[name] = member end
      made.key, made.raw_key = key_of(it, key), key
      known[record] = made
    end
    return made
  end
end

-- What `tell` makes of a record. One that it fails with, such as a record so large that it takes more than the CPU
-- budget of a call, is left out: it must not end the stream of everybody who comes to it. May wait.
---@param record table as it was read
---@param tell fun(conf: table, made: table): string|nil
---@param made table as clients are to see it
---@return string|nil
function message.told(state, record, tell, made)
  local ok, text = attempt(tell, state.conf, made)
  if ok then return text end
  set_aside(state, record, text)
  return nil
end

-- A function from a record to what clients see of it; nil: nothing. It may wait.
---@param state table of the configuration
function message.preparer(state)
  local passes, functions, codecs = filter_of(state.conf), compile(state.conf), codecs_of(state.conf)
  local plain = #functions == 0
  return function(record)
    if passes and not passes(record) then return nil end
    local codec, err = codecs and codecs[record.topic], nil
    local made = record
    if codec then made, err = decoded(codec, record) end
    if made and not plain then
      local ok, result = attempt(apply, functions, made)
      if ok then made = result else made, err = nil, result end
    end
    if err then set_aside(state, record, err) end
    return made
  end
end

-- ---- JSON --------------------------------------------------------------------------------------------------------

local encode = json.encode

-- JSON has no bytes: what is no text goes as base64, in a field that says so.
local function field(name, text)
  if text == nil then return '"' .. name .. '":null' end
  if json.is_text(text) then return '"' .. name .. '":' .. encode(text) end
  return '"' .. name .. '_base64":"' .. crypto.base64_encode(text) .. '"'
end

local function has_registry(conf)
  for _, topic in ipairs(conf.topics) do
    if topic.schema_registry then return true end
  end
  return false
end

local function value_field(conf, value)
  if type(value) ~= "string" and value ~= nil then -- of a function
    local text, err = encode(value)
    return text and '"value":' .. text, err
  end
  if value and (conf.message_deserializer == "json" or conf.schema_registry or has_registry(conf))
    and json.decode(value) ~= nil then
    -- As it came, digit by digit, but in one line.
    return '"value":' .. (value:find("[\r\n]") and encode(json.decode(value)) or value)
  end
  return field("value", value)
end

local function headers_field(headers)
  local list = {}
  for i, header in ipairs(headers) do
    list[i] = "{" .. field("name", header[1]) .. "," .. field("value", header[2]) .. "}"
  end
  return '"headers":[' .. table.concat(list, ",") .. "]"
end

local function cannot(record, err)
  log.err("a record cannot be told as JSON", { topic = record.topic, error = err })
end

-- The whole record as JSON, in one line; nil when a function made of its value what JSON cannot say.
---@param conf table
---@param record table
---@return string|nil
function message.encode(conf, record)
  if conf.event == "cloudevent" then
    local text, err = cloudevent.encode(record)
    if not text then cannot(record, err) end
    return text
  end
  local value, err = value_field(conf, record.value)
  if not value then
    cannot(record, err)
    return nil
  end
  return ('{"topic":%s,"partition":%d,"offset":%d,"timestamp":%d,%s,%s,%s}'):format(encode(record.topic),
    record.partition, record.offset, record.timestamp or -1, field("key", record.key),
    headers_field(record.headers or {}), value)
end

return message
