-- SPDX-License-Identifier: Apache-2.0
-- A long topic from its start to one slow client as server-sent events, from a real broker on this machine, on one
-- worker:
--   luajit spec/bench/stream.lua [GIGABYTES]   10 unless told; so much is written to the temporary directory
-- How much memory the worker takes above idle, and whether all comes in order.
local ffi = require "ffi"
local broker = require "spec.support.kafka"
local kafka_client = require "spec.kafka.client"
local measure = require "spec.bench.measure"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local servers = require "spec.bench.servers"

local GIGABYTES = tonumber(arg[1]) or 10
local PARTITIONS, RECORD_BYTES, LIMIT_BYTES, BUFFER = 4, 10000, 64e6, 262144
local COUNT = math.ceil(GIGABYTES * 1e9 / RECORD_BYTES)

local C = kafka_client.C

-- ---- The topic ----

local kafka = broker.start()
local topic = kafka:topic(PARTITIONS)

local function fill()
  local producer = kafka_client.new()
  producer:cluster("main", { ["bootstrap.servers"] = kafka.servers, ["linger.ms"] = "20", ["batch.size"] = "1000000" })
  local filler, sent = ("0123456789abcdef"):rep(RECORD_BYTES / 16), 0
  while sent < COUNT do
    local partition, seq = sent % PARTITIONS, math.floor(sent / PARTITIONS)
    local value = ("%d %d "):format(partition, seq)
    local status = producer:produce { topic = topic, partition = partition, forget = true,
      value = value .. filler:sub(#value + 1) }
    if status == C.BRIDGE_OK then sent = sent + 1 end
    if status ~= C.BRIDGE_OK or sent % 100 == 0 then producer:turn() end
  end
  producer:await("all acknowledged", function() return producer:status().delivered == COUNT end, 600)
  producer:close()
end

local begin = posix.now()
fill()
print(("%.1f GB in %d records, written in %.0f s"):format(COUNT * RECORD_BYTES / 1e9, COUNT, posix.now() - begin))

-- ---- The clients ----

local gw = servers.sluice({
  _format_version = "3.0",
  gateway = { kafka = { main = { ["bootstrap.servers"] = kafka.servers } } },
  routes = {
    { name = "all", paths = { "/all" }, plugins = { { name = "kafka-consume", config = {
      topics = { { name = topic } }, mode = "server-sent-events", auto_offset_reset = "earliest" } } } },
    { name = "live", paths = { "/live" }, plugins = { { name = "kafka-consume", config = {
      topics = { { name = topic } }, mode = "server-sent-events" } } } },
  },
}, {})

local function open(path)
  local socket = assert(net.connect("127.0.0.1", gw.port))
  assert(socket:send("GET " .. path .. " HTTP/1.1\r\nHost: bench.test\r\n\r\n"))
  return socket
end

local scratch = ffi.new("char[?]", BUFFER)
local tail, received, bytes, disorder = "", 0, 0, 0
local expected = { [0] = 0, 0, 0, 0 }

local function take(text)
  text = tail .. text
  local from = 1
  while true do
    local _, last, partition, seq = text:find("\ndata: (%d+) (%d+) ", from)
    if not last then break end
    partition, seq = tonumber(partition), tonumber(seq)
    if seq ~= expected[partition] then disorder = disorder + 1 end
    expected[partition] = seq + 1
    received = received + 1
    from = last + 1
  end
  tail = text:sub(math.max(from, #text - 64))
end

-- Reads for so many seconds, so many bytes a second at most. What was read in the meantime, the greatest memory.
local sampled, greatest = 0, { private = 0, resident = 0 }

local function sample(now)
  if now < sampled + 0.2 then return end
  sampled = now
  greatest.private = math.max(greatest.private, measure.private_bytes(gw.worker))
  greatest.resident = math.max(greatest.resident, measure.resident_bytes(gw.worker))
end

local function read(socket, seconds, rate)
  local start, taken = posix.now(), 0
  while received < COUNT do
    local now = posix.now()
    if now > start + seconds then break end
    sample(now)
    local count = -1
    if taken <= rate * (now - start) then count = tonumber(ffi.C.sys_recv(socket.fd, scratch, BUFFER, 0)) end
    if count == 0 then error("the gateway ended the stream") end
    if count > 0 then
      take(ffi.string(scratch, count))
      taken = taken + count
    else
      posix.pause(0.001)
    end
  end
  bytes = bytes + taken
  return taken
end

-- ---- The run ----

open("/live"):close() -- the plugin's code is loaded, the cluster known
posix.pause(3)
local idle = { private = measure.private_bytes(gw.worker), resident = measure.resident_bytes(gw.worker) }
local worst = 0

local function phase(what, socket, seconds, rate)
  greatest.private, greatest.resident = 0, 0
  local began = posix.now()
  local taken = read(socket, seconds, rate)
  local above, above_resident = greatest.private - idle.private, greatest.resident - idle.resident
  worst = math.max(worst, above_resident)
  print(("%-34s %8.1f MB in %4.0f s: at most %5.1f MB of its own above idle, %5.1f MB resident"):format(what,
    taken / 1e6, posix.now() - began, above / 1e6, above_resident / 1e6))
end

print(("idle: %.1f MB of its own, %.1f MB resident"):format(idle.private / 1e6, idle.resident / 1e6))
local slow = open("/all")
phase("one that reads 1 MB a second", slow, 15, 1e6)
phase("... and stops", slow, 15, 0)
phase("... reads 20 MB a second", slow, 20, 20e6)
phase("... as fast as it can, to the end", slow, 1800, math.huge)
local good = received == COUNT and disorder == 0 and worst < LIMIT_BYTES
print(("%d of %d records, %d out of order; at most %.1f MB above idle (limit %.0f)"):format(received, COUNT, disorder,
  worst / 1e6, LIMIT_BYTES / 1e6))
slow:close()
servers.stop(gw)
kafka:stop()
os.exit(good and 0 or 1)
