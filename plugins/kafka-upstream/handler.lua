-- SPDX-License-Identifier: Apache-2.0
-- A request becomes a record, and the answer says where the broker put it. No service is called.
local idempotency = require "kafka-upstream.idempotency"
local kafka = require "sluice.kafka"
local record = require "kafka-upstream.record"
local records = require "sluice.records"
local sender = require "kafka-upstream.sender"
local schemas = require "kafka-upstream.schemas"
local several = require "kafka-upstream.several"
local sources = require "kafka-upstream.sources"

local upstream = { version = "1.1.0", priority = 751 }

local runs = setmetatable({}, { __mode = "k" }) -- by configuration: the function that serves its requests

local body_of = sources.body_of

-- What is the same for all requests of a configuration.
local function plan_of(conf, cluster)
  return {
    cluster = cluster, topic = conf.topic, timeout = math.max(conf.timeout, 0) / 1000, wait = conf.wait,
    traced = conf.trace_headers, make = record.compile(conf, cluster), dead_letter_topic = conf.dead_letter_topic,
    dead_letter_status = conf.dead_letter_status, schemas = schemas.of(conf),
  }
end

local function one(conf, plan)
  return function(exchange)
    return sender.one(plan, sources.values(exchange, body_of(conf, exchange)))
  end
end

-- The body as it is, perhaps with a key from a field: the way that most records go.
local function plain(conf, plan)
  local cluster, topic, timeout, key_header = plan.cluster, plan.topic, plan.timeout, conf.key_header
  return function(exchange)
    local body = body_of(conf, exchange)
    if records.any("produce") then return sender.one(plan, sources.values(exchange, body)) end
    local key = key_header and exchange.request:get_header(key_header) or nil
    return sender.produce(plan, exchange,
      { cluster = cluster, topic = topic, value = body, timeout = timeout, key = key }, body)
  end
end

local function compile(conf)
  local cluster, err = kafka.cluster_of(conf)
  if not cluster then error(err, 0) end
  local plan, way = plan_of(conf, cluster), one
  if conf.batch ~= "none" or conf.topics_query_arg or conf.cloudevents then
    way = several.compile
  elseif record.is_plain(conf) then
    way = plain
  end
  local run = way(conf, plan)
  return conf.idempotency and idempotency.wrap(conf, run) or run
end

-- Clusters of `bootstrap_servers` are kept while a configuration asks for them.
function upstream.configure(confs)
  for _, conf in ipairs(confs or {}) do runs[conf] = compile(conf) end
end

function upstream.access(conf, exchange)
  local status, body, headers = runs[conf](exchange)
  if status then exchange.response:exit(status, body, headers) end -- else the answer was a stream
end

return upstream
