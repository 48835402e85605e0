-- SPDX-License-Identifier: Apache-2.0
-- A request becomes a record with a correlation id, and the record that comes back with it in the reply topic becomes
-- the response: at once, within a deadline, or later at a status resource.
local kafka = require "sluice.kafka"
local message = require "kafka-request-reply.message"
local prefer = require "kafka-request-reply.prefer"
local records = require "sluice.records"
local replies = require "kafka-request-reply.replies"
local sluice = require "sluice"
local ticket = require "kafka-request-reply.ticket"
local traces = require "sluice.record_traces"

local metrics, time = sluice.metrics, sluice.time

local request_reply = { version = "1.0.0", priority = 750 }

local RETRY_S = "1"

local counted = metrics.counter("sluice_kafka_requests_total",
  "Requests of kafka-request-reply by what came of them", { "topic", "outcome" })
local took = metrics.histogram("sluice_kafka_reply_seconds",
  "From the request to its reply, for those that were waited for", { "topic" })

-- What Kafka's error means for the client. Others: 502, for the fault is behind the gateway.
local STATUS = {
  full = 503, cluster = 503, timeout = 504, expired = 504, topic = 503, failed = 503,
  MSG_SIZE_TOO_LARGE = 413, INVALID_MSG_SIZE = 413, RECORD_LIST_TOO_LARGE = 413,
  _TRANSPORT = 503, _ALL_BROKERS_DOWN = 503,
}

local states = setmetatable({}, { __mode = "k" }) -- by configuration

function request_reply.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local cluster, err = kafka.cluster_of(conf)
    if not cluster then error(err, 0) end
    local state = states[conf] or { plan = message.plan(conf) }
    if state.cluster ~= cluster then
      state.cluster = cluster
      state.hub = replies.of(cluster, conf.reply_topic, conf.correlation_id_header, conf.keep_replies)
      state.hub:warm_up()
    end
    states[conf] = state
  end
end

-- ---- Answers --------------------------------------------------------------------------------------------------------

local function refuse(exchange, conf, text, err, code)
  local status = STATUS[code] or 502
  counted:increment(conf.topic, status == 504 and "timeout" or "failed")
  exchange.response:exit(status, { message = text, error = err, code = code, request_id = exchange.id },
    status == 503 and { ["Retry-After"] = RETRY_S } or nil)
end

local function refuse_reply(exchange, conf, text)
  counted:increment(conf.topic, "bad reply")
  exchange.response:exit(502, { message = text, request_id = exchange.id })
end

-- Plugins see the reply first, in phase consume.
local function answer(exchange, conf, record, headers)
  record = records.run(exchange, "consume", record)
  if not record then refuse_reply(exchange, conf, "a plugin lets the reply not pass") end
  local status, body, fields = message.response(conf, record)
  if not status then refuse_reply(exchange, conf, body) end
  for name, value in pairs(headers or {}) do fields[name] = value end
  exchange.response:exit(status, body, fields)
end

-- Where the reply can be had later.
local function location_of(conf, exchange, id, moment, positions)
  local base = conf.location
  if not base then base = exchange.request:get_raw_path():gsub("/+$", "") .. "/replies" end
  return base:gsub("/+$", "") .. "/" .. ticket.write(id, moment, positions, conf.secret)
end

local function answer_later(exchange, conf, id, location)
  counted:increment(conf.topic, "accepted")
  exchange.response:exit(202, { status = "pending", correlation_id = id, location = location },
    { Location = location, ["Preference-Applied"] = "respond-async", ["Retry-After"] = RETRY_S })
end

local function answer_too_late(exchange, conf, id, location)
  counted:increment(conf.topic, "timeout")
  exchange.response:exit(504, { message = "no reply came in time", code = "timeout", correlation_id = id,
    location = location, request_id = exchange.id }, location and { Location = location } or nil)
end

-- ---- The request ----------------------------------------------------------------------------------------------------

-- How long to wait for the reply (seconds), and whether the client is told where it will be when it has not come by
-- then.
local function patience(conf, exchange)
  local wanted, most = prefer.of(exchange), conf.timeout / 1000
  local async = conf.respond_async == "always" or conf.respond_async == "prefer" and wanted.async
  if async then return math.min(wanted.wait or 0, most), true end
  return math.min(wanted.wait or most, most), false
end

-- The record as plugins let it pass, in phase produce.
local function passed(conf, state, exchange, id, body)
  local record, err = records.run(exchange, "produce", message.record(conf, state.plan, exchange, id, body))
  if record then return record end
  counted:increment(conf.topic, "failed")
  exchange.response:exit(err and 500 or 403, { message = err or "a plugin lets the request not pass",
    request_id = exchange.id })
