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
local sender = require "kafka-upstream.sender"
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
  run.reading = true
  run.bell:ring()
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
  local batch = run.sender.batch
  while not run.over do
    local index, err = batch:next(LOOK_S)
    while index do
      run.told[#run.told + 1] = index
      index = batch:next(0)
    end
    if run.told[1] then run.bell:ring() end
    if err == "closed" then return end
    if err == "empty" then run.work:wait(LOOK_S) end
  end
end

-- ---- The one that answers ------------------------------------------------------------------------------------------

local Run = {}
Run.__index = Run

-- What is known about record `number`.
function Run:settle(number, entry)
  self.entries[number] = entry
  if entry.error then self.failed = self.failed + 1 elseif not entry.dropped then self.sent = self.sent + 1 end
end

-- One that is set aside may have to wait for room, and then this runs within itself.
local function take_told(run)
  local told = run.told
  if not told[1] then return end
  run.told = {}
  for i = 1, #told do run.sender:told(told[i]) end
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
  if run.failure then error(run.failure, 0) end
  return run.stream:is_open() and answer(run)
end

-- Until a record may be added. False: the client has left.
local function make_room(run)
  while run.count - run.answered >= WINDOW do
    if not pause(run) then return false end
  end
  return true
end

-- Of the sender, when a record finds no room.
function Run:wait_for_one()
  return pause(self)
end

-- One line becomes a record. False: the client has left.
local function take_line(run, text)
  if not make_room(run) then return false end
  local number, sending = run.count + 1, run.sender
  run.count, run.lines[number] = number, run.splitter.number
  if text == false then
    run:settle(number, { error = "the line is longer than " .. run.splitter.most .. " bytes", status = 413 })
    return true
  end
  local idle = sending.waiting == 0
  local made, refusal = sender.make(run.plan, sources.element(run.values, text))
  if made then sending:add(number, made, text) else sending:none(number, refusal, text) end
  if idle and sending.waiting > 0 then run.work:ring() end
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

-- A helper that failed would be waited for in vain.
local function start_helpers(run, plan)
  local helpers = together.new { on_end = function(_, _, err)
    if err then
      run.failure = err
      run.bell:ring()
    end
  end }
  assert(helpers:start("reader", read, run))
  if plan.wait then assert(helpers:start("teller", tell, run)) end
end

local function close(run, err)
  run.over = true
  run.room:ring()
  run.work:ring()
  run.sender:close(err)
end

local function new_run(plan, exchange, line_most)
  local prefer = exchange.request:get_header("prefer")
  local run = setmetatable({
    plan = plan, exchange = exchange, values = sources.values(exchange, ""), splitter = lines.splitter(line_most),
    minimal = prefer ~= nil and find(prefer, "return=minimal", 1, true) ~= nil,
    bell = bell.new(), room = bell.new(), work = bell.new(), inbox = false, told = {}, entries = {},
    lines = {}, count = 0, answered = 0, sent = 0, failed = 0, over = false, body_ended = false, failure = false,
    reading = false,
  }, Run)
  local err
  run.sender, err = sender.new(plan, exchange, run)
  return run.sender and run, err
end

-- Content that comes behind the beginning of the answer finds its reader; and a client that waits for an invitation
-- must not take the answer for a refusal.
local function wait_for_content(run)
  while not run.reading and not run.failure do run.bell:wait(LOOK_S) end
  if not run.exchange.request:get_header("expect") then return end
  while not run.inbox and not run.body_ended and not run.failure do run.bell:wait(LOOK_S) end
end

-- A function that serves a request whose body is lines.
---@param plan table
---@param line_most integer bytes of a line
---@return fun(exchange: sluice.exchange): integer|nil, table, table
function lines.compile(plan, line_most)
  return function(exchange)
    local run, why = new_run(plan, exchange, line_most)
    if not run then return answers.not_sent(exchange, answers.failed(why, "full"), plan.topic) end
    start_helpers(run, plan)
    wait_for_content(run)
    run.stream = exchange.response:stream(200, HEADERS)
    local ok, err = pcall(work, run)
    close(run, not ok and tostring(err) or run.body_error)
    run.stream:finish()
    if not ok then error(err, 0) end
  end
end

return lines
