-- SPDX-License-Identifier: Apache-2.0
-- A topic for HTTP clients: as server-sent events or lines of JSON. The id of each event names the last record of
-- every partition, so that a client that comes back, to whatever worker or gateway, goes on where it was: the
-- EventSource of a browser does so by itself.
local kafka = require "sluice.kafka"
local forms = require "kafka-consume.forms"
local live = require "kafka-consume.live"
local message = require "kafka-consume.message"
local own = require "kafka-consume.own"
local records = require "sluice.records"
local source = require "kafka-consume.source"

local consume = { version = "1.1.0", priority = 753 }

local states = setmetatable({}, { __mode = "k" }) -- by configuration

local function state_of(conf)
  local cluster, err = kafka.cluster_of(conf)
  if not cluster then error(err, 0) end
  local topics = {}
  for _, topic in ipairs(conf.topics) do topics[topic.name] = true end
  local state = { conf = conf, cluster = cluster, topic = conf.topics[1].name, topics = topics,
    only = #conf.topics == 1 and conf.topics[1].name or nil, lives = {}, starting = {} }
  state.prepare = message.preparer(state)
  return state
end

function consume.configure(confs)
  for _, conf in ipairs(confs or {}) do
    if not states[conf] then states[conf] = state_of(conf) end
  end
end

local function refuse(exchange, status, text, topic)
  exchange.response:exit(status, { message = text, topic = topic, request_id = exchange.id },
    status == 503 and { ["Retry-After"] = "1" } or nil)
end

local BY_MODE = { ["server-sent-events"] = forms.events, ndjson = forms.lines }

-- What the client asks for by Accept, else what the mode says.
local function form_of(conf, exchange)
  local accept = exchange.request:get_header("accept")
  if accept then
    if accept:find("text/event-stream", 1, true) then return forms.events end
    if accept:find("application/x-ndjson", 1, true) then return forms.lines end
  end
  return BY_MODE[conf.mode]
end

-- Where to begin: behind the last event that the client had, or where the configuration says.
local function start_of(state, exchange)
  local last = exchange.request:get_header("last-event-id")
  if not last or last == "" then return state.conf.auto_offset_reset end
  local positions = forms.positions(last, state.topics, state.only)
  if not positions then refuse(exchange, 400, "Last-Event-ID is none of this topic's", state.topic) end
  return positions
end

-- What the key of records must be, where the configuration lets clients say so.
local function key_of(conf, exchange)
  local key = conf.key_argument and exchange.request:get_query_arg(conf.key_argument)
  return type(key) == "string" and key or nil
end

local function stream(state, form, exchange)
  local start, key = start_of(state, exchange), key_of(state.conf, exchange)
  if records.any("consume") then
    local reader, err, code = source.open(state, start)
    if not reader then refuse(exchange, code == "topic" and 404 or 503, err, state.topic) end
    own.stream(state, form, exchange, reader, key)
    return
  end
  local feed, err, code = live.of(state, form)
  if not feed then refuse(exchange, code == "topic" and 404 or 503, err, state.topic) end
  local answer = exchange.response:stream(200, form.headers)
  if not answer:send(form.heartbeat) then return end
  if start == "latest" and feed.channel:join(answer, nil, key) then return end
  live.catch_up(feed, answer, start, key)
end

function consume.access(conf, exchange)
  local state = states[conf]
  local form = form_of(conf, exchange)
  if not form then
    refuse(exchange, 501, "this gateway offers a topic as text/event-stream: ask for it by Accept, or set config.mode")
  end
  if exchange.request:get_method() == "HEAD" then exchange.response:exit(200, nil, form.headers) end
  stream(state, form, exchange)
end

return consume
