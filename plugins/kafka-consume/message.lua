-- SPDX-License-Identifier: Apache-2.0
-- What becomes of a record on its way to clients, the same for all of them: filters, the configuration's functions,
-- and its form as JSON. What a client's own plugins do to it (phase consume) comes behind that.
local crypto = require "sluice.crypto"
local json = require "sluice.json"
local kafka = require "sluice.kafka"
local log = require "sluice.log"

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
  if not conf.enable_dlq then return end
  local headers = {}
  for i, header in ipairs(record.headers) do headers[i] = { header[1], header[2] } end
  headers[#headers + 1] = { "dlq.error", tostring(err) }
  headers[#headers + 1] = { "dlq.topic", record.topic }
  headers[#headers + 1] = { "dlq.partition", tostring(record.partition) }
  headers[#headers + 1] = { "dlq.offset", ("%d"):format(record.offset) }
  local ok, why = kafka.send { cluster = state.cluster, topic = conf.dlq_topic, key = record.key, value = record.value,
    headers = headers }
  if not ok then log.err("a record could not be set aside", { topic = conf.dlq_topic, error = why }) end
end

-- A function from a record to what clients see of it; nil: nothing.
---@param state table of the configuration
function message.preparer(state)
  local passes, functions = filter_of(state.conf), compile(state.conf)
  if #functions == 0 then
    return function(record)
      if passes and not passes(record) then return nil end
      return record
    end
  end
  return function(record)
    if passes and not passes(record) then return nil end
    local ok, made = pcall(apply, functions, record)
    if ok then return made end
    set_aside(state, record, made)
    return nil
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

local function value_field(conf, value)
  if type(value) ~= "string" and value ~= nil then -- of a function
    local text, err = encode(value)
    return text and '"value":' .. text, err
  end
  if value and conf.message_deserializer == "json" and json.decode(value) ~= nil then
    -- As it came, digit by digit, but in one line.
    return '"value":' .. (value:find("[\r\n]") and encode(json.decode(value)) or value)
  end
  return field("value", value)
end

local function headers_field(headers)
  local list = {}
  for i, header in ipairs(headers) do
    list[i] = '{"name":' .. encode(header[1]) .. "," .. field("value", header[2]) .. "}"
  end
  return '"headers":[' .. table.concat(list, ",") .. "]"
end

-- The whole record as JSON, in one line; nil when a function made of its value what JSON cannot say.
---@param conf table
---@param record table
---@return string|nil
function message.encode(conf, record)
  local value, err = value_field(conf, record.value)
  if not value then
    log.err("a record cannot be told as JSON", { topic = record.topic, error = err })
    return nil
  end
  return ('{"topic":%s,"partition":%d,"offset":%d,"timestamp":%d,%s,%s,%s}'):format(encode(record.topic),
    record.partition, record.offset, record.timestamp or -1, field("key", record.key),
    headers_field(record.headers or {}), value)
end

return message
