-- SPDX-License-Identifier: Apache-2.0
-- WebSockets of a spec: the client's end, which a spec holds in its hands, and the service's, which echoes or does what
-- the spec says. Neither offers compression.
local bit = require "bit"

local websocket = {}

local TYPES = { [1] = "text", [2] = "binary", [8] = "close", [9] = "ping", [10] = "pong" }
local OPCODES = { text = 1, binary = 2, close = 8, ping = 9, pong = 10 }
local MASK = { 0x12, 0x34, 0x56, 0x78 }

-- ---- Frames ---------------------------------------------------------------------------------------------------------

local function masked(data, mask)
  local bytes = {}
  for i = 1, #data do bytes[i] = string.char(bit.bxor(data:byte(i), mask[(i - 1) % 4 + 1])) end
  return table.concat(bytes)
end

local function big_endian(number, count)
  local bytes = {}
  for i = count, 1, -1 do
    bytes[i] = string.char(number % 256)
    number = math.floor(number / 256)
  end
  return table.concat(bytes)
end

local function frame(opcode, payload, is_client)
  local flag, length = is_client and 128 or 0, #payload
  local head = length < 126 and string.char(flag + length)
    or length < 65536 and string.char(flag + 126) .. big_endian(length, 2)
    or string.char(flag + 127) .. big_endian(length, 8)
  head = string.char(128 + opcode) .. head
  if not is_client then return head .. payload end
  return head .. string.char(unpack(MASK)) .. masked(payload, MASK)
end

-- The frame at the front of the bytes, and what is behind it; nil while it is not whole.
local function take_frame(bytes)
  if #bytes < 2 then return nil end
  local first, second = bytes:byte(1, 2)
  local length, at = second % 128, 3
  local digits = length == 126 and 2 or length == 127 and 8 or 0
  if #bytes < 2 + digits then return nil end
  if digits > 0 then
    length = 0
    for i = 3, 2 + digits do length = length * 256 + bytes:byte(i) end
    at = at + digits
  end
  local mask = second >= 128 and { bytes:byte(at, at + 3) }
  if mask then at = at + 4 end
  if #bytes < at + length - 1 then return nil end
  local payload = bytes:sub(at, at + length - 1)
  return { fin = first >= 128, opcode = first % 16, payload = mask and masked(payload, mask) or payload },
    bytes:sub(at + length)
end

-- ---- One end --------------------------------------------------------------------------------------------------------

local Socket = {}
Socket.__index = Socket

-- Takes over a connection behind its 101. `rest`: bytes that have come already.
local function new(peer, rest, is_client)
  local self = setmetatable({ peer = peer, bytes = rest, is_client = is_client, messages = {}, taken = 0 }, Socket)
  peer.reader = self -- what the connection feeds
  return self
end

function Socket:feed(bytes)
  self.bytes = self.bytes .. bytes
end

local function as_message(opcode, payload)
  if opcode ~= 8 then return { type = TYPES[opcode], data = payload } end
  local high, low = payload:byte(1, 2)
  return { type = "close", data = payload:sub(3), status = high and high * 256 + low or nil }
end

-- Messages out of the bytes that have come. Whether there were any.
local function gather(self)
  local before = #self.messages
  while true do
    local it, rest = take_frame(self.bytes)
    if not it then return #self.messages > before end
    self.bytes = rest
    if it.opcode >= 8 then
      table.insert(self.messages, as_message(it.opcode, it.payload))
    else
      if it.opcode > 0 then self.opcode, self.parts = it.opcode, {} end
      table.insert(self.parts, it.payload)
      if it.fin then table.insert(self.messages, as_message(self.opcode, table.concat(self.parts))) end
    end
  end
end

-- The next message, or nil.
local function next_message(self)
  gather(self)
  if self.taken == #self.messages then return nil end
  self.taken = self.taken + 1
  return self.messages[self.taken]
end

-- Sends a message: "text" unless `kind` is "binary", "ping" or "pong".
function Socket:send(data, kind)
  self.peer:send(frame(OPCODES[kind or "text"] or error("no such kind of message: " .. tostring(kind), 2), data,
    self.is_client))
  if self.gateway then self.gateway:settle() end
end

-- Sends a close.
function Socket:close(status, reason)
  self.told_close = true
  self.peer:send(frame(8, status and big_endian(status, 2) .. (reason or "") or "", self.is_client))
  if self.gateway then self.gateway:settle() end
end

-- ---- The client's end -----------------------------------------------------------------------------------------------

-- The next message: { type, data, status (of a close) }. Time moves on while nothing else happens, as far as `seconds`
-- of the spec's clock; nil and "closed" or "timeout".
function Socket:receive(seconds)
  local it
  self.gateway:run_until(function()
    it = next_message(self)
    return it or self.peer.ended
  end, seconds)
  it = it or next_message(self)
  if it then return it end
  return nil, self.peer.ended and "closed" or "timeout"
end

-- Whether the gateway has closed the connection.
function Socket:is_closed()
  self.gateway:settle()
  return self.peer.ended ~= nil
end

-- Leaves without a word.
function Socket:hang_up()
  self.peer:close()
  self.gateway:settle()
end

websocket.HANDSHAKE = { Connection = "Upgrade", Upgrade = "websocket", ["Sec-WebSocket-Version"] = "13",
  ["Sec-WebSocket-Key"] = "c2x1aWNlIHNwZWMga2l0IQ==" }

-- What gateway:websocket gives; nil and the response when the protocol was not switched.
function websocket.open(gateway, request)
  if type(request) == "string" then request = { path = request } end
  local copy, headers = {}, {}
  for key, value in pairs(request) do copy[key] = value end
  for name, value in pairs(websocket.HANDSHAKE) do headers[name] = value end
  for name, value in pairs(request.headers or {}) do headers[name] = value end
  copy.headers = headers
  local client = gateway:connect(copy)
  local response, why = client:request(copy)
  if not response or response.status ~= 101 then
    client:close()
    return nil, response or why
  end
  local self = new(client.peer, client.peer.reader:rest(), true)
  self.gateway, self.response = gateway, response
  return self
end

-- ---- The service's end ----------------------------------------------------------------------------------------------

function websocket.is_asked(request)
  return (request.headers.upgrade or ""):lower() == "websocket"
end

-- Switches protocols. `answer.websocket`: true echoes; a function gets each text and binary message and this socket,
-- and what it returns is sent. The messages that come stand in `request.messages`.
function websocket.serve(peer, request, answer)
  local fields = { "HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket",
    "Sec-WebSocket-Accept: of no concern" }
  for name, value in pairs(answer.headers or {}) do fields[#fields + 1] = name .. ": " .. value end
  peer:send(table.concat(fields, "\r\n") .. "\r\n\r\n")
  local self = new(peer, peer.reader:rest(), false)
  self.act, request.messages = answer.websocket, self.messages
  return self
end

local function answer_one(self, it)
  if it.type == "close" then
    if not self.told_close then self:close(it.status, it.data) end
    self.peer:close_after()
  elseif it.type == "ping" then
    self:send(it.data, "pong")
  elseif it.type ~= "pong" then
    local reply, kind
    if self.act == true then reply, kind = it.data, it.type else reply, kind = self.act(it, self) end
    if reply then self:send(reply, kind) end
  end
end

-- Answers what has come. Whether anything had.
function websocket.pump(self)
  local any = false
  while true do
    local it = next_message(self)
    if not it then return any end
    any = true
    answer_one(self, it)
  end
end

return websocket
