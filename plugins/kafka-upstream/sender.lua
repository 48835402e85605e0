-- SPDX-License-Identifier: Apache-2.0
-- From what a request says to what became of it in Kafka: the record is made, passes through phase `produce`, goes out
-- with the request's trace, and is set aside where it cannot go.
local answers = require "kafka-upstream.answers"
local dead_letters = require "kafka-upstream.dead_letters"
local kafka = require "sluice.kafka"
local record = require "kafka-upstream.record"
local records = require "sluice.records"
local schemas = require "kafka-upstream.schemas"
local sources = require "kafka-upstream.sources"
local traces = require "sluice.record_traces"

local sender = {}

-- ---- One record ----------------------------------------------------------------------------------------------------

-- Through the plugins of phase produce.
---@return table|nil record nil: dropped, or a refusal
---@return table|nil refusal
local function pass(plan, exchange, made)
  made.headers = made.headers or {}
  local out, err = records.run(exchange, "produce", made)
  if err then return nil, { status = 500, message = err } end
  if not out then return nil end
  out.cluster, out.timeout = plan.cluster, plan.timeout
  return record.check(out, "a plugin of phase produce")
end

-- The record that the values make; nil: dropped, or a refusal.
---@param plan table
---@param values table
---@return table|nil
---@return table|nil refusal
function sender.make(plan, values)
  local made, refusal = sources.try(plan.make, values)
  if made and records.any("produce") then made, refusal = pass(plan, values.exchange, made) end
  return made, refusal
end

-- Of a failure: where the record was set aside; nil: nowhere.
local function set_aside(plan, exchange, entry, made, text)
  if not dead_letters.wants(plan, entry.status) then return nil end
  local letter = dead_letters.record(plan, exchange, entry, made, text)
  if not plan.wait then return kafka.send(letter) and { topic = letter.topic } or nil end
  return (kafka.produce(letter))
end

-- The answer to a request that cannot be a record, or is one that its schema refuses.
---@param made? table
function sender.refuse(plan, exchange, refusal, text, made)
  local at = set_aside(plan, exchange, answers.refused(refusal), made, text)
  return answers.no_record(exchange, refusal, at, at and plan.dead_letter_status)
end

local function fail(plan, exchange, made, text, err, code)
  local entry = answers.failed(err, code)
  local at = set_aside(plan, exchange, entry, made, text)
  if at then
    entry.dead_letter = at
    entry.status = plan.dead_letter_status or entry.status
  end
  return answers.not_sent(exchange, entry, made.topic)
end

-- Produces a record.
---@return integer status
---@return table body
---@return table|nil headers
function sender.produce(plan, exchange, made, text)
  local refusal = plan.schemas and schemas.encode(plan.schemas, made)
  if refusal then return sender.refuse(plan, exchange, refusal, text, made) end
  local sending = plan.traced and traces.send(exchange, made)
  if not plan.wait then
    local queued, err, code = kafka.send(made)
    if sending then sending:done(nil, err, code) end
    if queued then return answers.queued(made.topic) end
    return fail(plan, exchange, made, text, err, code)
  end
  local at, err, code = kafka.produce(made)
  if sending then sending:done(at, err, code) end
  if at then return answers.sent(at) end
  return fail(plan, exchange, made, text, err, code)
end

-- The same from the start; `topic` in place of the record's own.
function sender.one(plan, values, topic)
  local exchange, text = values.exchange, values.text
  local made, refusal = sender.make(plan, values)
  if refusal then return sender.refuse(plan, exchange, refusal, text) end
  if not made then return answers.dropped() end
  if topic then made.topic = topic end
  return sender.produce(plan, exchange, made, text)
end

-- ---- Many records --------------------------------------------------------------------------------------------------

-- Sends the records of one exchange, and tells its owner of each: owner:settle(place, entry), once. Where a record has
-- to wait for room, owner:wait_for_one() waits for the fate of another, and gives false when there is no use in that.
---@class kafka-upstream.sender
local Sender = {}
Sender.__index = Sender

---@param plan table
---@param exchange sluice.exchange
---@param owner table
---@return kafka-upstream.sender|nil
---@return string|nil err
function sender.new(plan, exchange, owner)
  local batch, err
  if plan.wait then batch, err = kafka.batch { cluster = plan.cluster, timeout = plan.timeout } end
  if plan.wait and not batch then return nil, err end
  return setmetatable({ plan = plan, exchange = exchange, owner = owner, batch = batch, jobs = {}, waiting = 0,
    sending = plan.traced and traces.send_many(exchange, { topic = plan.topic, cluster = plan.cluster }) }, Sender)
end

-- Into the batch. False and why not.
local function queue(self, made, job)
  local batch = self.batch
  local index, err, code = batch:add(made)
  while code == "full" and self.waiting > 0 and self.owner:wait_for_one() do index, err, code = batch:add(made) end
  if not index then return false, err, code end
  self.jobs[index] = job
  self.waiting = self.waiting + 1
  return true
end

-- One that cannot go where it should.
local function put_aside(self, place, entry, made, text)
  local plan = self.plan
  if not dead_letters.wants(plan, entry.status) then return self.owner:settle(place, entry) end
  local letter = dead_letters.record(plan, self.exchange, entry, made, text)
  if self.batch then
    if queue(self, letter, { place = place, entry = entry }) then return end
  elseif kafka.send(letter) then
    entry.dead_letter = { topic = letter.topic }
    entry.status = plan.dead_letter_status or entry.status
  end
  self.owner:settle(place, entry)
end

---@param place integer
---@param made table
---@param text string
function Sender:add(place, made, text)
  local refusal = self.plan.schemas and schemas.encode(self.plan.schemas, made)
  if refusal then return put_aside(self, place, answers.refused(refusal), made, text) end
  if self.sending then self.sending:put(made) end
  if not self.batch then
    local queued, err, code = kafka.send(made)
    if queued then return self.owner:settle(place, { topic = made.topic }) end
    return put_aside(self, place, answers.failed(err, code), made, text)
  end
  local kept = self.plan.dead_letter_topic and made or nil
  local queued, err, code = queue(self, made, { place = place, made = kept, text = kept and text })
  if not queued then put_aside(self, place, answers.failed(err, code), made, text) end
end

-- There is no record: of a refusal, or it was dropped.
---@param place integer
---@param refusal table|nil
---@param text string
function Sender:none(place, refusal, text)
  if refusal then return put_aside(self, place, answers.refused(refusal), nil, text) end
  self.owner:settle(place, { dropped = true })
end

-- The fate of a record is known: `index` of batch:next.
function Sender:told(index)
  local job, at, err, code = self.jobs[index], self.batch:result(index)
  self.jobs[index], self.waiting = nil, self.waiting - 1
  local entry = job.entry
  if entry then -- it was set aside
    entry.dead_letter = at
    if at then entry.status = self.plan.dead_letter_status or entry.status end
    self.owner:settle(job.place, entry)
  elseif at then
    self.owner:settle(job.place, at)
  else
    put_aside(self, job.place, answers.failed(err, code), job.made, job.text)
  end
end

-- `err`: why it ends before its time.
function Sender:close(err)
  if self.sending then self.sending:done(nil, err) end
  if self.batch then self.batch:close() end
end

return sender
