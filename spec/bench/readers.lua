-- SPDX-License-Identifier: Apache-2.0
-- Many readers of one topic as server-sent events, from a real broker on this machine, on one worker:
--   luajit spec/bench/readers.lua [READERS] [EVENTS A SECOND] [SECONDS]   1000, 100, 10 unless told
-- Whether all get all in order, how late, what CPU and how much memory a reader costs, and how often the broker serves
-- the topic; then how soon all have everything when they come back, with their ids, to a gateway that was killed.
local ffi = require "ffi"
local cjson = require "cjson"
local broker = require "spec.support.kafka"
local kafka_client = require "spec.kafka.client"
local measure = require "spec.bench.measure"
local net = require "spec.support.net"
local posix = require "spec.support.posix"
local servers = require "spec.bench.servers"

local READERS, RATE, SECONDS = tonumber(arg[1]) or 1000, tonumber(arg[2]) or 100, tonumber(arg[3]) or 10
local WARM, PARTITIONS, LIMIT, BUFFER = 100, 4, 8192, 65536
local EPOLL_ADD, EPOLL_IN = 1, 1

ffi.cdef [[
  struct sys_epoll_event { uint32_t events; uint64_t data; } __attribute__((packed));
  int sys_epoll_create(int) __asm__("epoll_create1");
  int sys_epoll_ctl(int, int, int, struct sys_epoll_event *) __asm__("epoll_ctl");
  int sys_epoll_wait(int, struct sys_epoll_event *, int, int) __asm__("epoll_wait");
]]

local C = ffi.C

-- What waits for the collector is no reader's: it goes before memory is looked at.
local COLLECT = [[
local collect = { version = "1.0.0", priority = 1 }
function collect.access(conf, exchange)
  collectgarbage()
  collectgarbage()
  exchange.response:exit(200)
end
return collect
]]

-- ---- The readers: one epoll over all of them ----

local epoll = C.sys_epoll_create(0)
local readers, sockets = {}, {} -- by descriptor
local scratch, ready = ffi.new("char[?]", BUFFER), ffi.new("struct sys_epoll_event[256]")
local received, disorder = 0, 0
local delays = {}

-- `reader`: one that comes back.
local function open(gw, reader)
  local socket = assert(net.connect("127.0.0.1", gw.port))
  local id = reader and reader.id and "Last-Event-ID: " .. reader.id .. "\r\n" or ""
  assert(socket:send("GET /live HTTP/1.1\r\nHost: bench.test\r\n" .. id .. "\r\n"))
  local event = ffi.new("struct sys_epoll_event", { events = EPOLL_IN, data = socket.fd })
  assert(C.sys_epoll_ctl(epoll, EPOLL_ADD, socket.fd, event) == 0)
  readers[socket.fd] = reader or { last = {}, count = 0 }
  readers[socket.fd].text = ""
  sockets[socket.fd] = socket
end

