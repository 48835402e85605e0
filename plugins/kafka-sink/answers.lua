-- SPDX-License-Identifier: Apache-2.0
-- The service's response as a record, for whoever asked over topics (as kafka-request-reply does): to the topic that
-- the record names, when it is one of those that may be named, with its correlation id.
local kafka = require "sluice.kafka"

local answers = {}

local TIMEOUT_S = 10

local function header_of(record, name)
  for _, header in ipairs(record.headers) do
    if header[1] == name then return header[2] end
  end
end

-- The topic that wants an answer to the record; nil: none does.
---@return string|nil
function answers.topic(conf, record)
  if not conf.reply_topics then return nil end
  local wanted = header_of(record, conf.reply_topic_header)
  for _, topic in ipairs(conf.reply_topics) do
    if topic == wanted and header_of(record, conf.correlation_id_header) then return topic end
  end
end

---@return boolean|nil written
---@return string|nil err
function answers.write(conf, cluster, topic, record, response)
  local at, err = kafka.produce { cluster = cluster, topic = topic, key = record.key, value = response.body,
    timeout = TIMEOUT_S, headers = {
      { conf.correlation_id_header, header_of(record, conf.correlation_id_header) },
      { conf.status_header, tostring(response.status) },
      { "content-type", response.headers["content-type"] or "application/octet-stream" },
    } }
  return at ~= nil or nil, err
end

return answers
