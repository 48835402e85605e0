-- SPDX-License-Identifier: Apache-2.0
-- Topics for HTTP clients: as server-sent events, lines of JSON, messages of a WebSocket, answers to polls, or the
-- newest value of a key as a resource. The id of each event names the last record of
-- every partition, so that a client that comes back, to whatever worker or gateway, goes on where it was: the
-- EventSource of a browser does so by itself.
local kafka = require "sluice.kafka"
local log = require "sluice.log"
local forms = require "kafka-consume.forms"
local group = require "kafka-consume.group"
local live = require "kafka-consume.live"
local message = require "kafka-consume.message"
local newest = require "kafka-consume.newest"
local own = require "kafka-consume.own"
local poll = require "kafka-consume.poll"
local record_traces = require "sluice.record_traces"
local records = require "sluice.records"
local socket = require "kafka-consume.socket"
local source = require "kafka-consume.source"

local consume = { version = "1.1.0", priority = 753 }

-- By configuration, of the generation that was built last and the one before, in which exchanges may still run. Not in
-- a weak table: a state knows its configuration.
local states, earlier = {}, {}

local function state_of(conf)
  local cluster, err = kafka.cluster_of(conf)
  if not cluster then error(err, 0) end
  local state = states[conf] or earlier[conf]
  if state then return state end
  local topics, names = {}, {}
  for i, topic in ipairs(conf.topics) do topics[topic.name], names[i] = true, topic.name end
  state = { conf = conf, cluster = cluster, topics = topics, names = names, only = not names[2] and names[1] or nil,
    topic = table.concat(names, ", "), lives = {}, starting = {} }
  state.prepare, state.decode_key = message.preparer(state), message.key_decoder(conf)
  return state
end

function consume.configure(confs)
  local made = {}
  for _, conf in ipairs(confs or {}) do made[conf] = state_of(conf) end
  states, earlier = made, states
end

local function refuse(exchange, state, status, text)
  exchange.response:exit(status, { message = text, topic = state.topic, request_id = exchange.id },
    status == 503 and { ["Retry-After"] = "1" } or nil)
end

-- A cluster that cannot be read: what librdkafka says of it is the operator's, unless the configuration tells it.
local function refuse_reading(exchange, state, err, code)
  if code == "topic" then refuse(exchange, state, 404, err) end
  local shown = state.conf.error_handling and state.conf.error_handling.return_error_message
  log.err("the topic cannot be read", { topic = state.topic, cluster = state.cluster, error = err })
  refuse(exchange, state, 503, shown and err or "The topic cannot be read now")
end

local BY_MODE = { ["server-sent-events"] = forms.events, ndjson = forms.lines }

-- What the client asks for by Accept, else what the mode says; nil: an answer that ends.
local function form_of(conf, exchange)
  local accept = exchange.request:get_header("accept")
  if accept then
    if accept:find("text/event-stream", 1, true) then return forms.events end
    if accept:find("application/x-ndjson", 1, true) then return forms.lines end
  end
  return BY_MODE[conf.mode]
end

-- Where to begin: behind what the client had, at a time, or where the configuration says.
local function start_of(state, exchange)
  local request = exchange.request
  local after = request:get_header("last-event-id") or request:get_query_arg("after")
  if type(after) == "string" and after ~= "" then
    local positions = forms.positions(after, state.topics, state.only)
    if not positions then refuse(exchange, state, 400, "Last-Event-ID is none of this topic's") end
    return positions
  end
  local since = request:get_query_arg("since")
  if since == nil then return state.conf.auto_offset_reset end
  local at = type(since) == "string" and since:match("^%d+$") and tonumber(since)
  if not at or at >= 2 ^ 53 then refuse(exchange, state, 400, "since must be milliseconds since 1970") end
  return { timestamp = at }
end

-- What the key of records must be, where the configuration lets clients say so.
local function key_of(conf, exchange)
  local key = conf.key_argument and exchange.request:get_query_arg(conf.key_argument)
  return type(key) == "string" and key or nil
end

-- The span of a stream ends with its exchange. It links to the records of a client that is read for on its own; what a
-- worker writes once for many is not gone through again for each of them.
local function begin_span(state, exchange)
  local span = record_traces.poll(exchange, { topic = state.only or state.topic, cluster = state.cluster })
  return span
end

local function stream(state, form, exchange)
  local span = begin_span(state, exchange)
  local start, key = start_of(state, exchange), key_of(state.conf, exchange)
  local name = group.of_stream(state.conf, exchange)
  if name or records.any("consume") then
    local reader, err, code
    if name then
      reader, err, code = group.open(state, name)
    else
      reader, err, code = source.open(state, start)
    end
    if not reader then refuse_reading(exchange, state, err, code) end
    own.stream(state, form, exchange, reader, key, span)
    return
  end
  local feed, err, code = live.of(state, form)
  if not feed then refuse_reading(exchange, state, err, code) end
  local answer = exchange.response:stream(200, form.headers)
  if not answer:send(form.heartbeat) then return end
  if start == "latest" and feed.channel:join(answer, nil, key) then return end
  live.catch_up(feed, answer, start, key)
end

local function talk(state, exchange)
  local span = begin_span(state, exchange)
  local ok, err, code = socket.serve(state, exchange, start_of(state, exchange), key_of(state.conf, exchange), span)
  if not ok and err then refuse_reading(exchange, state, err, code) end
end

-- An answer that ends.
local function answer_once(state, form, exchange, method)
  if method == "HEAD" then
    exchange.response:exit(200, nil, { ["Content-Type"] = "application/json; charset=utf-8" })
  elseif method ~= "GET" then
    exchange.response:exit(405, { message = "Method not allowed" }, { Allow = "GET, HEAD" })
  end
  poll.answer(state, exchange, form ~= nil, function(status, text)
    if status == 503 or status == 404 then refuse_reading(exchange, state, text, status == 404 and "topic") end
    refuse(exchange, state, status, text)
  end)
end

function consume.access(conf, exchange)
  local state = states[conf] or earlier[conf] or state_of(conf)
  local method = exchange.request:get_method()
  if conf.mode == "newest" then
    newest.answer(state, exchange, method, function(status, text) refuse(exchange, state, status, text) end)
  elseif exchange.response:may_be_websocket() then
    talk(state, exchange)
    return
  end
  local form = form_of(conf, exchange)
  if form and not (form == forms.lines and poll.is_asked(exchange)) then
    if method == "HEAD" then exchange.response:exit(200, nil, form.headers) end
    stream(state, form, exchange)
  elseif conf.mode == "websocket" then
    exchange.response:exit(426, { message = "Please use a WebSocket" }, { Upgrade = "websocket" })
  else
    answer_once(state, form, exchange, method)
  end
end

return consume
