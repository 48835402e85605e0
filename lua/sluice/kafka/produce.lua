-- SPDX-License-Identifier: Apache-2.0
-- Records into Kafka, with the broker's word for where they are.

local ffi = require "ffi"
local check = require "sluice.api.check"
local clusters = require "sluice.kafka.clusters"
local core = require "sluice.api.core"

local C, worker = core.C, core.worker
local ffi_string, tostring, type, pairs, ipairs = ffi.string, tostring, type, pairs, ipairs
local yield = coroutine.yield

local OK, AGAIN, NONE = 0, 1, 2
local TIMEOUT, FULL, INVALID = -5, -3, -2
local ANY_PARTITION = -1
local HEADERS_MAX = 256

local produce = {}

local message = ffi.new("struct kafka_message")
local header_cells = ffi.new("struct bytes[?]", HEADERS_MAX * 2)
local result = ffi.new("struct kafka_result")

local function lay(cell, text)
  if text == nil then
    cell.data, cell.len = nil, 0
  else
    cell.data, cell.len = text, #text
  end
end

local function text_of(name, argument, value)
  if type(value) == "number" then return tostring(value) end
  if value ~= nil and type(value) ~= "string" then
    check.fail(name, argument .. " must be a string, got a " .. type(value), 5)
  end
  return value
end

local function lay_header(name, count, key, value)
  if count == HEADERS_MAX then check.fail(name, "headers: more than " .. HEADERS_MAX, 6) end
  if type(key) ~= "string" or (value ~= nil and type(value) ~= "string") then
    check.fail(name, "headers must be names with strings", 6)
  end
  lay(header_cells[2 * count], key)
  lay(header_cells[2 * count + 1], value)
  return count + 1
end

-- { name = value }, { name = { value, value } } or a list of { name, value }. Texts only: one made here could be
-- collected before C reads it.
local function lay_headers(name, headers)
  local count = 0
  for key, value in pairs(headers) do
    if type(value) ~= "table" then
      count = lay_header(name, count, key, value)
    elseif type(key) == "number" then
      count = lay_header(name, count, value[1], value[2])
    else
      for _, one in ipairs(value) do count = lay_header(name, count, key, one) end
    end
  end
  return count
end

-- `key` and `value` are held by the caller while C reads them.
local function lay_message(name, options, key, value)
  check.table(name, "options", options)
  check.string(name, "topic", options.topic)
  message.cluster = options.cluster or clusters.DEFAULT
  message.topic = options.topic
  lay(message.key, key)
  lay(message.value, value)
  message.headers = header_cells
  message.header_count = options.headers and lay_headers(name, options.headers) or 0
  message.partition = options.partition or ANY_PARTITION
  message.timestamp_ms = options.timestamp or 0
  message.timeout_s = options.timeout or 0
end

local function refused(status)
  if status == FULL then return nil, "the queue to the cluster is full", "full" end
  if status == NONE then return nil, core.reason(INVALID), "cluster" end
  return nil, core.reason(INVALID), status == INVALID and "invalid" or "failed"
end

---@class sluice.kafka.message
---@field cluster? string "main" unless told
---@field topic string
---@field key? string
---@field value? string nil is Kafka's null
---@field headers? table { name = value }, { name = { value, value } } or a list of { name, value }
---@field partition? integer by key, as Java's clients choose, unless told
---@field timestamp? number milliseconds since 1970, now unless told
---@field timeout? number seconds to wait

-- Produces a record and waits for the broker's acknowledgement.
---@param options sluice.kafka.message
---@return { topic: string, partition: integer, offset: integer }|nil
---@return string|nil err
---@return string|nil code "full": queue full, at once; "timeout": it may yet arrive; "cluster": there is none of that
--- name; "invalid"; else Kafka's name of the error, such as "MSG_SIZE_TOO_LARGE"
function produce.produce(options)
  local key = text_of("kafka.produce", "key", options.key)
  local value = text_of("kafka.produce", "value", options.value)
  lay_message("kafka.produce", options, key, value)
  local topic = options.topic
  local status = C.bridge_kafka_produce(worker, message, true)
  if status ~= AGAIN then return refused(status) end
  status = yield()
  C.bridge_kafka_result(worker, result)
  if status == OK then return { topic = topic, partition = result.partition, offset = result.offset } end
  if status == TIMEOUT then return nil, ffi_string(result.text), "timeout" end
  return nil, ffi_string(result.text), ffi_string(result.name)
end

-- Queues a record and does not wait; failures are counted in kafka.status().
---@param options sluice.kafka.message
---@return boolean|nil queued
---@return string|nil err
---@return string|nil code
function produce.send(options)
  local key = text_of("kafka.send", "key", options.key)
  local value = text_of("kafka.send", "value", options.value)
  lay_message("kafka.send", options, key, value)
  local status = C.bridge_kafka_produce(worker, message, false)
  if status == OK then return true end
  return refused(status)
end
return produce
