-- SPDX-License-Identifier: Apache-2.0
-- Channels: what one coroutine writes, many streamed answers get, each without a coroutine of its own.
--
--   local ticker = channel.new { labels = { "0/" }, positions = { 41 } }
--   ticker:join(exchange.response:stream(200, headers))       -- in access, which may then end
--   ticker:put("data: 1\n\n", 1, 41) ticker:flush()           -- "id: 0/41\ndata: 1\n\n" to all of them
--
-- Each message lies in memory once, in a bounded window. A slot is a row of numbered records, such as a partition: who
-- comes back with an id goes on behind the record of each slot that it had.

local ffi = require "ffi"
local check = require "sluice.api.check"
local core = require "sluice.api.core"
local stream = require "sluice.api.stream"

local C, worker = core.C, core.worker
local tonumber, setmetatable, yield = tonumber, setmetatable, coroutine.yield

local OK, NONE, AGAIN, STALE, CLOSED = 0, 2, 1, -1, -4

local channel = {}

local message, seat = ffi.new("struct channel_message"), ffi.new("struct channel_seat")

local function lay(cell, text)
  if text then
    cell.data, cell.len = text, #text
  else
    cell.data, cell.len = nil, 0
  end
end

---@class sluice.channel
local Channel = {}
Channel.__index = Channel

-- Keeps a message for all seats; `flush` has it sent.
---@param text string an event, without its id
---@param slot? integer from 1, of the record that it is about; without one the message is for everybody and has no id
---@param offset? integer of the record
---@param key? string of the record, for seats that want only theirs
---@return boolean|nil false: there is no memory, and nobody will get it; nil: the channel has been closed
function Channel:put(text, slot, offset, key)
  lay(message.text, text)
  lay(message.key, key)
  message.slot, message.offset, message.has_id = (slot or 0) - 1, offset or 0, self.ids and slot ~= nil
  local status = C.bridge_channel_put(worker, self.handle, message)
  if status == STALE then return nil end
  return status == OK
end

-- A message at no position, with an id that tells where all slots are now.
---@param text string
function Channel:mark(text)
  lay(message.text, text)
  lay(message.key, nil)
  message.slot, message.offset, message.has_id = -1, 0, true
  C.bridge_channel_put(worker, self.handle, message)
end

-- The next record of the slot will be that one; those in between were for nobody.
---@param slot integer
---@param offset integer
function Channel:move(slot, offset)
  C.bridge_channel_move(worker, self.handle, slot - 1, offset)
end

---@param slot integer
---@return integer offset of its next record; -1 when the channel has been closed
function Channel:position(slot)
  return (C.bridge_channel_position(worker, self.handle, slot - 1))
end

function Channel:flush()
  C.bridge_channel_flush(worker, self.handle)
end

-- Whether answers wait for their turn to be sent what has been put. Who has much to put waits for them, or their
-- messages leave the window.
---@return boolean
function Channel:is_busy()
  return (C.bridge_channel_busy(worker, self.handle))
end

-- The streamed answer goes on from here, also when the plugin's phase has ended.
---@param answer sluice.stream
---@param positions? number[] by slot: the next record that it has not had; from now on unless told
---@param key? string it wants records of this key only
---@param ahead? boolean its positions may lie before the channel's, which will get there
---@return boolean|nil
---@return "behind"|"closed"|"ended"|nil err "behind": it wants records that have left the window; "closed": its client
--- has left; "ended": the channel has
function Channel:join(answer, positions, key, ahead)
  local cells = self.cells
  if positions then
    for i = 1, self.slots do cells[i - 1] = positions[i] or 0 end
  end
  seat.positions = positions and cells or nil
  lay(seat.key, key)
  seat.ahead = ahead or false
  local status = C.bridge_channel_join(worker, self.handle, answer.handle, seat)
  if status == OK then return true end
  if status == NONE then return nil, "behind" end
  return nil, status == CLOSED and "closed" or "ended"
end

local fallen = ffi.new("struct channel_fallen")

-- Waits for one whose client was too slow: what it would have got next has left the window. It has no seat any more.
---@param seconds number
---@return sluice.stream|nil
---@return number[]|"timeout"|"ended" positions what it has had, by slot
---@return string|nil key that it had joined with
function Channel:next_behind(seconds)
  local cells = self.cells
  local status = C.bridge_channel_behind(worker, self.handle, fallen, cells)
  if status == NONE then
    status = C.bridge_channel_wait(worker, self.handle, seconds)
    if status == AGAIN then status = yield() end
    if status == OK then status = C.bridge_channel_behind(worker, self.handle, fallen, cells) end
    if status ~= OK then return nil, status == STALE and "ended" or "timeout" end
  elseif status ~= OK then
    return nil, "ended"
  end
  local positions = {}
  for i = 1, self.slots do positions[i] = tonumber(cells[i - 1]) end
  local key = fallen.key.data ~= nil and ffi.string(fallen.key.data, fallen.key.len) or nil
  return stream.new(fallen.exchange, false), positions, key
end

---@return integer|nil how many answers come from it now; nil: it has been closed
function Channel:seats()
  local count = C.bridge_channel_seats(worker, self.handle)
  if count >= 0 then return count end
  return nil
end

-- Its answers end, each behind what has been put. Closing twice is no error.
function Channel:close()
  C.bridge_channel_close(worker, self.handle)
end

---@param options { labels: string[], positions: number[], messages?: integer, bytes?: integer, ids?: boolean }
--- `labels`: of the slots, with what stands between each and an offset in ids; `positions`: of the next record of each;
--- `messages` (1024 unless told) and `bytes` (4 MB) that are kept; `ids`: messages get theirs, unless false
---@return sluice.channel|nil
---@return string|nil err
function channel.new(options)
  check.table("channel.new", "options", options)
  check.table("channel.new", "labels", options.labels)
  check.table("channel.new", "positions", options.positions)
  local count = #options.labels
  local labels, positions = ffi.new("struct bytes[?]", count + 1), ffi.new("double[?]", count + 1)
  for i = 1, count do
    lay(labels[i - 1], options.labels[i])
    positions[i - 1] = options.positions[i]
  end
  local wanted = ffi.new("struct channel_options")
  wanted.labels, wanted.positions, wanted.slots = labels, positions, count
  wanted.messages, wanted.bytes = options.messages or 1024, options.bytes or 4 * 1024 * 1024
  local made = C.bridge_channel_new(worker, wanted)
  if made == 0 then return nil, "too many channels" end
  return setmetatable({ handle = made, slots = count, cells = positions, ids = options.ids ~= false }, Channel)
end

return channel
