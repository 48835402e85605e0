-- SPDX-License-Identifier: Apache-2.0
-- core/kafka in a spec: the worker's Kafka in this process, on a loop that the spec turns while it waits.
local ffi = require "ffi"
local bare_loop = require "spec.support.loop"
local core = require "spec.support.core"
local posix = require "spec.support.posix"

local C = core.load("kafka.h", "errands.h", "embedded.h")

local client = { C = C }
client.__index = client

local function turn(self)
  local raw = self.loop.raw
  C.clock_update(raw.clock)
  C.ev_run(raw.ev, 1)
  C.clock_update(raw.clock)
  C.timers_run(raw.timers, raw.clock.mono_us)
end
jit.off(turn)

function client.new()
  local self = setmetatable({ loop = bare_loop.new(), anchors = {}, error = ffi.new("struct error") }, client)
  self.loop.log.level = C.LOG_CRIT
  C.timers_init(self.loop.raw.timers)
  self.kafka = C.kafka_new(self.loop.raw)
  return self
end

-- With so many milliseconds for what is queued.
function client:close(flush_ms)
  C.kafka_close(self.kafka, flush_ms or 0)
  local left = self.loop.raw.timers.count
  assert(left == 0, left .. " timers are left of what is gone")
  C.timers_close(self.loop.raw.timers)
  self.loop:close()
end

function client:turn()
  turn(self)
end

function client:why()
  return ffi.string(self.error.text)
end

-- More than records go on for (message.timeout.ms, 30 s): librdkafka is to say first what took too long.
local SECONDS = 40

-- Turns the loop until `ready` gives a true value, which is returned.
function client:await(what, ready, seconds)
  local deadline = posix.now() + (seconds or SECONDS)
  while true do
    local value = ready()
    if value then return value end
    if posix.now() > deadline then error("not in time: " .. what, 2) end
    turn(self)
    posix.pause(0.0005)
  end
end

function client:cluster(name, properties)
  local texts = {}
  for key, value in pairs(properties) do
    texts[#texts + 1] = key
    texts[#texts + 1] = value
  end
  local array = ffi.new("const char *[?]", #texts, texts)
  return C.kafka_cluster(self.kafka, name, array, #texts / 2, self.error)
end

function client:status(index)
  local status = ffi.new("struct kafka_cluster_status")
  assert(C.kafka_cluster_at(self.kafka, index or 0, status) == C.BRIDGE_OK)
  return status
end

local function bytes(text)
  return ffi.new("struct bytes", text and { text, #text } or {})
end

-- Fields: cluster, topic, key, value, headers (name, value, ...), partition, timestamp, timeout, expires, forget.
-- Gives the status and, unless told to forget, the delivery.
function client:produce(fields)
  local message = ffi.new("struct kafka_message")
  message.cluster = fields.cluster or "main"
  message.topic = fields.topic or "events"
  message.key = bytes(fields.key)
  message.value = bytes(fields.value)
  message.partition = fields.partition or C.KAFKA_ANY_PARTITION
  message.timestamp_ms = fields.timestamp or 0
  message.timeout_s = fields.timeout or 0
  message.expires_s = fields.expires or 0
  local headers = ffi.new("struct bytes[16]")
  for i, text in ipairs(fields.headers or {}) do headers[i - 1] = bytes(text) end
  message.headers = headers
  message.header_count = fields.headers and #fields.headers / 2 or 0
  if fields.forget then return C.kafka_produce(self.kafka, message, nil, self.error) end
  local delivery = ffi.new("struct kafka_delivery")
  self.anchors[#self.anchors + 1] = delivery
  return C.kafka_produce(self.kafka, message, delivery, self.error), delivery
end

-- Produces and waits for the acknowledgement: its partition and offset.
function client:send(fields)
  local status, delivery = self:produce(fields)
  assert(status == C.BRIDGE_OK, self:why())
  self:await("a delivery report", function() return delivery.done end)
  assert(delivery.result.status == C.BRIDGE_OK, ffi.string(delivery.result.text))
  return delivery.result.partition, tonumber(delivery.result.offset)
end

-- Fields: cluster, topic, from, at ({ partition, offset }, ...), skip.
function client:reader(fields)
  local options = ffi.new("struct kafka_reader_options")
  options.cluster = fields.cluster or "main"
  options.topic = fields.topic or "events"
  options.from = fields.from or C.KAFKA_LATEST
  options.skip_when_behind = fields.skip or false
  local positions = ffi.new("struct kafka_position[16]")
  for i, at in ipairs(fields.at or {}) do positions[i - 1] = { partition = at[1], offset = at[2] } end
  options.positions = positions
  options.position_count = fields.at and #fields.at or 0
  local reader = C.kafka_reader_new(self.kafka, options, self.error)
  assert(reader ~= nil, self:why())
  return reader
end

-- The same, once its positions are known; raises when they cannot be.
function client:open(fields)
  local reader = self:reader(fields)
  self:await("a reader's positions", function() return C.kafka_reader_ready(reader) ~= C.BRIDGE_AGAIN end)
  assert(C.kafka_reader_ready(reader) == C.BRIDGE_OK, ffi.string(C.kafka_reader_error(reader)))
  return reader
end

local view = ffi.new("const struct kafka_record *[1]")

-- The next record, or "gap".
function client:record(reader)
  return self:await("a record", function()
    local status = C.kafka_reader_next(reader, view)
    if status == C.BRIDGE_OK then return view[0] end
    if status == C.KAFKA_GAP then return "gap" end
    assert(status == C.BRIDGE_AGAIN, ffi.string(C.kafka_reader_error(reader)))
  end)
end

-- The next record's value, or "gap".
function client:read(reader)
  local record = self:record(reader)
  if record == "gap" then return record end
  return ffi.string(record.value.data, record.value.len)
end

-- Reads nothing until the reader is back at the shared window.
function client:await_sharing(reader)
  self:await("sharing", function()
    assert(C.kafka_reader_next(reader, view) == C.BRIDGE_AGAIN, "there was a record")
    return C.kafka_reader_shares(reader)
  end)
end

return client
