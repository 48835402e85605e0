-- SPDX-License-Identifier: Apache-2.0
-- A piece of network that can fail: what comes to one port of 127.0.0.1 goes to another. With `tunnel`, { server =
-- "name:port", authorization = text|nil }, it is an HTTP proxy for those who ask for a tunnel to that.
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local relay = {}

local running = {}
running.__index = running

local function launch(self)
  self.process = process.start({ "luajit", "spec/support/relay_server.lua", tostring(self.port),
    tostring(self.to_port), self.tunnel and self.tunnel.server, self.tunnel and self.tunnel.authorization })
  process.wait_until(function()
    local client, why = http.connect(self.port)
    if client then client:close() end
    return client, why
  end, 20, "the relay")
end

function relay.start(to_port, port, tunnel)
  local self = setmetatable({ port = port or process.free_port(), to_port = to_port, tunnel = tunnel }, running)
  launch(self)
  return self
end

-- Nothing goes through any more, and nobody is told: a cable that is pulled.
function running:silence()
  self.process:hold()
end

function running:go_on()
  self.process:go_on()
end

-- All connections end, and none can be made.
function running:cut()
  self.process:signal(posix.SIGKILL)
  self.process:wait(5)
  self.process:forget()
end

function running:mend()
  launch(self)
end

function running:stop()
  self:cut()
end

return relay
