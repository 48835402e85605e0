-- SPDX-License-Identifier: Apache-2.0
-- Workers that ask each other: what one of them holds may be asked for by a client whose connection another one has.
--
--   peers.serve("consumers", function(text) return answer(text) end)     -- in `configure`, so in each worker
--   local text, err = peers.call(peers.owner("billing"), "consumers", question, 10)
--
-- Texts cross as they are. A worker that does not run, or has not begun to serve, is waited for: one that ended is made
-- again at once. One that does not come is "away".

local ffi = require "ffi"
local check = require "sluice.api.check"
local core = require "sluice.api.core"
local hash = require "sluice.hash"
local log = require "sluice.log"
local sleep = require "sluice.sleep"
local socket = require "sluice.socket"
local time = require "sluice.time"

local C, worker = core.C, core.worker
local tonumber, pcall, tostring = tonumber, pcall, tostring

local peers = {}

local PATH = "^/peers/([%w._-]+)$"
local LINE_BYTES = 1024
local TEXT_BYTES_MAX = 256 * 1024 * 1024
local AWAY_SECONDS_MAX = 3
local AWAY_PAUSE_S = 0.02 -- between looks for a worker that is away
local IDLE_MAX = 4 -- connections that are kept to each worker

local served = {} -- functions by name
local idle = {}   -- connections by worker

---@return integer of this worker, from 1
function peers.self()
  return C.bridge_worker_id(worker)
end

-- The worker that a name belongs to, the same in each worker as long as their number is.
---@param name string
---@return integer
function peers.owner(name)
  return hash.number(name) % C.bridge_worker_count(worker) + 1
end

-- Answers peers.call with what `fn` gives for the text. It may wait; what it raises is logged.
---@param name string letters, digits, ".", "_" and "-"
---@param fn fun(text: string): string
function peers.serve(name, fn)
  check.string("peers.serve", "name", name)
  check.callable("peers.serve", "fn", fn)
  served[name] = fn
  if C.bridge_worker_count(worker) == 1 then return end
  local status = C.bridge_peers_open(worker)
  if status < 0 then log.warn("workers cannot ask this one", { error = core.reason(status) }) end
end

-- ---- The one that is asked -----------------------------------------------------------------------------------------

-- Of sluice.status_api: true when another worker asks.
---@param exchange sluice.exchange
---@return boolean
function peers.is_asked(exchange)
  return core.number(exchange.handle, core.E.NUMBER_FROM_PEER) == 1
end

---@param exchange sluice.exchange
function peers.handle(exchange)
  local fn = served[exchange.request:get_path():match(PATH) or ""]
  if not fn then return exchange.response:exit(404, "") end
  local text = exchange.request:get_raw_body()
  if not text then return exchange.response:exit(400, "") end
  local ok, answer = pcall(fn, text)
  if not ok then
    log.error("a question of another worker failed", { error = tostring(answer) })
    return exchange.response:exit(500, "")
  end
  return exchange.response:exit(200, answer, { ["Content-Type"] = "application/octet-stream" })
end

-- ---- The one that asks ---------------------------------------------------------------------------------------------

local path_cell = ffi.new("char[256]")

local function connect(id)
  local kept = idle[id]
  while kept and #kept > 0 do
    local connection = table.remove(kept)
    if connection:alive() then return connection end
    connection:close()
  end
  C.bridge_peer_path(worker, id, path_cell, 256)
  return socket.connect(ffi.string(path_cell), 0, { connect_timeout = 5 })
end

local function keep(id, connection)
  idle[id] = idle[id] or {}
  if #idle[id] >= IDLE_MAX then return connection:close() end
  table.insert(idle[id], connection)
end

-- Status and length of an answer, whose fields are ours.
local function read_head(connection)
  local line, err = connection:receive_line(LINE_BYTES)
  local status, length = line and tonumber(line:match("^HTTP/1%.1 (%d+)")), 0
  if not status then return nil, err or "no answer" end
  while true do
    line, err = connection:receive_line(LINE_BYTES)
    if not line then return nil, err end
    if line == "" then return status, length end
    length = tonumber(line:lower():match("^content%-length: (%d+)")) or length
  end
end

local function exchange_texts(connection, name, text)
  local sent, err = connection:send(("POST /peers/%s HTTP/1.1\r\nHost: peer\r\nContent-Length: %d\r\n\r\n"):format(name,
    #text) .. text)
  if not sent then return nil, err end
  local status, length = read_head(connection)
  if not status then return nil, length end
  if length > TEXT_BYTES_MAX then return nil, "too much" end
  local answer = ""
  if length > 0 then
    answer, err = connection:receive_exact(length)
    if not answer then return nil, err end
  end
  return answer, status
end

-- "away" is said before the other one has seen anything of the question.
local function ask(id, name, text, seconds)
  local connection = connect(id)
  if not connection then return nil, "away" end
  connection:set_timeout(seconds)
  local answer, status = exchange_texts(connection, name, text)
  if not answer then
    connection:close()
    return nil, status
  end
  keep(id, connection)
  if status == 404 then return nil, "away" end
  if status ~= 200 then return nil, "failed" end
  return answer
end

-- Asks a worker, and waits.
---@param id integer of the worker
---@param name string
---@param text string
---@param seconds number
---@return string|nil text
---@return "away"|"failed"|string|nil err
function peers.call(id, name, text, seconds)
  check.string("peers.call", "name", name)
  check.string("peers.call", "text", text)
  if id < 1 or id > C.bridge_worker_count(worker) then return nil, "away" end
  local begun = time.monotonic()
  while true do
    local answer, err = ask(id, name, text, seconds)
    local waited = time.monotonic() - begun
    if err ~= "away" or waited + AWAY_PAUSE_S >= math.min(seconds, AWAY_SECONDS_MAX) then return answer, err end
    sleep(AWAY_PAUSE_S)
  end
end

return peers
