-- SPDX-License-Identifier: Apache-2.0
-- TCP connections for plugins, plain or TLS, kept for the next who needs one. Each call waits, and gives nil and a
-- reason when it fails; the connection is of no more use then.

local Pool = require "sluice.pool"
local Socket = require "sluice.socket"

local concat, setmetatable, tostring = table.concat, setmetatable, tostring

---@class sluice.tcp
local tcp = {}

local MAX_IDLE = 256
local DEFAULT_POOL_SIZE = 32

local pool = Pool.new(MAX_IDLE)

-- The sockets behind the connections, out of plugins' reach.
local sockets = setmetatable({}, { __mode = "k" })
local keys = setmetatable({}, { __mode = "k" })

---@class sluice.tcp.connection
local Connection = {}
local connection_mt = { __index = Connection, __metatable = false }

local function socket_of(self)
  local socket = sockets[self]
  if socket then return socket end
  return nil, "closed"
end

---@param data string
---@return boolean|nil true when all of it is on its way
---@return string|nil err
function Connection:send(data)
  local socket, err = socket_of(self)
  if not socket then return nil, err end
  return socket:send(data)
end

---@param limit integer
---@return string|nil whatever has come, 1 to `limit` bytes
---@return string|nil err "closed" at the end
function Connection:receive_some(limit)
  local socket, err = socket_of(self)
  if not socket then return nil, err end
  return socket:receive_some(limit)
end

---@param count integer
---@return string|nil exactly so many bytes
---@return string|nil err
function Connection:receive_exact(count)
  local socket, err = socket_of(self)
  if not socket then return nil, err end
  return socket:receive_exact(count)
end

---@param limit integer bytes at most
---@return string|nil line without its end
---@return string|nil err
function Connection:receive_line(limit)
  local socket, err = socket_of(self)
  if not socket then return nil, err end
  return socket:receive_line(limit)
end

---@param seconds number for each send and receive from now on
function Connection:set_timeout(seconds)
  local socket = sockets[self]
  if socket then socket:set_timeout(seconds) end
end

---@return boolean whether it is open with nothing unread
function Connection:is_alive()
  local socket = sockets[self]
  return socket ~= nil and socket:alive()
end

-- Gives it back for the next `tcp.connect` with the same destination and TLS; this object is of no more use.
---@param seconds number how long it may lie idle
---@param size? integer idle connections of this kind, 32 unless told
function Connection:keep(seconds, size)
  local socket = sockets[self]
  if not socket then return end
  sockets[self] = nil
  pool:put(keys[self], socket, size or DEFAULT_POOL_SIZE, seconds)
end

function Connection:close()
  local socket = sockets[self]
  if not socket then return end
  sockets[self] = nil
  socket:close()
end

local function key_of(host, port, tls)
  if not tls then return host .. "|" .. port end
  if tls == true then tls = {} end
  return concat({ host, port, "tls", tls.name or "", tostring(tls.verify ~= false), tls.ca or "", tls.certificate or "",
    tls.key or "" }, "|")
end

-- A connection that was kept, or a new one.
---@param host string name, address or "unix:/path"
---@param port integer 0 for a path
---@param options? sluice.socket.options
---@return sluice.tcp.connection|nil
---@return string|nil err
function tcp.connect(host, port, options)
  local key = key_of(host, port, options and options.tls)
  local socket, err = pool:take(key), nil
  if not socket then socket, err = Socket.connect(host, port, options) end
  if not socket then return nil, err end
  if options and options.timeout then socket:set_timeout(options.timeout) end
  local self = setmetatable({}, connection_mt)
  sockets[self], keys[self] = socket, key
  return self
end

return tcp
