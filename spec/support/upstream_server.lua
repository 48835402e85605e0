-- SPDX-License-Identifier: Apache-2.0
-- The program behind spec.support.upstream: one loop over poll, one coroutine a connection.
--   luajit spec/support/upstream_server.lua SETTINGS   (JSON: address, port, handler, certificate, key, ca, alpn)
package.path = "./?.lua;" .. package.path

local ffi = require "ffi"
local cjson = require "cjson"
local http = require "spec.support.http"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local tls = require "spec.support.tls"

local C = posix.C
local settings = cjson.decode(process.read_file(arg[1]))

local waiting = {}   -- coroutine -> { fd, events, deadline }
local spawned = {}   -- coroutines that have yet to start
local stats = { connections = 0, open = 0, requests = 0, aborted = 0, failed_handshakes = 0, log = {} }
local MAX_LOGGED = 2000

-- ---- The loop ----

function net.wait(fd, events, deadline)
  local this = coroutine.running()
  waiting[this] = { fd = fd, events = events, deadline = deadline }
  return coroutine.yield()
end

local function resume(thread, ready)
  waiting[thread] = nil
  local ok, why = coroutine.resume(thread, ready)
  if not ok then io.stderr:write(debug.traceback(thread, tostring(why)), "\n") end
end

local function start_spawned()
  while #spawned > 0 do resume(table.remove(spawned), nil) end
end

local function turn()
  local threads, count, nearest = {}, 0, math.huge
  for thread, wait in pairs(waiting) do
    count = count + 1
    threads[count] = { thread, wait }
    nearest = math.min(nearest, wait.deadline)
  end
  local fds = ffi.new("struct sys_pollfd[?]", count)
  for index, entry in ipairs(threads) do
    fds[index - 1].fd, fds[index - 1].events = entry[2].fd, entry[2].events
  end
  local left = nearest == math.huge and -1 or math.max(0, math.ceil((nearest - posix.now()) * 1000))
  C.sys_poll(fds, count, left)
  local now = posix.now()
  for index, entry in ipairs(threads) do
    if fds[index - 1].revents ~= 0 then
      resume(entry[1], true)
    elseif entry[2].deadline <= now then
      resume(entry[1], false)
    end
  end
end

-- ---- What a handler can do with its connection ----

local connection = {}
connection.__index = connection

function connection:send(bytes)
  return self.socket:send(bytes)
end

-- Up to some bytes from the client; nil and why at the end.
function connection:receive(seconds)
  return self.socket:receive_some(seconds)
end

function connection.sleep(_, seconds)
  net.wait(-1, 0, posix.now() + seconds)
end

-- Ends the connection behind this response, without saying so before.
function connection:close()
  self.socket:close()
  self.closed = true
end

function connection:reset()
  self.socket:reset()
  self.closed = true
end

