-- SPDX-License-Identifier: Apache-2.0
-- A client that means harm over HTTP/2, as fast as it can, beginning anew whenever it is cut off:
--   luajit spec/support/flood.lua PORT KIND SECONDS [CLOSED [LARGE]]
-- for so many seconds, or until it has been cut off so many times; LARGE is the path of a large answer. At the end one
-- line of JSON: connections, closed (how many of them the gateway ended), frames, longest (seconds that one was let go
-- on), silent (seconds for which nothing more was taken on the last one), codes (GOAWAYs by name).
package.path = "./?.lua;" .. package.path

local bit = require "bit"
local cjson = require "cjson"
local http2 = require "spec.support.http2"
local posix = require "spec.support.posix"

local frame, block = http2.frame, http2.block

local BATCH = 500 -- frames, or pairs of them, in one write

local function request(method, path, ...)
  return block { { ":method", method }, { ":scheme", "http" }, { ":authority", "a.test" }, { ":path", path }, ... }
end

local GET, POST = request("GET", "/flood"), request("POST", "/flood")
local HEADERS, CONTINUATION, PING, SETTINGS = http2.HEADERS, http2.CONTINUATION, http2.PING, http2.SETTINGS

-- Streams that begin with `first`, each followed by what `more` gives for its number.
local function streams(flags, fields, more)
  return function(self)
    local parts = {}
    for index = 1, BATCH do
      local number = self.next_stream
      self.next_stream = number + 2
      parts[index] = frame(HEADERS, flags, number, fields) .. (more and more(number) or "")
    end
    return table.concat(parts), 2 * BATCH
  end
end

-- The same frame over and over on a stream (0: the connection's) that `opening` began.
local function same(text, opening)
  local batch = text:rep(BATCH)
  return function(self)
    local first = not self.opened and opening or ""
    self.opened = true
    return first .. batch, BATCH
  end
end

local reset = function(number) return frame(http2.RST_STREAM, 0, number, http2.bytes(8, 4)) end

local kinds = {
  -- A request and its end, 1 and 1 (CVE-2023-44487).
  ["rapid-reset"] = streams(5, GET, reset),
  -- The same with requests whose body has yet to come.
  ["rapid-reset-post"] = streams(4, POST, reset),
  -- The gateway is brought to end streams itself: a window may not grow by nothing (CVE-2025-8671).
  ["made-you-reset"] = streams(4, POST, function(number)
    return frame(http2.WINDOW_UPDATE, 0, number, http2.bytes(0, 4))
  end),
  -- Requests that are malformed, one after the other.
  ["malformed"] = streams(5, request("GET", "/flood", { "connection", "close" })),
  -- Every request in full, and no answer waited for.
  ["requests"] = streams(5, GET),
  ["empty-data"] = same(frame(http2.DATA, 0, 1), frame(HEADERS, 4, 1, POST)),
  ["padded-data"] = same(frame(http2.DATA, http2.PADDED, 1, "\0"), frame(HEADERS, 4, 1, POST)),
  ["continuation"] = same(frame(CONTINUATION, 0, 1, block { { "x-a", "b" } }), frame(HEADERS, 0, 1, GET)),
  ["empty-continuation"] = same(frame(CONTINUATION, 0, 1), frame(HEADERS, 0, 1, GET)),
  ["empty-headers"] = same(frame(HEADERS, 0, 1), frame(HEADERS, 4, 1, POST)),
  ["ping"] = same(frame(PING, 0, 0, ("x"):rep(8))),
  ["settings"] = same(frame(SETTINGS, 0, 0, http2.settings { { 4, 65535 } })),
  ["window-update"] = same(frame(http2.WINDOW_UPDATE, 0, 1, http2.bytes(1, 4)), frame(HEADERS, 4, 1, POST)),
  ["priority"] = same(frame(http2.PRIORITY, 0, 1, http2.bytes(3, 4) .. "\0"), frame(HEADERS, 4, 1, POST)),
  ["unknown"] = same(frame(99, 0, 0, "x")),
  -- A large field in the table of HPACK, and requests that name it a thousand times each.
  ["hpack-bomb"] = streams(5, GET .. ("\190"):rep(4000)),
}

local FIRST_OF = { ["hpack-bomb"] = frame(HEADERS, 5, 1, GET .. "\64\3x-a\127\161\30" .. ("x"):rep(4000)) }

-- Those who never read what comes back.
for _, name in ipairs { "ping", "settings", "requests" } do kinds[name .. "-unread"] = kinds[name] end

-- Streams whose answers are large, and a window that lets none of it through; with a little sent now and then that
-- keeps the connection lively.
kinds["stalled"] = function(self)
  if self.opened then
    posix.pause(0.05)
    return frame(PING, 0, 0, ("x"):rep(8)), 1
  end
  self.opened = true
  local parts = {}
  for index = 1, 100 do parts[index] = frame(HEADERS, 5, 2 * index - 1, request("GET", arg[5] or "/bytes/1000000")) end
  return table.concat(parts), 100
end

-- ---- ----

local port, name, seconds = tonumber(arg[1]), arg[2], tonumber(arg[3])
local make = assert(kinds[name], "no such flood")
local enough = tonumber(arg[4]) or math.huge
local unread = name:find("unread") ~= nil
local deadline = posix.now() + seconds
local result = { connections = 0, closed = 0, frames = 0, longest = 0, silent = 0, codes = {} }

-- Takes in what has come; false when the gateway has ended the connection.
local function drain(self)
  while true do
    local bytes, why = self.socket:receive_some(0)
    if not bytes then return why == "timeout" end
    -- Only of interest is a GOAWAY, which comes last; frames before it are not looked for.
    self.last = (self.last and #bytes < 100 and self.last .. bytes or bytes):sub(-100)
  end
end

local function note_code(self)
  local last = self.last or ""
  local at = last:match(".*()%z%z.\7%z%z%z%z%z........")
  local code = at and http2.number_at(last, at + 13, 4)
  local word = code and (http2.errors[code] or tostring(code)) or "none"
  result.codes[word] = (result.codes[word] or 0) + 1
end

-- Sends all of it unless time is over or the connection ends; gives false when it ended.
local function push(self, data)
  local sent, since = 0, posix.now()
  while sent < #data do
    local count, why = self.socket.operations.write(self.socket, data, sent)
    if count then
      sent, since = sent + count, posix.now()
    elseif type(why) == "string" then
      drain(self)
      return false
    else
      if not unread and not drain(self) then return false end
      posix.wait_fd(self.socket.fd, bit.bor(why, unread and 0 or posix.POLLIN), posix.now() + 0.1)
      result.silent = posix.now() - since
      if posix.now() > deadline then return true end
    end
  end
  result.silent = 0
  return unread or drain(self)
end

local function one_connection()
  local self = http2.connect(port, { settings = name == "stalled" and { { 4, 0 } } or {} })
  if not self then
    posix.pause(0.01)
    return
  end
  result.connections = result.connections + 1
  local start, alive = posix.now(), true
  if FIRST_OF[name] then
    self:send(FIRST_OF[name])
    self.next_stream = 3
  end
  while alive and posix.now() < deadline do
    local data, frames = make(self)
    alive = push(self, data)
    if alive then result.frames = result.frames + frames end
  end
  result.longest = math.max(result.longest, posix.now() - start)
  if not alive then
    result.closed = result.closed + 1
    note_code(self)
  end
  self:close()
end

repeat one_connection() until posix.now() >= deadline or result.closed >= enough
print(cjson.encode(result))
