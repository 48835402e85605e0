-- SPDX-License-Identifier: Apache-2.0
-- An HTTP/2 client that hides nothing: a spec may send any frame, well made or not, and sees what comes back.
--
--   local client = http2.connect(port)                       -- preface and SETTINGS are sent
--   local stream = client:request({ path = "/" })            -- HEADERS (and DATA when there is a body)
--   local answer = client:wait(stream)                       -- { status, headers, body, trailers } or { reset = code }
--   client:send(http2.frame(http2.PING, 0, 0, ("x"):rep(8)))
--
-- SETTINGS and PING are acknowledged and windows are kept open while something is waited for, unless `silent`.
local bit = require "bit"
local ffi = require "ffi"
local net = require "spec.support.net"
local posix = require "spec.support.posix"

local http2 = {}

http2.DATA, http2.HEADERS, http2.PRIORITY, http2.RST_STREAM, http2.SETTINGS = 0, 1, 2, 3, 4
http2.PUSH_PROMISE, http2.PING, http2.GOAWAY, http2.WINDOW_UPDATE, http2.CONTINUATION = 5, 6, 7, 8, 9
http2.END_STREAM, http2.ACK, http2.END_HEADERS, http2.PADDED = 1, 1, 4, 8
http2.PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

-- Codes of RST_STREAM and GOAWAY by number.
http2.errors = { [0] = "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
  "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR",
  "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED" }

-- ---- Bytes ----

-- A number as `count` bytes, the most significant one first.
local function bytes(number, count)
  local list = {}
  for index = count, 1, -1 do
    list[index] = string.char(number % 256)
    number = math.floor(number / 256)
  end
  return table.concat(list)
end

local function number_at(text, from, count)
  local number = 0
  for index = from, from + count - 1 do number = number * 256 + text:byte(index) end
  return number
end

http2.bytes, http2.number_at = bytes, number_at

