-- SPDX-License-Identifier: Apache-2.0
-- A request becomes a record, and the answer says where the broker put it. No service is called.
local kafka = require "sluice.kafka"
local message = require "kafka-upstream.message"

local upstream = { version = "1.0.0", priority = 751 }

local RETRY_SECONDS = "1"

-- What Kafka's error means for the client. Others: 502, for the fault is behind the gateway.
local STATUS = {
  full = 503, cluster = 503, timeout = 504, invalid = 400,
  MSG_SIZE_TOO_LARGE = 413, INVALID_MSG_SIZE = 413, RECORD_LIST_TOO_LARGE = 413,
  UNKNOWN_TOPIC_OR_PART = 404, _UNKNOWN_TOPIC = 404,
  _TRANSPORT = 503, _ALL_BROKERS_DOWN = 503,
}

local clusters = setmetatable({}, { __mode = "k" }) -- by configuration

-- Clusters of `bootstrap_servers` are kept while a configuration asks for them.
function upstream.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local cluster, err = kafka.cluster_of(conf)
    if not cluster then error(err, 0) end
    clusters[conf] = cluster
  end
end

local function refuse(exchange, conf, err, code)
  local status = STATUS[code] or 502
  local headers = status == 503 and { ["Retry-After"] = RETRY_SECONDS } or nil
  exchange.response:exit(status, {
    message = status == 503 and "Kafka cannot take the record now" or "the record was not produced",
    error = err, code = code, topic = conf.topic, request_id = exchange.id,
  }, headers)
end

local function answer(exchange, status, at)
  at.message = "message sent"
  exchange.response:exit(status, at)
end

function upstream.access(conf, exchange)
  local value, err = message.value(conf, exchange)
  if not value then
    exchange.response:exit(400, { message = err, request_id = exchange.id })
    return
  end
  local record = {
    cluster = clusters[conf], topic = conf.topic, value = value,
    key = conf.key_header and exchange.request:get_header(conf.key_header) or nil,
    timeout = conf.timeout / 1000,
  }
  if not conf.wait then
    local queued, why, code = kafka.send(record)
    if not queued then refuse(exchange, conf, why, code) end
    return answer(exchange, 202, { topic = conf.topic })
  end
  local at, why, code = kafka.produce(record)
  if not at then refuse(exchange, conf, why, code) end
  answer(exchange, 200, at)
end

return upstream
