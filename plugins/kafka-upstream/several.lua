-- SPDX-License-Identifier: Apache-2.0
-- A request that becomes several records: the elements of a JSON array, the lines of a stream, a batch of CloudEvents,
-- or one record for each topic that it names.
local answers = require "kafka-upstream.answers"
local elements = require "sluice.json_elements"
local events = require "kafka-upstream.events"
local json = require "sluice.json"
local lines = require "kafka-upstream.lines"
local record = require "kafka-upstream.record"
local sender = require "kafka-upstream.sender"
local sleep = require "sluice.sleep"
local sources = require "kafka-upstream.sources"

local several = {}

local TURN = 256           -- elements of a batch that are worked on at one go
local ELEMENTS_TURN = 4096 -- that are told apart at one go

-- ---- Which parts a body has ----------------------------------------------------------------------------------------

local function path_of(conf)
  if not conf.batch_at then return nil end
  local path = {}
  for name in conf.batch_at:gmatch("[^.]+") do path[#path + 1] = name end
  return path
end

local function is_json(exchange)
  local kind = (exchange.request:get_header("content-type") or ""):match("^%s*([^;%s]*)"):lower()
  return kind == "application/json" or kind:sub(-5) == "+json"
end

local CANNOT = { syntax = "the body is no JSON", path = "the body holds no array of records" }

local function too_many(conf)
  sources.refuse(413, "a batch has at most " .. conf.batch_most .. " records", { field = "batch" })
end

-- Of a long work one piece after the other, between which others have their turn.
local function pieces(conf)
  return { most = conf.batch_most, pause = function() sleep(0) end, too_many = function() too_many(conf) end }
end

-- Values of the elements; nil: the body is one record. Raises a refusal.
local function splitter(conf)
  if conf.batch ~= "array" and conf.batch ~= "auto" then return nil end
  local path, auto, options = path_of(conf), conf.batch == "auto", pieces(conf)
  return function(values)
    if auto and not (is_json(values.exchange) and (path or values.text:find("^%s*%["))) then return nil end
    local texts, decoded, code = elements.of(values.text, path, options)
    if not texts then
      if auto and code == "path" then return nil end
      if code == "many" then too_many(conf) end
      sources.refuse(code == "syntax" and 400 or 422, CANNOT[code], { error = decoded, field = "batch" })
    end
    local list = {}
    for i = 1, #texts do
      list[i] = sources.element(values, texts[i], decoded[i])
      if i % ELEMENTS_TURN == 0 then sleep(0) end
    end
    return list
  end
end

-- What a request asks for: values of its records, or of its only one; and topics (nil: the configured one).
local function reader(conf)
  local split, read_events = splitter(conf), conf.cloudevents and events.reader(pieces(conf))
  local topics_of = conf.topics_query_arg and record.topics_of(conf)
  return function(values)
    local asked = { topics = topics_of and topics_of(values.exchange) or nil }
    if read_events then asked.list, asked.one = read_events(values) end
    if not asked.list and not asked.one then asked.list = split and split(values) or nil end
    asked.one = asked.one or values
    return asked
  end
end

-- ---- Their answer --------------------------------------------------------------------------------------------------

local Many = {}
Many.__index = Many

function Many:settle(place, entry)
  if entry.error then self.failed = self.failed + 1 elseif not entry.dropped then self.sent = self.sent + 1 end
  self.entries[place] = entry
end

function Many:wait_for_one()
  local index = self.sender.batch:next()
  if not index then return false end
  self.sender:told(index)
  return true
end

local function copy_to(made, topic)
  local copy = {}
  for name, value in pairs(made) do copy[name] = value end
  copy.topic = topic
  if made.headers then
    copy.headers = {}
    for i, header in ipairs(made.headers) do copy.headers[i] = header end
  end
  return copy
end

function Many:take(made, refusal, text, topics)
  if not made or not topics then
    self.count = self.count + 1
    if made then self.sender:add(self.count, made, text) else self.sender:none(self.count, refusal, text) end
    return
  end
  for i = 1, #topics do
    self.count = self.count + 1
    self.sender:add(self.count, copy_to(made, topics[i]), text)
  end
end

-- The status that all failures have in common, or 207 where some went well or they differ.
local function common_status(entries)
  local status
  for _, entry in ipairs(entries) do
    if not entry.status or (status and status ~= entry.status) then return 207 end
    status = entry.status
  end
  return status
end

function Many:answer(plan)
  local told = 0
  while self.sender.waiting > 0 and self:wait_for_one() do
    told = told + 1
    if told % TURN == 0 then sleep(0) end
  end
  self.sender:close()
  local fine = self.failed == 0
  local status = fine and (plan.wait and 200 or 202) or common_status(self.entries)
  return status, {
    message = fine and "messages sent" or "not all messages were sent", sent = self.sent, failed = self.failed,
    records = self.entries, request_id = not fine and self.exchange.id or nil,
  }, answers.headers(status)
end

-- An answer of many entries as text, made in pieces: status, body, fields.
local function in_pieces(status, body, headers)
  local entries, parts = body.records, {}
  if #entries <= ELEMENTS_TURN then return status, body, headers end
  for first = 1, #entries, ELEMENTS_TURN do
    local piece = json.array()
    for i = first, math.min(first + ELEMENTS_TURN - 1, #entries) do piece[#piece + 1] = entries[i] end
    parts[#parts + 1] = json.encode(piece):sub(2, -2)
    sleep(0)
  end
  body.records = nil
  local text = json.encode(body):sub(1, -2) .. ',"records":[' .. table.concat(parts, ",") .. "]}"
  return status, text, { ["Content-Type"] = "application/json; charset=utf-8",
    ["Retry-After"] = headers and headers["Retry-After"] }
end

local function send_all(plan, exchange, asked)
  local many = setmetatable({ exchange = exchange, entries = json.array(), count = 0, sent = 0, failed = 0 }, Many)
  local sending, err = sender.new(plan, exchange, many)
  if not sending then return answers.not_sent(exchange, answers.failed(err, "full"), plan.topic) end
  many.sender = sending
  local list, made, refusals = asked.list or { asked.one }, {}, {}
  -- Before the first goes out all are made: a plugin or a function may still answer the whole request.
  for i = 1, #list do
    local it, refusal = sender.make(plan, list[i])
    made[i], refusals[i] = it or false, refusal or false
    if i % TURN == 0 then sleep(0) end -- others have their turn
  end
  for i = 1, #list do
    many:take(made[i], refusals[i], list[i].text, asked.topics)
    if i % TURN == 0 then sleep(0) end
  end
  return in_pieces(many:answer(plan))
end

-- A stream goes to one topic, which the query may name.
local function stream_maker(conf, make)
  local topics_of = conf.topics_query_arg and record.topics_of(conf)
  if not topics_of then return make end
  return function(values)
    local made, dropped = make(values)
    local topics = made and topics_of(values.exchange)
    if topics and topics[2] then sources.refuse(422, "a stream goes to one topic", { field = "topics_query_arg" }) end
    if topics then made.topic = topics[1] end
    return made, dropped
  end
end

local function stream_of(conf, plan)
  if conf.batch ~= "lines" and conf.batch ~= "auto" then return nil end
  local own = setmetatable({ make = stream_maker(conf, plan.make) }, { __index = plan })
  return lines.compile(own, conf.batch_line_most)
end

---@param conf table
---@param plan table
---@return fun(exchange: sluice.exchange): integer|nil, table, table
function several.compile(conf, plan)
  local stream, auto = stream_of(conf, plan), conf.batch == "auto"
  if stream and not auto then return stream end
  local read = reader(conf)
  return function(exchange)
    if auto and lines.are_in(exchange) then return stream(exchange) end
    local values = sources.values(exchange, sources.body_of(conf, exchange))
    local asked, refusal = sources.try(read, values)
    if refusal then return sender.refuse(plan, exchange, refusal, values.text) end
    local topics = asked.topics
    if asked.list or (topics and topics[2]) then return send_all(plan, exchange, asked) end
    return sender.one(plan, asked.one, topics and topics[1])
  end
end

return several
