-- SPDX-License-Identifier: Apache-2.0
-- An answer sent piece by piece: `send` waits while the client is slow, and tells when it has left.

local check = require "sluice.api.check"
local core = require "sluice.api.core"

local C, worker = core.C, core.worker
local yield = coroutine.yield

local AGAIN = core.E.BRIDGE_AGAIN

---@class sluice.stream
local Stream = {}
local stream_mt = { __index = Stream, __metatable = false }

-- Sends bytes at once; waits until the client has taken enough of them.
---@param bytes string
---@return boolean false when the client has left: stop sending
function Stream:send(bytes)
  check.string("stream:send", "bytes", bytes)
  if self.over then return false end
  if bytes == "" then return true end
  local status = C.bridge_stream_send(worker, self.handle, bytes, #bytes)
  if status == AGAIN then status = yield() end
  if status == 0 then return true end
  self.over = true
  return false
end

-- For who has nothing to send for now, such as a reader of events: ask now and then.
---@return boolean false when the client has left
function Stream:is_open()
  if not self.over and C.bridge_stream_open(worker, self.handle) ~= 0 then self.over = true end
  return not self.over
end

-- Ends the answer. Finishing twice is no error.
function Stream:finish()
  if self.over then return end
  self.over = true
  C.bridge_stream_end(worker, self.handle)
end

return {
  ---@param handle number
  ---@param over boolean the client has left already
  ---@return sluice.stream
  new = function(handle, over)
    return setmetatable({ handle = handle, over = over }, stream_mt)
  end,
}
