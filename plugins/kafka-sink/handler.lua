-- SPDX-License-Identifier: Apache-2.0
-- Records of topics as requests to the service that it stands at: a webhook from a topic.
local kafka = require "sluice.kafka"
local sink = require "kafka-sink.sink"

local kafka_sink = { version = "1.0.0", priority = 749, calls_service = true }

local sinks = setmetatable({}, { __mode = "k" }) -- by configuration

function kafka_sink.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local cluster, err = kafka.cluster_of(conf)
    if not cluster then error(err, 0) end
    local running = sinks[conf]
    if not running or running.ended then sinks[conf] = sink.start(conf, cluster) end
  end
end

return kafka_sink
