-- SPDX-License-Identifier: Apache-2.0
-- Records over a WebSocket, each a text message. Where clients acknowledge, no more than a bounded number of records is
-- on its way to one, and a group goes on behind what was acknowledged: at least once.
--
--   gateway -> client  {"topic":"orders","partition":2,"offset":41,...}     {"gap":{...}}   {"error":{...}}
--   client -> gateway  {"ack":{"partition":2,"offset":41}}   {"ack":[...]}   {"ack":true}: all that has come
local bell = require "sluice.bell"
local forms = require "kafka-consume.forms"
local group = require "kafka-consume.group"
local json = require "sluice.json"
local message = require "kafka-consume.message"
local records = require "sluice.records"
local source = require "kafka-consume.source"
local time = require "sluice.time"
local timer = require "sluice.timer"

local socket = {}

local LOOK_S = 1
local NORMAL, GOING_AWAY, POLICY, FAILED = 1000, 1001, 1008, 1011

-- ---- Acknowledgements --------------------------------------------------------------------------------------------

-- Records on their way, by topic and partition: offsets in order.
local function lane_of(self, topic, partition)
  local lanes = self.lanes[topic]
  if not lanes then
    lanes = {}
    self.lanes[topic] = lanes
  end
  local lane = lanes[partition]
  if not lane then
    lane = { first = 1, last = 0 }
    lanes[partition] = lane
  end
  return lane
end

local function note_sent(self, record)
  local lane = lane_of(self, record.topic, record.partition)
  lane.last = lane.last + 1
  lane[lane.last] = record.offset
  self.open = self.open + 1
end

-- All of the partition up to the offset has arrived. Gives the offset behind the last record that this was about.
local function settle(self, topic, partition, offset)
  local lane = self.lanes[topic] and self.lanes[topic][partition]
  local behind
  while lane and lane.first <= lane.last and lane[lane.first] <= offset do
    behind = lane[lane.first] + 1
    lane[lane.first] = nil
    lane.first = lane.first + 1
    self.open = self.open - 1
  end
  return behind
end

local function add(positions, topic, partition, offset)
  if not offset then return end
  positions[topic] = positions[topic] or {}
  positions[topic][partition] = offset
end

local function settle_all(self, positions)
  for topic, lanes in pairs(self.lanes) do
    for partition in pairs(lanes) do add(positions, topic, partition, settle(self, topic, partition, math.huge)) end
  end
end

local function settle_one(self, positions, one)
  local topic = type(one) == "table" and (one.topic or self.state.only)
  if not topic or type(one.partition) ~= "number" or type(one.offset) ~= "number" then return false end
  add(positions, topic, one.partition, settle(self, topic, one.partition, one.offset))
  return true
end

-- Positions to go on from, by topic and partition; nil: it is no acknowledgement.
local function acknowledged(self, text)
  local said = json.decode(text)
  local ack = type(said) == "table" and said.ack
  local positions = {}
  if ack == true then
    settle_all(self, positions)
  elseif type(ack) == "table" and #ack > 0 then
    for _, one in ipairs(ack) do
      if not settle_one(self, positions, one) then return nil end
    end
  elseif not settle_one(self, positions, ack) then
    return nil
  end
  return positions
end

-- In a coroutine of its own, until the client has closed.
local function listen(self)
  while not self.over do
    local text, kind = self.talk:receive(60)
    if text then
      local positions = acknowledged(self, text)
      if not positions then
        self.talk:close(POLICY, "not an acknowledgement")
        break
      end
      if self.acknowledges then self.reader:commit(positions) end
      self.bell:ring()
    elseif kind == "closed" then
      break
    end
  end
  self.over = true
  self.bell:ring()
end

-- ---- Records -----------------------------------------------------------------------------------------------------

local function text_of(self, record)
  if self.key and record.key ~= self.key then return nil end
  local made, err = self.state.prepare(record), nil
  if made then made, err = records.run(self.exchange, "consume", made) end
  if not made then return nil, err end
  local text = message.told(self.state, record, message.encode, made)
  return text
end

local function tell(self, text)
  return self.talk:send((text:gsub("\n$", "")))
end

local function fail(self, err)
  tell(self, forms.lines.failure(err))
  self.talk:close(FAILED)
  return false
end

local function send_record(self, record)
  local text, err = text_of(self, record)
  if err then return fail(self, err) end
  if not text then -- nobody will acknowledge it: it counts as done when all before it are
    if self.open == 0 then self.reader:pass(record) end
    return true
  end
  if self.waits then note_sent(self, record) end
  self.span:add(record)
  if not self.talk:send(text) then return false end
  if not self.acknowledges then self.reader:pass(record) end
  self.spoke = time.monotonic()
  return true
end

-- What else may have come; false: it is over.
local function send_other(self, err)
  if err == "timeout" then
    if time.monotonic() - self.spoke < self.heartbeat_s then return true end
    self.spoke = time.monotonic()
    return self.talk:send("", "ping")
  end
  if err == "gap" then return tell(self, forms.lines.gap(self.reader, self.reader:positions())) end
  if err == "rebalance" then
    for _, one in ipairs(self.reader:lost()) do settle(self, one.topic, one.partition, math.huge) end
    return true
  end
  if err == "closed" then -- this worker drains: the client comes back, elsewhere
    self.talk:close(GOING_AWAY)
    return false
  end
  return fail(self, err)
end

local function pump(self)
  local look_s = math.min(LOOK_S, self.heartbeat_s)
  while not self.over do
    if self.waits and self.open >= self.state.conf.websocket.max_unacknowledged then
      if not self.bell:wait(look_s) and not send_other(self, "timeout") then return end
    else
      local record, err = self.reader:next(look_s)
      if self.over then return end
      local going
      if record then going = send_record(self, record) else going = send_other(self, err) end
      if not going then return end
    end
  end
end

-- ---- Life --------------------------------------------------------------------------------------------------------

local function serve(self)
  self.talk = self.exchange.response:websocket()
  if not self.talk then return end
  timer.at(0, listen, self)
  pump(self)
  self.over = true
  self.talk:close(NORMAL)
end

-- Streams until either side closes.
---@param start "latest"|"earliest"|table where to begin without a group
---@param key string|nil records of this key only
---@param span sluice.record_traces.span
---@return boolean|nil
---@return string|nil err
---@return string|nil code
function socket.serve(state, exchange, start, key, span)
  local conf = state.conf
  local name = group.of_stream(conf, exchange)
  local reader, err, code
  if name then
    reader, err, code = group.open(state, name)
  else
    reader, err, code = source.open(state, start)
  end
  if not reader then return nil, err, code end
  local waits = conf.websocket.acknowledge
  local self = { state = state, exchange = exchange, reader = reader, key = key, span = span, waits = waits,
    acknowledges = waits and name ~= nil, lanes = {}, open = 0, bell = bell.new(), over = false,
    heartbeat_s = conf.heartbeat / 1000, spoke = time.monotonic() }
  local ok, raised = pcall(serve, self)
  self.over = true
  reader:close()
  if not ok then error(raised, 0) end
  return true
end

return socket
