-- SPDX-License-Identifier: Apache-2.0
-- What stands beside a record in a topic for those that could not go where they should, the same whoever put it there:
-- headers that begin with "dead-letter-". Kafka Connect's `__connect.errors.*` were the other choice: they are about
-- connectors, tasks and Java's exceptions, and have no place for a status, a route or a request.
--
--   local headers = dead_letters.headers(record.headers, { topic = record.topic, reason = "no such order", ... })

local time = require "sluice.time"

local find, format, floor = string.find, string.format, math.floor
local tostring, type, ipairs = tostring, type, ipairs

local dead_letters = {}

local PREFIX = "dead-letter-"
local REASON_MOST = 1000

-- In this order. `topic`, `partition`, `offset`, `timestamp`: where and when the record was, or was to be. `group`,
-- `service`, `route`, `request-id`: on whose behalf. `reason`, `code`, `field`, `status`, `tries`: why.
local NAMES = { "topic", "partition", "offset", "timestamp", "group", "service", "route", "request-id", "reason",
  "code", "field", "status", "tries" }

local function text_of(value)
  if type(value) == "number" and value == floor(value) then return format("%.0f", value) end
  return tostring(value)
end

-- The headers of a record that is set aside: its own, those facts that are known, and `time`, that of this moment in
-- milliseconds since 1970. What an earlier time in such a topic has left is replaced.
---@param own table[]|nil list of { name, value }
---@param facts table<string, any> by the names above
---@return table[]
function dead_letters.headers(own, facts)
  local headers = {}
  for _, header in ipairs(own or headers) do
    if find(header[1], PREFIX, 1, true) ~= 1 then headers[#headers + 1] = { header[1], header[2] } end
  end
  for _, name in ipairs(NAMES) do
    local value = facts[name]
    if value ~= nil then
      local text = text_of(value)
      headers[#headers + 1] = { PREFIX .. name, name == "reason" and text:sub(1, REASON_MOST) or text }
    end
  end
  headers[#headers + 1] = { PREFIX .. "time", format("%.0f", time.now() * 1000) }
  return headers
end

return dead_letters
