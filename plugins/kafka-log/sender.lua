-- SPDX-License-Identifier: Apache-2.0
-- Batches of log records into Kafka: entries of the queue become records, and those that did not arrive stay in it.
--
-- An entry is a text: "MILLISECONDS KEY-BYTES KEY VALUE", where KEY-BYTES is -1 when there is no key. A record has the
-- time at which it was logged, however long it waited.
local kafka = require "sluice.kafka"

local format, match, sub = string.format, string.match, string.sub

local sender = {}

-- Errors that another try does not mend: such a record is lost at once, and nothing waits behind it.
local HOPELESS = {
  invalid = true, MSG_SIZE_TOO_LARGE = true, INVALID_MSG_SIZE = true, RECORD_LIST_TOO_LARGE = true, INVALID_MSG = true,
  INVALID_RECORD = true, TOPIC_EXCEPTION = true, _INVALID_ARG = true,
}

local NO_KEY = -1

---@param value string
---@param key string|nil
---@param now_s number
---@return string
function sender.entry(value, key, now_s)
  return format("%.0f %d ", now_s * 1000, key and #key or NO_KEY) .. (key or "") .. value
end

local function fill(record, entry)
  local time, key_bytes, at = match(entry, "^(%d+) (%-?%d+) ()")
  key_bytes = tonumber(key_bytes)
  record.timestamp, record.key = tonumber(time), nil
  if key_bytes ~= NO_KEY then
    record.key = sub(entry, at, at + key_bytes - 1)
    at = at + key_bytes
  end
  record.value = sub(entry, at)
end

local function give_up(self, place, why)
  self.gone[place], self.lost = true, self.lost + 1
  self.context.lose(why)
end

-- Takes one record's fate; false: none was waited for.
local function settle(self)
  local index = self.batch:next()
  if not index then return false end
  local at, err, code = self.batch:result(index)
  local place = self.places[index]
  if at then
    self.gone[place] = true
  elseif HOPELESS[code] then
    give_up(self, place, err)
  else
    self.err = err
  end
  return true
end

-- Puts one entry into the batch. Where there is no room for it, the fates of those before it make some.
local function put(self, record, place)
  local index, err, code = self.batch:add(record)
  while not index and code == "full" and settle(self) do index, err, code = self.batch:add(record) end
  if index then
    self.places[index] = place
    return true
  end
  if HOPELESS[code] then
    give_up(self, place, err)
    return true
  end
  self.err = err
  return false -- nor is there room for what comes behind it
end

-- What is left to send again, in its order.
local function keep_left(entries, gone)
  local left, count = 0, #entries
  for i = 1, count do
    local entry = entries[i]
    entries[i] = nil
    if not gone[i] then
      left = left + 1
      entries[left] = entry
    end
  end
  return left
end

-- A handler of sluice.queue.
---@param context { cluster: string, topic: string, timeout: number, lose: fun(why: string) }
---@param entries string[]
---@return boolean|nil
---@return string|nil err
---@return integer|nil lost
function sender.send(context, entries)
  local batch, err = kafka.batch { cluster = context.cluster, timeout = context.timeout }
  if not batch then return nil, err end
  local self = { batch = batch, context = context, places = {}, gone = {}, lost = 0 }
  local record = { topic = context.topic }
  for i = 1, #entries do
    fill(record, entries[i])
    if not put(self, record, i) then break end
  end
  while settle(self) do end -- luacheck: ignore 542 (until none is waited for)
  batch:close()
  if keep_left(entries, self.gone) == 0 then return true, nil, self.lost end
  return nil, self.err, self.lost
end

return sender
