-- SPDX-License-Identifier: Apache-2.0
-- The records of one request: all are queued before the first is waited for, and each has an entry in the answer, in
-- their order.
local answers = require "kafka-upstream.answers"
local json = require "sluice.json"
local kafka = require "sluice.kafka"

local many = {}

---@class kafka-upstream.many
local Many = {}
Many.__index = Many

---@param cluster string
---@param timeout number seconds
---@param wait boolean for acknowledgements
---@return kafka-upstream.many
function many.new(cluster, timeout, wait)
  local batch, err
  if wait then batch, err = kafka.batch { cluster = cluster, timeout = timeout } end
  if wait and not batch then return nil, err end
  return setmetatable({ batch = batch, entries = json.array(), count = 0, failed = 0, dropped = 0, waiting = 0,
    places = {} }, Many)
end

-- What became of one that is no record, or of one in place `place`.
function Many:put(entry, place)
  if not place then
    place = self.count + 1
    self.count = place
  end
  if entry.error then self.failed = self.failed + 1 end
  if entry.dropped then self.dropped = self.dropped + 1 end
  self.entries[place] = entry
end

-- Waits for one that is known. False: there is none.
local function take(self)
  local index = self.batch:next()
  if not index then return false end
  local place, at, err, code = self.places[index], self.batch:result(index)
  self.places[index], self.waiting = nil, self.waiting - 1
  self:put(at or answers.entry(err, code), place)
  return true
end

function Many:add(record)
  if not self.batch then
    local queued, err, code = kafka.send(record)
    self:put(queued and { topic = record.topic } or answers.entry(err, code))
    return
  end
  local index, err, code = self.batch:add(record)
  while code == "full" and self.waiting > 0 and take(self) do index, err, code = self.batch:add(record) end
  if not index then return self:put(answers.entry(err, code)) end
  self.count, self.waiting = self.count + 1, self.waiting + 1
  self.places[index] = self.count
end

-- Waits for the rest.
function Many:finish()
  if not self.batch then return end
  while self.waiting > 0 and take(self) do end
  self.batch:close()
end

-- The status that all failures have in common, or 207 where some went well or they differ.
local function common_status(entries)
  local status
  for _, entry in ipairs(entries) do
    if not entry.status or (status and status ~= entry.status) then return 207 end
    status = entry.status
  end
  return status
end

-- Ends the phase.
function Many:answer(exchange)
  local done = self.batch and 200 or 202
  local status = self.failed == 0 and done or common_status(self.entries)
  exchange.response:exit(status, {
    message = self.failed == 0 and "messages sent" or "not all messages were sent",
    sent = self.count - self.failed - self.dropped, failed = self.failed, records = self.entries,
    request_id = self.failed > 0 and exchange.id or nil,
  }, status == 503 and answers.RETRY or nil)
end

return many
