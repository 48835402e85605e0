-- SPDX-License-Identifier: Apache-2.0
-- A record as the plugins of the service, and the global ones, let it pass in phase consume. Its place stays what it
-- is, and so do the order that its key gives it, and what goes to the dead-letter topic.
local json = require "sluice.json"
local records = require "sluice.records"

local consumed = {}

-- Plugins may make of a value what JSON can say.
local function as_text(value)
  if value == nil or type(value) == "string" then return value end
  return json.encode(value)
end

local function are_headers(list)
  if type(list) ~= "table" then return false end
  for _, header in ipairs(list) do
    if type(header) ~= "table" or type(header[1]) ~= "string" then return false end
    if header[2] ~= nil and type(header[2]) ~= "string" then return false end
  end
  return true
end

---@param conf table
---@param record sluice.kafka.record
---@return sluice.kafka.record|nil made nil without `why`: a plugin dropped it
---@return string|nil why it cannot go on
---@return "away"|"bad"|nil verdict as failures.judge
function consumed.of(conf, record)
  local made, err, code = records.run_alone(conf, "consume", record)
  if err then return nil, err, code and "away" or "bad" end
  if not made or made == record then return made end
  local value, why = as_text(made.value)
  if why then return nil, "a plugin's value is no JSON: " .. why, "bad" end
  if not are_headers(made.headers) then return nil, "a plugin's headers are no list of names with texts", "bad" end
  return { topic = record.topic, partition = record.partition, offset = record.offset, timestamp = record.timestamp,
    key = made.key ~= nil and tostring(made.key) or nil, value = value, headers = made.headers }
end

return consumed
