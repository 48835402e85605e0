-- SPDX-License-Identifier: Apache-2.0
-- Consumer groups: their names by Kong's rules, and a member of one as a source of records, whose positions the group
-- remembers.
local crypto = require "sluice.crypto"
local kafka = require "sluice.kafka"
local time = require "sluice.time"

local group = {}

local COMMIT_EVERY_S = 1
local COMMIT_WITHIN_S = 5

local function consumer_name(exchange)
  local consumer = exchange.client:get_consumer()
  return consumer and (consumer.username or consumer.custom_id or consumer.id)
end

-- Named by the configuration or the consumer; nil: neither.
---@return string|nil
function group.of_stream(conf, exchange)
  local wanted = conf.consumer_group
  if not wanted then return nil end
  if wanted.mode == "manual" then return wanted.consumer_group_id end
  return wanted.mode == "kong_consumer" and consumer_name(exchange) or nil
end

-- The same, else one for all clients of this configuration.
---@return string
function group.of_poll(conf, exchange)
  return group.of_stream(conf, exchange)
    or "com.konghq.kafka." .. crypto.hex(crypto.digest("md5", conf.__plugin_id or ""))
end

-- Kong's `latest` begins with the earliest record unless it is told to mean it.
---@return "latest"|"earliest"
function group.first(conf)
  if conf.auto_offset_reset == "latest" and conf.enforce_latest_offset_reset then return "latest" end
  return "earliest"
end

-- ---- A member ----------------------------------------------------------------------------------------------------

local Member = {}
Member.__index = Member

---@return table|nil
---@return string|nil err
---@return string|nil code
function group.open(state, name)
  local consumer, err, code = kafka.group { cluster = state.cluster, group = name, topics = state.names,
    from = group.first(state.conf) }
  if not consumer then return nil, err, code end
  return setmetatable({ consumer = consumer, auto = state.conf.commit_strategy == "auto", labels = {}, passed = {},
    decode_key = state.decode_key, dirty = false, told = time.monotonic() }, Member)
end

local function commit_passed(self)
  self.told = time.monotonic()
  if not self.dirty then return end
  self.dirty = false
  self.consumer:commit(self.passed, COMMIT_WITHIN_S)
  self.passed = {}
end

---@param seconds number
function Member:next(seconds)
  if self.dirty and time.monotonic() - self.told >= COMMIT_EVERY_S then commit_passed(self) end
  local record, err = self.consumer:next(seconds)
  if err == "rebalance" then commit_passed(self) end
  if record and self.decode_key then record = self.decode_key(record) end
  return record, err
end

-- The record needs no acknowledgement: it will not come again.
function Member:pass(record)
  if not self.auto then return end
  local offsets = self.passed[record.topic]
  if not offsets then
    offsets = {}
    self.passed[record.topic] = offsets
  end
  offsets[record.partition] = record.offset + 1
  self.dirty = true
end

function Member:commit(positions)
  if self.auto then self.consumer:commit(positions, COMMIT_WITHIN_S) end
end

function Member:lost()
  return self.consumer:lost()
end

function Member.positions()
  return {}
end

function Member:close()
  commit_passed(self)
  self.consumer:close()
end

return group