local function take(reader, text, now_us)
  local from = 1
  while true do
    local first, last, id, partition, seq, sent_us = text:find("id: ([^\n]+)\ndata: (%d+) (%d+) (%d+)\n\n", from)
    if not first then break end
    reader.id = id
    partition, seq = tonumber(partition), tonumber(seq)
    if seq ~= (reader.last[partition] or 0) + 1 and reader.last[partition] then disorder = disorder + 1 end
    reader.last[partition] = seq
    reader.count = reader.count + 1
    received = received + 1
    if received % 100 == 0 then delays[#delays + 1] = (now_us - tonumber(sent_us)) / 1000 end
    from = last + 1
  end
  reader.text = #text - from > 4096 and text:sub(-4096) or text:sub(from)
end

local function poll(timeout_ms)
  local count = C.sys_epoll_wait(epoll, ready, 256, timeout_ms)
  local now_us = posix.now() * 1e6
  for i = 0, count - 1 do
    local fd = tonumber(ready[i].data)
    local bytes = tonumber(C.sys_recv(fd, scratch, BUFFER, 0))
    if bytes == 0 then error("the gateway ended a stream") end
    local reader = readers[fd]
    if bytes > 0 then take(reader, reader.text .. ffi.string(scratch, bytes), now_us) end
  end
  return count
end

-- ---- The producer ----

local kafka = broker.start()
local topic = kafka:topic(PARTITIONS)
local producer = kafka_client.new()
producer:cluster("main", { ["bootstrap.servers"] = kafka.servers })
local produced = {}

local function produce()
  local partition = #produced % PARTITIONS
  local seq = (produced[#produced - PARTITIONS + 1] or 0) + 1
  produced[#produced + 1] = seq
  producer:produce { topic = topic, partition = partition, forget = true,
    value = ("%d %d %d"):format(partition, seq, posix.now() * 1e6) }
end

-- Sends `count` records at the rate, and reads until nothing has come for two seconds.
local function flow(count, rate)
  local begin, before, sent = posix.now(), received, 0
  local quiet = begin + 10
  while true do
    local now = posix.now()
    while sent < count and now >= begin + sent / rate do
      produce()
      sent = sent + 1
    end
    producer:turn()
    if poll(2) > 0 then quiet = now + 2 end
    if sent == count and now > quiet then return received - before end
  end
end

-- ---- The run ----

local function start()
  return servers.sluice({
    _format_version = "3.0",
    gateway = { kafka = { main = { ["bootstrap.servers"] = kafka.servers, ["fetch.wait.max.ms"] = 20 } } },
    routes = {
      { name = "live", paths = { "/live" }, plugins = { { name = "kafka-consume", config = {
        topics = { { name = topic } }, mode = "server-sent-events", heartbeat = 60000 } } } },
      { name = "collect", paths = { "/collect" }, plugins = { { name = "collect" } } },
    },
  }, { plugins = { collect = COLLECT }, env = { SLUICE_TRUSTED_PLUGINS = "collect" } })
end

local gw = start()

local function bytes()
  for _ = 1, 3 do assert(gw:get("/collect").status == 200) end
  return measure.private_bytes(gw.worker)
end

local function more(count)
  for _ = 1, count do
    open(gw)
    poll(0)
  end
  flow(PARTITIONS * 5, 50)
end

local function cluster()
  local _, out = gw:command("status", "--json")
  return cjson.decode(out).worker.kafka[1]
end

local function idle()
  more(WARM)
  local before = bytes()
  more(READERS)
  local each = (bytes() - before) / READERS
  print(("an idle reader: %.0f bytes resident (%d of them; limit %d)"):format(each, READERS, LIMIT))
  return each <= LIMIT
end

local function under_load()
  local consumed, cpu, sent = cluster().consumed, posix.cpu_seconds(gw.worker), RATE * SECONDS
  delays, disorder = {}, 0
  local begin = posix.now()
  local got, wanted = flow(sent, RATE), sent * (READERS + WARM)
  local wall, after = posix.now() - begin - 2, cluster()
  cpu = posix.cpu_seconds(gw.worker) - cpu
  table.sort(delays)
  print(("%d of %d events came, %d out of order; %.1f s of CPU for %.1f s: %.1f us an event and reader"):format(got,
    wanted, disorder, cpu, wall, cpu / got * 1e6))
  print(("delay: p50 %.1f ms, p99 %.1f ms, greatest %.1f ms"):format(delays[math.ceil(#delays * 0.5)],
    delays[math.ceil(#delays * 0.99)], delays[#delays]))
  print(("records from the broker: %d for %d produced; consumers: %d"):format(after.consumed - consumed, sent,
    after.consumers))
  return got == wanted and disorder == 0 and after.consumed - consumed == sent
end

-- A gateway that is killed; records come while there is none.
local function restart()
  gw.process:signal(posix.SIGKILL)
  gw.process:wait(5)
  local lost = {}
  for fd, socket in pairs(sockets) do
    lost[#lost + 1] = readers[fd]
    socket:close()
  end
  readers, sockets = {}, {}
  for _ = 1, RATE do produce() end
  gw:stop()
  gw = start()
  return lost
end

local function coming_back()
  local lost = restart()
  local begin, back, wanted = posix.now(), received, RATE * #lost
  for _, reader in ipairs(lost) do
    open(gw, reader)
    poll(0)
  end
  while received - back < wanted and posix.now() < begin + 60 do
    producer:turn()
    poll(10)
  end
  print(("%d of %d events that %d readers had missed came, in %.1f s; %d out of order"):format(received - back, wanted,
    #lost, posix.now() - begin, disorder))
  return received - back == wanted and disorder == 0
end

local good = idle()
good = under_load() and good
good = coming_back() and good
for _, socket in pairs(sockets) do socket:close() end
servers.stop(gw)
producer:close()
kafka:stop()
os.exit(good and 0 or 1)
