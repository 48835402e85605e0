-- SPDX-License-Identifier: Apache-2.0
-- One connection to a Redis server: commands as methods, pipelines, scripts by their digest.

local buffer = require "string.buffer"
local resp = require "sluice.redis.resp"

local type, unpack = type, unpack

---@class sluice.redis.client
---@field broken boolean of no more use
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

-- `fields`: socket, gate, ticket, pool_size, pool_timeout.
function Client.new(fields)
  fields.broken = false
  return setmetatable(fields, client_mt)
end

-- ---- Commands ----

local function broken(self, err)
  self.broken = true
  return nil, err
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
  local value
  value, err = resp.read(self.socket)
  if err then return broken(self, err) end
  if resp.is_error(value) then return nil, value.err end
  return value
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
function Client.script(source)
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
  if type(script) == "string" then script = Client.script(script) end
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
  self.gate:leave(self.ticket)
end

-- Gives the connection back for others; closes it when it is of no more use.
function Client:release()
  if self.broken then self:close() else self.gate:put_back(self) end
end

return Client
