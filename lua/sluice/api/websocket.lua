-- SPDX-License-Identifier: Apache-2.0
-- exchange.websocket: the two sides of a WebSocket whose messages pass through the frame phases; Kong's
-- kong.websocket.client and kong.websocket.upstream.

local check = require "sluice.api.check"
local core = require "sluice.api.core"
local frame = require "sluice.frame"
local phases = require "sluice.phases"

local C, worker, check_phase, must = core.C, core.worker, core.check_phase, core.must
local current_of = frame.current

local CLOSE = phases.mask("frames")
local BOUND = phases.mask("rewrite", "access", "header_filter", "frames")
local MOST = 33554432 -- Kong's bound

-- `name`: "client" or "upstream"; `number`: of the side in the core; `frames`: its messages in work.
local function side(name, number, frames)
  local whole = "exchange.websocket." .. name
  local FRAME = phases.mask("ws_" .. name .. "_frame")

  ---@class sluice.websocket.side
  local Side = {}

  local function current(self, method)
    check_phase(CLOSE, self.handle, whole .. ":" .. method, 3)
    local found = current_of(frames, self.handle)
    if not found then check_phase(FRAME, self.handle, whole .. ":" .. method, 3) end
    return found
  end

  -- The message that is passing; also the third argument of the phase.
  ---@return string data of a close: its reason
  ---@return "text"|"binary"|"ping"|"pong"|"close" type
  ---@return integer|nil status of a close
  function Side:get_frame()
    local found = current(self, "get_frame")
    return found.data, found.type, found.status
  end

  -- Its content from here on; see frame:set_data.
  ---@param data string
  function Side:set_frame_data(data)
    local found = current(self, "set_frame_data")
    frame.set_data(found, data, whole .. ":set_frame_data", 4)
  end

  -- The code of a close; see frame:set_status.
  ---@param status integer
  function Side:set_status(status)
    local found = current(self, "set_status")
    frame.set_status(found, status, whole .. ":set_status", 4)
  end

  -- It goes no further.
  function Side:drop_frame()
    local found = current(self, "drop_frame")
    found:drop()
  end

  local function tell(handle, to, status, message)
    must(C.bridge_websocket_close(worker, handle, to, status, message, #message), whole .. ":close")
  end

  -- Closes the WebSocket on both sides when the phase ends; the message in work goes no further.
  ---@param status? integer that this side is told; 1000 unless told
  ---@param message? string its reason, at most 123 bytes
  ---@param other_status? integer that the other side is told; 1001 unless told
  ---@param other_message? string
  function Side:close(status, message, other_status, other_message)
    check_phase(CLOSE, self.handle, whole .. ":close")
    status, message, other_status, other_message = status or 1000, message or "", other_status or 1001,
      other_message or ""
    check.integer(whole .. ":close", "status", status, 1000, 4999)
    check.string(whole .. ":close", "message", message)
    check.integer(whole .. ":close", "other_status", other_status, 1000, 4999)
    check.string(whole .. ":close", "other_message", other_message)
    tell(self.handle, number, status, message)
    tell(self.handle, 1 - number, other_status, other_message)
    local from_client, from_upstream = current_of(frame.client, self.handle), current_of(frame.upstream, self.handle)
    if from_client then frame.finish(from_client) end
    if from_upstream then frame.finish(from_upstream) end
  end

  -- Bounds the messages of this side; one that is larger closes with 1009. In a phase before the service is called it
  -- makes a WebSocket of a route without frame phases one whose messages are read.
  ---@param size integer bytes
  function Side:set_max_payload_size(size)
    check_phase(BOUND, self.handle, whole .. ":set_max_payload_size")
    check.integer(whole .. ":set_max_payload_size", "size", size, 1, MOST)
    must(C.bridge_websocket_bound(worker, self.handle, number, size), whole .. ":set_max_payload_size")
  end

  return core.plain_part(Side)
end

local client, upstream = side("client", 0, frame.client), side("upstream", 1, frame.upstream)

return core.part(function(self, key)
  if key == "client" then return (client(self.handle)) end
  if key == "upstream" then return (upstream(self.handle)) end
end)
