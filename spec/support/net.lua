-- SPDX-License-Identifier: Apache-2.0
-- Stream sockets with deadlines, plain or TLS, for the two ends that specs play: clients and upstreams.
-- A failure of the network is a nil result with a word: "refused", "timeout", "closed", "reset", or OpenSSL's text.
local ffi = require "ffi"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local net = {}
local C = posix.C

local socket = {}
socket.__index = socket

local CHUNK = 65536
local MSG_NOSIGNAL = 0x4000
local ECONNRESET, EPIPE, ECONNREFUSED = 104, 32, 111
local reasons = { [ECONNRESET] = "reset", [EPIPE] = "reset", [ECONNREFUSED] = "refused" }
local scratch = ffi.new("char[?]", CHUNK)

-- How a socket waits; the upstream's event loop puts its own in here, and the same code serves many connections.
net.wait = posix.wait_fd

local function reason(errno)
  return reasons[errno] or ffi.string(C.sys_strerror(errno))
end

-- ---- The two ways of moving bytes: each gives a count, 0 at the end, or nil and POLLIN, POLLOUT or a reason ----

local plain = {}

function plain.read(self)
  local count = tonumber(C.sys_recv(self.fd, scratch, CHUNK, 0))
  if count >= 0 then return count end
  local errno = ffi.errno()
  if errno == posix.EAGAIN then return nil, posix.POLLIN end
  return nil, reason(errno)
end

function plain.write(self, data, from)
  local start = ffi.cast("const char *", data) + from
  local count = tonumber(C.sys_send(self.fd, start, #data - from, MSG_NOSIGNAL))
  if count >= 0 then return count end
  local errno = ffi.errno()
  if errno == posix.EAGAIN then return nil, posix.POLLOUT end
  return nil, reason(errno)
end

function plain.finish(self)
  C.sys_shutdown(self.fd, 1)
end

net.plain = plain

-- ---- Sockets ----

function net.wrap(fd, timeout)
  return setmetatable({ fd = fd, timeout = timeout or 5 * process.slowness, pending = "", operations = plain }, socket)
end

-- options: timeout (seconds of each operation), tls (see spec.support.tls).
function net.connect(host, port, options)
  options = options or {}
  local name, len, family = posix.address(host, port)
  local self = net.wrap(posix.stream_socket(family), options.timeout)
  if C.sys_connect(self.fd, name, len) ~= 0 then
    local errno = ffi.errno()
    if errno == posix.EINPROGRESS then
      if not net.wait(self.fd, posix.POLLOUT, posix.now() + self.timeout) then
        self:close()
        return nil, "timeout"
      end
      errno = posix.socket_error(self.fd)
    end
    if errno ~= 0 then
      self:close()
      return nil, reason(errno)
    end
  end
  if not options.tls then return self end
  return self:start_tls(options.tls)
end

-- TLS from here on. Returns the socket, or nil and why the handshake failed (the socket is closed then).
function socket:start_tls(options)
  local ok, why = require("spec.support.tls").start(self, options)
  if ok then return self end
  self:close()
  return nil, why
end

-- Runs one non-blocking step until it succeeds, fails, or `deadline` passes.
function socket:attempt(step, deadline, ...)
  while true do
    local result, why = step(self, ...)
    if result then return result end
    if type(why) ~= "number" then return nil, why end
    if not net.wait(self.fd, why, deadline) then return nil, "timeout" end
  end
end

function socket:deadline(seconds)
  return posix.now() + (seconds or self.timeout)
end

function socket:send(data, seconds)
  local sent, deadline = 0, self:deadline(seconds)
  while sent < #data do
    local count, why = self:attempt(self.operations.write, deadline, data, sent)
    if not count then return nil, why, sent end
    sent = sent + count
  end
  return true
end

-- Whatever has come, at least one byte; nil and "closed" at the end.
function socket:receive_some(seconds)
  if self.pending ~= "" then
    local data = self.pending
    self.pending = ""
    return data
  end
  local count, why = self:attempt(self.operations.read, self:deadline(seconds))
  if not count then return nil, why end
  if count == 0 then return nil, "closed" end
  return ffi.string(scratch, count)
end

-- Puts bytes back, to be received next.
function socket:unread(data)
  self.pending = data .. self.pending
end

-- Exactly `count` bytes; or nil, why, and what came before that.
function socket:receive_exact(count, seconds)
  local parts, have = {}, 0
  while have < count do
    local data, why = self:receive_some(seconds)
    if not data then return nil, why, table.concat(parts) end
    if have + #data > count then
      self:unread(data:sub(count - have + 1))
      data = data:sub(1, count - have)
    end
    parts[#parts + 1] = data
    have = have + #data
  end
  return table.concat(parts)
end

-- Up to and including `mark`; or nil, why, and what came before that.
function socket:receive_until(mark, seconds)
  local text = ""
  while true do
    local _, last = text:find(mark, 1, true)
    if last then
      self:unread(text:sub(last + 1))
      return text:sub(1, last)
    end
    local data, why = self:receive_some(seconds)
    if not data then return nil, why, text end
    text = text .. data
  end
end

-- A line without its CR LF.
function socket:receive_line(seconds)
  local line, why, partial = self:receive_until("\n", seconds)
  if not line then return nil, why, partial end
  return (line:gsub("\r?\n$", ""))
end

-- All until the peer closes; the second result is why it ended when that was not an orderly close.
function socket:receive_all(seconds)
  local parts = {}
  while true do
    local data, why = self:receive_some(seconds)
    if not data then return table.concat(parts), why ~= "closed" and why or nil end
    parts[#parts + 1] = data
  end
end

-- Whether the peer closes (or resets) within `seconds`; what it sends meanwhile is kept.
function socket:closes_within(seconds)
  local kept, deadline = {}, posix.now() + seconds
  local data, why
  repeat
    data, why = self:receive_some(math.max(0, deadline - posix.now()))
    kept[#kept + 1] = data
  until not data
  self.pending = table.concat(kept)
  return why ~= "timeout"
end

-- No more will be sent: FIN, or TLS close_notify.
function socket:finish()
  self.operations.finish(self)
end

function socket:close()
  if self.fd < 0 then return end
  if self.operations.close then self.operations.close(self) end
  C.sys_close_fd(self.fd)
  self.fd = -1
end

-- Closes with RST, as a peer that crashed.
function socket:reset()
  C.sys_setsockopt(self.fd, 1, 13, ffi.new("int[2]", 1, 0), 8) -- SO_LINGER of 0 s
  self:close()
end

-- A small receive buffer, set before data flows, makes back-pressure quick to see.
function socket:receive_buffer(bytes)
  C.sys_setsockopt(self.fd, 1, 8, ffi.new("int[1]", bytes), 4)
end

net.scratch, net.CHUNK, net.reason = scratch, CHUNK, reason

return net
