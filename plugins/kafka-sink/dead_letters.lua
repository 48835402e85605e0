-- SPDX-License-Identifier: Apache-2.0
-- Records that the service will not take, in another topic: as they were, with headers that say where they stood and
-- why they are there.
local kafka = require "sluice.kafka"
local sluice = require "sluice"

local dead_letters = {}

local WHY_MOST = 1000
local TIMEOUT_S = 10

-- Headers of an earlier time in such a topic are replaced.
local function is_ours(name)
  return name:sub(1, 12) == "dead-letter-"
end

---@param conf table
---@param cluster string
---@param item table
---@param cause { why: string, status: integer|nil, tries: integer, service: string }
---@return boolean|nil written
---@return string|nil err
function dead_letters.write(conf, cluster, item, cause)
  local record, headers = item.record, {}
  for _, header in ipairs(record.headers) do
    if not is_ours(header[1]) then headers[#headers + 1] = { header[1], header[2] } end
  end
  local function put(name, value)
    if value ~= nil then headers[#headers + 1] = { "dead-letter-" .. name, tostring(value) } end
  end
  put("topic", record.topic)
  put("partition", ("%d"):format(record.partition))
  put("offset", ("%d"):format(record.offset))
  put("timestamp", ("%.0f"):format(record.timestamp))
  put("group", conf.group)
  put("service", cause.service)
  put("reason", cause.why:sub(1, WHY_MOST))
  put("status", cause.status)
  put("tries", ("%d"):format(cause.tries))
  put("time", ("%.0f"):format(sluice.time.now() * 1000))
  local at, err = kafka.produce { cluster = cluster, topic = conf.dead_letter_topic, key = record.key,
    value = record.value, headers = headers, timeout = TIMEOUT_S }
  return at ~= nil or nil, err
end

return dead_letters
