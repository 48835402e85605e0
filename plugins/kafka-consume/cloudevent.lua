-- SPDX-License-Identifier: Apache-2.0
-- A record as a CloudEvent in its JSON format: as the event that it is (Kafka's binding, either content mode), or as
-- one that tells of it.
local cloudevents = require "sluice.cloudevents"
local json = require "sluice.json"
local time = require "sluice.time"

local cloudevent = {}

cloudevent.BATCHED = cloudevents.BATCHED .. "; charset=utf-8"

local function is_json(text)
  local _, err = json.decode(text)
  return err == nil
end

local function said_type(record)
  for _, header in ipairs(record.headers) do
    if header[1]:lower() == "content-type" then return header[2] end
  end
end

local function guessed_type(value)
  if value == nil then return nil end
  if is_json(value) then return "application/json" end
  return json.is_text(value) and "text/plain; charset=utf-8" or "application/octet-stream"
end

local function tell(record, content_type)
  local key = record.key and json.is_text(record.key) and not record.key:find("%c") and record.key or nil
  local event, err = cloudevents.new {
    id = ("%s/%d/%d"):format(record.topic, record.partition, record.offset), source = "/topics/" .. record.topic,
    type = "kafka.record", partitionkey = key, datacontenttype = content_type, data = record.value,
    time = time.iso8601(math.max(record.timestamp or 0, 0) / 1000, 3),
  }
  if not event then return nil, err end
  local text
  text, err = cloudevents.encode(event)
  return text, err
end

-- In one line.
---@param record table
---@return string|nil
---@return string|nil err
function cloudevent.encode(record)
  local value = record.value
  if type(value) ~= "string" and value ~= nil then value = json.encode(value) end -- of a function
  local it = { topic = record.topic, partition = record.partition, offset = record.offset, key = record.key,
    timestamp = record.timestamp, value = value, headers = record.headers or {} }
  local event = cloudevents.from_record(it)
  local text = event and cloudevents.encode(event)
  local err
  -- What says that it is something is taken at its word, unless that cannot be.
  if not text then text = tell(it, said_type(it) or guessed_type(value)) end
  if not text then text, err = tell(it, guessed_type(value)) end
  -- Line feeds of JSON stand between its tokens only.
  if text then return (text:gsub("[\r\n]", " ")) end
  return nil, err
end

return cloudevent
