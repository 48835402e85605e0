-- SPDX-License-Identifier: Apache-2.0
-- Streams without end: one coroutine reads the topic for all clients that get the same bytes, and writes each event
-- once into a channel. A client that begins earlier, or has fallen behind, is served by a coroutine of its own until it
-- can take its seat there.
local channel = require "sluice.channel"
local metrics = require "sluice.metrics"
local sleep = require "sluice.sleep"
local time = require "sluice.time"
local timer = require "sluice.timer"
local message = require "kafka-consume.message"
local source = require "kafka-consume.source"

local live = {}

local LABELS = { "topic", "form" }
local clients = metrics.gauge("sluice_kafka_consume_clients", "Streams that a worker's one reader of a topic serves",
  LABELS)
local caught_up = metrics.counter("sluice_kafka_consume_catch_ups_total",
  "Streams that were read for on their own: they began earlier, or were too slow", LABELS)

local LOOK_S = 1     -- how often one looks whether there is anybody to write for
local LINGER_S = 2   -- a channel without clients ends after that
local BATCH = 64     -- records before others get their turn
local CATCHING_MOST = 32 -- clients that read for themselves at one time, each with a consumer until it is level
local TURN_S = 10        -- one of them may do so for as long while others wait

-- ---- The writer --------------------------------------------------------------------------------------------------

-- Positions have jumped: the channel follows, and everybody is told.
local function put_gap(self)
  local positions = self.source:positions()
  for slot, position in ipairs(positions) do
    if position ~= self.channel:position(slot) then self.channel:move(slot, position) end
  end
  local text = self.form.gap(self.source, positions)
  if text then self.channel:mark(text) end
end

-- nil: the record is not for clients.
local function encode(self, record)
  local made = self.state.prepare(record)
  if not made then return nil end
  local text = message.told(self.state, record, self.form.render, made)
  return text
end

local function put_record(self, record)
  local slot = self.source:slot_of(record)
  if not slot then return end
  local text = encode(self, record)
  if text then
    self.channel:put(text, slot, record.offset, record.key)
    self.unmarked = false
  else
    self.channel:move(slot, record.offset + 1)
    self.unmarked = true
  end
end

-- A sign of life. Where records have passed that were for nobody, its id tells that they have.
local function put_heartbeat(self)
  if self.unmarked and self.form.ids then
    self.channel:mark("\n")
  else
    self.channel:put(self.form.heartbeat)
  end
  self.unmarked = false
  self.channel:flush()
end

local function tell_seats(self, seats)
  self.told = time.monotonic()
  clients:set(seats, self.state.topic, self.form.name)
end

-- The next record, once all that was put is on its way.
local function await(self)
  self.channel:flush()
  if time.monotonic() - self.told >= LOOK_S then tell_seats(self, self.channel:seats()) end
  while self.channel:is_busy() do sleep(0) end
  local record, err = self.source:next(self.look_s)
  return record, err
end

-- What else may have come, and whether to go on.
local function handle(self, err)
  if err == "gap" then
    put_gap(self)
    return true
  end
  if err ~= "timeout" then
    local text = err ~= "closed" and self.form.failure(err) -- else this worker drains: the clients come back
    if text then self.channel:put(text) end
    return false
  end
  local now = time.monotonic()
  if self.channel:seats() ~= 0 then
    self.used = now
  elseif now - self.used >= LINGER_S then
    return false
  end
  if now - self.spoke >= self.heartbeat_s then
    put_heartbeat(self)
    self.spoke = now
  end
  return true
end

local function write(self)
  local count = 0
  while true do
    local record, err
    if count < BATCH then record, err = self.source:next(0) end
    if not record and (err == nil or err == "timeout") then
      count = 0
      record, err = await(self)
    end
    if record then
      count = count + 1
      put_record(self, record)
      self.spoke = time.monotonic()
    elseif not handle(self, err) then
      return
    end
  end
end

-- ---- Those who are behind ---------------------------------------------------------------------------------------

local function send(self, answer, reader, record, key)
  if key and record.key ~= key then return true end
  local text = encode(self, record)
  if not text then return true end
  if self.form.ids then text = self.form.id(reader, reader:slot_of(record)) .. text end
  return answer:send(text)
end

-- What follows a reader's word that there is no record now; a word when it is over.
local function follow_other(self, answer, holder, key, err)
  local reader = holder.reader
  if err == "timeout" then
    local joined, why = self.channel:join(answer, reader:positions(), key, true)
    if joined or why == "closed" then return "over" end
    if why == "ended" then return "ended" end
    sleep(0.01) -- the window has gone on meanwhile; so will the reader
    return not answer:is_open() and "over" or nil
  end
  if err == "gap" then
    local text = self.form.gap(reader, reader:positions())
    return text and not answer:send(text) and "over" or nil
  end
  if holder.sent_away then return "sent away" end
  local text = err ~= "closed" and self.form.failure(err)
  if text then answer:send(text) end
  answer:finish()
  return "over"
end

