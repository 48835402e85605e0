-- SPDX-License-Identifier: Apache-2.0
-- Records into Kafka, with the broker's word for where they are.

local ffi = require "ffi"
local check = require "sluice.api.check"
local core = require "sluice.api.core"
local message = require "sluice.kafka.message"

local C, worker = core.C, core.worker
local ffi_string = ffi.string
local yield = coroutine.yield
local text_of, lay = message.text, message.lay

local OK, AGAIN, NONE = 0, 1, 2
local TIMEOUT, FULL, INVALID = -5, -3, -2
local EXPIRED = 5
local CODES = { [INVALID] = "invalid", [6] = "MSG_SIZE_TOO_LARGE", [7] = "_UNKNOWN_PARTITION" }

local produce = {}

local result = ffi.new("struct kafka_result")

-- Why a record was not queued.
---@param status integer
---@return nil
---@return string err
---@return string code
function produce.refused(status)
  if status == FULL then return nil, "the queue to the cluster is full", "full" end
  if status == NONE then return nil, core.reason(INVALID), "cluster" end
  return nil, core.reason(INVALID), CODES[status] or "failed"
end

local refused = produce.refused

-- What became of a record, as a plugin is told it.
---@param told ffi.cdata* struct kafka_result
---@param topic string
function produce.told(told, topic)
  if told.status == OK then return { topic = topic, partition = told.partition, offset = told.offset } end
  if told.status == TIMEOUT then return nil, ffi_string(told.text), "timeout" end
  if told.status == EXPIRED then return nil, ffi_string(told.text), "expired" end
  return nil, ffi_string(told.text), ffi_string(told.name)
end

-- Produces a record and waits for the broker's acknowledgement.
---@param options sluice.kafka.message
---@return { topic: string, partition: integer, offset: integer }|nil
---@return string|nil err
---@return string|nil code "full": queue full, at once; "timeout": it may yet arrive; "expired": no
--- acknowledgement in time either, but it was not sent, and will not be; "cluster": there is none of that
--- name; "invalid": there can be no such topic; else Kafka's name of the error, such as "MSG_SIZE_TOO_LARGE"
function produce.produce(options)
  check.table("kafka.produce", "options", options)
  local key = text_of("kafka.produce", "key", options.key)
  local value = text_of("kafka.produce", "value", options.value)
  local record = lay("kafka.produce", options, options.cluster, key, value, options.timeout)
  local topic = options.topic
  local status = C.bridge_kafka_produce(worker, record, true)
  if status ~= AGAIN then return refused(status) end
  yield()
  C.bridge_kafka_result(worker, result)
  return produce.told(result, topic)
end

-- Queues a record and does not wait; failures are counted in kafka.status().
---@param options sluice.kafka.message
---@return boolean|nil queued
---@return string|nil err
---@return string|nil code
function produce.send(options)
  check.table("kafka.send", "options", options)
  local key = text_of("kafka.send", "key", options.key)
  local value = text_of("kafka.send", "value", options.value)
  local record = lay("kafka.send", options, options.cluster, key, value)
  local status = C.bridge_kafka_produce(worker, record, false)
  if status == OK then return true end
  return refused(status)
end

return produce
