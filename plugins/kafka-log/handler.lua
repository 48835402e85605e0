-- SPDX-License-Identifier: Apache-2.0
-- Each exchange as one JSON record in a topic, by way of a queue: no request waits for Kafka, what it does not take is
-- sent again, and what has no room is dropped and counted.
local code = require "sluice.code"
local kafka = require "sluice.kafka"
local logging = require "sluice.logging"
local queue = require "sluice.queue"
local sender = require "kafka-log.sender"
local time = require "sluice.time"

local kafka_log = { version = "1.1.0", priority = 5 }

local states = setmetatable({}, { __mode = "k" }) -- by configuration: fields, key, queue

local function key_of(conf)
  if not conf.key_by_lua then return nil end
  local chunk, why = code.compiler()(conf.key_by_lua, "key_by_lua")
  if not chunk then error(why, 0) end
  return chunk
end

local function new_state(conf)
  return { fields = logging.fields(conf), key = key_of(conf), losses = logging.losses { topic = conf.topic } }
end

-- Kong's way to say that records do not wait for others.
local function queue_conf(conf)
  if conf.producer_async ~= false then return conf end
  local copy, params = {}, queue.params(conf)
  for name, value in pairs(conf) do copy[name] = value end
  params.max_batch_size, params.max_coalescing_delay, params.concurrency_limit = 1, 0, -1
  copy.queue, copy.producer_request_limits_messages_per_request, copy.producer_async_flush_timeout = params, nil, nil
  return copy
end

function kafka_log.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local cluster, err = kafka.cluster_of(conf)
    if not cluster then error(err, 0) end
    local state = states[conf] or new_state(conf)
    local losses = state.losses
    state.queue = queue.open(queue_conf(conf), sender.send, {
      cluster = cluster, topic = conf.topic, timeout = math.max(conf.timeout, 0) / 1000,
      lose = function(why) logging.lose(losses, why) end,
    })
    states[conf] = state
  end
end

local function key_for(state, exchange)
  local key = state.key and state.key(exchange)
  return key ~= nil and tostring(key) or nil
end

function kafka_log.log(conf, exchange)
  local state = states[conf]
  local line, err = logging.line(state.fields, exchange)
  if not line then return logging.lose(state.losses, err) end
  state.queue:add(sender.entry(line, key_for(state, exchange), time.now()))
end

return kafka_log
