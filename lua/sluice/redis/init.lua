-- SPDX-License-Identifier: Apache-2.0
-- Redis client for plugins: commands as methods, pipelines, scripts by their digest, kept connections.
--
--   local client, err = redis.connect { host = "127.0.0.1", password = "...", database = 1 }
--   local value = client:get("key")          -- redis.null when there is none
--   client:release()                         -- for the next; or client:close()

local buffer = require "string.buffer"
local Pool = require "sluice.pool"
local Socket = require "sluice.socket"
local EXIT = require("sluice.phases").EXIT
local resp = require "sluice.redis.resp"

local concat, type, tostring = table.concat, type, tostring

---@class sluice.redis
local redis = { null = resp.null }

local MAX_IDLE = 256

local pool = Pool.new(MAX_IDLE)

---@class sluice.redis.options
---@field host? string 127.0.0.1 unless told; or "unix:/path"
---@field port? integer 6379 unless told
---@field username? string
---@field password? string
---@field database? integer 0 unless told
---@field protocol? 2|3 2 unless told
---@field timeout? number seconds for each send and receive, 2 unless told
---@field connect_timeout? number seconds, as `timeout` unless told
---@field tls? boolean|sluice.socket.tls
---@field pool_size? integer idle connections to one server, 32 unless told
---@field pool_timeout? number seconds idle, 60 unless told

---@class sluice.redis.client
local Client = {}

-- client:hgetall(key) and every other command by its name.
local client_mt = { __metatable = false }
function client_mt.__index(_, name)
  local method = Client[name]
  if method then return method end
  if type(name) ~= "string" then return nil end
  local command = name:upper()
  method = function(self, ...) return self:call(command, ...) end
  Client[name] = method
  return method
end

local function broken(self, err)
  self.broken = true
  return nil, err
end

local function receive(self)
  local value, err = resp.read(self.socket)
  if err then return broken(self, err) end
  if resp.is_error(value) then return nil, value.err end
  return value
end

-- One command and its reply.
---@param ... string|number
---@return any reply redis.null for none
---@return string|nil err
function Client:call(...)
  if self.broken then return nil, "closed" end
  local text, wrong = resp.command { ... }
  if not text then return nil, wrong end
  local ok, err = self.socket:send(text)
  if not ok then return broken(self, err) end
  return receive(self)
end

-- Several commands in one go. A command that failed has { err = "..." } in its place.
---@param commands (string|number)[][]
---@return any[]|nil replies
---@return string|nil err when the connection broke
function Client:pipeline(commands)
  if self.broken then return nil, "closed" end
  local out = buffer.new()
  for i = 1, #commands do
    local wrong = resp.put_command(out, commands[i])
    if wrong then return nil, wrong end
  end
  local ok, err = self.socket:send(out:get())
  if not ok then return broken(self, err) end
  local replies = {}
  for i = 1, #commands do
    local value
    value, err = resp.read(self.socket)
    if err then return broken(self, err) end
    replies[i] = value
  end
  return replies
end

local scripts = {}

-- A script with what it is called by; made once, kept by the plugin that runs it.
---@param source string
---@return { source: string, digest: string }
function redis.script(source)
  local script = scripts[source]
  if not script then
    local crypto = require "sluice.crypto"
    script = { source = source, digest = crypto.hex(crypto.digest("sha1", source)) }
    scripts[source] = script
  end
  return script
end

-- Runs a script by its digest, and sends its text only when the server does not know it yet.
---@param script string|{ source: string, digest: string }
---@param keys string[]
---@param args? (string|number)[]
---@return any
---@return string|nil err
function Client:eval(script, keys, args)
  if type(script) == "string" then script = redis.script(script) end
  local command = { "EVALSHA", script.digest, #keys }
  for i = 1, #keys do command[#command + 1] = keys[i] end
  for i = 1, args and #args or 0 do command[#command + 1] = args[i] end
  local value, err = self:call(unpack(command))
  if err and err:sub(1, 8) == "NOSCRIPT" then
    command[1], command[2] = "EVAL", script.source
    return self:call(unpack(command))
  end
  return value, err
end

---@return boolean
function Client:alive()
  return not self.broken and self.socket:alive()
end

-- Ends the connection.
function Client:close()
  self.broken = true
  self.socket:close()
end

-- Gives the connection back for others; closes it when it is of no more use.
function Client:release()
  if self.broken then
    self.socket:close()
  else
    pool:put(self.key, self, self.pool_size, self.pool_timeout)
  end
end

local function tls_key(tls)
  if not tls then return "plain" end
  if tls == true then return "tls" end
  return concat({ "tls", tls.name or "", tostring(tls.verify ~= false), tls.ca or "", tls.certificate or "" }, "\0")
end

-- Connections that differ in anything that was said at their start are not exchanged.
local function key_of(options)
  return concat({ options.host or "127.0.0.1", options.port or 6379, options.username or "", options.password or "",
    options.database or 0, options.protocol or 2, tls_key(options.tls) }, "\0")
end

local function greet(client, options)
  local user, password = options.username, options.password
  if options.protocol == 3 then
    local hello = { "HELLO", 3 }
    if password then hello = { "HELLO", 3, "AUTH", user or "default", password } end
    local _, err = client:call(unpack(hello))
    if err then return err end
  elseif password then
    local _, err
    if user then _, err = client:call("AUTH", user, password) else _, err = client:call("AUTH", password) end
    if err then return err end
  end
  if options.database and options.database ~= 0 then
    local _, err = client:call("SELECT", options.database)
    return err
  end
end

-- A connection, fresh or kept.
---@param options sluice.redis.options
---@return sluice.redis.client|nil
---@return string|nil err
function redis.connect(options)
  if type(options) ~= "table" then error("sluice.redis.connect: expected a table of options", 2) end
  local key, timeout = key_of(options), options.timeout or 2
  local client = pool:take(key)
  if client then
    client.socket:set_timeout(timeout)
    return client
  end
  local host, port = options.host or "127.0.0.1", options.port or 6379
  local socket, err = Socket.connect(host, port, {
    connect_timeout = options.connect_timeout or timeout, timeout = timeout, tls = options.tls,
  })
  if not socket then return nil, ("cannot connect to redis at %s:%d: %s"):format(host, port, err) end
  client = setmetatable({
    socket = socket, key = key, broken = false,
    pool_size = options.pool_size or 32, pool_timeout = options.pool_timeout or 60,
  }, client_mt)
  err = greet(client, options)
  if not err then return client end
  client:close()
  return nil, err
end

-- After an error nobody knows what is still to be read; answering the client is no error.
local function give_back(client, ok, ...)
  if ok or (...) == EXIT then client:release() else client:close() end
  if not ok then error((...), 0) end
  return ...
end

-- Connects, calls `fn(client, ...)`, and gives the connection back whatever happens.
---@param options sluice.redis.options
---@param fn function
---@return any what `fn` returned; nil when there was no connection
---@return string|nil err
function redis.use(options, fn, ...)
  local client, err = redis.connect(options)
  if not client then return nil, err end
  return give_back(client, pcall(fn, client, ...))
end

return redis
