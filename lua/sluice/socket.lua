-- SPDX-License-Identifier: Apache-2.0
-- A client connection of the worker as an object: what http, redis and the like stand on. Each call waits, and gives
-- nil and a reason when it fails; the connection is of no more use then.

local ffi = require "ffi"
local core = require "sluice.api.core"

local C, worker = core.C, core.worker
local yield = coroutine.yield
local ffi_string = ffi.string

local OK, AGAIN, CLOSED, TIMEOUT = 0, 1, -4, -5
local SOME, EXACT, LINE = 0, 1, 2 -- enum socket_receive

---@class sluice.socket
---@field handle number
local Socket = {}
Socket.__index = Socket

-- A connection that its plugin forgot is closed when the object is collected.
local guard_type = ffi.typeof("struct { double handle; }")

local function on_forgotten(guard)
  C.bridge_socket_close(worker, guard.handle)
end

local REASONS = { [CLOSED] = "closed", [TIMEOUT] = "timeout" }

local function reason(status)
  return REASONS[status] or core.reason(status)
end

---@class sluice.socket.tls
---@field name? string for SNI and to verify; the host unless told
---@field verify? boolean true unless told
---@field alpn? string protocols to offer, such as "h2"
---@field ca? string PEM; the system's unless told
---@field certificate? string PEM
---@field key? string PEM

---@class sluice.socket.options
---@field connect_timeout? number seconds, 10 unless told
---@field timeout? number seconds for each send and receive, 60 unless told
---@field tls? boolean|sluice.socket.tls

local function put_tls(settings, tls, name)
  settings.tls_name, settings.tls_verify, settings.alpn = name, tls.verify ~= false, tls.alpn
  settings.ca_pem, settings.certificate_pem, settings.key_pem = tls.ca, tls.certificate, tls.key
end

---@param host string name, address or "unix:/path"
---@param port integer 0 for a path
---@param options? sluice.socket.options
---@return sluice.socket|nil
---@return string|nil err
function Socket.connect(host, port, options)
  options = options or {}
  local settings = ffi.new("struct socket_options")
  settings.connect_timeout_s, settings.timeout_s = options.connect_timeout or 10, options.timeout or 60
  local tls = options.tls
  if tls == true then tls = {} end
  local name = tls and (tls.name or host) -- a local, so that the text outlives the call
  if tls then put_tls(settings, tls, name) end
  local status, handle = core.wait(C.bridge_socket_connect(worker, host, #host, port, settings))
  if status ~= OK then return nil, reason(status) end
  local guard = ffi.gc(guard_type(handle), on_forgotten)
  return setmetatable({ handle = handle, guard = guard }, Socket)
end

-- TLS on a plain connection whose peer has been told to expect it; nothing that it said may be unread.
---@param host string that certificates are verified for unless `tls.name` says another
---@param tls sluice.socket.tls|true
---@param timeout number seconds for the handshake
---@return boolean|nil true
---@return string|nil err
function Socket:start_tls(host, tls, timeout)
  if tls == true then tls = {} end
  local settings = ffi.new("struct socket_options")
  local name = tls.name or host
  settings.connect_timeout_s = timeout
  put_tls(settings, tls, name)
  local status = core.wait(C.bridge_socket_tls(worker, self.handle, settings))
  if status == OK then return true end
  return nil, reason(status)
end

---@param data string
---@return boolean|nil true when all of it is on its way
---@return string|nil err
function Socket:send(data)
  local status = C.bridge_socket_send(worker, self.handle, data, #data)
  if status == AGAIN then status = yield() end
  if status == OK then return true end
  return nil, reason(status)
end

local out = ffi.new("struct bytes[1]")

local function receive(handle, mode, limit)
  local status = C.bridge_socket_receive(worker, handle, mode, limit, out)
  while status == AGAIN do
    status = yield()
    if status == OK then status = C.bridge_socket_receive(worker, handle, mode, limit, out) end
  end
  if status == OK then return ffi_string(out[0].data, out[0].len) end
  return nil, reason(status)
end

---@param limit integer
---@return string|nil whatever has come, 1 to `limit` bytes
---@return string|nil err "closed" at the end
function Socket:receive_some(limit)
  return receive(self.handle, SOME, limit)
end

---@param count integer
---@return string|nil exactly so many bytes
---@return string|nil err
function Socket:receive_exact(count)
  if count == 0 then return "" end
  return receive(self.handle, EXACT, count)
end

---@param limit integer bytes at most
---@return string|nil line without its end
---@return string|nil err
function Socket:receive_line(limit)
  return receive(self.handle, LINE, limit)
end

---@param seconds number for each send and receive from now on
function Socket:set_timeout(seconds)
  C.bridge_socket_timeout(worker, self.handle, seconds)
end

---@param ends number|nil moment of time.monotonic past which nothing waits, however much comes meanwhile
function Socket:set_deadline(ends)
  C.bridge_socket_deadline(worker, self.handle, ends or 0)
end

---@return boolean whether it is open with nothing unread: fit for another request
function Socket:alive()
  return C.bridge_socket_alive(worker, self.handle) == OK
end

function Socket:close()
  ffi.gc(self.guard, nil)
  C.bridge_socket_close(worker, self.handle)
end

return Socket
