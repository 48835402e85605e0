-- SPDX-License-Identifier: Apache-2.0
-- Kafka as tables: topics in memory, what was produced to them, records from elsewhere, failures.
local ffi = require "ffi"
local core = require "sluice.spec.core"
local json = require "sluice.json"

local C = core.C
local HEADERS_MOST = 64

local Topics = {}
Topics.__index = Topics

local topics = {}

---@param raw ffi.cdata* struct spec
function topics.new(raw)
  return setmetatable({ raw = raw }, Topics)
end

-- name -> how many partitions, or { partitions =, records = { { key =, value = } }, fails = "MSG_SIZE_TOO_LARGE" }.
function Topics:tell(given)
  for name, it in pairs(given) do
    if type(it) == "number" then it = { partitions = it } end
    C.spec_topic(self.raw, name, it.partitions or 1)
    C.spec_topic_fails(self.raw, name, it.fails or "")
    for _, record in ipairs(it.records or {}) do self:produce(name, record) end
  end
end

-- Records for a topic ("": for all) fail from now on, or no more (nil): "full", "timeout", or Kafka's name of an error.
function Topics:fail(name, error_name)
  C.spec_topic_fails(self.raw, name, error_name or "")
end

local message = ffi.new("struct kafka_message")
local cells = ffi.new("struct bytes[?]", HEADERS_MOST * 2)

local function lay(cell, text)
  cell.data, cell.len = text, text and #text or 0
end

-- Pairs in an order that does not vary.
local function header_list(headers)
  local list = {}
  for name, value in pairs(headers or {}) do
    list[#list + 1] = type(name) == "number" and value or { name, value }
  end
  if not (headers and headers[1]) then table.sort(list, function(a, b) return a[1] < b[1] end) end
  return list
end

-- A record from elsewhere: { key, value (text, or a table that becomes JSON), headers, partition, timestamp (ms) }.
function Topics:produce(name, record)
  local value = type(record.value) == "table" and json.encode(record.value) or record.value
  local headers = header_list(record.headers)
  for i, header in ipairs(headers) do
    lay(cells[2 * i - 2], header[1])
    lay(cells[2 * i - 1], header[2])
  end
  message.cluster, message.topic = nil, name
  lay(message.key, record.key)
  lay(message.value, value)
  message.headers, message.header_count = cells, #headers
  message.partition, message.timestamp_ms = record.partition or -1, record.timestamp or 0
  if C.spec_produce(self.raw, message) ~= 0 then
    error(("topic %s has no partition %s"):format(name, tostring(record.partition)), 0)
  end
end

local function text(bytes)
  if bytes.data == nil then return nil end
  return ffi.string(bytes.data, bytes.len)
end

local with_json = { __index = function(self, key)
  if key ~= "json" or not self.value then return nil end
  local value = json.decode(self.value)
  rawset(self, "json", value)
  return value
end }

local function record_of(view)
  local headers, list = {}, {}
  for i = 0, tonumber(view.header_count) - 1 do
    local name, value = text(view.headers[2 * i]), text(view.headers[2 * i + 1])
    list[i + 1] = { name, value }
    headers[name] = value
  end
  return setmetatable({ key = text(view.key), value = text(view.value), headers = headers, fields = list,
    partition = view.partition, offset = tonumber(view.offset), timestamp = tonumber(view.timestamp_ms) }, with_json)
end

local view = ffi.new("struct kafka_record")

-- All records of a topic in the order of their coming: { key, value, json, headers (name -> value), fields (list of
-- { name, value }), partition, offset, timestamp (ms) }.
function Topics:records(name)
  local list = {}
  while C.spec_record(self.raw, name, #list, view) do list[#list + 1] = record_of(view) end
  return list
end

return topics
