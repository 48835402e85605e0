-- SPDX-License-Identifier: Apache-2.0
-- A request becomes a record, and the answer says where the broker put it. No service is called.
local answers = require "kafka-upstream.answers"
local kafka = require "sluice.kafka"
local record = require "kafka-upstream.record"
local several = require "kafka-upstream.several"
local sources = require "kafka-upstream.sources"

local upstream = { version = "1.1.0", priority = 751 }

local runs = setmetatable({}, { __mode = "k" }) -- by configuration: the function that serves its requests

local body_of = sources.body_of

-- The body as it is, perhaps with a key from a field: the way that most records go.
local function plain(conf, cluster)
  local topic, timeout, key_header, wait = conf.topic, conf.timeout / 1000, conf.key_header, conf.wait
  local traced, put_trace = conf.trace_headers, record.put_trace
  return function(exchange)
    answers.produce(exchange, {
      cluster = cluster, topic = topic, value = body_of(conf, exchange), timeout = timeout,
      key = key_header and exchange.request:get_header(key_header) or nil,
      headers = traced and put_trace(nil, exchange) or nil,
    }, wait)
  end
end

local function one_record(conf, cluster)
  local make, wait = record.compile(conf, cluster), conf.wait
  return function(exchange)
    local made, refusal = sources.try(make, sources.values(exchange, body_of(conf, exchange)))
    if refusal then answers.refuse_request(exchange, refusal) end
    if not made then answers.dropped(exchange) end
    answers.produce(exchange, made, wait)
  end
end

-- Clusters of `bootstrap_servers` are kept while a configuration asks for them.
function upstream.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local cluster, err = kafka.cluster_of(conf)
    if not cluster then error(err, 0) end
    local compile = record.is_plain(conf) and plain or one_record
    if conf.batch ~= "none" or conf.topics_query_arg then compile = several.compile end
    runs[conf] = compile(conf, cluster)
  end
end

function upstream.access(conf, exchange)
  runs[conf](exchange)
end

return upstream
