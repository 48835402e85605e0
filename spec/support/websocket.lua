-- SPDX-License-Identifier: Apache-2.0
-- WebSocket peers that hide nothing: a client that may send any frame, and a service that echoes, for both sides of the
-- gateway. Written apart from the core's codec, which they are to judge.
--
--   local peer, response = websocket.connect(gw.port, "/chat")
--   peer:send("hello")
--   assert.same({ "text", "hello" }, { peer:receive() })
local bit = require "bit"
local ffi = require "ffi"
local http = require "spec.support.http"

local websocket = {}

local TYPES = { [0] = "continuation", "text", "binary", [8] = "close", [9] = "ping", [10] = "pong" }
local OPCODES = { text = 1, binary = 2, close = 8, ping = 9, pong = 10 }
local MASK = "\17\34\51\68"
local DEFLATE = "permessage-deflate"

-- ---- Frames ---------------------------------------------------------------------------------------------------------

local function masked(data, key)
  local bytes, keys = ffi.new("uint8_t[?]", #data + 1), ffi.new("uint8_t[4]")
  ffi.copy(bytes, data, #data)
  ffi.copy(keys, key, 4)
  for i = 0, #data - 1 do bytes[i] = bit.bxor(bytes[i], keys[bit.band(i, 3)]) end
  return ffi.string(bytes, #data)
end

local function big_endian(number, count)
  local bytes = {}
  for i = count, 1, -1 do
    bytes[i] = string.char(number % 256)
    number = math.floor(number / 256)
  end
  return table.concat(bytes)
end

-- options: fin (true), rsv (0), mask (4 bytes; nil: none), length (announced in place of the payload's)
function websocket.frame(opcode, payload, options)
  options = options or {}
  local first = string.char((options.fin == false and 0 or 128) + (options.rsv or 0) * 16 + opcode)
  local length, flag = options.length or #payload, options.mask and 128 or 0
  local head = length < 126 and string.char(flag + length)
    or length < 65536 and string.char(flag + 126) .. big_endian(length, 2)
    or string.char(flag + 127) .. big_endian(length, 8)
  if not options.mask then return first .. head .. payload end
  return first .. head .. options.mask .. masked(payload, options.mask)
end

-- ---- Deflate --------------------------------------------------------------------------------------------------------

local zlib -- loaded when first needed

local function load_zlib()
  if zlib then return zlib end
  pcall(ffi.cdef, [[
    typedef struct { const uint8_t *next_in; unsigned avail_in; unsigned long total_in; uint8_t *next_out;
      unsigned avail_out; unsigned long total_out; const char *msg; void *state, *zalloc, *zfree, *opaque;
      int data_type; unsigned long adler, reserved; } spec_z_stream;
    int deflateInit2_(spec_z_stream *, int, int, int, int, int, const char *, int);
    int deflate(spec_z_stream *, int);
    int deflateReset(spec_z_stream *);
    int deflateEnd(spec_z_stream *);
    int inflateInit2_(spec_z_stream *, int, const char *, int);
    int inflate(spec_z_stream *, int);
    int inflateReset(spec_z_stream *);
    int inflateEnd(spec_z_stream *);
  ]])
  zlib = ffi.load("z")
  return zlib
end

local SIZE = 112 -- of z_stream

local function pump(step, stream, data, room)
  local out, pieces = ffi.new("uint8_t[?]", room), {}
  stream.next_in, stream.avail_in = data, #data
  repeat
    stream.next_out, stream.avail_out = out, room
    local result = step(stream, 2)
    assert(result == 0 or result == -5 or result == 1, "zlib: " .. result)
    pieces[#pieces + 1] = ffi.string(out, room - stream.avail_out)
  until stream.avail_in == 0 and stream.avail_out > 0
  return table.concat(pieces)
end

-- A message as permessage-deflate has it; `bits` of the window.
function websocket.pack(text, bits)
  local z, stream = load_zlib(), ffi.new("spec_z_stream")
  assert(z.deflateInit2_(stream, 6, 8, -(bits or 15), 8, 0, "1.2.11", SIZE) == 0)
  local packed = pump(z.deflate, stream, text, 65536)
  z.deflateEnd(stream)
  return packed:sub(1, -5)
end

function websocket.unpack(packed, bits)
  local z, stream = load_zlib(), ffi.new("spec_z_stream")
  assert(z.inflateInit2_(stream, -(bits or 15), "1.2.11", SIZE) == 0)
  local text = pump(z.inflate, stream, packed .. "\0\0\255\255", 65536)
  z.inflateEnd(stream)
  return text
end

-- ---- Peers ----------------------------------------------------------------------------------------------------------

local peer = {}
peer.__index = peer

function websocket.wrap(socket, is_client)
  return setmetatable({ socket = socket, mask = is_client and MASK or nil }, peer)
end

function peer:send_bytes(bytes)
  return self.socket:send(bytes)
end

-- options as of websocket.frame; a client masks unless `mask` is false.
function peer:send_frame(opcode, payload, options)
  options = options or {}
  local mask = options.mask
  if mask == nil then mask = self.mask end
  return self:send_bytes(websocket.frame(opcode, payload,
    { fin = options.fin, rsv = options.rsv, length = options.length, mask = mask or nil }))
end

-- A whole message: text unless `kind` says otherwise; compressed with a window of `self.bits` where that is set.
function peer:send(data, kind)
  local opcode = OPCODES[kind or "text"]
  if self.bits and opcode < 8 then return self:send_frame(opcode, websocket.pack(data, self.bits), { rsv = 4 }) end
  return self:send_frame(opcode, data)
end

function peer:close(code, reason)
  return self:send_frame(8, code and big_endian(code, 2) .. (reason or "") or "")
end

-- The next frame as it is: { fin, rsv, opcode, masked, payload }; nil and why.
function peer:read_frame(seconds)
  local head, why = self.socket:receive_exact(2, seconds)
  if not head then return nil, why end
  local first, second = head:byte(1, 2)
  local length = second % 128
  if length > 125 then
    local bytes = assert(self.socket:receive_exact(length == 126 and 2 or 8, seconds))
    length = 0
    for i = 1, #bytes do length = length * 256 + bytes:byte(i) end
  end
  local key = second >= 128 and assert(self.socket:receive_exact(4, seconds))
  local payload = ""
  if length > 0 then
    payload, why = self.socket:receive_exact(length, seconds)
    if not payload then return nil, why end
  end
  if key then payload = masked(payload, key) end
  return { fin = first >= 128, rsv = math.floor(first / 16) % 8, opcode = first % 16, masked = key ~= false,
    payload = payload }
end

-- The next whole message: type and data; of a close: "close", code and reason. nil and why at the end.
function peer:receive(seconds)
  local kind, parts, packed
  while true do
    local frame, why = self:read_frame(seconds)
    if not frame then return nil, why end
    local payload = frame.payload
    if frame.opcode == 8 then
      local high, low = payload:byte(1, 2)
      return "close", high and high * 256 + low, high and payload:sub(3)
    elseif frame.opcode > 8 then
      return TYPES[frame.opcode], payload
    end
    if frame.opcode > 0 then kind, parts, packed = TYPES[frame.opcode], {}, frame.rsv == 4 end
    parts[#parts + 1] = payload
    if frame.fin then
      local data = table.concat(parts)
      self.was_packed = packed
      if packed then data = websocket.unpack(data, self.window) end
      return kind, data
    end
  end
end

-- Whether the connection ends without anything more on it.
function peer:is_ended(seconds)
  local data, why = self.socket:receive_some(seconds or 5)
  return data == nil and why ~= "timeout", data or why
end

function peer:hang_up()
  self.socket:close()
end

websocket.HANDSHAKE = {
  Connection = "Upgrade", Upgrade = "websocket", ["Sec-WebSocket-Version"] = "13",
  ["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ==",
}

-- A client of a WebSocket: the peer and the response; nil and the response when it was not switched.
function websocket.connect(port, path, headers, options)
  local client, why = http.connect(port, options)
  if not client then return nil, why end
  local all = {}
  for name, value in pairs(websocket.HANDSHAKE) do all[name] = value end
  for name, value in pairs(headers or {}) do all[name] = value end
  local response
  response, why = client:request({ path = path or "/", headers = all })
  if not response or response.status ~= 101 then return nil, response or why end
  return websocket.wrap(client.socket, true), response
end

-- Offers compression, and uses it when that was taken. `offer`: parameters; `bits`: of the window to pack with.
function websocket.connect_packed(port, path, offer, bits)
  local self, response = websocket.connect(port, path,
    { ["Sec-WebSocket-Extensions"] = DEFLATE .. (offer and "; " .. offer or "") })
  if not self then return nil, response end
  local answer = response.headers["sec-websocket-extensions"]
  if answer then
    self.bits = bits or 15
    self.window = tonumber(answer:match("server_max_window_bits=(%d+)"))
  end
  return self, response
end

-- ---- The service ----------------------------------------------------------------------------------------------------

local DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(bytes)
  local out = {}
  for at = 1, #bytes, 3 do
    local a, b, c = bytes:byte(at, at + 2)
    local number = a * 65536 + (b or 0) * 256 + (c or 0)
    for i = 3, 0, -1 do
      local digit = math.floor(number / 64 ^ i) % 64 + 1
      out[#out + 1] = ((i == 1 and not b) or (i == 0 and not c)) and "=" or DIGITS:sub(digit, digit)
    end
  end
  return table.concat(out)
end

-- What a service answers a client's key with (RFC 6455 4.2.2).
function websocket.accept_of(key)
  pcall(ffi.cdef, "unsigned char *SHA1(const unsigned char *, size_t, unsigned char *);")
  local text, digest = key .. "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", ffi.new("unsigned char[20]")
  ffi.load("crypto").SHA1(text, #text, digest)
  return base64(ffi.string(digest, 20))
end

-- A handler of spec.support.upstream calls it: switches protocols and gives the peer. `headers`: more of them.
function websocket.accept(connection, headers)
  local lines = { "HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket",
    "Sec-WebSocket-Accept: " .. websocket.accept_of(connection.request.headers["sec-websocket-key"] or "") }
  for name, value in pairs(headers or {}) do lines[#lines + 1] = name .. ": " .. value end
  connection:send(table.concat(lines, "\r\n") .. "\r\n\r\n")
  return websocket.wrap(connection.socket, false)
end

-- The handler of a service that echoes messages as they came, compressed ones compressed, answers pings, and closes as
-- it is asked to.
function websocket.echo(connection)
  local offered = connection.request.headers["sec-websocket-extensions"]
  local self = websocket.accept(connection, offered and { ["Sec-WebSocket-Extensions"] = DEFLATE
    .. "; server_no_context_takeover; client_no_context_takeover" })
  while true do
    local kind, data, more = self:receive(3600)
    if kind == "close" then
      self:close(data, more)
      break
    elseif kind == "ping" then
      self:send(data, "pong")
    elseif kind == "text" or kind == "binary" then
      self.bits = self.was_packed and 15
      self:send(data, kind)
    elseif not kind then
      break
    end
  end
  connection:close()
end

return websocket
