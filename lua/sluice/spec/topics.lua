-- SPDX-License-Identifier: Apache-2.0
-- Kafka as tables: topics in memory, what was produced to them, records from elsewhere, failures.
local json = require "sluice.json"

local Topics = {}
Topics.__index = Topics

local topics = {}

---@param world table sluice.spec.inside or outside
function topics.new(world)
  return setmetatable({ world = world }, Topics)
end

-- name -> how many partitions, or { partitions =, records = { { key =, value = } }, fails = "MSG_SIZE_TOO_LARGE" }.
function Topics:tell(given)
  for name, it in pairs(given) do
    if type(it) == "number" then it = { partitions = it } end
    self.world:topic(name, it.partitions or 1)
    self.world:fails(name, it.fails or "")
    for _, record in ipairs(it.records or {}) do self:produce(name, record) end
  end
end

-- Records for a topic ("": for all) fail from now on, or no more (nil): "full", "timeout", or Kafka's name of an error.
function Topics:fail(name, error_name)
  self.world:fails(name, error_name or "")
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
  local there = self.world:produce(name, {
    key = record.key, value = type(record.value) == "table" and json.encode(record.value) or record.value,
    headers = header_list(record.headers), partition = record.partition or -1, timestamp = record.timestamp or 0,
  })
  if not there then error(("topic %s has no partition %s"):format(name, tostring(record.partition)), 0) end
end

local with_json = { __index = function(self, key)
  if key ~= "json" or not self.value then return nil end
  local value = json.decode(self.value)
  rawset(self, "json", value)
  return value
end }

-- All records of a topic in the order of their coming: { key, value, json, headers (name -> value), fields (list of
-- { name, value }), partition, offset, timestamp (ms) }.
function Topics:records(name)
  local list = {}
  while true do
    local record = self.world:record(name, #list)
    if not record then return list end
    record.fields, record.headers = record.headers, {}
    for _, header in ipairs(record.fields) do record.headers[header[1]] = header[2] end
    list[#list + 1] = setmetatable(record, with_json)
  end
end

return topics