local function format_head(status, headers)
  local lines = { "HTTP/1.1 " .. status .. " Spec" }
  for name, value in pairs(headers or {}) do
    if type(name) == "number" then name, value = value[1], value[2] end
    lines[#lines + 1] = name .. ": " .. tostring(value)
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- Sends a response with Content-Length. headers: name -> value, or a list of { name, value }.
function connection:respond(status, headers, body)
  local fields = { { "Content-Length", #(body or "") } }
  for name, value in pairs(headers or {}) do
    fields[#fields + 1] = type(name) == "number" and value or { name, value }
  end
  return self:send(format_head(status, fields) .. (self.request.method ~= "HEAD" and body or ""))
end

function connection:respond_json(status, value)
  return self:respond(status, { ["Content-Type"] = "application/json" }, cjson.encode(value))
end

-- A chunked response: the head, then chunks, then the last one with trailers ("Name: value" lines).
function connection:begin(status, headers)
  local fields = { { "Transfer-Encoding", "chunked" } }
  for name, value in pairs(headers or {}) do
    fields[#fields + 1] = type(name) == "number" and value or { name, value }
  end
  return self:send(format_head(status, fields))
end

function connection:chunk(data)
  return self:send(("%x\r\n%s\r\n"):format(#data, data))
end

function connection:finish(trailers)
  return self:send("0\r\n" .. (trailers and trailers .. "\r\n" or "") .. "\r\n")
end

-- Sends `count` bytes without holding them.
function connection:send_many(count)
  local piece = ("0123456789abcdef"):rep(4096)
  while count > 0 do
    local ok, why = self:send(count >= #piece and piece or piece:sub(1, count))
    if not ok then return nil, why end
    count = count - #piece
  end
  return true
end

-- Reads the rest of the request body without keeping it; gives its length.
function connection:discard_body()
  local left = tonumber(self.request.headers["content-length"])
  local total = left or 0
  while left and left > 0 do
    local data, why = self:receive()
    if not data then return nil, why end
    left = left - #data
  end
  if left then
    if left < 0 then return nil, "bytes behind the body" end
    self.request.body = ""
    return total
  end
  local _, why = self:read_body()
  return not why and #self.request.body or nil, why
end

-- Reads the request's body into request.body. A handler that is given one not yet read calls it.
function connection:read_body()
  if self.request.body then return self.request.body end
  local message, why = http.read_body(self.socket, self.request, false)
  if not message then return nil, why end
  return message.body
end

-- Fields as JSON shows them: the list alone.
local function list_of(fields)
  local list = {}
  for index, field in ipairs(fields or {}) do list[index] = field end
  return list
end

function connection:echo()
  local request = self.request
  self:read_body()
  local by_name = {}
  for name, value in pairs(request.headers) do
    if type(name) == "string" then by_name[name] = value end
  end
  return self:respond_json(200, {
    method = request.method, target = request.target, version = request.version, body = request.body,
    headers = by_name, fields = list_of(request.headers), trailers = list_of(request.trailers),
    connection = self.number, request = self.requests, tls = self.tls,
  })
end

-- ---- What an upstream does without a handler of its own: the path says it ----

local paths = {}

function paths.status(self, code)
  self:respond(tonumber(code), nil, tonumber(code) ~= 204 and tonumber(code) ~= 304 and "status " .. code or nil)
end

function paths.delay(self, seconds)
  self:sleep(tonumber(seconds))
  self:echo()
end

-- /bytes/N with Content-Length, /chunked/N in chunks of 1000.
function paths.bytes(self, count)
  self:send(format_head(200, { ["Content-Length"] = count }))
  if self.request.method ~= "HEAD" then self:send_many(tonumber(count)) end
end

function paths.chunked(self, count)
  count = tonumber(count)
  self:begin(200)
  while count > 0 do
    self:chunk(("c"):rep(math.min(count, 1000)))
    count = count - 1000
  end
  self:finish()
end

-- /events/COUNT/SECONDS: server-sent events, one each so many seconds.
function paths.events(self, count, seconds)
  self:begin(200, { ["Content-Type"] = "text/event-stream" })
  for number = 1, tonumber(count) do
    if number > 1 then self:sleep(tonumber(seconds)) end
    self:chunk("data: " .. number .. "\n\n")
  end
  self:finish()
end

-- Takes a body of any size and says how long it was.
function paths.swallow(self)
  local count, why = self:discard_body()
  if count then self:respond(200, nil, tostring(count)) else io.stderr:write("swallow: ", why, "\n") end
end

function paths.close(self)
  self:close()
end

function paths.reset(self)
  self:reset()
end

-- Switches protocols and sends back whatever comes.
function paths.tunnel(self)
  self:send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " ..
    (self.request.headers.upgrade or "echo") .. "\r\n\r\n")
  while true do
    local data = self:receive()
    if not data then return self:close() end
    self:send(data)
  end
end

local function default_handler(_, self)
  local words = {}
  for word in self.request.target:match("^[^?]*"):gmatch("[^/]+") do words[#words + 1] = word end
  local act = paths[words[1]]
  if act then return act(self, unpack(words, 2)) end
  return self:echo()
end

-- ---- Connections ----

local handler = settings.handler and assert(loadfile(settings.handler)) or default_handler

local function is_control(request)
  return request.target:match("^/_upstream/(%w+)$")
end

local function control(self, what)
  if what == "forget" then
    stats.connections, stats.requests, stats.aborted, stats.log = 0, 0, 0, {}
  end
  self:respond_json(200, stats)
end

local function note(self)
  local request = self.request
  stats.requests = stats.requests + 1
  local entry = { method = request.method, target = request.target, fields = list_of(request.headers),
    connection = self.number }
  if #stats.log < MAX_LOGGED then table.insert(stats.log, entry) end
  return entry
end

local function count_connection(self)
  if self.number then return end
  stats.connections = stats.connections + 1
  self.number = stats.connections
end

-- One request from the connection to its response; false when the connection ends.
local function serve_one(self)
  local request, why, partial = http.read_head(self.socket, 3600)
  if not request then
    if why ~= "closed" or (partial and partial ~= "") then stats.aborted = stats.aborted + 1 end
    return false
  end
  request.method, request.target, request.version = request.line:match("^(%S+) (%S+) HTTP/(%d%.%d)$")
  assert(request.method, "not a request line: " .. request.line)
  self.request = request
  local what = is_control(request)
  if what then
    control(self, what)
    return true
  end
  count_connection(self)
  self.requests = self.requests + 1
  local entry = note(self)
  handler(request, self)
  if self.closed then return false end
  if not self:read_body() then return false end
  entry.body, entry.trailers = #request.body, list_of(request.trailers)
  return (request.headers.connection or ""):lower() ~= "close"
end

-- One context for all connections, so that sessions can be resumed.
local tls_context = settings.certificate and tls.context(settings, true)

local function handshake(self)
  local ok, why = self.socket:start_tls({ server = true, context = tls_context })
  if ok then
    self.tls = tls.info(self.socket)
    return true
  end
  io.stderr:write("handshake: ", why, "\n")
  stats.failed_handshakes = stats.failed_handshakes + 1
end

local function serve(fd)
  local self = setmetatable({ socket = net.wrap(fd, 60), requests = 0 }, connection)
  stats.open = stats.open + 1
  if not tls_context or handshake(self) then
    local ok, more
    repeat ok, more = xpcall(serve_one, debug.traceback, self) until not ok or not more
    if not ok then io.stderr:write(more, "\n") end
  end
  self.socket:close()
  stats.open = stats.open - 1
end

local function accept_all(listener)
  while true do
    local fd = posix.accept(listener)
    if fd >= 0 then
      spawned[#spawned + 1] = coroutine.create(function() serve(fd) end)
      start_spawned()
    else
      net.wait(listener, posix.POLLIN, math.huge)
    end
  end
end

local listener = assert(posix.listen(settings.address, settings.port))
spawned[1] = coroutine.create(function() accept_all(listener) end)
start_spawned()
while true do turn() end