-- Reads until it has its seat or its client has left ("over"), there is no channel to take a seat in any more
-- ("ended"), or somebody else has got its place ("sent away").
local function follow(self, answer, holder, key)
  local count = 0
  while true do
    local record, err = holder.reader:next(0)
    local outcome
    if not record then
      outcome = follow_other(self, answer, holder, key, err)
    elseif not send(self, answer, holder.reader, record, key) then
      return holder.sent_away and answer:is_open() and "sent away" or "over"
    end
    if outcome then return outcome end
    count = count + 1
    if count % BATCH == 0 then sleep(0) end
  end
end

-- ---- Places: so many read for themselves at one time -------------------------------------------------------------

local holders = {} -- in the order in which they came

local function leave(holder)
  for i, other in ipairs(holders) do
    if other == holder then
      table.remove(holders, i)
      return
    end
  end
end

-- Others wait: whoever has been reading for long, for its client is slow or far behind, gives up its reader, and waits
-- for a place like everybody.
local function send_longest_away()
  local now = time.monotonic()
  for _, holder in ipairs(holders) do
    if holder.reader and now - holder.since >= TURN_S then
      holder.positions = holder.reader:positions()
      holder.sent_away = true
      holder.reader:close()
      leave(holder)
      return
    end
  end
end

-- nil: the client has left before there was a place.
local function take_place(answer)
  while #holders >= CATCHING_MOST do
    if not answer:is_open() then return nil end
    send_longest_away()
    if #holders >= CATCHING_MOST then sleep(0.05) end
  end
  local holder = { since = time.monotonic() }
  holders[#holders + 1] = holder
  return holder
end

-- One turn of reading. Gives the outcome, and the channel and the places to go on with.
local function follow_from(self, answer, holder, starts, key)
  local reader, err = source.open(self.state, starts)
  if not reader then
    local text = self.form.failure(err)
    if text then answer:send(text) end
    answer:finish()
    return "over"
  end
  holder.reader = reader
  local ok, outcome = pcall(follow, self, answer, holder, key)
  local positions = holder.positions or reader:positions()
  reader:close()
  if not ok then error(outcome, 0) end
  if outcome == "ended" then
    self = live.of(self.state, self.form)
    if not self then answer:finish() end
    if not self or self.channel:join(answer, positions, key, true) then return "over" end
  end
  return outcome, self, source.starts(reader.partitions, positions)
end

-- Reads for one client from `starts` until it is level with the channel.
---@param answer sluice.stream
---@param starts "earliest"|table
---@param key string|nil
function live.catch_up(self, answer, starts, key)
  caught_up:increment(self.state.topic, self.form.name)
  local outcome
  repeat
    local holder = take_place(answer)
    if not holder then return end
    local ok
    ok, outcome, self, starts = pcall(follow_from, self, answer, holder, starts, key)
    leave(holder)
    if not ok then error(outcome, 0) end
  until outcome == "over"
end

local POLICIES = {}

POLICIES["catch up"] = function(self, answer, positions, key)
  live.catch_up(self, answer, source.starts(self.source.partitions, positions), key)
end

function POLICIES.skip(self, answer, _, key)
  local text = self.form.gap(self.source, self.source:positions())
  if text and not answer:send(text) then return end
  if not self.channel:join(answer, nil, key) then answer:finish() end
end

function POLICIES.disconnect(_, answer)
  answer:finish()
end

local function look_after(self)
  local policy = POLICIES[self.state.conf.slow_clients]
  while true do
    local answer, positions, key = self.channel:next_behind(60)
    if answer then
      timer.at(0, policy, self, answer, positions, key)
    elseif positions == "ended" then
      return
    end
  end
end

-- ---- Life ---------------------------------------------------------------------------------------------------------

local function run(self)
  local ok, err = pcall(write, self)
  self.state.lives[self.form] = nil
  tell_seats(self, 0)
  self.channel:flush()
  self.channel:close()
  self.source:close()
  if not ok then error(err, 0) end
end

local function start(state, form)
  local reader, err, code = source.open(state, "latest")
  if not reader then return nil, err, code end
  local made, why = channel.new { labels = reader.labels, positions = reader:positions(), ids = form.ids }
  if not made then
    reader:close()
    return nil, why
  end
  local heartbeat_s, now = state.conf.heartbeat / 1000, time.monotonic()
  local self = { state = state, form = form, source = reader, channel = made,
    heartbeat_s = heartbeat_s, look_s = math.min(LOOK_S, heartbeat_s), used = now, spoke = now, told = 0 }
  timer.at(0, run, self)
  timer.at(0, look_after, self)
  return self
end

-- What clients of one form read: begun by the first, awaited by those who come meanwhile.
---@param state table of the configuration
---@param form table
---@return table|nil
---@return string|nil err
---@return string|nil code
function live.of(state, form)
  while state.starting[form] do sleep(0.005) end
  local self = state.lives[form]
  if self then return self end
  state.starting[form] = true
  local ok, made, err, code = pcall(start, state, form)
  state.starting[form] = nil
  if not ok then error(made, 0) end
  state.lives[form] = made
  return made, err, code
end

return live
