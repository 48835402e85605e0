-- SPDX-License-Identifier: Apache-2.0
-- Asks a service how it is: one call of grpc.health.v1.Health/Check on a connection of its own. As much of HTTP/2 as
-- that takes: the answer's fields are passed over, for only a call that succeeded has a message.

local bit = require "bit"

local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift
local byte, char, sub = string.byte, string.char, string.sub

local grpc = {}

local PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
local DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
local END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
local STREAM = 1
local FRAME_MOST, FRAMES_MOST, MESSAGE_MOST = 16384, 64, 1024

local STATUSES = { [0] = "UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN" }

-- ---- Writing ------------------------------------------------------------------------------------------------------

local function frame(kind, flags, stream, payload)
  local len = #payload
  return char(rshift(len, 16), band(rshift(len, 8), 255), band(len, 255), kind, flags, 0, 0, 0, stream) .. payload
end

-- Seven bits a byte, the last ones last.
local function in_sevens(number)
  local out = {}
  while number >= 128 do
    out[#out + 1] = char(band(number, 127) + 128)
    number = rshift(number, 7)
  end
  return table.concat(out) .. char(number)
end

-- Its length behind a prefix of 7 bits (RFC 7541 5.1), then the text as it is.
local function literal(text)
  if #text < 127 then return char(#text) .. text end
  return char(127) .. in_sevens(#text - 127) .. text
end

-- Fields by their place in the static table (RFC 7541 appendix A), or spelt out; none is put into the dynamic one.
local function head_of(options)
  local out = {
    "\131", options.tls and "\135" or "\134", "\4" .. literal("/grpc.health.v1.Health/Check"),
    "\1" .. literal(options.authority), "\15\16" .. literal("application/grpc"),
    "\0" .. literal("te") .. literal("trailers"),
  }
  for _, field in ipairs(options.fields or {}) do
    out[#out + 1] = "\0" .. literal(field[1]:lower()) .. literal(field[2])
  end
  return table.concat(out)
end

local function message_of(service)
  local content = service ~= "" and "\10" .. in_sevens(#service) .. service or ""
  return char(0, 0, 0, rshift(#content, 8), band(#content, 255)) .. content
end

---@param options { service: string, authority: string, tls: boolean, fields: string[][] }
---@return string
function grpc.request(options)
  return PREFACE .. frame(SETTINGS, 0, 0, "") .. frame(HEADERS, END_HEADERS, STREAM, head_of(options))
    .. frame(DATA, END_STREAM, STREAM, message_of(options.service))
end

-- ---- Reading ------------------------------------------------------------------------------------------------------

local function read_frame(receive)
  local head, err = receive(9)
  if not head then return nil, err end
  local a, b, c, kind, flags, s1, s2, s3, s4 = byte(head, 1, 9)
  local len = bor(lshift(a, 16), lshift(b, 8), c)
  if len > FRAME_MOST then return nil, "invalid", "a frame too large" end
  local payload, why = receive(len)
  if not payload then return nil, why end
  return { kind = kind, flags = flags, stream = bor(lshift(band(s1, 127), 24), lshift(s2, 16), lshift(s3, 8), s4),
    payload = payload }
end

local function unpadded(it)
  if band(it.flags, PADDED) == 0 then return it.payload end
  local pad = byte(it.payload, 1) or 0
  return sub(it.payload, 2, math.max(1, #it.payload - pad))
end

local function varint(text, at)
  local value, scale = 0, 1
  for i = at, math.min(#text, at + 9) do
    local b = byte(text, i)
    value = value + band(b, 127) * scale
    if b < 128 then return value, i + 1 end
    scale = scale * 128
  end
end

local SKIPS = { [1] = 8, [5] = 4 } -- wire types of a fixed size

-- The status in a HealthCheckResponse; nil: it is none.
local function status_in(message)
  local at, status = 1, 0
  while at <= #message do
    local tag, after = varint(message, at)
    if not tag then return nil end
    local wire = tag % 8
    if wire == 0 then
      local value
      value, at = varint(message, after)
      if not value then return nil end
      if tag == 8 then status = value end
    elseif wire == 2 then
      local len, from = varint(message, after)
      if not len then return nil end
      at = from + len
    elseif SKIPS[wire] then
      at = after + SKIPS[wire]
    else
      return nil
    end
  end
  return status
end

-- The whole message that has come, if it has: "status" or nil.
local function answer_in(content)
  if #content < 5 then return nil end
  local compressed, a, b, c, d = byte(content, 1, 5)
  local len = ((a * 256 + b) * 256 + c) * 256 + d
  if compressed ~= 0 or len > MESSAGE_MOST then return "an answer that cannot be read" end
  if #content < 5 + len then return nil end
  local status = status_in(sub(content, 6, 5 + len))
  return status and (STATUSES[status] or "status " .. status) or "an answer that cannot be read"
end

local function on_frame(it, send)
  if it.kind == SETTINGS and band(it.flags, ACK) == 0 then return send(frame(SETTINGS, ACK, 0, "")) end
  if it.kind == PING and band(it.flags, ACK) == 0 then return send(frame(PING, ACK, 0, it.payload)) end
  return true
end

-- The status by name ("SERVING"), or another text that says why there is none; nil and "timeout" or another error of
-- the connection. `send(text)` and `receive(count)` give nil and why.
---@param options table see grpc.request
---@return string|nil
---@return string|nil err
function grpc.check(options, send, receive)
  local ok, err = send(grpc.request(options))
  if not ok then return nil, err end
  local content = ""
  for _ = 1, FRAMES_MOST do
    local it, why, what = read_frame(receive)
    if not it then return what, why end
    ok, err = on_frame(it, send)
    if not ok then return nil, err end
    if it.kind == GOAWAY and #content == 0 then return "it takes no calls" end
    if it.stream == STREAM then
      if it.kind == RST_STREAM then return "it reset the call" end
      if it.kind == DATA then content = content .. unpadded(it) end
      local answer = answer_in(content)
      if answer then return answer end
      if (it.kind == DATA or it.kind == HEADERS) and band(it.flags, END_STREAM) ~= 0 then return "the call failed" end
    end
  end
  return "it does not come to an answer"
end

return grpc
