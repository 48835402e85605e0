-- SPDX-License-Identifier: Apache-2.0
-- Records that the service will not take, in another topic: as they were, with headers that say where they stood and
-- why they are there.
local kafka = require "sluice.kafka"
local said = require "sluice.dead_letters"

local dead_letters = {}

local TIMEOUT_S = 10

---@param conf table
---@param cluster string
---@param item table
---@param cause { why: string, status: integer|nil, tries: integer, service: string }
---@return boolean|nil written
---@return string|nil err
function dead_letters.write(conf, cluster, item, cause)
  local record = item.record
  local headers = said.headers(record.headers, { topic = record.topic, partition = record.partition,
    offset = record.offset, timestamp = record.timestamp, group = conf.group, service = cause.service,
    reason = cause.why, status = cause.status, tries = cause.tries })
  local at, err = kafka.produce { cluster = cluster, topic = conf.dead_letter_topic, key = record.key,
    value = record.value, headers = headers, timeout = TIMEOUT_S }
  return at ~= nil or nil, err
end

return dead_letters
