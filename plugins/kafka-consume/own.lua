-- SPDX-License-Identifier: Apache-2.0
-- A stream for one client alone: where plugins of its route look at each record (phase consume), or a group hands out
-- each record once, what it gets is nobody else's.
local message = require "kafka-consume.message"
local records = require "sluice.records"
local time = require "sluice.time"

local own = {}

local LOOK_S = 1 -- how often a reader without records looks whether its client is still there

-- What the client gets of a record; nil: nothing. A plugin that fails ends the stream, for what it would have hidden
-- must not be seen: `err` says so.
local function text_of(state, form, exchange, reader, record)
  local made, err = state.prepare(record), nil
  if made then made, err = records.run(exchange, "consume", made) end
  if not made then return nil, err end
  local text = message.told(state, record, form.render, made)
  if text and form.ids and reader.slots then text = form.id(reader, reader:slot_of(record)) .. text end
  return text
end

local function end_with(answer, text)
  if text then answer:send(text) end
  return false
end

-- What to do about a record, or about none; false: the stream ends.
local function step(self, record, err)
  local form, answer = self.form, self.answer
  if record then
    if self.key and record.key ~= self.key then return true end
    local text, failed = text_of(self.state, form, self.exchange, self.reader, record)
    if failed then return end_with(answer, form.failure(failed)) end
    if text then
      self.spoke = time.monotonic()
      self.span:add(record)
      if not answer:send(text) then return false end
    end
    self.reader:pass(record)
    return true
  end
  if err == "timeout" then
    if time.monotonic() - self.spoke < self.heartbeat_s then return answer:is_open() end
    self.spoke = time.monotonic()
    return answer:send(form.heartbeat)
  end
  if err == "rebalance" then return true end
  if err == "gap" then return answer:send(form.gap(self.reader, self.reader:positions())) end
  return end_with(answer, err ~= "closed" and form.failure(err)) -- closed: this worker drains, the client comes back
end

local function pump(self)
  self.answer = self.exchange.response:stream(200, self.form.headers)
  if not self.answer:send(self.form.heartbeat) then return end
  local look_s = math.min(LOOK_S, self.heartbeat_s)
  repeat
    local record, err = self.reader:next(look_s)
  until not step(self, record, err)
  self.answer:finish()
end

-- Streams until the client leaves.
---@param reader table a source, closed at the end
---@param key string|nil records of this key only
---@param span sluice.record_traces.span
function own.stream(state, form, exchange, reader, key, span)
  local self = { state = state, form = form, exchange = exchange, reader = reader, key = key, span = span,
    heartbeat_s = state.conf.heartbeat / 1000, spoke = time.monotonic() }
  local ok, err = pcall(pump, self)
  reader:close()
  if not ok then error(err, 0) end
end

return own
