-- SPDX-License-Identifier: Apache-2.0
-- What is under way to the service: as many at a time as may be, each batch until it has arrived, is given up on, or
-- its partitions have gone to another member of the group.
--
--   batch -> gate (shut while the service is away) -> call -> good: done
--              ^                                        |---> again: wait, longer each time; too often: bad
--              '------------- away: shut the gate <-----|---> bad: several: one half after the other; one: dead letter
local answers = require "kafka-sink.answers"
local bell = require "sluice.bell"
local calls = require "sluice.calls"
local consumed = require "kafka-sink.consumed"
local dead_letters = require "kafka-sink.dead_letters"
local failures = require "kafka-sink.failures"
local lanes = require "kafka-sink.lanes"
local requests = require "kafka-sink.requests"
local record_traces = require "sluice.record_traces"
local sluice = require "sluice"

local log, metrics, time = sluice.log, sluice.metrics, sluice.time

local delivery = {}

local LOOK_S = 0.25   -- how often those who wait look whether their records are still theirs
local SAY_EVERY_S = 10
local JITTER = 0.2
local RESOLUTION_S = 1e-6 -- of timers: what is left of a wait may be less, and would never end

local SINK = { "group", "service" }
local records = metrics.counter("sluice_kafka_sink_records_total",
  "Records by what became of them: delivered, dropped, dead-lettered or skipped", { "group", "service", "outcome" })
local retried = metrics.counter("sluice_kafka_sink_retries_total", "Calls that were made again", SINK)
local in_flight = metrics.gauge("sluice_kafka_sink_in_flight", "Records that are on their way to the service", SINK)
local queued = metrics.gauge("sluice_kafka_sink_queued", "Records that wait for their turn", SINK)
local paused = metrics.gauge("sluice_kafka_sink_paused", "Workers that send nothing, for the service is away", SINK)
local seconds = metrics.histogram("sluice_kafka_sink_seconds", "From a record's reading to its delivery", SINK)

local Delivery = {}
Delivery.__index = Delivery

---@param conf table
---@param cluster string
---@param on_done fun(sink: table) called when there is room
function delivery.new(conf, cluster, on_done, sink)
  return setmetatable({
    conf = conf, cluster = cluster, plan = requests.plan(conf), lanes = lanes.new(), senders = 0, gathering = false,
    on_done = on_done, sink = sink, stopping = false, arrived = bell.new(), service = "",
    away = false, failed = false, -- the error that ended a sender
    successes = 0, said_at = -SAY_EVERY_S, said_flight = 0, said_queued = 0, said_paused = 0,
  }, Delivery)
end

-- ---- Numbers --------------------------------------------------------------------------------------------------------

local function tell(self, gauge, field, value)
  if value == self[field] then return end
  gauge:add(value - self[field], self.conf.group, self.service)
  self[field] = value
end

function Delivery:publish()
  tell(self, in_flight, "said_flight", self.lanes.under_way)
  tell(self, queued, "said_queued", self.lanes:waiting())
  tell(self, paused, "said_paused", self.away and not self.stopping and 1 or 0)
end

-- The gauges of one that has ended.
function Delivery:unpublish()
  tell(self, in_flight, "said_flight", 0)
  tell(self, queued, "said_queued", 0)
  tell(self, paused, "said_paused", 0)
end

local function complain(self, text, facts)
  local now = time.monotonic()
  if now - self.said_at < SAY_EVERY_S then return end
  self.said_at = now
  facts.group, facts.service = self.conf.group, self.service
  log.warn(text, facts)
end

-- ---- What a batch has come to ---------------------------------------------------------------------------------------

local function finish(self, item, outcome)
  item.partition:finish(item)
  records:increment(self.conf.group, self.service, outcome)
  if outcome == "delivered" then seconds:observe(time.monotonic() - item.read_at, self.conf.group, self.service) end
end

