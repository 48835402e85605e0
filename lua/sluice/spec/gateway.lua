-- SPDX-License-Identifier: Apache-2.0
-- A gateway in the spec's own process: the real core, whose loop is turned here, between clients and services that are
-- played here too. Nothing waits: where only time is missing, the clock is moved to the next thing that is due.
local client = require "sluice.spec.client"
local names = require "sluice.spec.names"
local service = require "sluice.spec.service"
local services = require "sluice.spec.services"
local setup = require "sluice.spec.setup"
local topics = require "sluice.spec.topics"
local websocket = require "sluice.spec.websocket"

local PATIENCE_S = 10        -- of real time, to come to rest
local RESPONSE_S = 3600      -- of the spec's clock, for a response
local LOOK_AT_CLOCK = 256    -- turns between two looks at the real clock
local START_S = 1767225600   -- 2026-01-01 00:00:00 UTC
local EXACT_STEPS = 2000     -- of advance; the rest of a long way is walked in as many steps at most
local ENDING_STEPS = 200     -- of the clock, for exchanges that still wait when a gateway is closed

local Gateway = {}
Gateway.__index = Gateway

local gateway = {}

local worlds = setmetatable({}, { __index = function(_, name) return require("sluice.spec." .. name) end })

local function copy(options)
  local result = {}
  for key, value in pairs(options) do result[key] = value end
  return result
end

-- ---- The loop ----

local function accept_services(self)
  local any = false
  while true do
    local it = self.world:accept()
    if not it then return any end
    any = true
    self.connections = self.connections + 1
    if it.name == "" then it.name = self.names:name_of(it.address) or "" end
    table.insert(self.links, service.new(self, it, self.connections))
  end
end

local function pump_all(list)
  local moved = false
  for i = #list, 1, -1 do
    local it = list[i]
    if it:pump() then moved = true end
    if it.peer.is_closed then table.remove(list, i) end
  end
  return moved
end

-- One turn for everybody. Whether anything happened.
local function turn(self)
  local busy = self.world:turn()
  if accept_services(self) then busy = true end
  if pump_all(self.links) then busy = true end
  if pump_all(self.clients) then busy = true end
  return busy
end

local function never_rests(self)
  error(("the gateway did not come to rest within %d s; its log:\n%s"):format(PATIENCE_S,
    table.concat(self:log(), "\n")), 0)
end

-- Turns the loop until nothing more happens at this moment of the spec's clock.
function Gateway:settle()
  if self.is_closed then return end
  local turns, deadline = 0, nil
  while turn(self) do
    turns = turns + 1
    if turns % LOOK_AT_CLOCK == 0 then
      deadline = deadline or os.time() + PATIENCE_S
      if os.time() > deadline then never_rests(self) end
    end
  end
end

-- Seconds until something is due, or nil.
local function next_due(self)
  local nearest = self.world:next() or math.huge
  local now = self:now()
  for _, link in ipairs(self.links) do
    local at = link:due()
    if at then nearest = math.min(nearest, math.max(0, at - now)) end
  end
  return nearest < math.huge and nearest or nil
end

-- Moves the clock on to the next thing that is due, or by `least`, at most to `limit` (a moment). False: there is
-- nothing before it.
local function step(self, limit, least)
  local wait = next_due(self)
  local left = limit - self:now()
  if not wait or wait > left then return false end
  self.world:advance(math.min(math.max(wait, least or 1e-6), math.max(left, 1e-6)))
  self:settle()
  return true
end

-- Lets time pass until `condition` gives a true value, and returns that; nil after `seconds` of the spec's clock, or
-- when nothing can happen any more.
function Gateway:run_until(condition, seconds)
  local limit = self:now() + (seconds or RESPONSE_S)
  local deadline = os.time() + PATIENCE_S
  self:settle()
  while true do
    local value = condition()
    if value then return value end
    if not step(self, limit) then
      if seconds then self:advance(math.max(0, limit - self:now())) end
      return condition() or nil
    end
    if os.time() > deadline then never_rests(self) end
  end
end

-- Seconds since 1970 on the spec's clock.
function Gateway:now()
  return self.world:now()
end

-- Moves the clock by so many seconds; what falls due on the way happens in its order. On a way with thousands of
-- things (a year, with a timer each second) the later ones happen late, as with a process that was held up.
function Gateway:advance(seconds)
  local limit = self:now() + seconds
  self:settle()
  local steps, least = 0, nil
  while step(self, limit, least) do
    steps = steps + 1
    if steps == EXACT_STEPS then least = (limit - self:now()) / EXACT_STEPS end
  end
  local left = limit - self:now()
  if left > 0 then self.world:advance(left) end
  self:settle()
end

-- ---- Clients ----

-- A connection to send on (see sluice.spec.client).
function Gateway:connect(options)
  local it = client.new(self, options or {})
  table.insert(self.clients, it)
  return it
end

local function complain(self, request, why)
  error(("no response to %s %s: %s; the gateway's log:\n%s"):format(request.method or "GET", request.path or "/",
    why, table.concat(self:log(), "\n")), 0)
end