end

-- Has the record in the topic, or the reply already: one that came while the acknowledgement did not says that it is.
local function send(state, conf, exchange, record, waiter, seconds)
  record.cluster, record.timeout = state.cluster, seconds
  local sending = traces.send(exchange, record)
  local at, err, code = kafka.produce(record)
  sending:done(at, err, code)
  if not at and not waiter.reply then refuse(exchange, conf, "the request was not passed on", err, code) end
end

local function wait_and_answer(conf, state, exchange, id, waiter, body)
  local began, moment, positions = time.monotonic(), time.now(), state.hub:positions()
  local seconds, async = patience(conf, exchange)
  local record = passed(conf, state, exchange, id, body)
  send(state, conf, exchange, record, waiter, async and conf.timeout / 1000 or seconds)
  local reply = state.hub:await(waiter, seconds - (time.monotonic() - began))
  if reply then
    took:observe(time.monotonic() - began, conf.topic)
    counted:increment(conf.topic, "answered")
    answer(exchange, conf, reply)
  end
  local later = conf.respond_async ~= "never" and location_of(conf, exchange, id, moment, positions) or nil
  if async then answer_later(exchange, conf, id, later) end
  answer_too_late(exchange, conf, id, later)
end

local function ask(conf, state, exchange)
  local body, err, status = exchange.request:get_raw_body()
  if not body then exchange.response:exit(status, { message = "the body cannot be read: " .. tostring(err) }) end
  local id = ticket.new_id()
  local waiter = state.hub:expect(id)
  local ok, raised = pcall(wait_and_answer, conf, state, exchange, id, waiter, body)
  state.hub:forget(id)
  if not ok then error(raised, 0) end
end

-- ---- The status resource --------------------------------------------------------------------------------------------

local function ticket_of(conf, exchange)
  local method = exchange.request:get_method()
  if method ~= "GET" and method ~= "HEAD" then return nil end
  local last = exchange.request:get_raw_path():match("/([%w_-]+)$")
  return last and ticket.read(last, conf.secret)
end

local NOT_STORED = { ["Cache-Control"] = "no-store" }

local function pending(exchange, wanted)
  exchange.response:exit(202, { status = "pending", correlation_id = wanted.id },
    { ["Retry-After"] = RETRY_S, ["Cache-Control"] = "no-store" })
end

-- The topic has no reply, or not yet.
local function answer_absent(conf, exchange, wanted, why)
  if why == "busy" or why == "more" or why == "timeout" then
    exchange.response:exit(503, { message = "the reply is being looked for", request_id = exchange.id },
      { ["Retry-After"] = RETRY_S, ["Cache-Control"] = "no-store" })
  elseif why == "gone" or time.now() - wanted.moment > conf.expire then
    exchange.response:exit(410, { message = "there is no reply, and none is expected any more",
      correlation_id = wanted.id }, NOT_STORED)
  elseif why ~= "none" then
    refuse(exchange, conf, "the reply topic cannot be read", why, "failed")
  end
end

local function find_and_answer(conf, state, exchange, wanted, waiter)
  local patient = math.min(prefer.of(exchange).wait or 0, conf.timeout / 1000)
  local reply, why = waiter.reply, nil
  if not reply then reply, why = state.hub:find(wanted, conf.timeout / 1000) end
  if not reply then
    answer_absent(conf, exchange, wanted, why)
    reply = state.hub:await(waiter, patient)
  end
  if not reply then pending(exchange, wanted) end
  answer(exchange, conf, reply, NOT_STORED)
end

local function tell(conf, state, exchange, wanted)
  local waiter = state.hub:expect(wanted.id)
  local ok, raised = pcall(find_and_answer, conf, state, exchange, wanted, waiter)
  state.hub:forget(wanted.id)
  if not ok then error(raised, 0) end
end

-- ---- Access ---------------------------------------------------------------------------------------------------------

function request_reply.access(conf, exchange)
  local state = states[conf]
  local wanted
  if conf.respond_async ~= "never" then wanted = ticket_of(conf, exchange) end
  if wanted == false then exchange.response:exit(404, { message = "no such reply", request_id = exchange.id }) end
  local ready, err, code = state.hub:ready(conf.timeout / 1000)
  if not ready then refuse(exchange, conf, "the reply topic cannot be read", err, code) end
  if wanted then return tell(conf, state, exchange, wanted) end
  return ask(conf, state, exchange)
end

return request_reply
