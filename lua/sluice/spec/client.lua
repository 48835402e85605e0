-- SPDX-License-Identifier: Apache-2.0
-- One connection of a client to the gateway under test. A spec may send any bytes, and reads message after message.
local message = require "sluice.spec.message"
local peer = require "sluice.spec.peer"

local DEFAULT_HOST = "gateway.example"

local Client = {}
Client.__index = Client

local client = {}

-- options: client_ip, client_port, tls (true, or the server name), listener ("status").
function client.new(gateway, options)
  local listener = options.listener or (options.tls and "tls" or "proxy")
  local sni = type(options.tls) == "string" and options.tls or options.sni or DEFAULT_HOST
  local address, port = options.client_ip or "127.0.0.1", options.client_port or 50000
  local number = gateway.world:open_client(listener, address, port, sni)
  if number < 0 then error("no connection to the gateway; is client_ip an address?", 0) end
  return setmetatable({ gateway = gateway, peer = peer.new(gateway.world.raw, number, message.reader("response")),
    methods = {} }, Client)
end

function Client:pump()
  return self.peer:pump()
end

-- Sends bytes as they are.
function Client:send_bytes(bytes)
  self.peer:send(bytes)
  self.gateway:settle()
end

-- Sends a request (see message.request) and does not wait for the response.
function Client:send(request)
  if type(request) == "string" then request = { path = request } end
  local bytes, method = message.request(request, DEFAULT_HOST)
  self.methods[#self.methods + 1] = method
  self.peer:send(bytes)
  self.gateway:settle()
  return self
end

-- The next message that has come whole. Interim responses are kept in the final one's `informational`.
local function next_message(self)
  while not self.response do
    local it, why = self.peer.reader:next(self.methods[1], self.peer.ended)
    if not it then return nil, why end
    if it.status >= 200 or it.status == 101 then
      it.informational, self.interim = self.interim or {}, nil
      table.remove(self.methods, 1)
      return it
    end
    self.interim = self.interim or {}
    table.insert(self.interim, it)
  end
end

-- The next response if it is there already; nil, and why it will never come.
function Client:received()
  self.gateway:settle()
  return next_message(self)
end

-- The next response. Time moves on by itself while nothing else happens, as far as `seconds` (of the spec's clock).
-- nil and "closed", "timeout" or why it is no response.
function Client:receive(seconds)
  local response, why
  self.gateway:run_until(function()
    response, why = next_message(self)
    return response or why
  end, seconds)
  return response, why or not response and "timeout" or nil
end

-- One request and its response.
function Client:request(request)
  self:send(request)
  return self:receive()
end

-- What has come so far of a response that is not whole: its head and content.
function Client:partial()
  self.gateway:settle()
  return self.peer.reader:partial(self.methods[1])
end

-- Whether the gateway has closed the connection.
function Client:is_closed()
  self.gateway:settle()
  return self.peer.ended ~= nil
end

-- Stops reading, as a slow client does; `resume` reads on.
function Client:pause()
  self.peer.paused = true
end

function Client:resume()
  self.peer.paused = false
  self.gateway:settle()
end

function Client:close()
  self.peer:close()
  self.gateway:settle()
end

return client
