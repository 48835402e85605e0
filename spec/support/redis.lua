-- SPDX-License-Identifier: Apache-2.0
-- A Redis server of the spec's own, empty and in memory only.
local net = require "spec.support.net"
local process = require "spec.support.process"

local redis = {}

local server = {}
server.__index = server

-- options: port, password.
function redis.start(options)
  options = options or {}
  local self = setmetatable({ port = options.port or process.free_port(), password = options.password }, server)
  local command = { "redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no" }
  if self.password then
    command[#command + 1] = "--requirepass"
    command[#command + 1] = self.password
  end
  self.process = process.start(command)
  process.wait_until(function() return self:command("PING") == "PONG" end, 5, "redis on port " .. self.port)
  return self
end

local function read_reply(socket)
  local line = socket:receive_line()
  if not line then return nil, "closed" end
  local kind, rest = line:sub(1, 1), line:sub(2)
  if kind == "+" then return rest end
  if kind == ":" then return tonumber(rest) end
  if kind == "-" then return nil, rest end
  local count = tonumber(rest)
  if count < 0 then return nil end
  if kind == "$" then return (socket:receive_exact(count + 2)):sub(1, -3) end
  local list = {}
  for index = 1, count do list[index] = read_reply(socket) end
  return list
end

local function ask(socket, ...)
  local parts = { "*" .. select("#", ...) .. "\r\n" }
  for _, word in ipairs({ ... }) do
    parts[#parts + 1] = "$" .. #tostring(word) .. "\r\n" .. word .. "\r\n"
  end
  socket:send(table.concat(parts))
  return read_reply(socket)
end

-- One command on a connection of its own. nil and why when Redis refuses it.
function server:command(...)
  local socket, why = net.connect("127.0.0.1", self.port)
  if not socket then return nil, why end
  if self.password then ask(socket, "AUTH", self.password) end
  local reply
  reply, why = ask(socket, ...)
  socket:close()
  return reply, why
end

function server:stop()
  self.process:stop()
  self.process:forget()
end

return redis
