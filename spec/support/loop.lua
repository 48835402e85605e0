-- SPDX-License-Identifier: Apache-2.0
-- The core's event loop in a spec: made bare, and turned until something has happened.
local core = require "spec.support.core"
local ffi = require "ffi"
local posix = require "spec.support.posix"

ffi.cdef [[
struct ev_loop *ev_loop_new(unsigned int flags);
void ev_loop_destroy(struct ev_loop *loop);
int ev_run(struct ev_loop *loop, int flags);
]]

local EVRUN_NOWAIT = 1

local loop = {}
loop.__index = loop

-- Callbacks come back into Lua from inside the call, which compiled code cannot bear.
local function turn(C, ev)
  C.ev_run(ev, EVRUN_NOWAIT)
end
jit.off(turn)

-- `headers`: of core/, declared beside loop.h.
function loop.new(...)
  local C = core.load("loop.h", ...)
  local self = setmetatable({ C = C, raw = ffi.new("struct loop"), log = ffi.new("struct log", { fd = -1 }) }, loop)
  self.raw.ev = C.ev_loop_new(0)
  self.raw.log = self.log
  C.clock_init(self.raw.clock)
  return self
end

-- Turns until `condition` holds; raises when it does not within `seconds`.
function loop:turn_until(condition, seconds)
  local deadline = posix.now() + (seconds or 5)
  while not condition() do
    if posix.now() > deadline then error("nothing happened in the loop", 2) end
    turn(self.C, self.raw.ev)
    posix.pause(0.001)
  end
end

-- Turns for that long, whatever happens: to see that something does not.
function loop:turn_for(seconds)
  local deadline = posix.now() + seconds
  self:turn_until(function() return posix.now() > deadline end, seconds + 5)
end

function loop:close()
  self.C.ev_loop_destroy(self.raw.ev)
end

return loop
