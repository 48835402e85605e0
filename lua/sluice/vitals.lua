-- SPDX-License-Identifier: Apache-2.0
-- What the gateway as a whole has done and is doing: each worker adds what its board says to shared counters, once a
-- second and when it is asked, so that any of them can tell the sums.

local ffi = require "ffi"
local counters = require "sluice.counters"
local core = require "sluice.api.core"
local timer = require "sluice.timer"

local C, worker = core.C, core.worker

jit.off(true, true) -- as in exposition.lua

local vitals = {}

local PERIOD_SECONDS = 1
local PREFIX = "v\1"

-- Grows only: what has been added already is kept here, and a worker that takes a dead one's place begins anew.
local GROWING = { exchanges = "requests", connections = "connections", streams = "streams",
  stream_bytes_in = "stream_bytes_in", stream_bytes_out = "stream_bytes_out" }
-- Of this moment: a cell per worker, which a new worker sets anew.
local PRESENT = { connections_open = "connections_open", exchanges_open = "requests_open",
  streams_open = "streams_open", pid = "pid", lua_bytes = "lua_bytes" }

-- Each stream is an exchange, and none is a request.
local LESS = { exchanges = "streams", exchanges_open = "streams_open" }

local cells, added, said = {}, {}, {}

local function open_cells()
  local mine = "\1" .. C.bridge_worker_id(worker)
  for field, name in pairs(GROWING) do
    cells[field], added[field] = counters.name(PREFIX .. name), 0
  end
  for field, name in pairs(PRESENT) do
    cells[field] = counters.name(PREFIX .. name .. mine)
    said[field] = cells[field] and counters.at(cells[field])
  end
end

local function reading(board, field)
  if field == "lua_bytes" then return math.floor(collectgarbage("count") * 1024) end
  return tonumber(board[field]) - (LESS[field] and tonumber(board[LESS[field]]) or 0)
end

-- Brings the shared numbers up to date with this worker's.
function vitals.publish()
  if not next(cells) then open_cells() end
  local board = C.bridge_board(worker)
  for field in pairs(GROWING) do
    local now = tonumber(board[field])
    if cells[field] and now ~= added[field] then counters.add_at(cells[field], now - added[field]) end
    added[field] = now
  end
  for field in pairs(PRESENT) do
    local now = reading(board, field)
    if cells[field] and now ~= said[field] then counters.add_at(cells[field], now - said[field]) end
    said[field] = now
  end
end

local shared, names, workers = {}, {}, {} -- what all workers' cells are named

local look_for_cells = counters.watch(PREFIX, function(handle, key, len)
  local name, id = ffi.string(key, len):match("^v\1([^\1]*)\1?(%d*)$")
  if not name then return end
  shared[#shared + 1], names[#names + 1], workers[#workers + 1] = handle, name, tonumber(id) or false
end)

---@return table<string, integer> of all workers: requests, connections, streams, connections_open, requests_open,
---streams_open, stream_bytes_in, stream_bytes_out
---@param pause? fun() called now and then
function vitals.totals(pause)
  vitals.publish()
  local totals = { requests = 0, connections = 0, connections_open = 0, requests_open = 0, streams = 0,
    streams_open = 0, stream_bytes_in = 0, stream_bytes_out = 0 }
  look_for_cells(pause)
  for i, name in ipairs(names) do
    if totals[name] then totals[name] = totals[name] + counters.at(shared[i]) end
  end
  return totals
end

-- What each worker said last, in the order of their numbers.
---@return { id: integer, pid: integer, lua_bytes: integer, connections_open: integer, requests_open: integer }[]
---@param pause? fun() called now and then
function vitals.workers(pause)
  vitals.publish()
  local by_id, list = {}, {}
  look_for_cells(pause)
  for i, name in ipairs(names) do
    local id = workers[i]
    if id then
      local one = by_id[id] or { id = id }
      one[name] = counters.at(shared[i])
      if not by_id[id] then list[#list + 1] = one end
      by_id[id] = one
    end
  end
  table.sort(list, function(a, b) return a.id < b.id end)
  return list
end

-- Called once, when the worker starts.
function vitals.start()
  vitals.publish()
  timer.every(PERIOD_SECONDS, vitals.publish)
end

return vitals
