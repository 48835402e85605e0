-- SPDX-License-Identifier: Apache-2.0
-- A WebSocket whose other end is the plugin: exchange.response:websocket() gives it. One coroutine may send while
-- another receives.

local ffi = require "ffi"
local check = require "sluice.api.check"
local core = require "sluice.api.core"

local C, worker, E = core.C, core.worker, core.E
local ffi_string, setmetatable = ffi.string, setmetatable
local yield = coroutine.yield

local OK, AGAIN, NONE, INVALID, TIMEOUT = 0, E.BRIDGE_AGAIN, 2, E.BRIDGE_INVALID, E.BRIDGE_TIMEOUT
local OPCODES = { text = 1, binary = 2, ping = 9 }
local TYPES = { "text", "binary" }

---@class sluice.talk
local Talk = {}
local talk_mt = { __index = Talk, __metatable = false }

local message = ffi.new("struct talk_message")

-- Sends a message; waits while the client is slow.
---@param data string
---@param kind? "text"|"binary"|"ping" "text" unless told
---@return boolean|nil sent
---@return "closed"|"invalid"|nil err "closed": by either side; "invalid": a text that is not UTF-8
function Talk:send(data, kind)
  check.string("talk:send", "data", data)
  local opcode = OPCODES[kind or "text"]
  if not opcode then check.fail("talk:send", 'kind must be "text", "binary" or "ping"') end
  local status = C.bridge_talk_send(worker, self.handle, opcode, data, #data)
  if status == AGAIN then status = yield() end
  if status == OK then return true end
  return nil, status == INVALID and "invalid" or "closed"
end

-- The client's next message; pings are answered by themselves.
---@param seconds? number without end unless told; 0: only one that is there already
---@return string|nil data
---@return "text"|"binary"|"timeout"|"closed" kind
function Talk:receive(seconds)
  local deadline = seconds and C.bridge_mono(worker) + seconds or math.huge
  local left = seconds or math.huge
  while true do
    local status = C.bridge_talk_receive(worker, self.handle, left, message)
    if status == OK then return ffi_string(message.data.data, message.data.len), TYPES[message.opcode] end
    if status == AGAIN then
      status = yield()
      if status == OK then left = math.max(deadline - C.bridge_mono(worker), 0) end
    end
    if status == TIMEOUT or status == NONE then return nil, "timeout" end
    if status ~= OK then return nil, "closed" end
  end
end

-- Tells the client that it is over. Closing twice is no error; a plugin that returns without it closes with 1000.
---@param code? integer 1000 unless told
---@param reason? string at most 123 bytes
function Talk:close(code, reason)
  reason = reason or ""
  check.string("talk:close", "reason", reason)
  local status = C.bridge_talk_close(worker, self.handle, code or 1000, reason, #reason)
  if status == INVALID then check.fail("talk:close", "code must be one that may be sent, reason UTF-8") end
end

---@return integer|nil what the client has closed with; 1005 where it gave no reason
function Talk:end_code()
  local code = C.bridge_talk_end_code(worker, self.handle)
  if code ~= 0 then return code end
  return nil
end

return {
  ---@param handle number
  ---@return sluice.talk
  new = function(handle) return setmetatable({ handle = handle }, talk_mt) end,
}
