-- SPDX-License-Identifier: Apache-2.0
-- A gateway with the cache in front of one service, for its specs.
local spec = require "sluice.spec"

local world = {}

local World = {}
World.__index = World

local function merged(base, changes)
  local result = {}
  for key, value in pairs(base) do result[key] = value end
  for key, value in pairs(changes or {}) do result[key] = value end
  return result
end

local EPOCH = 1767225600 -- 2026-01-01 00:00:00 UTC, where the clock of specs begins

-- The text of a moment, so many seconds from where the clock began.
function world.date(seconds)
  return os.date("!%a, %d %b %Y %H:%M:%S GMT", EPOCH + (seconds or 0))
end

-- `answer`: of the service, or a function (request, number) that gives one. `config`: besides what obeys RFC 9111 for
-- all types. `more`: other options of spec.gateway.
function world.new(answer, config, more)
  local self = setmetatable({ requests = {}, answer = answer }, World)
  local plugins = { { name = "proxy-cache",
    config = merged({ strategy = "memory", cache_control = true, content_type = { "*/*" } }, config) } }
  for _, plugin in ipairs(more and more.plugins or {}) do plugins[#plugins + 1] = plugin end
  local options = merged(more or {}, { plugins = plugins, upstreams = { ["*"] = function(request)
    self.requests[#self.requests + 1] = request
    local it = self.answer
    if type(it) == "function" then it = it(request, #self.requests) end
    return it
  end } })
  self.gateway = spec.gateway(options)
  return self
end

-- A response and what X-Cache-Status says of it.
function World:get(path, headers)
  local response = self.gateway:get(path or "/", headers)
  return response, response.headers["x-cache-status"]
end

function World:request(request)
  local response = self.gateway:request(request)
  return response, response.headers["x-cache-status"]
end

function World:advance(seconds)
  self.gateway:advance(seconds)
end

-- How many requests the service has got, and the last one.
function World:calls()
  self.gateway:settle()
  return #self.requests, self.requests[#self.requests]
end

function World:close()
  self.gateway:close()
end

return world
