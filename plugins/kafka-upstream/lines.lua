-- SPDX-License-Identifier: Apache-2.0
-- A stream of records: each line of the body is one, as it comes, and each has a line in the answer as soon as it and
-- all before it are known. There may be any number of them; memory holds a piece of the body and WINDOW records.
--
--   client --> reader --> inbox --> run --> batch --> Kafka      Whoever has something for `run` rings its bell: the
--   client <------------- stream -- run <-- told <-- teller      reader with a piece, the teller with fates.
--
-- A client that does not read its answers is not read from either.
local answers = require "kafka-upstream.answers"
local bell = require "sluice.bell"
local json = require "sluice.json"
local kafka = require "sluice.kafka"
local sluice = require "sluice"
local sources = require "kafka-upstream.sources"
local together = require "sluice.together"

local find, sub, byte, concat = string.find, string.sub, string.byte, table.concat

local lines = {}

local WINDOW = 1024      -- records without a line in the answer: places of a batch
local TURN = 256         -- lines between looks at the answer
local LOOK_S = 1         -- how often one that waits for more looks whether the client is there
local HEADERS = { ["Content-Type"] = "application/x-ndjson", ["Cache-Control"] = "no-store",
  ["X-Accel-Buffering"] = "no" }
local CR = 13

local TYPES = {
  ["application/x-ndjson"] = true, ["application/ndjson"] = true, ["application/jsonl"] = true,
  ["application/x-jsonlines"] = true, ["application/jsonlines"] = true, ["application/x-json-stream"] = true,
}

-- Whether a request says that its body is lines.
---@return boolean
function lines.are_in(exchange)
  local field = exchange.request:get_header("content-type")
  return field ~= nil and TYPES[field:match("^%s*([^;%s]*)"):lower()] == true
end

-- ---- Lines out of pieces -------------------------------------------------------------------------------------------

local Splitter = {}
Splitter.__index = Splitter

-- `most`: bytes of a line; a longer one is given as false.
function lines.splitter(most)
  return setmetatable({ most = most, piece = "", at = 1, parts = {}, held = 0, number = 0 }, Splitter)
end

function Splitter:feed(piece)
  self.piece, self.at = piece, 1
end