-- Sends a request on a connection of its own, and does not wait: `pending:receive()` gives the response.
function Gateway:send(request)
  if type(request) == "string" then request = { path = request } end
  return self:connect(request):send(request)
end

-- A request on a connection of its own, and its response: { status, headers (lower-case names, joined values), fields
-- (list of { name, value }), body, json, trailers, informational }.
-- request: method, path, headers, body (text, or a table that becomes JSON), chunks, host, client_ip, tls.
function Gateway:request(request)
  if type(request) == "string" then request = { path = request } end
  local one = self:send(request)
  local response, why = one:receive()
  one:close()
  if not response then complain(self, request, why) end
  return response
end

-- A WebSocket (see sluice.spec.websocket): socket:send, receive, close, hang_up, and its `response`. nil and the
-- response when it was not to be.
function Gateway:websocket(request)
  return websocket.open(self, request)
end

local function of_method(method, has_body)
  return function(self, path, a, b)
    local body, headers = nil, a
    if has_body then body, headers = a, b end
    return self:request { method = method, path = path, body = body, headers = headers }
  end
end

Gateway.get = of_method("GET", false)       -- (path, headers)
Gateway.head = of_method("HEAD", false)
Gateway.delete = of_method("DELETE", false)
Gateway.options = of_method("OPTIONS", false)
Gateway.post = of_method("POST", true)      -- (path, body, headers)
Gateway.put = of_method("PUT", true)
Gateway.patch = of_method("PATCH", true)

-- ---- What the world says ----

-- Another answer of a service (see sluice.spec.services) from now on.
function Gateway:upstream(name, answer)
  self.services:set(name, answer)
  self.names:mood(name, answer)
end

-- Answers of DNS: name -> address, list of addresses, list of { address, port, priority, weight }, false (no such
-- name), or "fails" (the servers do not answer).
function Gateway:dns(answers)
  self.names:tell(answers)
end

-- Requests that services got, in order; of one service (name, or name:port) when told.
function Gateway:requests(name)
  self:settle()
  return self.services:requests(name)
end

-- Records of a Kafka topic, in order (see sluice.spec.topics).
function Gateway:records(topic)
  self:settle()
  return self.topics:records(topic)
end

-- A record from elsewhere comes into a topic.
function Gateway:produce(topic, record)
  self.topics:produce(topic, record)
  self:settle()
end

-- Records for a topic (nil: for all) fail from now on: "full", "timeout", Kafka's name of an error; nil: no more.
function Gateway:fail_topic(topic, error_name)
  self.topics:fail(topic or "", error_name)
end

-- Lines of the log, those with `pattern` when told.
function Gateway:log(pattern)
  if not self.is_closed then self.log_text = self.world:log() end
  local lines = {}
  for line in self.log_text:gmatch("[^\n]+") do
    if not pattern or line:find(pattern) then lines[#lines + 1] = line end
  end
  return lines
end

-- ---- Configuration ----

-- A new generation while the gateway runs: what is told takes the place of what was told before. True once it is
-- live; nil and the text of `sluice check`, and the running generation stays.
function Gateway:reload(changes)
  local options = copy(self.options)
  for key, value in pairs(changes or {}) do options[key] = value end
  self.topics:tell(changes and changes.topics or {})
  local ok, why = self.world:configure(options, self)
  if not ok then return nil, why end
  self.options = options
  return true
end

-- ---- Life ----

local function start(self)
  local options = self.options
  self.world = worlds[os.getenv("SLUICE_SPEC") == "process" and "outside" or "inside"].new(options)
  self.services = services.new(setup.services(options))
  self.names = names.new(self.world)
  self.topics = topics.new(self.world)
end

local function tell_world(self)
  local options = self.options
  self.names:tell(options.dns or {})
  for name, answer in pairs(self.services.answers) do self.names:mood(name, answer) end
  self.topics:tell(options.topics or {})
end

-- What spec.gateway gives. Raises with the text of `sluice check` when the configuration is not good.
function gateway.new(options)
  local self = setmetatable({ options = copy(options), links = {}, clients = {}, connections = 0 }, Gateway)
  self.options.time, self.options.seed = options.time or START_S, options.seed or 1
  start(self)
  local told, failure = pcall(tell_world, self)
  local ok, why = told, failure
  if told then ok, why = self.world:configure(self.options, self) end
  if ok then return self end
  self:close()
  error(why, 0)
end

-- Clients leave; what still runs behind their exchanges gets time to end.
local function let_end(self)
  for i = #self.clients, 1, -1 do self.clients[i].peer:close() end
  self:settle()
  for _ = 1, ENDING_STEPS do
    if self.world:exchanges_open() == 0 or not step(self, math.huge) then break end
  end
  return self.world:exchanges_open()
end

-- Ends it. Raises when exchanges stay behind: their arenas and handles would never be given back.
function Gateway:close()
  if self.is_closed then return end
  local ok, left = pcall(let_end, self)
  self:log()
  self.is_closed = true
  for _, link in ipairs(self.links) do link.peer.is_closed = true end
  self.world:close()
  if not ok then error(left, 0) end
  if left > 0 then error(("%d exchange%s never ended"):format(left, left > 1 and "s" or ""), 0) end
end

return gateway
