-- SPDX-License-Identifier: Apache-2.0
-- What a client is told of its records: a status, a body and fields. An entry is what it is told of one of several.
local answers = {}

local RETRY = { ["Retry-After"] = "1" }

-- What Kafka's error means for the client. Others: 502, for the fault is behind the gateway.
local STATUS = {
  full = 503, cluster = 503, timeout = 504, expired = 504, invalid = 400,
  MSG_SIZE_TOO_LARGE = 413, INVALID_MSG_SIZE = 413, RECORD_LIST_TOO_LARGE = 413,
  UNKNOWN_TOPIC_OR_PART = 404, _UNKNOWN_TOPIC = 404, _UNKNOWN_PARTITION = 404,
  TOPIC_AUTHORIZATION_FAILED = 403, CLUSTER_AUTHORIZATION_FAILED = 403, INVALID_RECORD = 422,
  _TRANSPORT = 503, _ALL_BROKERS_DOWN = 503,
}

---@param status integer
---@return table|nil
function answers.headers(status)
  return status == 503 and RETRY or nil
end

-- ---- Entries -------------------------------------------------------------------------------------------------------

-- Of one that Kafka did not take.
---@param err string
---@param code string of kafka.produce
function answers.failed(err, code)
  return { error = err, code = code, status = STATUS[code] or 502 }
end

-- Of one that cannot be a record.
---@param refusal table see sources.refuse
function answers.refused(refusal)
  local text = refusal.message .. (refusal.error and ": " .. refusal.error or "")
  return { error = text, status = refusal.status, field = refusal.field, path = refusal.path }
end

-- ---- Whole answers -------------------------------------------------------------------------------------------------

---@param at table where the record is
function answers.sent(at)
  at.message = "message sent"
  return 200, at
end

function answers.queued(topic)
  return 202, { message = "message sent", topic = topic }
end

function answers.dropped()
  return 200, { message = "message dropped" }
end

---@param entry table see answers.failed
function answers.not_sent(exchange, entry, topic)
  entry.message = entry.status == 503 and "Kafka cannot take the record now" or "the record was not produced"
  entry.topic, entry.request_id = topic, exchange.id
  local status = entry.status
  entry.status = nil
  return status, entry, answers.headers(status)
end

---@param refusal table see sources.refuse
---@param dead_letter? table where the record was set aside
---@param status? integer in place of the refusal's
function answers.no_record(exchange, refusal, dead_letter, status)
  status = status or refusal.status
  return status, { message = refusal.message, error = refusal.error, field = refusal.field, path = refusal.path,
    dead_letter = dead_letter, request_id = exchange.id }, answers.headers(status)
end

return answers
