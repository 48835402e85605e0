-- SPDX-License-Identifier: Apache-2.0
-- The reply topic as one worker reads it: one reader, whoever waits for whatever reply. Each worker of each gateway
-- reads all of the topic, for a reply does not say where its request came from.
--
--   reader -> id -> somebody waits here: hand it over    all: kept, as far as there is room, for those who ask later
--
-- A hub lives as long as a configuration or an exchange has use for it: what reads for it holds it weakly.
local bell = require "sluice.bell"
local kafka = require "sluice.kafka"
local kept = require "kafka-request-reply.kept"
local search = require "kafka-request-reply.search"
local sluice = require "sluice"

local lock, log, metrics, recent, time = sluice.lock, sluice.log, sluice.metrics, sluice.recent, sluice.time

local replies = {}

local LOOK_S = 1                 -- how often the reader looks whether it is still of use
local AGAIN_S, AGAIN_MOST_S = 0.2, 5
local MISSED_MOST, MISSED_BYTES = 10000, 4 * 1024 * 1024

local seen = metrics.counter("sluice_kafka_replies_total",
  "Replies read by a worker: answered a request that waited, late, duplicate, other (of another worker), or unmarked",
  { "topic", "what" })
local waiting = metrics.gauge("sluice_kafka_replies_awaited", "Requests that wait for their reply", { "topic" })

local Hub = {}
Hub.__index = Hub

local hubs = setmetatable({}, { __mode = "v" }) -- by cluster, topic and header

-- ---- Records --------------------------------------------------------------------------------------------------------

-- The correlation id that a record carries, nil when it has none.
function Hub:id_of(record)
  local headers, name = record.headers, self.header
  for i = 1, #headers do
    if headers[i][1] == name then return headers[i][2] end
  end
  return nil
end

local function take(self, record)
  local id = self:id_of(record)
  if not id then return seen:increment(self.topic, "unmarked") end
  local first, waiter = self.kept:put(id, record), self.waiting[id]
  if waiter and not waiter.reply then
    waiter.reply = record
    waiter.bell:ring()
    seen:increment(self.topic, "answered")
  elseif not first or waiter then
    seen:increment(self.topic, "duplicate")
  else
    seen:increment(self.topic, self.missed:get(self, id) and "late" or "other")
  end
end

-- ---- The reader -----------------------------------------------------------------------------------------------------

local function open(self)
  local reader, err, code = kafka.reader { cluster = self.cluster, topic = self.topic, from = self.resume or "latest",
    through_drain = true }
  if not reader then return nil, err, code end
  local positions = reader:positions()
  -- What was kept before the reader failed is good, for it goes on where it was.
  self.kept = self.kept or kept.new(self.most_bytes, positions)
  self.reader, self.resume = reader, nil
  return reader
end

-- What comes of one look at the topic; nil: the reader is of no more use.
local function on_look(ref, reader, record, err)
  local self = ref.hub
  if not self or self.reader ~= reader then return nil end
  if record then
    take(self, record)
  elseif err == "gap" then
    log.warn("replies were lost: they left the topic before they were read", { topic = self.topic })
    self.kept:lost(reader:positions())
  elseif err ~= "timeout" then
    if err ~= "closed" then log.warn("the reply topic cannot be read", { topic = self.topic, error = err }) end
    self.resume, self.reader = reader:positions(), nil
    if next(self.resume) == nil then self.resume = nil end
    return nil
  end
  return reader
end

-- Another reader, that goes on where the last one stood; nil: nobody has use for it.
local function open_again(ref)
  local pause = AGAIN_S
  while ref.hub do
    local reader = open(ref.hub)
    if reader then return reader end
    sluice.sleep(pause)
    pause = math.min(pause * 2, AGAIN_MOST_S)
  end
end

local function read(ref, reader)
  while reader do
    local good = reader
    while good do
      local record, err = reader:next(LOOK_S)
      good = on_look(ref, reader, record, err)
    end
    reader:close()
    reader = open_again(ref)
  end
end

local function weak(self)
  return setmetatable({ hub = self }, { __mode = "v" })
