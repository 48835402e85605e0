-- SPDX-License-Identifier: Apache-2.0
-- The trace that a record belongs to: W3C's `traceparent` and `tracestate` in its headers, and the spans that
-- OpenTelemetry's conventions for messaging ask for, where a tracer (opentelemetry, zipkin) is on.
--
--   request -> server span -> "send orders" (producer) ~~ record ~~> "process orders" (consumer) -> request
--                                                            \~~~~> "poll orders" (client), a link a record
--
-- Where no tracer is on, the context of a request goes into its records as it came, and that of a record goes on as it
-- came: the gateway is no break in anybody's trace. Without a context and a tracer all of this is one look at a field.

local core = require "sluice.api.core"
local tracing = require "sluice.tracing"

local C, worker = core.C, core.worker
local REQUEST = worker ~= nil and core.E.MESSAGE_REQUEST or 0
local concat, find, sub = table.concat, string.find, string.sub
local type, ipairs, tostring = type, ipairs, tostring
local parse = tracing.propagation.parse

local traces = {}

local PARENT, STATE = "traceparent", "tracestate"
local MOST_KEY_BYTES = 256   -- of a key that is shown in a span
local MOST_STATE_BYTES = 2048
local MOST_STATES = 8        -- fields of a request that are joined

local PARENT_FIELD = worker ~= nil and C.bridge_field_name(worker, PARENT, #PARENT) or 0
local STATE_FIELD = worker ~= nil and C.bridge_field_name(worker, STATE, #STATE) or 0

-- ---- Headers of records -------------------------------------------------------------------------------------------

-- The last value of that name: who wrote later knew more. Headers in any form that kafka.produce takes.
local function header_of(record, name)
  local headers = record.headers
  if type(headers) ~= "table" then return nil end
  for i = #headers, 1, -1 do
    local one = headers[i]
    if type(one) == "table" and (one[1] or one.name) == name then
      local value = one[2] or one.value
      return type(value) == "string" and value or nil
    end
  end
  local value = headers[name]
  if type(value) == "table" then value = value[#value] end
  return type(value) == "string" and value or nil
end

local function put_header(record, name, value)
  local headers = record.headers
  if type(headers) ~= "table" then
    headers = {}
    record.headers = headers
  end
  if headers[name] then
    headers[name] = value
    return
  end
  for i = 1, #headers do
    if (headers[i][1] or headers[i].name) == name then
      headers[i] = { name, value }
      return
    end
  end
  headers[#headers + 1] = { name, value }
end

---@class sluice.record_traces.context
---@field trace string 32 hex digits
---@field parent string 16 hex digits: the span that the record was sent in
---@field sampled boolean
---@field flags integer
---@field state? string W3C's tracestate

-- The context that a record carries; nil when it carries none that could be understood.
---@param record { headers: table }
---@return sluice.record_traces.context|nil
function traces.context(record)
  local text = header_of(record, PARENT)
  local context = text and parse(text)
  if not context then return nil end
  local state = header_of(record, STATE)
  context.state = state and #state <= MOST_STATE_BYTES and state or nil
  return context
end

local function text_of(trace_id, span_id, sampled)
  return "00-" .. trace_id .. "-" .. span_id .. (sampled and "-01" or "-00")
end

-- ---- Attributes ---------------------------------------------------------------------------------------------------

local function base_attributes(operation, kind, options)
  return {
    ["messaging.system"] = "kafka", ["messaging.operation.name"] = operation, ["messaging.operation.type"] = kind,
    ["messaging.destination.name"] = options.topic, ["messaging.consumer.group.name"] = options.group,
    ["sluice.kafka.cluster"] = options.cluster,
  }
end

local function put_message(attributes, record)
  local key = record.key
  if type(key) == "number" then key = tostring(key) end
  if type(key) == "string" and #key <= MOST_KEY_BYTES and not find(key, "[^\32-\126]") then
    attributes["messaging.kafka.message.key"] = key
  end
  if record.value == nil then attributes["messaging.kafka.message.tombstone"] = true
  elseif type(record.value) == "string" then attributes["messaging.message.body.size"] = #record.value end
end

local function put_place(attributes, place)
  if place.partition then attributes["messaging.destination.partition.id"] = tostring(place.partition) end
  if place.offset and place.offset >= 0 then attributes["messaging.kafka.offset"] = place.offset end
end

-- ---- What the functions below give --------------------------------------------------------------------------------

---@class sluice.record_traces.span
local Span = {}
Span.__index = Span

local function new(span, parent, state)
  return setmetatable({ span = span, parent = parent, state = state, count = 0 }, Span)
end

-- Where there is neither a context nor a tracer.
local NOTHING = new(nil, nil, nil)

-- Puts the context into a record that is about to be sent. A record that is in another trace already stays there, and
-- is linked to.
---@param record { headers?: table } its headers must be the caller's own, for they are added to
function Span:put(record)
  if not self.parent then return end
  self.count = self.count + 1
  local own = traces.context(record)
  if own and own.trace ~= sub(self.parent, 4, 35) then
    if self.span then self.span:add_link(own) end
    return
  end
  put_header(record, PARENT, self.parent)
  if self.state then put_header(record, STATE, self.state) end
end

-- Tells of a record that was read.
---@param record sluice.kafka.record
function Span:add(record)
  local span = self.span
  if not span then return end
  self.count = self.count + 1
  local context = traces.context(record)
  if context then
    local place = { ["messaging.destination.name"] = record.topic }
    put_place(place, record)
    span:add_link(context, place)
  end
end

-- `traceparent` and `tracestate` for a request that is made for the record; nil where there is no context.
---@return string|nil
---@return string|nil
function Span:context()
  return self.parent, self.state
end

-- Ends the span.
---@param at? { partition: integer, offset: integer } where the record is
---@param err? string what went wrong
---@param code? string what kind of error that is, such as Kafka's name of it
function Span:done(at, err, code)
  local span = self.span
  if not span then return end
  self.span = nil
  if self.several then span:set_attribute("messaging.batch.message_count", self.count) end
  if type(at) == "table" then put_place(span.attributes, at) end
  if err then
    span:set_status(tracing.ERROR, tostring(err))
    span:set_attribute("error.type", code or "_OTHER")
  end
  span:finish()
end

-- ---- Into Kafka ---------------------------------------------------------------------------------------------------

local function state_of(exchange)
  local first = core.field(exchange.handle, REQUEST, STATE_FIELD, 0)
  if not first then return nil end
  local list = { first }
  for nth = 1, MOST_STATES - 1 do
    local more = core.field(exchange.handle, REQUEST, STATE_FIELD, nth)
    if not more then break end
    list[#list + 1] = more
  end
  local text = concat(list, ",")
  return #text <= MOST_STATE_BYTES and text or nil
end

-- What the request says, or what a tracer that does not sample it has put there for the service.
local function passing(exchange)
  local trace = rawget(exchange, "trace")
  if trace and trace.id then return new(nil, text_of(trace.id, trace.next, trace.sampled), state_of(exchange)) end
  local parent = core.field(exchange.handle, REQUEST, PARENT_FIELD, 0)
  if not parent or not parse(parent) then return NOTHING end
  return new(nil, parent, state_of(exchange))
end

local function open(exchange, options, several, record)
  local trace = tracing.begun(exchange)
  if not trace then return (passing(exchange)) end
  local attributes = base_attributes("send", "send", options)
  if record then put_message(attributes, record) end
  local span = tracing.span_in(trace, "send " .. options.topic, { kind = "producer", attributes = attributes })
  if not span.is_recording then return (passing(exchange)) end
  local it = new(span, text_of(trace.id, span.id, true), state_of(exchange))
  it.several = several
  return it
end

-- A record of an exchange is about to be sent: puts the context into its headers and begins its span.
--
--   local sending = traces.send(exchange, record)
--   local at, err, code = kafka.produce(record)
--   sending:done(at, err, code)
---@param exchange sluice.exchange
---@param record sluice.kafka.message its headers must be the caller's own, for they are added to
---@return sluice.record_traces.span
function traces.send(exchange, record)
  local it = open(exchange, record, false, record)
  it:put(record)
  return it
end

-- The same for any number of records, which share one span: `put` for each of them, `done` once.
---@param exchange sluice.exchange
---@param options { topic: string, cluster?: string }
---@return sluice.record_traces.span
function traces.send_many(exchange, options)
  local it = open(exchange, options, true)
  return it
end

-- ---- Out of Kafka -------------------------------------------------------------------------------------------------

-- An exchange in which records are read for a client: `add` for each of them, which the span links to, `done` once.
---@param exchange sluice.exchange
---@param options { topic: string, cluster?: string, group?: string }
---@return sluice.record_traces.span
function traces.poll(exchange, options)
  local trace = tracing.begun(exchange)
  if not trace then return NOTHING end
  local span = tracing.span_in(trace, "poll " .. options.topic, { kind = "client",
    attributes = base_attributes("poll", "receive", options) })
  if not span.is_recording then return NOTHING end
  local it = new(span, text_of(trace.id, span.id, true))
  it.several = true
  return it
end

local function link_all(span, list)
  for _, record in ipairs(list) do
    local context = traces.context(record)
    if context then span:add_link(context) end
  end
end

-- One record's span is in the record's own trace, under the span that it was sent in; a batch has a trace of its own.
local function process_span(trace, list, single, context, options)
  local attributes = base_attributes("process", "process", options)
  attributes["messaging.destination.name"] = options.topic or list[1] and list[1].topic
  if single then
    put_message(attributes, single)
    put_place(attributes, single)
  end
  local span = tracing.span_alone(trace, "process " .. (attributes["messaging.destination.name"] or ""), {
    kind = "consumer", attributes = attributes, under = context and context.parent })
  if span.is_recording then link_all(span, list) end
  return span
end

local function processing(records, single, context, options)
  local trace = tracing.alone(context, options)
  if not trace then return context and new(nil, header_of(single, PARENT), context.state) or NOTHING end
  local span = process_span(trace, single and { single } or records, single, context, options)
  local recording = span.is_recording and span or nil
  local id = recording and span.id or context and context.parent or tracing.new_span_id()
  return (new(recording, text_of(trace.id, id, trace.sampled), context and context.state))
end

-- Records are about to be worked on, outside of an exchange: `context` of what this gives is for the request that is
-- made for them, `done` ends it.
---@param records sluice.kafka.record|sluice.kafka.record[] one, or a batch
---@param options? { topic?: string, cluster?: string, group?: string, route?: string, service?: string } the ids of
--- route and service say whose tracers are told
---@return sluice.record_traces.span
function traces.process(records, options)
  local single = not records[1] and records or nil
  local it = processing(records, single, single and traces.context(single), options or {})
  if it.span and not single then it.several, it.count = true, #records end
  return it
end

return traces
