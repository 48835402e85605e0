-- SPDX-License-Identifier: Apache-2.0
-- The kit's end of one connection of the worker: bytes out, bytes in, never waiting.
local ffi = require "ffi"
local core = require "sluice.spec.core"

local C = core.C
local CHUNK = 65536
local AGAIN, CLOSED = -1, -2
local scratch = ffi.new("char[?]", CHUNK)

local Peer = {}
Peer.__index = Peer

local peer = {}

---@param spec ffi.cdata* struct kit
---@param number integer
---@param reader table of sluice.spec.message
function peer.new(spec, number, reader)
  return setmetatable({ spec = spec, number = number, reader = reader, out = "", sent = 0, received = 0 }, Peer)
end

function Peer:send(bytes)
  self.out = self.sent > 0 and self.out:sub(self.sent + 1) .. bytes or self.out .. bytes
  self.sent = 0
end

local function write(self)
  local moved = false
  while self.sent < #self.out do
    local left = #self.out - self.sent
    local n = tonumber(C.kit_write(self.spec, self.number, ffi.cast("const char *", self.out) + self.sent, left))
    if n == AGAIN then return moved end
    moved = true
    if n < 0 then
      self.out, self.sent = "", 0
      return true
    end
    self.sent = self.sent + n
  end
  if self.out ~= "" then self.out, self.sent = "", 0 end
  return moved
end

local function read(self)
  local moved = false
  while not self.ended do
    local n = tonumber(C.kit_read(self.spec, self.number, scratch, CHUNK))
    if n == AGAIN then return moved end
    moved = true
    if n < 0 then
      self.ended = n == CLOSED and "closed" or "reset"
    else
      self.received = self.received + n
      self.reader:feed(ffi.string(scratch, n))
    end
  end
  return moved
end

-- Moves what can be moved. Whether anything was.
function Peer:pump()
  if self.is_closed then return false end
  local wrote, got = write(self), not self.paused and read(self)
  if self.closing and self.out == "" then self:close() end
  return wrote or got or false
end

-- Closes once everything is written.
function Peer:close_after()
  self.closing = true
end

-- Sends no more: the other side sees the end.
function Peer:finish()
  C.kit_finish(self.spec, self.number)
end

function Peer:close()
  if self.is_closed then return end
  self.is_closed, self.ended = true, self.ended or "closed"
  C.kit_close(self.spec, self.number)
end

return peer
