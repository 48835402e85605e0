-- SPDX-License-Identifier: Apache-2.0
-- A record as C wants it. Its texts are the caller's: they must be held while C reads.
--
-- These functions are called by an API function directly, whose caller is where an error points.

local ffi = require "ffi"
local check = require "sluice.api.check"
local clusters = require "sluice.kafka.clusters"

local tostring, type, pairs, ipairs = tostring, type, pairs, ipairs

local expiries = clusters.expiries

local ANY_PARTITION = -1
local HEADERS_MAX = 256
local PARTITION_MAX = 2147483647

local message = {}

---@class sluice.kafka.message
---@field cluster? string "main" unless told
---@field topic string
---@field key? string
---@field value? string nil is Kafka's null
---@field headers? table { name = value }, { name = { value, value } } or a list of { name, value }
---@field partition? integer by key, as Java's clients choose, unless told
---@field timestamp? number milliseconds since 1970, now unless told
---@field timeout? number seconds to wait; where a route has the same timeout, the record is not sent later than that

local cell = ffi.new("struct kafka_message")
local header_cells = ffi.new("struct bytes[?]", HEADERS_MAX * 2)

local function put(bytes, text)
  if text == nil then
    bytes.data, bytes.len = nil, 0
  else
    bytes.data, bytes.len = text, #text
  end
end

-- A text of the record; numbers are written out.
---@param name string the API function
---@param argument string
---@return string|nil
function message.text(name, argument, value)
  if type(value) == "number" then return tostring(value) end
  if value ~= nil and type(value) ~= "string" then
    check.fail(name, argument .. " must be a string, got a " .. type(value), 4)
  end
  return value
end

local function put_header(name, count, key, value)
  if count == HEADERS_MAX then check.fail(name, "headers: more than " .. HEADERS_MAX, 6) end
  if type(key) ~= "string" or (value ~= nil and type(value) ~= "string") then
    check.fail(name, "headers must be names with strings", 6)
  end
  put(header_cells[2 * count], key)
  put(header_cells[2 * count + 1], value)
  return count + 1
end

-- { name = value }, { name = { value, value } } or a list of { name, value }. Texts only: one made here could be
-- collected before C reads it.
local function put_headers(name, headers)
  if type(headers) ~= "table" then check.fail(name, "headers must be a table, got a " .. type(headers), 5) end
  local count = 0
  for key, value in pairs(headers) do
    if type(value) ~= "table" then
      count = put_header(name, count, key, value)
    elseif type(key) == "number" then
      count = put_header(name, count, value[1], value[2])
    else
      for _, one in ipairs(value) do count = put_header(name, count, key, one) end
    end
  end
  return count
end

local function number_of(name, argument, value, low, high)
  if type(value) ~= "number" or not (value >= low and value <= high) then
    check.fail(name, ("%s must be a number from %d to %d, got %s"):format(argument, low, high, tostring(value)), 5)
  end
  return value
end

local function name_of(name, argument, value)
  if type(value) ~= "string" then check.fail(name, argument .. " must be a string, got a " .. type(value), 5) end
  return value
end

-- The one cell, filled: it stands until the next call.
---@param name string the API function
---@param options sluice.kafka.message
---@param cluster string|nil
---@param key string|nil its key, as message.text gave it
---@param value string|nil
---@param timeout number|nil seconds that somebody waits for it
---@return ffi.cdata* struct kafka_message
function message.lay(name, options, cluster, key, value, timeout)
  cluster = name_of(name, "cluster", cluster or clusters.DEFAULT)
  cell.cluster = cluster
  cell.topic = name_of(name, "topic", options.topic)
  put(cell.key, key)
  put(cell.value, value)
  cell.headers = header_cells
  cell.header_count = options.headers and put_headers(name, options.headers) or 0
  cell.partition = number_of(name, "partition", options.partition or ANY_PARTITION, ANY_PARTITION, PARTITION_MAX)
  cell.timestamp_ms = number_of(name, "timestamp", options.timestamp or 0, 0, 9e15)
  timeout = number_of(name, "timeout", timeout or 0, 0, 1e8)
  cell.timeout_s = timeout
  local known = expiries[cluster]
  cell.expires_s = known and known[timeout] and timeout or 0
  return cell
end

return message
