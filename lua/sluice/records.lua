-- SPDX-License-Identifier: Apache-2.0
-- The phases of records, for plugins that carry them between HTTP and Kafka: each record about to enter a topic goes
-- through `produce`, each that has just been read through `consume`, in the plugins of the route.
--
--   record, err = records.run(exchange, "produce", record)
--   if err then ... end                   -- a plugin failed, and the log says how: the record must not go on
--   if not record then ... end            -- a plugin dropped it
--
-- A record is a table: topic, key, value, headers (list of { name, value }), partition, timestamp, and offset where it
-- was read. Of one that was read plugins get a copy, since readers of a topic share them.
local native = require "sluice.ffi"
local calls = native.worker ~= nil and require "sluice.calls" or nil
local phases = require "sluice.phases"

local error, ipairs, pairs = error, ipairs, pairs
local runtime = native.worker ~= nil and require "sluice.runtime" or {} -- none where a plugin is only looked at
local record_list, run_record = runtime.record_list, runtime.run_record
local EXIT = phases.EXIT
local CONSUME = phases.numbers.consume
local NUMBERS = { produce = phases.numbers.produce, consume = CONSUME }

local records = {}

local function number_of(phase)
  return NUMBERS[phase] or error("no phase of records: " .. tostring(phase), 3)
end

-- Whether any plugin of the exchange's route has the phase: without one, records may be shared and sent as they are.
---@param phase "produce"|"consume"
---@return boolean
function records.any(phase)
  return record_list(number_of(phase)) ~= nil
end

local function copy_of(record)
  local copy = {}
  for name, value in pairs(record) do copy[name] = value end
  local headers = {}
  for i, header in ipairs(record.headers or headers) do headers[i] = { header[1], header[2] } end
  copy.headers = headers
  return copy
end

-- Runs the phase over a record, inside the exchange's own phase. It may wait. Plugins may answer the exchange, which
-- ends the phase as `exchange.response:exit` does.
---@param exchange sluice.exchange
---@param phase "produce"|"consume"
---@param record table
---@return table|nil record nil: a plugin dropped it, or failed
---@return string|nil err a plugin failed
function records.run(exchange, phase, record)
  local number = number_of(phase)
  local list = record_list(number)
  if not list then return record end
  if number == CONSUME then record = copy_of(record) end
  local out, failure = run_record(list, number, exchange, record)
  if failure == EXIT then error(EXIT, 0) end
  if failure then return nil, "a plugin failed in phase " .. phase end
  return out
end

-- The same where no exchange brings the record: for a plugin that calls the service that it stands at (see
-- sluice.calls), with the plugins of that service and the global ones. A plugin sees an exchange without a client,
-- whose request is none.
---@param conf table of the plugin's instance
---@param phase "produce"|"consume"
---@param record table
---@return table|nil record nil: a plugin dropped it, or failed
---@return string|nil err a plugin failed, or answered
---@return "gone"|"full"|nil code why the phase could not be run now
function records.run_alone(conf, phase, record)
  local number = number_of(phase)
  if not calls.has_phase(conf, number) then return record end
  local out, failure, code = calls.run_record(conf, number, number == CONSUME and copy_of(record) or record)
  if code then return nil, failure, code end
  if failure == EXIT then return nil, "a plugin answered in phase " .. phase end
  if failure then return nil, "a plugin failed in phase " .. phase end
  return out
end

return records
