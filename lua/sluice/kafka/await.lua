-- SPDX-License-Identifier: Apache-2.0
-- Waits for the next record of whatever has one: a reader, or a member of a group.

local core = require "sluice.api.core"

local C, worker = core.C, core.worker
local yield = coroutine.yield

local OK, AGAIN = 0, 1

-- The status that C's `next_of` gives in the end; OK: the record is in `view`. It answers AGAIN when there is none, and
-- then wakes this coroutine: with OK when there may be one, which another may have taken.
---@param next_of ffi.cdata* bridge_kafka_reader_next or bridge_kafka_group_next
---@param handle number
---@param timeout number|nil seconds, without end unless told
---@param view ffi.cdata*
---@return integer status
local function await(next_of, handle, timeout, view)
  local deadline = timeout and C.bridge_mono(worker) + timeout or math.huge
  local left = timeout or math.huge
  while true do
    local status = next_of(worker, handle, left, view)
    if status ~= AGAIN then return status end
    status = yield()
    if status ~= OK then return status end
    left = deadline - C.bridge_mono(worker)
    if left <= 0 then left = 0 end
  end
end

return await
