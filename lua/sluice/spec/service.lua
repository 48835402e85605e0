-- SPDX-License-Identifier: Apache-2.0
-- One connection that the worker opened to a service: reads requests, and answers them when their time has come.
local message = require "sluice.spec.message"
local peer = require "sluice.spec.peer"
local websocket = require "sluice.spec.websocket"

local Service = {}
Service.__index = Service

local service = {}

-- `arrival`: struct kit_arrival as a table { peer, name, address, port }.
function service.new(gateway, arrival, number)
  local self = setmetatable({ gateway = gateway, arrival = arrival, number = number, requests = 0 }, Service)
  self.peer = peer.new(gateway.world.raw, arrival.peer, message.reader("request"))
  return self
end

local function describe(self, request)
  local it = self.arrival
  request.name, request.address, request.port = it.name, it.address, it.port
  request.host = it.name ~= "" and it.name or it.address
  request.connection = self.number
  self.requests = self.requests + 1
  request.trailers = request.trailers or {}
  return request
end

local function wants_close(request, answer)
  local field = (request.headers.connection or ""):lower()
  local own = answer.headers and (answer.headers.Connection or answer.headers.connection)
  return field:find("close", 1, true) or (own and own:lower() == "close")
end

local function respond(self, request, answer)
  if answer.websocket and websocket.is_asked(request) then
    self.socket = websocket.serve(self.peer, request, answer)
  elseif answer.raw then
    self.peer:send(answer.raw)
    if answer.close ~= false then self.peer:close_after() end
  elseif answer.close and not answer.status and not answer.body then
    self.peer:close()
  else
    self.peer:send(message.response(answer, request.method))
    if answer.close or wants_close(request, answer) then self.peer:close_after() end
  end
end

-- Whether a request was taken up, or refused to be one.
local function take_request(self)
  local request, why = self.peer.reader:next(nil, self.peer.ended)
  if not request then
    if self.peer.ended or why then self.peer:close() end
    return false
  end
  describe(self, request)
  local answer = self.gateway.services:answer(request)
  self.pending = { request = request, answer = answer, due = self.gateway:now() + (answer.delay or 0) }
  return true
end

local function due(self)
  return self.pending and not self.pending.answer.hang and self.pending.due
end

-- When it will do something by itself, or nil.
Service.due = due

-- Moves bytes, takes requests and answers those that are due. Whether anything happened.
function Service:pump()
  if self.peer.is_closed then return false end
  local moved = self.peer:pump()
  if self.peer.is_closed then return true end
  if self.socket then
    local said = websocket.pump(self.socket)
    if self.peer.ended and not said then self.peer:close() end
    return moved or said
  end
  if not self.pending and take_request(self) then moved = true end
  local at = due(self)
  if at and at <= self.gateway:now() + 1e-9 then
    local pending = self.pending
    self.pending = nil
    respond(self, pending.request, pending.answer)
    self.peer:pump()
    moved = true
  elseif self.pending and self.peer.ended then
    self.peer:close() -- who asked has gone
    moved = true
  end
  return moved
end

return service
