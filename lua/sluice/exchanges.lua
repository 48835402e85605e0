-- SPDX-License-Identifier: Apache-2.0
-- The exchange objects that are alive, by handle; and which exchange runs which phase at this moment.
--
-- The parts of an exchange object (`exchange.request` and so on) know nothing but the handle, so that making one
-- costs compiled code nothing; what they need of the object they find here.

local ffi = require "ffi"
local bit = require "bit"
local table_new = require "table.new"

local lshift = bit.lshift
local error = error

local PLACES = 1048576 -- PHASE_SLOTS of phase.h

local ARRAY = 1024 -- places that need no search

local exchanges = {
  ---@type table<integer, table> exchange objects by slot + 1; the core clears a place when its exchange ends
  objects = table_new(ARRAY, 0),
  -- The phase that was begun last, as a bit, and whose. Where another exchange's handle stands here, or none, the
  -- object knows its own phase.
  running = ffi.new("struct { double handle; int32_t bit; }"),
}

local objects, running = exchanges.objects, exchanges.running

---@param handle number
---@return sluice.exchange|nil nil: it has ended, or no plugin has seen it
function exchanges.find(handle)
  local exchange = objects[handle % PLACES + 1]
  if exchange and exchange.handle == handle then return exchange end
  return nil
end

-- The same for the methods of parts, which are called by a plugin: raises at its line.
---@param handle number
---@return sluice.exchange
function exchanges.of(handle)
  local exchange = objects[handle % PLACES + 1]
  if exchange and exchange.handle == handle then return exchange end
  error("the exchange has ended", 3)
end

---@param handle number
---@param exchange sluice.exchange
function exchanges.keep(handle, exchange)
  objects[handle % PLACES + 1] = exchange
end

-- A phase begins.
---@param exchange sluice.exchange
---@param phase integer
---@return integer phase that it was in: a streamed answer is filtered while its plugin still waits in access
function exchanges.enter(exchange, phase)
  local outer = exchange.phase
  exchange.phase = phase
  running.handle, running.bit = exchange.handle, lshift(1, phase)
  return outer
end

-- It is over.
function exchanges.leave(exchange, outer)
  exchange.phase = outer
  running.handle = 0
end

return exchanges
