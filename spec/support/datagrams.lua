-- SPDX-License-Identifier: Apache-2.0
-- A receiver of datagrams, for specs of what sends them: UDP on a free port of 127.0.0.1, or a local socket.
local ffi = require "ffi"
local posix = require "spec.support.posix"

local datagrams = {}

local registry = debug.getregistry()
if not registry["sluice.spec.datagrams"] then
  registry["sluice.spec.datagrams"] = true
  ffi.cdef [[
    int sys_sched_getaffinity(int, size_t, uint8_t *) __asm__("sched_getaffinity");
    int sys_sched_setaffinity(int, size_t, const uint8_t *) __asm__("sched_setaffinity");
  ]]
end

local C = posix.C
local SOCK_DGRAM_NONBLOCK_CLOEXEC = 2 + 2048 + 524288
local ROOM = 262144
local room = ffi.new("char[?]", ROOM)
local MARK = "\0mark"
local MARK_S = 5
local MASK_BYTES = 128

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

-- Sends ourselves a mark from each processor; how many. The kernel lays a datagram into a line of the processor that
-- sends it, and may come to that line later: before a mark of every one it has come to all that was sent before.
local function send_marks(port)
  local name, len = posix.address("127.0.0.1", port)
  local fd = C.sys_socket(posix.AF_INET, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0)
  local all, count = ffi.new("uint8_t[?]", MASK_BYTES), 0
  assert(C.sys_connect(fd, name, len) == 0 and C.sys_sched_getaffinity(0, MASK_BYTES, all) >= 0)
  for processor = 0, MASK_BYTES * 8 - 1 do
    local byte, flag = math.floor(processor / 8), bit.lshift(1, processor % 8)
    if bit.band(all[byte], flag) ~= 0 then
      local one = ffi.new("uint8_t[?]", MASK_BYTES)
      one[byte] = flag
      C.sys_sched_setaffinity(0, MASK_BYTES, one)
      if C.sys_send(fd, MARK, #MARK, 0) == #MARK then count = count + 1 end
    end
  end
  C.sys_sched_setaffinity(0, MASK_BYTES, all)
  C.sys_close_fd(fd)
  return count
end

---@return string[] all that have been sent
function receiver:all()
  local list, marks = {}, self.port and send_marks(self.port) or 0
  while true do
    local one = self:receive(marks > 0 and MARK_S or 0)
    if not one then
      assert(marks == 0, "datagrams were lost")
      return list
    end
    if one == MARK then marks = marks - 1 else list[#list + 1] = one end
  end
end

function receiver:close()
  C.sys_close_fd(self.fd)
  self.fd = -1
end

return datagrams
