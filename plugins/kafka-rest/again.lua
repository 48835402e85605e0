-- SPDX-License-Identifier: Apache-2.0
-- A broker refuses a batch of records as a whole when one of them is too large, also where they came of different
-- requests. None of them has been written then: each is sent once more, alone, and those that fit get in.
local kafka = require "sluice.kafka"

local again = {}

local SPOILT = { MSG_SIZE_TOO_LARGE = true, RECORD_LIST_TOO_LARGE = true }

-- As batch:result, when the fate of the record is known.
---@param call kafka-rest.call
---@param batch sluice.kafka.batch
---@param index integer
---@param record table
function again.result(call, batch, index, record)
  local at, err, code = batch:result(index)
  if at or not SPOILT[code] then return at, err, code end
  record.cluster, record.timeout = call.cluster, call.conf.timeout / 1000
  return kafka.produce(record)
end

-- As kafka.produce.
---@param record table
function again.produce(record)
  local at, err, code = kafka.produce(record)
  if at or not SPOILT[code] then return at, err, code end
  return kafka.produce(record)
end

return again