-- A frame as it goes over the wire.
function http2.frame(kind, flags, stream, payload)
  payload = payload or ""
  return bytes(#payload, 3) .. string.char(kind, flags) .. bytes(stream, 4) .. payload
end

-- The payload of SETTINGS. settings: list of { identifier, value }.
function http2.settings(list)
  local parts = {}
  for index, entry in ipairs(list or {}) do parts[index] = bytes(entry[1], 2) .. bytes(entry[2], 4) end
  return table.concat(parts)
end

-- An integer of HPACK with a prefix of so many bits, in a byte whose other bits are `first`.
local function integer(first, prefix, value)
  local most = 2 ^ prefix - 1
  if value < most then return string.char(first + value) end
  local out = string.char(first + most)
  value = value - most
  while value >= 128 do
    out = out .. string.char(value % 128 + 128)
    value = math.floor(value / 128)
  end
  return out .. string.char(value)
end

-- Fields as a header block: literals that no table keeps, each byte of name and value as given.
function http2.block(fields)
  local parts = {}
  for index, field in ipairs(fields) do
    local name, value = field[1], tostring(field[2])
    parts[index] = "\0" .. integer(0, 7, #name) .. name .. integer(0, 7, #value) .. value
  end
  return table.concat(parts)
end

-- ---- Header blocks that come back, by nghttp2's decoder ----

local registry = debug.getregistry()
if not registry["sluice.spec.http2"] then
  ffi.cdef [[
    struct sys_nghttp2_nv { uint8_t *name, *value; size_t name_len, value_len; uint8_t flags; };
    int sys_inflate_new(void **) __asm__("nghttp2_hd_inflate_new");
    void sys_inflate_del(void *) __asm__("nghttp2_hd_inflate_del");
    long sys_inflate(void *, struct sys_nghttp2_nv *, int *, const uint8_t *, size_t, int)
      __asm__("nghttp2_hd_inflate_hd2");
    int sys_inflate_end(void *) __asm__("nghttp2_hd_inflate_end_headers");
  ]]
  registry["sluice.spec.http2"] = ffi.load("libnghttp2.so.14")
end
local nghttp2 = registry["sluice.spec.http2"]

local FINAL, EMIT = 1, 2

local function new_decoder()
  local made = ffi.new("void *[1]")
  assert(nghttp2.sys_inflate_new(made) == 0)
  return ffi.gc(made[0], nghttp2.sys_inflate_del)
end

-- Fields of a block: a list of { name, value } that also answers by name (the first of that name).
local function decode(decoder, block)
  local fields = {}
  local field, flags = ffi.new("struct sys_nghttp2_nv"), ffi.new("int[1]")
  local at, left = ffi.cast("const uint8_t *", block), #block
  repeat
    local used = tonumber(nghttp2.sys_inflate(decoder, field, flags, at, left, 1))
    assert(used >= 0, "a header block that cannot be decoded")
    at, left = at + used, left - used
    if bit.band(flags[0], EMIT) ~= 0 then
      local name, value = ffi.string(field.name, field.name_len), ffi.string(field.value, field.value_len)
      fields[#fields + 1] = { name, value }
      if fields[name] == nil then fields[name] = value end
    end
  until bit.band(flags[0], FINAL) ~= 0
  nghttp2.sys_inflate_end(decoder)
  return fields
end

-- ---- Connections ----

local client = {}
client.__index = client

-- A connection over a socket, of which nothing has been sent or read yet: by either end (spec.support.http2_service).
function http2.over(socket, fields)
  fields.socket, fields.streams, fields.next_stream = socket, {}, 1
  fields.decoder, fields.settings = new_decoder(), {}
  return setmetatable(fields, client)
end

-- options: timeout (5 s), tls (true, or options of spec.support.tls), settings (list of { identifier, value }), preface
-- (false: nothing is sent), silent (nothing is acknowledged and no window is opened). Returns nil and why when it
-- cannot connect, or when TLS does not agree on h2.
function http2.connect(port, options)
  options = options or {}
  local secure = options.tls
  if secure then
    secure = secure == true and {} or secure
    secure.alpn = secure.alpn or { "h2" }
  end
  local socket, why = net.connect(options.address or "127.0.0.1", port, { timeout = options.timeout, tls = secure })
  if not socket then return nil, why end
  if secure and require("spec.support.tls").info(socket).alpn ~= "h2" then
    socket:close()
    return nil, "not h2"
  end
  local self = http2.over(socket, { port = port, secure = secure, silent = options.silent })
  if options.preface == false then return self end
  self:send(http2.PREFACE .. http2.frame(http2.SETTINGS, 0, 0, http2.settings(options.settings)))
  return self
end

function client:send(data)
  return self.socket:send(data)
end

function client:close()
  self.socket:close()
end

-- What has come on a stream so far.
function client:stream(number)
  local stream = self.streams[number]
  if not stream then
    stream = { number = number, parts = {} }
    self.streams[number] = stream
  end
  return stream
end

-- The four pseudo-fields of a request, then its own fields.
function client:fields(request)
  local list = {
    { ":method", request.method or (request.body and "POST" or "GET") },
    { ":scheme", request.scheme or (self.secure and "https" or "http") },
    { ":authority", request.authority or "127.0.0.1:" .. self.port },
    { ":path", request.path or "/" },
  }
  for name, value in pairs(request.headers or {}) do
    list[#list + 1] = type(name) == "number" and value or { name, value }
  end
  return list
end

-- Sends HEADERS with exactly these fields; `open` leaves the stream open for DATA. Gives the stream's number.
function client:headers(fields, open)
  local number = self.next_stream
  self.next_stream = number + 2
  self:stream(number)
  self:send(http2.frame(http2.HEADERS, http2.END_HEADERS + (open and 0 or http2.END_STREAM), number,
    http2.block(fields)))
  return number
end

-- Sends DATA in frames of at most 16,384 bytes, the last one with END_STREAM unless `open`.
function client:data(number, body, open)
  local out, at = {}, 1
  repeat
    local piece = body:sub(at, at + 16383)
    at = at + #piece
    local last = at > #body
    out[#out + 1] = http2.frame(http2.DATA, last and not open and http2.END_STREAM or 0, number, piece)
  until last
  return self:send(table.concat(out))
end

-- The same for content larger than the windows: waits for the peer to open them. False when it does not.
function client:upload(number, body, open)
  local stream, at = self:stream(number), 1
  while at <= #body do
    local initial = self.settings[4] or 65535
    local room = math.min(initial + (stream.opened or 0) - (at - 1), 65535 + (self.opened or 0) - (self.uploaded or 0))
    local piece = body:sub(at, at + math.min(room, 16384) - 1)
    if #piece > 0 then
      at = at + #piece
      self.uploaded = (self.uploaded or 0) + #piece
      self:data(number, piece, open or at <= #body)
    elseif stream.reset or stream.ended or not self:step(self.socket.timeout) then
      return false
    end
  end
  return true
end

-- request: method, scheme, authority, path, headers (name -> value, or a list of { name, value }), body, trailers (a
-- list), open (more is to follow). Gives the stream's number.
function client:request(request)
  local more = request.body or request.trailers or request.open
  local number = self:headers(self:fields(request), more)
  if request.body then self:data(number, request.body, request.open or request.trailers) end
  if request.trailers then
    self:send(http2.frame(http2.HEADERS, http2.END_HEADERS + http2.END_STREAM, number, http2.block(request.trailers)))
  end
  return number
end

-- ---- What comes back ----

-- The next frame, as it is: { kind, flags, stream, payload }; nil and why.
function client:read_frame(seconds)
  local head, why = self.socket:receive_exact(9, seconds)
  if not head then return nil, why end
  local payload
  payload, why = self.socket:receive_exact(number_at(head, 1, 3), seconds)
  if not payload then return nil, why end
  return { kind = head:byte(4), flags = head:byte(5), stream = number_at(head, 6, 4) % 2 ^ 31, payload = payload }
end

local function unpadded(frame)
  if bit.band(frame.flags, http2.PADDED) == 0 then return frame.payload end
  return frame.payload:sub(2, #frame.payload - frame.payload:byte(1))
end

local function on_fields(self, stream, block, ended)
  local fields = decode(self.decoder, block)
  if fields[":method"] then
    stream.request = fields
  elseif not fields[":status"] then
    stream.trailers = fields
  elseif fields[":status"]:sub(1, 1) == "1" then
    stream.interim = stream.interim or {}
    table.insert(stream.interim, { status = tonumber(fields[":status"]), headers = fields })
  else
    stream.status, stream.headers = tonumber(fields[":status"]), fields
  end
  if ended then stream.ended = true end
end

local handlers = {}

handlers[http2.HEADERS] = function(self, frame)
  local block = unpadded(frame)
  if bit.band(frame.flags, 0x20) ~= 0 then block = block:sub(6) end -- its priority
  local ended = bit.band(frame.flags, http2.END_STREAM) ~= 0
  if bit.band(frame.flags, http2.END_HEADERS) ~= 0 then
    return on_fields(self, self:stream(frame.stream), block, ended)
  end
  self.block = { parts = { block }, ended = ended }
end

handlers[http2.CONTINUATION] = function(self, frame)
  table.insert(self.block.parts, frame.payload)
  if bit.band(frame.flags, http2.END_HEADERS) == 0 then return end
  on_fields(self, self:stream(frame.stream), table.concat(self.block.parts), self.block.ended)
  self.block = nil
end

handlers[http2.DATA] = function(self, frame)
  local stream = self:stream(frame.stream)
  table.insert(stream.parts, unpadded(frame))
  if bit.band(frame.flags, http2.END_STREAM) ~= 0 then stream.ended = true end
  if self.silent or #frame.payload == 0 then return end
  local more = bytes(#frame.payload, 4)
  self:send(http2.frame(http2.WINDOW_UPDATE, 0, 0, more))
  if not stream.ended then self:send(http2.frame(http2.WINDOW_UPDATE, 0, frame.stream, more)) end
end

handlers[http2.RST_STREAM] = function(self, frame)
  local code = number_at(frame.payload, 1, 4)
  self:stream(frame.stream).reset = http2.errors[code] or code
end

handlers[http2.SETTINGS] = function(self, frame)
  if bit.band(frame.flags, http2.ACK) ~= 0 then
    self.settings_acknowledged = true
    return
  end
  for at = 1, #frame.payload, 6 do
    self.settings[number_at(frame.payload, at, 2)] = number_at(frame.payload, at + 2, 4)
  end
  if not self.silent then self:send(http2.frame(http2.SETTINGS, http2.ACK, 0)) end
end

handlers[http2.WINDOW_UPDATE] = function(self, frame)
  local owner = frame.stream == 0 and self or self:stream(frame.stream)
  owner.opened = (owner.opened or 0) + number_at(frame.payload, 1, 4)
end

handlers[http2.PING] = function(self, frame)
  if bit.band(frame.flags, http2.ACK) ~= 0 then
    self.pongs = (self.pongs or 0) + 1
    return
  end
  self.pings = (self.pings or 0) + 1
  if not self.silent then
    self:send(http2.frame(http2.PING, http2.ACK, 0, frame.payload))
  end
end

handlers[http2.GOAWAY] = function(self, frame)
  local code = number_at(frame.payload, 5, 4)
  self.goaway = http2.errors[code] or code
  self.last_stream = number_at(frame.payload, 1, 4)
end

-- Takes in one frame; nil and why when none came.
function client:step(seconds)
  local frame, why = self:read_frame(seconds)
  if not frame then return nil, why end
  local handler = handlers[frame.kind]
  if handler then handler(self, frame) end
  return frame
end

-- Takes frames in until the condition holds. False and why when the connection ended or the time was over.
function client:wait_until(condition, seconds)
  local deadline = posix.now() + (seconds or self.socket.timeout)
  while not condition() do
    local frame, why = self:step(math.max(0, deadline - posix.now()))
    if not frame then return false, why end
  end
  return true
end

-- What the answer on a stream came to: status, headers, body, trailers, interim; reset (the code's name) when it was
-- ended by RST_STREAM, goaway (the same) when the peer ends the connection, why when that ended or the time was over.
function client:wait(number, seconds)
  local stream = self:stream(number)
  local _, why = self:wait_until(function() return stream.ended or stream.reset end, seconds)
  return { status = stream.status, headers = stream.headers, trailers = stream.trailers, interim = stream.interim,
    body = table.concat(stream.parts), ended = stream.ended, reset = stream.reset, goaway = self.goaway, why = why }
end

-- Whether the peer closes the connection within `seconds`; frames that come meanwhile are taken in.
function client:closes_within(seconds)
  local _, why = self:wait_until(function() return false end, seconds)
  return why ~= "timeout"
end

-- One request on a connection of its own.
function http2.request(port, request)
  local self = assert(http2.connect(port, { tls = request.tls }))
  local answer = self:wait(self:request(request))
  self:close()
  return answer
end

return http2
