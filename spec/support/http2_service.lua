-- SPDX-License-Identifier: Apache-2.0
-- A service over HTTP/2 that the spec plays itself, frame by frame, well behaved or not:
--
--   local service = http2_service.listen()
--   local stream = client:request({ path = "/" })       -- of the gateway, not waited for
--   local connection = service:accept()                 -- preface and SETTINGS are exchanged
--   local request = connection:next_request()           -- { number, request (fields by name), parts... }
--   connection:respond(request, { { ":status", 200 } }, "hello", { { "grpc-status", 0 } })
--
-- A connection is that of spec.support.http2 besides: send, step, wait_until, closes_within.
local http2 = require "spec.support.http2"
local net = require "spec.support.net"
local posix = require "spec.support.posix"

local http2_service = {}

local service = {}
service.__index = service

-- options: tls (what spec.support.tls takes of a server: certificate, key, alpn).
function http2_service.listen(options)
  local fd, port = posix.listen("127.0.0.1", 0)
  return setmetatable({ fd = fd, port = port, tls = options and options.tls }, service)
end

function service:close()
  posix.C.sys_close_fd(self.fd)
  self.fd = -1
end

-- The next connection as a bare socket; nil when none comes.
function service:accept_socket(seconds)
  if not posix.wait_fd(self.fd, posix.POLLIN, posix.now() + (seconds or 5)) then return nil, "timeout" end
  local socket = net.wrap(assert(posix.accept(self.fd)))
  if not self.tls then return socket end
  local options = {}
  for name, value in pairs(self.tls) do options[name] = value end
  options.server = true
  return socket:start_tls(options)
end

local methods = {}

-- The next connection. settings: list of { identifier, value }; silent: as http2.connect.
function service:accept(settings, silent)
  local socket = assert(self:accept_socket())
  assert(socket:receive_exact(#http2.PREFACE) == http2.PREFACE, "no preface")
  local connection = http2.over(socket, { silent = silent, seen = {} })
  for name, method in pairs(methods) do connection[name] = method end
  connection:send(http2.frame(http2.SETTINGS, 0, 0, http2.settings(settings)))
  return connection
end

-- The next request whose head has come; nil and why.
function methods:next_request(seconds)
  local found
  local ok, why = self:wait_until(function()
    for number, stream in pairs(self.streams) do
      if stream.request and not self.seen[number] and (not found or number < found.number) then found = stream end
    end
    return found
  end, seconds)
  if not ok then return nil, why end
  self.seen[found.number] = true
  return found
end

-- Waits for a request's end; its content.
function methods:whole(request)
  assert(self:wait_until(function() return request.ended or request.reset end))
  return table.concat(request.parts)
end

-- HEADERS. last: with END_STREAM.
function methods:head(request, fields, last)
  local flags = http2.END_HEADERS + (last and http2.END_STREAM or 0)
  return self:send(http2.frame(http2.HEADERS, flags, request.number, http2.block(fields)))
end

-- A whole response; `trailers` is a list of fields, nil: none.
function methods:respond(request, fields, body, trailers)
  self:head(request, fields, not body and not trailers)
  if body then self:data(request.number, body, trailers ~= nil) end
  if trailers then self:head(request, trailers, true) end
end

function methods:reset(request, code)
  self:send(http2.frame(http2.RST_STREAM, 0, request.number, http2.bytes(code, 4)))
end

function methods:go_away(last, code)
  self:send(http2.frame(http2.GOAWAY, 0, 0, http2.bytes(last, 4) .. http2.bytes(code or 0, 4)))
end

return http2_service
