-- SPDX-License-Identifier: Apache-2.0
-- What kafka-sink and kafka-request-reply take, with a real broker and everything else on this machine:
--   luajit spec/bench/flow.lua [RECORDS] [SECONDS]   20000, 8 unless told
-- Records out of a topic to a service (another gateway, which answers 200 at once) by one worker; then requests that go
-- through a topic, such a sink, that service and a reply topic, and come back. Needs wrk.
local broker = require "spec.support.kafka"
local kafka_client = require "spec.kafka.client"
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local RECORDS, SECONDS = tonumber(arg[1]) or 20000, tonumber(arg[2]) or 8
local KEYS, BYTES, LIMIT_S = 1000, 200, 60
local TICKS = 100 -- of a second, in /proc

local KAFKA = '_format_version: "3.0"\ngateway: { kafka: { main: { bootstrap.servers: "%s" } } }\n'
local SERVICE = [[
_format_version: "3.0"
routes: [{ name: x, paths: [/x], plugins: [{ name: request-termination, config: { status_code: 200 } }] }]
]]
local SINK = [[
services:
- name: billing
  url: http://127.0.0.1:%d/x
  plugins: [{ name: kafka-sink, config: { topics: [%s], group: %s, max_pending: 2000, %s } }]
]]
local ASK = [[
routes: [{ name: ask, paths: [/ask], plugins: [{ name: kafka-request-reply, config: { topic: %s, reply_topic: %s } }] }]
]]

-- Seconds of CPU that a process has had.
local function cpu(pid)
  local fields = {}
  for word in process.read_file("/proc/" .. pid .. "/stat"):match("%) (.*)"):gmatch("%S+") do
    fields[#fields + 1] = word
  end
  return (tonumber(fields[12]) + tonumber(fields[13])) / TICKS
end

local function resident(pid)
  return tonumber(process.read_file("/proc/" .. pid .. "/status"):match("VmRSS:%s*(%d+)")) / 1024
end

local function fill(shared)
  local client, topic, value = kafka_client.new(), shared:topic(3), ("x"):rep(BYTES)
  client:cluster("main", { ["bootstrap.servers"] = shared.servers, ["linger.ms"] = "5" })
  for i = 1, RECORDS do
    local record = { topic = topic, key = "k" .. i % KEYS, value = value, forget = true }
    while client:produce(record) ~= 0 do client:turn() end
    if i % 100 == 0 then client:turn() end
  end
  client:await("all records in the topic", function() return client:status().delivered == RECORDS end, LIMIT_S)
  client:close()
  return topic
end

local function delivered(gw)
  local text = http.get(gw.status_port, "/metrics").body
  return tonumber(text:match("sluice_kafka_sink_records_total{[^\n]*} (%d+)")) or 0
end

local function measure_sink(shared, service, topic, number, settings)
  local config = KAFKA:format(shared.servers) .. SINK:format(service.port, topic, topic .. "-" .. number, settings)
  local gw = gateway.start(config)
  local pid, first = gw:workers()[1], 0
  while first == 0 do first = delivered(gw) end
  local began, used, last = posix.now(), cpu(pid), first
  while last < RECORDS and posix.now() < began + LIMIT_S do
    posix.pause(0.02)
    last = delivered(gw)
  end
  local seconds, spent = posix.now() - began, cpu(pid) - used
  print(("sink, %s: %.0f records a second, %.0f a CPU-second, %.0f MB"):format(settings, (last - first) / seconds,
    (last - first) / spent, resident(pid)))
  gw:stop()
end

local function measure_replies(shared, service)
  local requests, replies = shared:topic(1), shared:topic(1)
  local head = KAFKA:format(shared.servers)
  local sink = gateway.start(head .. SINK:format(service.port, requests, requests,
    ("concurrency: 64, reply_topics: [%s]"):format(replies)))
  local gw = gateway.start(head .. ASK:format(requests, replies))
  assert(gw:request({ path = "/ask", body = "x" }).status == 200)
  local pid = gw:workers()[1]
  for _, connections in ipairs { 1, 32, 256 } do
    local used = cpu(pid)
    local _, out = process.run({ "wrk", "-t1", "-c" .. connections, "-d" .. SECONDS, "--latency",
      "http://127.0.0.1:" .. gw.port .. "/ask" }, { seconds = SECONDS + 20 })
    local count = tonumber(out:match("(%d+) requests in"))
    local half, most = out:match("\n%s+50%%%s+(%S+)"), out:match("\n%s+99%%%s+(%S+)")
    print(("request-reply, %d connections: %.0f a second, %.0f a CPU-second, 50%% in %s, 99%% in %s, %.0f MB%s"):format(
      connections, count / SECONDS, count / (cpu(pid) - used), half, most, resident(pid),
      out:match("\n%s*(Non%-2xx[^\n]*)") or ""))
  end
  gw:stop()
  sink:stop()
end

local shared = broker.shared()
local service = gateway.start(SERVICE)
local topic = fill(shared)
for number, settings in ipairs { "concurrency: 1", "concurrency: 32", "batch_size: 50, body: record" } do
  measure_sink(shared, service, topic, number, settings)
end
measure_replies(shared, service)
service:stop()
shared:stop()
