-- SPDX-License-Identifier: Apache-2.0
-- A receiver of datagrams, for specs of what sends them: UDP on a free port of 127.0.0.1, or a local socket.
local ffi = require "ffi"
local posix = require "spec.support.posix"

local datagrams = {}

local C = posix.C
local SOCK_DGRAM_NONBLOCK_CLOEXEC = 2 + 2048 + 524288
local ROOM = 262144
local room = ffi.new("char[?]", ROOM)

local receiver = {}
receiver.__index = receiver

---@param path? string of a local socket; UDP unless told
function datagrams.open(path)
  local name, len, family = posix.address(path and "unix:" .. path or "127.0.0.1", 0)
  local fd = C.sys_socket(family, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0)
  if fd < 0 or C.sys_bind(fd, name, len) ~= 0 then error(posix.error("a socket for datagrams"), 2) end
  local self = setmetatable({ fd = fd }, receiver)
  if not path then
    local bound, size = ffi.new("struct sys_sockaddr"), ffi.new("uint32_t[1]", ffi.sizeof("struct sys_sockaddr"))
    C.sys_getsockname(fd, bound, size)
    self.port = bit.bor(bit.lshift(bit.band(bound.port, 255), 8), bit.rshift(bound.port, 8))
  end
  return self
end

---@param seconds? number to wait for it, 0 unless told
---@return string|nil the next datagram
function receiver:receive(seconds)
  if not posix.wait_fd(self.fd, posix.POLLIN, posix.now() + (seconds or 0)) then return nil end
  local count = tonumber(C.sys_recv(self.fd, room, ROOM, 0))
  return count >= 0 and ffi.string(room, count) or nil
end

---@return string[] all that have come
function receiver:all()
  local list = {}
  while true do
    local one = self:receive()
    if not one then return list end
    list[#list + 1] = one
  end
end

function receiver:close()
  C.sys_close_fd(self.fd)
end

return datagrams
