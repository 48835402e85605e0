-- SPDX-License-Identifier: Apache-2.0
-- Each exchange as one JSON record in a topic. Never in anybody's way: a record that the queue cannot take is dropped
-- and counted, and the count is logged.
local kafka = require "sluice.kafka"
local json = require "sluice.json"
local log = require "sluice.log"
local time = require "sluice.time"

local kafka_log = { version = "1.0.0", priority = 5 }

local SAY_EVERY_S = 10

local states = setmetatable({}, { __mode = "k" }) -- by configuration: cluster, custom fields, drops

local function compile(conf)
  local custom = {}
  for name, code in pairs(conf.custom_fields_by_lua or {}) do
    local chunk, err = loadstring(code, "=custom_fields_by_lua." .. name)
    if not chunk then error(err, 0) end
    custom[#custom + 1] = { name = name, chunk = chunk }
  end
  return custom
end

function kafka_log.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local cluster, err = kafka.cluster_of(conf)
    if not cluster then error(err, 0) end
    local state = states[conf] or { dropped = 0, said = 0, said_at = 0 }
    state.cluster, state.custom = cluster, compile(conf)
    states[conf] = state
  end
end

local function dropped(conf, state, why)
  state.dropped = state.dropped + 1
  local now = time.now()
  if now - state.said_at < SAY_EVERY_S then return end
  log.warn("log records dropped", { topic = conf.topic, dropped = state.dropped - state.said, error = why })
  state.said, state.said_at = state.dropped, now
end

function kafka_log.log(conf, exchange)
  local state = states[conf]
  for _, field in ipairs(state.custom) do exchange:set_serialize_value(field.name, field.chunk(exchange)) end
  local value, err = json.encode(exchange:serialize())
  if not value then return dropped(conf, state, err) end
  local queued, why = kafka.send { cluster = state.cluster, topic = conf.topic, value = value }
  if not queued then dropped(conf, state, why) end
end

return kafka_log
