-- SPDX-License-Identifier: Apache-2.0
-- Records in the form of server-sent events (the HTML standard, 9.2), and event ids as positions in a topic.
--
--   id: 2/41,0/7        the record is partition 2, offset 41; of partition 0 the last one had offset 7
--   data: the value
local json = require "sluice.json"

local events = {}

events.HEARTBEAT = ":\n\n" -- a comment: keeps proxies and clients from giving up

local PARTITIONS_MAX = 1024

-- Each line of a text needs its own field, and CR ends a line too.
local function data(text)
  text = text:gsub("\r\n?", "\n"):gsub("\n", "\ndata: ")
  return "data: " .. text .. "\n\n"
end

-- The record's own partition first: a reader of the id sees where it was.
function events.id(record, reader)
  local positions = reader:positions()
  local parts = { record.partition .. "/" .. record.offset }
  for partition = 0, #positions do
    if partition ~= record.partition and positions[partition] then
      parts[#parts + 1] = partition .. "/" .. positions[partition] - 1
    end
  end
  return "id: " .. table.concat(parts, ",") .. "\n"
end

-- Offsets to go on from, by partition; nil when the id is not one of ours.
function events.positions(id)
  local positions, count = {}, 0
  for part in (id .. ","):gmatch("([^,]*),") do
    local partition, offset = part:match("^(%d+)/(%-?%d+)$")
    partition, offset = tonumber(partition), tonumber(offset)
    if not partition or partition >= 2 ^ 31 or offset < -1 or offset >= 2 ^ 53 - 1 then return nil end
    count = count + 1
    if count > PARTITIONS_MAX then return nil end
    positions[partition] = offset + 1
  end
  return positions
end

local function plain_copy(record)
  local copy = {}
  for name, value in pairs(record) do copy[name] = value end
  return copy
end

-- Through the configured functions; nil: the record is not for this client.
local function through(functions, record)
  if #functions == 0 then return record end
  local message = plain_copy(record)
  for i = 1, #functions do
    message = functions[i](message)
    if message == nil then return nil end
  end
  return message
end

local function as_record(message, value)
  local headers = {}
  for i, header in ipairs(message.headers) do headers[i] = { name = header[1], value = header[2] } end
  return json.encode({
    topic = message.topic, partition = message.partition, offset = message.offset, timestamp = message.timestamp,
    key = message.key, value = value, headers = json.array(headers),
  })
end

-- A function from a record to its event without the id; each record is encoded once, whatever the number of readers.
-- It gives nil for a record that a function dropped.
function events.encoder(conf, functions)
  local known = setmetatable({}, { __mode = "k" })
  local whole, parse = conf.event == "record", conf.message_deserializer == "json"
  local function encode(record)
    local message = through(functions, record)
    if not message then return false end
    local value = message.value
    if type(value) == "table" then value = json.encode(value) end
    if value == nil then value = whole and json.null or "null" end
    if whole then
      local parsed = parse and type(value) == "string" and json.decode(value) or nil
      value = assert(as_record(message, parsed == nil and value or parsed))
    end
    return data(value)
  end
  return function(record)
    local text = known[record]
    if text == nil then
      text = encode(record)
      known[record] = text
    end
    return text or nil
  end
end

-- Records were lost to this reader: where it goes on.
function events.gap(reader)
  local positions = {}
  for partition, offset in pairs(reader:positions()) do positions[tostring(partition)] = offset end
  return "event: gap\n" .. data(json.encode({ positions = positions }))
end

-- The stream ends here, and this is why.
function events.failure(err)
  return "event: error\n" .. data(json.encode({ message = err }))
end

return events
