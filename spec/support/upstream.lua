-- SPDX-License-Identifier: Apache-2.0
-- An HTTP upstream in a process of its own. Without a handler it echoes each request as JSON, and a few paths do
-- special things (/status/418, /delay/0.2, /bytes/N, /chunked/N, /events/N/SECONDS, /swallow, /close, /reset, /tunnel).
-- A handler is written where it is used; it runs over there, so it has no upvalues:
--
--   local up = upstream.start(function(request, connection)
--     connection:respond(200, { ["X-Method"] = request.method }, "hello")
--   end)
local cjson = require "cjson"
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local upstream = {}

local server = {}
server.__index = server

-- options: port, address (127.0.0.1, or "unix:/path"), tls ({ certificate, key, ca }: paths; with a ca, clients must
-- show a certificate, and this module's own questions show client_certificate, client_key).
function upstream.start(handler, options)
  options = options or {}
  local self = setmetatable({}, server)
  self.address = options.address or "127.0.0.1"
  self.port = options.port or process.free_port()
  self.tls = options.tls
  self.handler = handler
  self:launch()
  return self
end

function server:launch()
  local directory = posix.temporary_directory()
  local settings = { address = self.address, port = self.port }
  for name, value in pairs(self.tls or {}) do settings[name] = value end
  if self.handler then
    settings.handler = directory .. "/handler"
    process.write_file(settings.handler, string.dump(self.handler))
  end
  process.write_file(directory .. "/settings", cjson.encode(settings))
  self.process = process.start({ "luajit", "spec/support/upstream_server.lua", directory .. "/settings" },
    { directory = directory, owns_directory = true })
  process.wait_until(function()
    if not self.process:is_running() then error("the upstream ended: " .. self:log()) end
    local client, why = self:connect()
    if client then client:close() end
    return client, why
  end, 20, "upstream on port " .. self.port)
end

function server:connect()
  local client_tls = self.tls and { certificate = self.tls.client_certificate, key = self.tls.client_key }
  return http.connect(self.port, { address = self.address, tls = client_tls })
end

-- What it has seen: connections (that carried a request), requests, open (now), aborted (ended inside a request head),
-- log (list of { method, target, fields, connection, and, once it has come whole: body (its length), trailers }).
function server:stats(what)
  local client = assert(self:connect())
  local response = assert(client:request({ path = "/_upstream/" .. (what or "stats") }))
  client:close()
  local stats = cjson.decode(response.body)
  stats.open = stats.open - 1 -- the one that asked
  return stats
end

-- Starts counting anew.
function server:forget()
  self:stats("forget")
end

-- Its standard error: what its handler raised, failed handshakes.
function server:log()
  return self.process:stderr()
end

function server:url()
  return (self.tls and "https" or "http") .. "://" .. self.address .. ":" .. self.port
end

function server:stop()
  self.process:stop()
  self.process:forget()
end

-- Ends it at once (as a crash would), to be started again on the same port by launch.
function server:kill()
  self.process:signal(9)
  self.process:wait(5)
  self.process:forget()
end

return upstream