-- Those whose partitions are still this member's.
local function still_ours(self, items)
  if self.stopping then return {} end
  local ours = {}
  for _, item in ipairs(items) do
    if not item.partition.lost and not item.done then ours[#ours + 1] = item end
  end
  return ours
end

local function wait(self, items, how_long)
  local deadline = time.monotonic() + how_long
  while #still_ours(self, items) > 0 do
    local left = deadline - time.monotonic()
    if left < RESOLUTION_S then return end
    sluice.sleep(math.min(left, LOOK_S))
  end
end

local function pause_after(conf, tries)
  local pause = math.min(conf.backoff_max, conf.backoff_initial * 2 ^ math.min(tries - 1, 30)) / 1000
  return pause * (1 + JITTER * (2 * sluice.random() - 1))
end

-- ---- The gate -------------------------------------------------------------------------------------------------------

-- Waits while the service is away. One at a time finds out whether it is back.
local function pass_gate(self, items)
  while self.away do
    local away = self.away
    local left = away.ends - time.monotonic()
    if left < RESOLUTION_S and not away.probing then
      away.probing = true
      return true
    end
    if #still_ours(self, items) == 0 then return false end
    away.bell:wait(math.max(LOOK_S / 10, math.min(left, LOOK_S)))
  end
  return true
end

local function shut_gate(self, why, at_least)
  local away = self.away
  if not away then
    away = { bell = bell.new(), tries = 0 }
    self.away = away
    log.warn("the service is away: its records wait", { group = self.conf.group, service = self.service, error = why })
  end
  away.tries, away.probing = away.tries + 1, false
  away.ends = time.monotonic() + math.max(pause_after(self.conf, away.tries), at_least or 0)
end

local function open_gate(self)
  self.successes = self.successes + 1
  if not self.away then return end
  local away = self.away
  self.away = false
  away.bell:ring()
  log.notice("the service is back", { group = self.conf.group, service = self.service })
end

-- ---- A batch --------------------------------------------------------------------------------------------------------

-- Once, so that it is told what became of each that answers: written before the record counts as done.
local function write_until_there(self, items, what, write, ...)
  local tries = 0
  while #still_ours(self, items) > 0 do
    local ok, err = write(self.conf, self.cluster, ...)
    if ok then return true end
    tries = tries + 1
    complain(self, "a " .. what .. " cannot be written, trying again", { error = err })
    wait(self, items, pause_after(self.conf, tries))
  end
  return false
end

local function reply(self, items, response)
  local record = items[1].record
  local topic = answers.topic(self.conf, record)
  return not topic or write_until_there(self, items, "reply", answers.write, topic, record, response)
end

local function succeed(self, items, response)
  open_gate(self)
  if not reply(self, items, response) then return end
  for _, item in ipairs(items) do finish(self, item, "delivered") end
end

-- The record will not pass. Without a dead-letter topic it is tried for ever, unless it may be skipped. True: it is
-- done with.
local function give_up(self, item, cause)
  if self.conf.dead_letter_topic then
    if not write_until_there(self, { item }, "dead letter", dead_letters.write, item, cause) then return true end
    complain(self, "a record became a dead letter", { topic = item.record.topic, error = cause.why,
      partition = item.record.partition, offset = ("%d"):format(item.record.offset) })
    finish(self, item, "dead-lettered")
    return true
  end
  if not self.conf.skip_failed then return false end
  complain(self, "a record was skipped", { topic = item.record.topic, error = cause.why,
    partition = item.record.partition, offset = ("%d"):format(item.record.offset) })
  finish(self, item, "skipped")
  return true
end

local function open_span(self, items)
  local list = {}
  for i, item in ipairs(items) do list[i] = item.record end
  local service = calls.service(self.conf) -- whose tracers are told
  return record_traces.process(self.conf.batch_size == 1 and list[1] or list,
    { topic = list[1].topic, cluster = self.cluster, group = self.conf.group, service = service and service.id })
end

local function put_context(headers, parent, state)
  if parent then headers[#headers + 1] = { "traceparent", parent } end
  if parent and state then headers[#headers + 1] = { "tracestate", state } end
end

-- Has plugins look at those records that they have not seen (phase consume): those that they drop are done. True, or
-- nil, why and verdict of one that does not come through.
local function consume(self, items)
  for _, item in ipairs(items) do
    if not item.made then
      local made, why, verdict = consumed.of(self.conf, item.record)
      if why then return nil, why, verdict end
      if made then item.made = made else finish(self, item, "dropped") end
    end
  end
  return true
end

-- The request for those of the records that are to be sent, and these; no request: why and verdict.
local function prepare(self, items)
  local ready, why, verdict = consume(self, items)
  items = still_ours(self, items)
  if #items == 0 or not ready then return items, nil, verdict, why end
  local request
  request, why = requests.of(self.conf, self.plan, items)
  return items, request, "bad", why
end

-- The request once: what came of it, why, seconds to wait at least, and the response.
local function try(self, items, request)
  local span = open_span(self, items)
  put_context(request.headers, span:context())
  local response, err, code = calls.call(self.conf, request)
  local verdict, reason, at_least = failures.judge(response, err, code)
  if verdict == "bad" and response and response.by_service and answers.topic(self.conf, items[1].record) then
    verdict = "good" -- whoever asked wants to know
  end
  span:done(nil, verdict ~= "good" and reason or nil, response and tostring(response.status) or code)
  return verdict, reason, at_least, response
end

local deliver

local function halve(self, items)
  local middle = math.ceil(#items / 2)
  local first, second = {}, {}
  for i, item in ipairs(items) do
    if i <= middle then first[#first + 1] = item else second[#second + 1] = item end
  end
  deliver(self, first)
  deliver(self, second)
end

-- One failure more. True: there is nothing more to be tried with these.
local function fail(self, items, verdict, cause, at_least)
  if verdict == "bad" or cause.tries >= self.conf.max_tries then
    if #items > 1 then
      halve(self, items)
      return true
    end
    if give_up(self, items[1], cause) then return true end
    complain(self, "a record does not arrive, trying again", { topic = items[1].record.topic, error = cause.why,
      partition = items[1].record.partition, offset = ("%d"):format(items[1].record.offset) })
  end
  retried:increment(self.conf.group, self.service)
  wait(self, items, math.max(pause_after(self.conf, cause.tries), at_least or 0))
  return false
end

-- One request, and what it means. True: nothing more is to be tried with these.
--
-- An unreachable service is no fault of the record, unless others have reached it since it was tried last: then it
-- counts as if the service had answered.
local function send(self, items, request, state)
  state.seen = state.seen or self.successes
  local verdict, why, at_least, response = try(self, items, request)
  if verdict == "good" then
    succeed(self, items, response)
    return true
  end
  if verdict == "away" and self.successes == state.seen then
    shut_gate(self, why, at_least)
    retried:increment(self.conf.group, self.service)
    return false
  end
  if verdict ~= "away" then open_gate(self) end
  state.tries, state.seen = state.tries + 1, nil
  return fail(self, items, verdict, { why = why, status = response and response.status, tries = state.tries,
    service = self.service }, at_least)
end

function deliver(self, items)
  local state, done = { tries = 0, seen = nil }, false
  while not done do
    local request, verdict, why
    items, request, verdict, why = prepare(self, items)
    if #items == 0 then return end
    if request then
      if not pass_gate(self, items) then return end
      done = send(self, items, request, state)
    elseif verdict == "away" then -- another configuration comes into use
      wait(self, items, LOOK_S)
    else -- says nothing about the service
      state.tries = state.tries + 1
      done = fail(self, items, verdict, { why = why, tries = state.tries, service = self.service })
    end
  end
end

-- ---- Senders --------------------------------------------------------------------------------------------------------

-- Waits until a batch is whole, or its first record has waited long enough.
local function gather(self)
  local conf = self.conf
  if conf.batch_size == 1 or conf.batch_delay == 0 then return end
  self.gathering = true
  local deadline = time.monotonic() + conf.batch_delay / 1000
  while self.lanes:waiting() < conf.batch_size and not self.stopping do
    local left = deadline - time.monotonic()
    if not self.arrived:wait(left) then break end
  end
  self.gathering = false
end

local function send_all(self)
  while self.lanes:has_ready() and not self.stopping do
    if self.gathering then return end
    gather(self)
    local batch = self.lanes:take(self.conf.batch_size)
    for _, item in ipairs(batch) do item.partition:set_out(item) end
    if #batch > 0 then
      if self.lanes:has_ready() then self:start() end
      deliver(self, batch)
    end
    self.lanes:done(batch)
    self.on_done(self.sink)
  end
end

local function run(self)
  local ok, err = pcall(send_all, self)
  self.senders = self.senders - 1
  if not ok then -- what it had is lost to this membership: another one begins behind the last commit
    self.gathering, self.failed = false, err
  end
  self.on_done(self.sink)
end

-- Another sender, when there is work for one and one may be.
function Delivery:start()
  if self.senders >= self.conf.concurrency or not self.lanes:has_ready() or self.gathering then return end
  self.senders = self.senders + 1
  if not sluice.timer.at(0, run, self) then self.senders = self.senders - 1 end
end

-- A record more.
function Delivery:add(item)
  self.lanes:add(item)
  if self.gathering then self.arrived:ring() else self:start() end
end

---@return boolean
function Delivery:is_full()
  return self.lanes.count >= self.conf.max_pending or self.lanes.bytes >= self.conf.max_pending_bytes
end

return delivery
