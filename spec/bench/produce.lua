-- SPDX-License-Identifier: Apache-2.0
-- Records of 200 bytes, one a request, into a real broker on this machine, each acknowledged before it is answered:
--   luajit spec/bench/produce.lua [SECONDS]   5 unless told
-- Requests per CPU-second of one worker (librdkafka's threads included) with 32 and 256 connections, and latency at
-- half of the load that 256 connections make.
local broker = require "spec.support.kafka"
local measure = require "spec.bench.measure"
local process = require "spec.support.process"
local servers = require "spec.bench.servers"

local SECONDS = tonumber(arg[1]) or 5
local BYTES = 200
local STRIMZI = 2700 -- requests per CPU-second of its bridge on such a machine, at best

local kafka = broker.start()
local topic = kafka:topic(4)
local gw = servers.sluice {
  _format_version = "3.0",
  gateway = { kafka = { main = { ["bootstrap.servers"] = kafka.servers } } },
  routes = { { name = "in", paths = { "/in" },
    plugins = { { name = "kafka-upstream", config = { topic = topic, value = "body" } } } } },
}

local body, script = os.tmpname(), os.tmpname()
process.write_file(body, ("r"):rep(BYTES))
process.write_file(script, ('wrk.method = "POST"\nwrk.body = ("r"):rep(%d)\n'):format(BYTES))

local url = "http://127.0.0.1:" .. gw.port .. "/in"
local floors, rate = { [32] = 10 * STRIMZI, [256] = 30000 }, nil
measure.throughput(gw.worker, { url = url, connections = 64, script = script, seconds = 2 })
for _, connections in ipairs { 32, 256 } do
  local result = measure.throughput(gw.worker,
    { url = url, connections = connections, script = script, seconds = SECONDS })
  print(("%3d connections: %6.0f requests per CPU-second, %6.0f a second; at least %d"):format(connections,
    result.per_cpu, result.rate, floors[connections]))
  rate = result.rate
end
local half = measure.latency { url = url, rate = rate / 2, seconds = SECONDS, data = body }
print(("at %d requests a second: p50 %.2f ms, p99 %.2f ms, greatest %.2f ms"):format(rate / 2, half.p50, half.p99,
  half.greatest))

servers.stop(gw)
kafka:stop()
os.remove(body)
os.remove(script)
