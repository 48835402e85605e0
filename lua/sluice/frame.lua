-- SPDX-License-Identifier: Apache-2.0
-- One message of a WebSocket, as the frame phases see it: what came, and what plugins want to become of it.
--
-- Text and binary messages are whole, however many frames carried them; ping, pong and close are frames of their own.

local bit = require "bit"
local check = require "sluice.api.check"
local native = require "sluice.ffi"

local C = native.C
local char, sub, byte = string.char, string.sub, string.byte
local error, rawget, rawset, setmetatable = error, rawget, rawset, setmetatable
local tostring, type = tostring, type

-- Messages in work, by slot + 1 of their exchange: tables of their own, so that an exchange object has no room for them
-- while its connection is idle.
local frame = { client = {}, upstream = {} }

local TYPES = { [1] = "text", [2] = "binary", [8] = "close", [9] = "ping", [10] = "pong" } -- enum ws_opcode
local CONTROL_MOST, REASON_MOST = 125, 123
local DONE, DROPPED = 0, 4 -- enum phase_result
local NO_STATUS = 1005     -- as who receives an empty close is told (RFC 6455 7.1.5)

---@class sluice.frame
---@field type "text"|"binary"|"ping"|"pong"|"close"
---@field data string of a close: its reason
---@field status integer|nil of a close: its code; 1005 when it has none
local Frame = {}

-- `name` and `level`: of the API function, and of the plugin as seen from here.
local function set_data(self, data, name, level)
  if type(data) ~= "string" then check.fail(name, "data must be a string, got a " .. type(data), level) end
  local kind = rawget(self, "kind")
  local most = kind == 8 and REASON_MOST or CONTROL_MOST
  if kind >= 8 and #data > most then
    check.fail(name, ("data of a %s must be at most %d bytes"):format(TYPES[kind], most), level)
  end
  if (kind == 1 or kind == 8) and C.bridge_websocket_is_text(data, #data) == 0 then
    check.fail(name, "a text must be UTF-8", level)
  end
  rawset(self, "text", data)
  rawset(self, "changed", true)
end

local function set_status(self, status, name, level)
  if rawget(self, "kind") ~= 8 then check.fail(name, "only a close has a status", level) end
  if type(status) ~= "number" or C.bridge_websocket_is_code(status) == 0 then
    check.fail(name, tostring(status) .. " is no code that may be sent", level)
  end
  rawset(self, "code", status)
  rawset(self, "changed", true)
end

-- What goes on, and what plugins that follow see, in place of what came.
---@param data string of a close: its reason
function Frame:set_data(data)
  set_data(self, data, "frame:set_data", 4)
end

-- Another code for a close.
---@param status integer
function Frame:set_status(status)
  set_status(self, status, "frame:set_status", 4)
end

-- It goes no further; plugins that would follow do not see it.
function Frame:drop()
  rawset(self, "dropped", true)
end

local READ = {
  type = function(self) return TYPES[rawget(self, "kind")] end,
  data = function(self) return rawget(self, "text") end,
  status = function(self) return rawget(self, "code") or nil end,
}

local mt = { __metatable = false }
function mt.__index(self, key)
  local method = Frame[key]
  if method then return method end
  local read = READ[key]
  return read and read(self)
end
function mt.__newindex(_, key)
  error("frame." .. tostring(key) .. " cannot be set" .. (key == "data" and ": use frame:set_data" or ""), 2)
end

---@param opcode integer
---@param payload string
---@return sluice.frame
function frame.new(opcode, payload)
  local code = false
  if opcode == 8 then
    local high, low = byte(payload, 1, 2)
    code = high and high * 256 + low or NO_STATUS
    payload = sub(payload, 3)
  end
  return (setmetatable({ kind = opcode, text = payload, code = code, changed = false, dropped = false,
    ended = false }, mt))
end

frame.set_data, frame.set_status = set_data, set_status

-- Whether plugins that would follow have nothing to see.
function frame.is_over(self)
  return rawget(self, "dropped") or rawget(self, "ended")
end

-- The connection will be closed.
function frame.finish(self)
  rawset(self, "ended", true)
end

local PLACES = 1048576 -- PHASE_SLOTS of phase.h

-- The message of a side that is in work.
---@param of table<integer, sluice.frame> frame.client or frame.upstream
---@param handle number of the exchange
---@return sluice.frame|nil
function frame.current(of, handle)
  return of[handle % PLACES + 1]
end

function frame.keep(of, handle, self)
  of[handle % PLACES + 1] = self
end

-- What the core is told.
---@return integer code
---@return string|nil payload in place of its own
function frame.verdict(self)
  if rawget(self, "dropped") then return DROPPED end
  if not rawget(self, "changed") then return DONE end
  local text, code = rawget(self, "text"), rawget(self, "code")
  if rawget(self, "kind") ~= 8 then return DONE, text end
  if code == NO_STATUS then
    if text == "" then return DONE, "" end
    code = 1000 -- a reason needs a code
  end
  return DONE, char(bit.rshift(code, 8), code % 256) .. text
end

return frame