end

local function open_and_read(self)
  if self.reader then return true end
  if self.is_read then return nil, "the reply topic cannot be read now", "failed" end
  if self.failed_until and time.monotonic() < self.failed_until then return nil, self.failure, self.failure_code end
  local reader, err, code = open(self)
  if not reader then
    self.failed_until, self.failure, self.failure_code = time.monotonic() + AGAIN_S, err, code
    return nil, err, code
  end
  self.is_read = true
  sluice.timer.at(0, read, weak(self), reader)
  return true
end

-- Waits until the topic is being read: only then may a request be made.
---@param seconds number
---@return boolean|nil
---@return string|nil err
---@return string|nil code
function Hub:ready(seconds)
  if self.reader then return true end
  return lock.once("kafka-request-reply\1" .. self.key, seconds, open_and_read, self)
end

local function try_to_open(ref)
  local self = ref.hub
  return not self or self.is_read or self:ready(AGAIN_MOST_S) ~= nil
end

local function warm_up(ref)
  local pause = AGAIN_S
  while not try_to_open(ref) do
    sluice.sleep(pause)
    pause = math.min(pause * 2, AGAIN_MOST_S)
  end
end

-- Opens the reader before the first request needs it, as soon as that is possible: it takes a while, and a request that
-- comes when the cluster is away could not be told what becomes of it.
function Hub:warm_up()
  if not self.is_read then sluice.timer.at(AGAIN_S, warm_up, weak(self)) end
end

-- Where the reader stands: replies to what is asked from now on are behind it.
---@return table<integer, integer>
function Hub:positions()
  local reader = self.reader
  return reader and reader:positions() or self.resume or {}
end

-- ---- Those who wait -------------------------------------------------------------------------------------------------

-- Waits for the reply of that id from now on; to be told when that has come to an end.
function Hub:expect(id)
  local waiter = self.waiting[id]
  if waiter then
    waiter.users = waiter.users + 1
    return waiter
  end
  waiter = { bell = bell.new(), reply = self.kept and self.kept:get(id), users = 1 }
  self.waiting[id] = waiter
  waiting:add(1, self.topic)
  return waiter
end

-- Nobody waits for it any more.
function Hub:forget(id)
  local waiter = self.waiting[id]
  waiter.users = waiter.users - 1
  if waiter.users > 0 then return end
  self.waiting[id] = nil
  waiting:add(-1, self.topic)
  if not waiter.reply then self.missed:put(self, id, true) end
end

-- The reply of one that `expect` gave, once it is there.
---@param seconds number
---@return sluice.kafka.record|nil
function Hub.await(_, waiter, seconds)
  local deadline = time.monotonic() + seconds
  while not waiter.reply do
    local left = deadline - time.monotonic()
    if left <= 0 or not waiter.bell:wait(left) then break end
  end
  return waiter.reply
end

-- The reply of a ticket, in memory or in the topic.
---@return sluice.kafka.record|nil
---@return string|nil why as search:find
function Hub:find(ticket, seconds)
  local record = self.kept:get(ticket.id)
  if record then return record end
  return lock.once("kafka-request-reply\1" .. self.key .. "\1" .. ticket.id, seconds, self.search.find, self.search,
    ticket)
end

-- ---- Hubs -----------------------------------------------------------------------------------------------------------

-- The hub of a reply topic.
---@param cluster string
---@param topic string
---@param header string that carries the correlation id
---@param most_bytes integer of replies that are kept; the most that anybody asks for
function replies.of(cluster, topic, header, most_bytes)
  local key = cluster .. "\1" .. topic .. "\1" .. header
  local self = hubs[key]
  if not self then
    self = setmetatable({ key = key, cluster = cluster, topic = topic, header = header, most_bytes = most_bytes,
      waiting = {}, missed = recent.new(MISSED_MOST, MISSED_BYTES) }, Hub)
    self.search = search.new(self)
    hubs[key] = self
  end
  self.most_bytes = math.max(self.most_bytes, most_bytes)
  return self
end

return replies
