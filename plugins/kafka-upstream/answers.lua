-- SPDX-License-Identifier: Apache-2.0
-- What a client is told of its records.
local kafka = require "sluice.kafka"

local answers = {}

answers.RETRY = { ["Retry-After"] = "1" }

-- What Kafka's error means for the client. Others: 502, for the fault is behind the gateway.
local STATUS = {
  full = 503, cluster = 503, timeout = 504, invalid = 400,
  MSG_SIZE_TOO_LARGE = 413, INVALID_MSG_SIZE = 413, RECORD_LIST_TOO_LARGE = 413,
  UNKNOWN_TOPIC_OR_PART = 404, _UNKNOWN_TOPIC = 404, _UNKNOWN_PARTITION = 404,
  TOPIC_AUTHORIZATION_FAILED = 403, CLUSTER_AUTHORIZATION_FAILED = 403, INVALID_RECORD = 422,
  _TRANSPORT = 503, _ALL_BROKERS_DOWN = 503,
}

---@param code string of kafka.produce
---@return integer
function answers.status(code)
  return STATUS[code] or 502
end

-- What is told of one record of several that was not produced.
function answers.entry(err, code)
  return { error = err, code = code, status = answers.status(code) }
end

-- The same of one that cannot become a record.
---@param refusal table see sources.refuse
function answers.refused_entry(refusal)
  local text = refusal.message .. (refusal.error and ": " .. refusal.error or "")
  return { error = text, status = refusal.status, field = refusal.field }
end

-- Ends the phase.
function answers.refuse(exchange, topic, err, code)
  local status = answers.status(code)
  exchange.response:exit(status, {
    message = status == 503 and "Kafka cannot take the record now" or "the record was not produced",
    error = err, code = code, topic = topic, request_id = exchange.id,
  }, status == 503 and answers.RETRY or nil)
end

-- The request cannot become a record.
---@param refusal table see sources.refuse
function answers.refuse_request(exchange, refusal)
  exchange.response:exit(refusal.status, {
    message = refusal.message, error = refusal.error, field = refusal.field, request_id = exchange.id,
  })
end

function answers.dropped(exchange)
  exchange.response:exit(200, { message = "message dropped" })
end

-- Produces one record and answers.
---@param record sluice.kafka.message
---@param wait boolean
function answers.produce(exchange, record, wait)
  local topic = record.topic
  if not wait then
    local queued, err, code = kafka.send(record)
    if not queued then answers.refuse(exchange, topic, err, code) end
    exchange.response:exit(202, { message = "message sent", topic = topic })
  end
  local at, err, code = kafka.produce(record)
  if not at then answers.refuse(exchange, topic, err, code) end
  at.message = "message sent"
  exchange.response:exit(200, at)
end

return answers