local function hold(self, text)
  self.held = self.held + #text
  if self.held > self.most then
    if self.parts[1] then self.parts = {} end -- it is too long: only its end is still of interest
  elseif text ~= "" then
    self.parts[#self.parts + 1] = text
  end
end

local function release(self)
  local text = self.held <= self.most and concat(self.parts)
  if text and byte(text, -1) == CR then text = sub(text, 1, -2) end
  if self.parts[1] then self.parts = {} end
  self.held, self.number = 0, self.number + 1
  return text
end

-- The next line; false: one that is too long; nil: the piece is used up. self.number is the line's, from 1.
function Splitter:next()
  if self.at > #self.piece then return nil end
  local stop = find(self.piece, "\n", self.at, true)
  hold(self, sub(self.piece, self.at, (stop or 0) - 1))
  if not stop then
    self.piece, self.at = "", 1
    return nil
  end
  self.at = stop + 1
  return release(self)
end

-- The last line, which may have no end.
function Splitter:rest()
  if self.held == 0 then return nil end
  return release(self)
end

-- ---- Those who ring ------------------------------------------------------------------------------------------------

local function read(run)
  while not run.over do
    local piece, err = run.exchange.request:read_body()
    if not piece then
      run.body_ended, run.body_error = true, err
      break
    end
    run.inbox = piece
    run.bell:ring()
    while run.inbox and not run.over do run.room:wait(LOOK_S) end
  end
  run.bell:ring()
end

local function tell(run)
  local batch, told = run.batch, run.told
  while not run.over do
    local index, err = batch:next(LOOK_S)
    while index do
      told[#told + 1] = index
      index = batch:next(0)
    end
    if told[1] then run.bell:ring() end
    if err == "closed" then return end
    if err == "empty" then run.work:wait(LOOK_S) end
  end
end

-- ---- The one that answers ------------------------------------------------------------------------------------------

-- What is known about record `number`.
local function settle(run, number, entry)
  run.entries[number] = entry
  if entry.error then run.failed = run.failed + 1 elseif not entry.dropped then run.sent = run.sent + 1 end
end

local function take_told(run)
  local told = run.told
  for i = 1, #told do
    local index = told[i]
    local number = run.numbers[index]
    local at, err, code = run.batch:result(index)
    run.numbers[index], told[i] = nil, nil
    run.waiting = run.waiting - 1
    settle(run, number, at or answers.entry(err, code))
  end
end

-- Sends the lines of those whose predecessors are all known. False: the client has left.
local function answer(run)
  take_told(run)
  local out, entries, at = {}, run.entries, run.answered + 1
  while entries[at] do
    local entry = entries[at]
    entry.line, entries[at] = run.lines[at], nil
    run.lines[at] = nil
    if not run.minimal or entry.error then out[#out + 1] = json.encode(entry) .. "\n" end
    at = at + 1
  end
  run.answered = at - 1
  if not out[1] then return true end
  return run.stream:send(concat(out))
end

-- Waits for a ring, then sends what has become known. False: the client has left.
local function pause(run)
  run.bell:wait(LOOK_S)
  return run.stream:is_open() and answer(run)
end

-- Until a record may be added. False: the client has left.
local function make_room(run)
  while run.count - run.answered >= WINDOW do
    if not pause(run) then return false end
  end
  return true
end

local function produce(run, number, made)
  if not run.batch then
    local queued, err, code = kafka.send(made)
    return settle(run, number, queued and { topic = made.topic } or answers.entry(err, code))
  end
  local index, err, code = run.batch:add(made)
  while code == "full" and run.waiting > 0 do
    if not pause(run) then return end
    index, err, code = run.batch:add(made)
  end
  if not index then return settle(run, number, answers.entry(err, code)) end
  run.numbers[index] = number
  run.waiting = run.waiting + 1
  if run.waiting == 1 then run.work:ring() end
end

-- One line becomes a record. False: the client has left.
local function take_line(run, text)
  if not make_room(run) then return false end
  local number = run.count + 1
  run.count, run.lines[number] = number, run.splitter.number
  if text == false then
    settle(run, number, { error = "the line is longer than " .. run.splitter.most .. " bytes", status = 413 })
    return true
  end
  local made, refusal = sources.try(run.make, sources.element(run.values, text))
  if refusal then
    settle(run, number, answers.refused_entry(refusal))
  elseif not made then
    settle(run, number, { dropped = true })
  else
    produce(run, number, made)
  end
  return true
end

local function is_record(text)
  return text == false or (text ~= nil and find(text, "%S") ~= nil)
end

-- The piece in the inbox. False: the client has left.
local function take_piece(run)
  local splitter, turn = run.splitter, 0
  splitter:feed(run.inbox)
  run.inbox = false
  run.room:ring()
  local text = splitter:next()
  while text ~= nil do
    if is_record(text) and not take_line(run, text) then return false end
    turn = turn + 1
    if turn % TURN == 0 then
      if not answer(run) then return false end
      sluice.sleep(0) -- others have their turn
    end
    text = splitter:next()
  end
  return answer(run)
end

-- All that comes. False: the client has left.
local function take_body(run)
  while not run.body_ended or run.inbox do
    local there
    if run.inbox then there = take_piece(run) else there = pause(run) end
    if not there then return false end
  end
  local rest = run.splitter:rest()
  if run.body_error or not is_record(rest) then return true end -- half a line is no record
  return take_line(run, rest)
end

local function drain(run)
  if not answer(run) then return false end
  while run.answered < run.count do
    if not pause(run) then return false end
  end
  return true
end

-- Everything up to the last answer.
local function work(run)
  if not take_body(run) or not drain(run) then return end
  local wrong = run.failed > 0 or run.body_error
  run.stream:send(json.encode {
    message = run.body_error and "the body broke off" or "done", sent = run.sent, failed = run.failed,
    dropped = run.count - run.sent - run.failed, error = run.body_error, request_id = wrong and run.exchange.id or nil,
  } .. "\n")
end

local function close(run)
  run.over = true
  run.room:ring()
  run.work:ring()
  if run.batch then run.batch:close() end
end

local function new_run(exchange, options)
  local batch, err
  if options.wait then batch, err = kafka.batch { cluster = options.cluster, timeout = options.timeout } end
  if options.wait and not batch then answers.refuse(exchange, options.topic, err, "full") end
  local prefer = exchange.request:get_header("prefer")
  return {
    exchange = exchange, batch = batch, make = options.make, values = sources.values(exchange, ""),
    splitter = lines.splitter(options.line_most), minimal = prefer ~= nil and find(prefer, "return=minimal", 1, true),
    bell = bell.new(), room = bell.new(), work = bell.new(), inbox = false, told = {}, numbers = {}, entries = {},
    lines = {}, count = 0, answered = 0, waiting = 0, sent = 0, failed = 0, over = false, body_ended = false,
  }
end

-- A function that serves a request whose body is lines.
---@param options { make: function, cluster: string, topic: string, timeout: number, wait: boolean, line_most: integer }
---@return fun(exchange: sluice.exchange)
function lines.compile(options)
  return function(exchange)
    local run = new_run(exchange, options)
    local helpers = together.new()
    assert(helpers:start("reader", read, run))
    if run.batch then assert(helpers:start("teller", tell, run)) end
    -- A client that waits for an invitation must not take the answer for a refusal.
    while exchange.request:get_header("expect") and not run.inbox and not run.body_ended do run.bell:wait(LOOK_S) end
    run.stream = exchange.response:stream(200, HEADERS)
    local ok, err = pcall(work, run)
    close(run)
    run.stream:finish()
    if not ok then error(err, 0) end
  end
end

return lines
