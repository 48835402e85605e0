-- SPDX-License-Identifier: Apache-2.0
-- The services that a spec plays: which answer a request gets, from a table by "name:port", "name", "address:port",
-- "address" or "*". An answer is a table, a list of them (one request after the other, the last one for good), or a
-- function of the request that gives one; without any, the request itself comes back as JSON.
--
--   { status = 200, headers = {}, body = "text" }   json =, chunks =, trailers =, informational =
--   { delay = 2 }            so many seconds later      { hang = true }       never
--   { close = true }         closes without an answer   { raw = "bytes" }     sends these instead of a response
--   { refuse = true }        no connection              { silent = true }     the connection never comes about
--   { websocket = true }     a WebSocket that echoes; a function of (message, socket) says what is sent back
local websocket = require "sluice.spec.websocket"

local services = {}

local Services = {}
Services.__index = Services

---@param answers table
function services.new(answers)
  return setmetatable({ answers = answers, turns = {}, seen = {} }, Services)
end

-- The answer given for a place, and the key that it stands under.
function Services:find(name, address, port)
  local answers = self.answers
  for _, host in ipairs { name ~= "" and name or address, address } do
    for _, key in ipairs { host .. ":" .. port, host } do
      if answers[key] ~= nil then return answers[key], key end
    end
  end
  return answers["*"], "*"
end

-- What the request looked like when it came, as JSON.
local function echo(request)
  return { json = { method = request.method, path = request.path, query = request.query, target = request.target,
    headers = request.headers, body = request.body, host = request.host, port = request.port,
    trailers = next(request.trailers) and request.trailers or nil } }
end

local function is_list(answer)
  return type(answer) == "table" and type(answer[1]) ~= "nil"
end

-- One of a list: the next in turn.
function Services:in_turn(answer, key)
  if not is_list(answer) then return answer end
  local turn = math.min((self.turns[key] or 0) + 1, #answer)
  self.turns[key] = turn
  return answer[turn]
end

-- The answer to a request: never nil.
function Services:answer(request)
  self.seen[#self.seen + 1] = request
  local answer, key = self:find(request.name, request.address, request.port)
  answer = self:in_turn(answer, key)
  if type(answer) == "function" then answer = answer(request) end
  if type(answer) == "string" then answer = { body = answer } end
  if answer == nil or answer == true then
    if websocket.is_asked(request) then return { websocket = true } end
    return echo(request)
  end
  if type(answer) ~= "table" then
    error(("upstreams[%q]: expected an answer as a table, got a %s"):format(key, type(answer)), 0)
  end
  return answer
end

-- Another answer from now on.
function Services:set(key, answer)
  self.answers[key] = answer
  self.turns[key] = nil
end

-- What the services got so far, at one of them or at all.
function Services:requests(name)
  if not name then return self.seen end
  local list = {}
  for _, request in ipairs(self.seen) do
    if request.name == name or request.address == name or request.name .. ":" .. request.port == name
      or request.address .. ":" .. request.port == name then
      list[#list + 1] = request
    end
  end
  return list
end

return services
