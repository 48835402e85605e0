-- SPDX-License-Identifier: Apache-2.0
-- A Redis server of the spec's own, empty and in memory only.
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local redis = {}

local server = {}
server.__index = server

local function words_of(self, options)
  local words = { "redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self.directory }
  local function put(...)
    for _, word in ipairs { ... } do words[#words + 1] = tostring(word) end
  end
  if options.tls then -- { certificate, key } as files; no plain port beside it
    put("--port", 0, "--tls-port", self.port, "--tls-cert-file", options.tls.certificate, "--tls-key-file",
      options.tls.key, "--tls-auth-clients", "no")
  else
    put("--port", self.port)
  end
  if self.password then put("--requirepass", self.password) end
  put(unpack(options.arguments or {}))
  return words
end

-- options: port, password, tls, arguments (more of redis-server).
function redis.start(options)
  options = options or {}
  local self = setmetatable({ port = options.port or process.free_port(), password = options.password,
    tls = options.tls, directory = posix.temporary_directory() }, server)
  self.process = process.start(words_of(self, options), { directory = self.directory, owns_directory = true })
  process.wait_until(function() return self:command("PING") == "PONG" end, 20, "redis on port " .. self.port)
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
  local socket, why = net.connect("127.0.0.1", self.port, { tls = self.tls and {} or nil })
  if not socket then return nil, why end
  if self.password then ask(socket, "AUTH", self.password) end
  local reply
  reply, why = ask(socket, ...)
  socket:close()
  return reply, why
end

-- Stops answering, as a server does whose machine hangs: connections are taken and nothing comes back.
function server:hang()
  self.process:hold()
end

function server:go_on()
  self.process:go_on()
end

function server:stop()
  self:go_on()
  self.process:stop()
  self.process:forget()
end

return redis
