-- SPDX-License-Identifier: Apache-2.0
-- The world of a gateway that runs inside the spec's process: the core is called, and nothing is real but the core.
-- sluice.spec.outside has the same functions for a gateway that is a process of its own.
local ffi = require "ffi"
local core = require "sluice.spec.core"
local files = require "sluice.spec.files"
local setup = require "sluice.spec.setup"
local snapshot = require "sluice.snapshot"

local C = core.C
local LISTENERS = { proxy = C.KIT_PROXY, tls = C.KIT_PROXY_TLS, status = C.KIT_STATUS }
local RECORDS_MOST, HEADERS_MOST = 64, 64

local Inside = {}
Inside.__index = Inside

local inside = {}

-- options: time (seconds since 1970), seed.
function inside.new(options)
  local self = setmetatable({ directory = files.temporary(), revision = 0 }, Inside)
  local raw_options = ffi.new("struct kit_options", { home = core.home, state_dir = self.directory,
    time_s = options.time, seed = options.seed })
  local why = ffi.new("char[512]")
  self.raw = C.kit_new(raw_options, why, 512)
  if self.raw == nil then error("the core does not start: " .. ffi.string(why), 0) end
  self.worker = C.kit_worker(self.raw)
  return self
end

function Inside:close()
  C.kit_free(self.raw)
  files.remove(self.directory)
end

-- ---- The loop ----

-- Whether there was anything to do in one turn.
function Inside:turn()
  return C.kit_turn(self.raw)
end

-- Seconds until the next timer, or nil.
function Inside:next()
  local seconds = C.kit_next(self.raw)
  return seconds >= 0 and seconds or nil
end

-- Seconds since 1970.
function Inside:now()
  return tonumber(C.bridge_now(self.worker))
end

function Inside:advance(seconds)
  C.kit_advance(self.raw, seconds)
end

function Inside:exchanges_open()
  return tonumber(C.bridge_board(self.worker).exchanges_open)
end

function Inside:log()
  local bytes = C.kit_log(self.raw)
  return bytes.data ~= nil and ffi.string(bytes.data, bytes.len) or ""
end

-- ---- Connections ----

local arrival = ffi.new("struct kit_arrival")

-- The next connection of the worker to a service: { peer, name, address, port }, or nil.
function Inside:accept()
  if not C.kit_accept(self.raw, arrival) then return nil end
  return { peer = arrival.peer, port = arrival.port, address = ffi.string(arrival.address),
    name = ffi.string(arrival.name) }
end

-- A client's connection to a listener ("proxy", "tls", "status"): its number, negative when there is none.
function Inside:open_client(listener, address, port, server_name)
  return C.kit_client(self.raw, LISTENERS[listener], address, port, server_name)
end

-- ---- Names and services ----

local records = ffi.new("struct dns_record[?]", RECORDS_MOST)

-- The answer for a name: a list of { address, port, priority, weight }, or a count of 0 (there is none) or -1 (the
-- servers do not answer).
function Inside:name(name, kind, answer)
  local count = answer
  if type(answer) == "table" then
    count = math.min(#answer, RECORDS_MOST)
    for i = 1, count do
      local it, record = answer[i], records[i - 1]
      ffi.copy(record.address, it.address:sub(1, 47))
      record.port, record.priority, record.weight = it.port or 0, it.priority or 0, it.weight or 0
    end
  end
  C.kit_name(self.raw, name, kind, records, count)
end

function Inside:address(name)
  return ffi.string(C.kit_address(self.raw, name))
end

function Inside:mood(address, port, mood)
  C.kit_mood(self.raw, address, port, mood)
end

-- ---- Kafka ----

function Inside:topic(name, partitions)
  C.kit_topic(self.raw, name, partitions)
end

function Inside:fails(name, error_name)
  C.kit_topic_fails(self.raw, name, error_name)
end

local message = ffi.new("struct kafka_message")
local cells = ffi.new("struct bytes[?]", HEADERS_MOST * 2)

local function lay(cell, text)
  cell.data, cell.len = text, text and #text or 0
end

-- record: { key, value, headers (list of { name, value }), partition, timestamp }. False: no such partition.
function Inside:produce(name, record)
  for i, header in ipairs(record.headers) do
    lay(cells[2 * i - 2], header[1])
    lay(cells[2 * i - 1], header[2])
  end
  message.cluster, message.topic = nil, name
  lay(message.key, record.key)
  lay(message.value, record.value)
  message.headers, message.header_count = cells, #record.headers
  message.partition, message.timestamp_ms = record.partition, record.timestamp
  return C.kit_produce(self.raw, message) == 0
end

local function text(bytes)
  if bytes.data == nil then return nil end
  return ffi.string(bytes.data, bytes.len)
end

local view = ffi.new("struct kafka_record")

-- Record `index` (from 0) of a topic: { key, value, headers, partition, offset, timestamp }, or nil.
function Inside:record(name, index)
  if not C.kit_record(self.raw, name, index, view) then return nil end
  local headers = {}
  for i = 0, tonumber(view.header_count) - 1 do
    headers[i + 1] = { text(view.headers[2 * i]), text(view.headers[2 * i + 1]) }
  end
  return { key = text(view.key), value = text(view.value), headers = headers, partition = view.partition,
    offset = tonumber(view.offset), timestamp = tonumber(view.timestamp_ms) }
end

-- ---- Configuration ----

local function report_of(self)
  return ffi.string(C.kit_report(self.raw))
end

-- Brings a configuration live. True, or nil and why not. `gateway:run_until` turns the loop meanwhile.
function Inside:configure(options, gateway)
  local loaded, errors = setup.load(options, self.directory)
  if not loaded then return nil, setup.text(errors) end
  self.revision = self.revision + 1
  local revision = ("%d"):format(self.revision)
  local path = assert(snapshot.write(assert(snapshot.folder(self.directory)), self.revision,
    loaded:records(self.revision)))
  C.kit_stage(self.raw, self.revision, path)
  gateway:run_until(function() return report_of(self):match("^%l+ " .. revision .. "%f[%D]") end, 60)
  local report = report_of(self)
  if report:match("^live " .. revision .. "%f[%D]") then return true end
  return nil, report
end

return inside
