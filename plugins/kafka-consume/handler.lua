-- SPDX-License-Identifier: Apache-2.0
-- A topic as server-sent events. The id of each event names the last record of every partition, so that a client that
-- comes back, to whatever worker or gateway, goes on where it was: the EventSource of a browser does so by itself.
local kafka = require "sluice.kafka"
local events = require "kafka-consume.events"

local consume = { version = "1.0.0", priority = 753 }

-- Nothing on the way may keep or gather events.
local HEADERS = {
  ["Content-Type"] = "text/event-stream", ["Cache-Control"] = "no-store", ["X-Accel-Buffering"] = "no",
}
local LOOK_S = 1 -- how often a reader without records looks whether its client is still there

local states = setmetatable({}, { __mode = "k" }) -- by configuration: cluster, functions, encoded records

local function compile(conf)
  local functions = {}
  for i, code in ipairs(conf.message_by_lua_functions or {}) do
    local chunk, err = loadstring(code, "=message_by_lua_functions[" .. i .. "]")
    local fn = chunk and chunk()
    if type(fn) ~= "function" then
      error("config.message_by_lua_functions[" .. i .. "]: " .. (err or "the code must return a function"), 0)
    end
    functions[i] = fn
  end
  return functions
end

function consume.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local cluster, err = kafka.cluster_of(conf)
    if not cluster then error(err, 0) end
    states[conf] = { cluster = cluster, encode = events.encoder(conf, compile(conf)) }
  end
end

local function refuse(exchange, status, text, topic)
  exchange.response:exit(status, { message = text, topic = topic, request_id = exchange.id },
    status == 503 and { ["Retry-After"] = "1" } or nil)
end

local function wants_events(conf, exchange)
  if conf.mode == "server-sent-events" then return true end
  local accept = exchange.request:get_header("accept")
  return accept ~= nil and accept:find("text/event-stream", 1, true) ~= nil
end

-- Where to begin: behind the last event that the client had, or where the configuration says.
local function start_of(conf, exchange)
  local last = exchange.request:get_header("last-event-id")
  if not last or last == "" then return conf.auto_offset_reset end
  return events.positions(last)
end

local function open(conf, state, exchange)
  local topic = conf.topics[1].name
  local from = start_of(conf, exchange)
  if not from then refuse(exchange, 400, "Last-Event-ID is none of this topic's", topic) end
  local reader, err, code = kafka.reader { cluster = state.cluster, topic = topic, from = from }
  if not reader then refuse(exchange, code == "topic" and 404 or 503, err, topic) end
  return reader
end

-- Sends what is there; false when the client has left.
local function pump(conf, state, reader, stream)
  local quiet_s, heartbeat_s = 0, conf.heartbeat / 1000
  local look_s = math.min(LOOK_S, heartbeat_s)
  while true do
    local record, err = reader:next(look_s)
    local alive
    if record then
      local body = state.encode(record)
      alive, quiet_s = not body or stream:send(events.id(record, reader) .. body), 0
    elseif err == "timeout" then
      quiet_s = quiet_s + look_s
      alive = stream:is_open()
      if alive and quiet_s >= heartbeat_s then
        alive, quiet_s = stream:send(events.HEARTBEAT), 0
      end
    elseif err == "gap" then
      alive = stream:send(events.gap(reader))
    else
      if err ~= "closed" then stream:send(events.failure(err)) end -- else this worker drains: the client comes back
      return
    end
    if not alive then return end
  end
end

function consume.access(conf, exchange)
  local state = states[conf]
  if not wants_events(conf, exchange) then
    refuse(exchange, 501, "this gateway offers a topic as text/event-stream: ask for it by Accept, or set config.mode")
  end
  if exchange.request:get_method() == "HEAD" then exchange.response:exit(200, nil, HEADERS) end
  local reader = open(conf, state, exchange)
  local ok, err = pcall(function()
    local stream = exchange.response:stream(200, HEADERS)
    if stream:send(events.HEARTBEAT) then pump(conf, state, reader, stream) end
    stream:finish()
  end)
  reader:close()
  if not ok then error(err, 0) end
end

return consume
