-- SPDX-License-Identifier: Apache-2.0
-- Records of 200 bytes, one a request, into a real broker on this machine, each acknowledged before it is answered:
--   luajit spec/bench/produce.lua [SECONDS]   5 unless told
-- Requests per CPU-second of one worker (librdkafka's threads included) with 32 and 256 connections, and latency at
-- half of the load that 256 connections make; then what keys, batches and streams come to.
local broker = require "spec.support.kafka"
local measure = require "spec.bench.measure"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local servers = require "spec.bench.servers"

local SECONDS = tonumber(arg[1]) or 5
local BYTES = 200
local STRIMZI = 2700 -- requests per CPU-second of its bridge on such a machine, at best

local kafka = broker.start()
local topic = kafka:topic(4)
local routes = {}

local function route(name, config)
  config.topic, config.value = topic, "body"
  routes[#routes + 1] = { name = name, paths = { "/" .. name },
    plugins = { { name = "kafka-upstream", config = config } } }
end

route("in", {})
route("header", { key = "$(headers.x_order)", headers = { tenant = "$(headers.x_tenant)" } })
route("member", { key = "$(body.id)" })
route("array", { batch = "array" })
route("lines", { batch = "lines" })

local gw = servers.sluice {
  _format_version = "3.0", gateway = { kafka = { main = { ["bootstrap.servers"] = kafka.servers } } }, routes = routes,
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

-- ---- What else a record may cost -----------------------------------------------------------------------------------

local RECORD = '{"id":"%d","text":"' .. ("r"):rep(BYTES - 24) .. '"}'
local ARRAY, LINES = 100, 200000

local function wrk_script(content)
  process.write_file(script, ('wrk.method = "POST"\nwrk.body = %q\nwrk.headers["X-Order"] = "17"\n'):format(content))
end

local function show(what, name, content, records)
  wrk_script(content)
  local result = measure.throughput(gw.worker, { url = "http://127.0.0.1:" .. gw.port .. "/" .. name,
    connections = records == 1 and 256 or 16, script = script, seconds = SECONDS })
  print(("%-34s %6.0f records per CPU-second, %6.0f a second"):format(what, result.per_cpu * records,
    result.rate * records))
end

local array = {}
for i = 1, ARRAY do array[i] = RECORD:format(i) end
show("key and a header from fields:", "header", RECORD:format(1), 1)
show("key from the body:", "member", RECORD:format(1), 1)
show("arrays of " .. ARRAY .. ":", "array", "[" .. table.concat(array, ",") .. "]", ARRAY)

local file = assert(io.open(body, "w"))
for i = 1, LINES do file:write(RECORD:format(i), "\n") end
file:close()
local before, began = posix.cpu_seconds(gw.worker), posix.now()
local status, out = process.run({ "taskset", "-c", servers.OTHER_CORE, "curl", "-sN", "-X", "POST", "-T", body,
  "http://127.0.0.1:" .. gw.port .. "/lines" }, { seconds = 120 })
assert(status == 0 and out:find('"sent":' .. LINES, 1, true), "not all lines were sent")
print(("%-34s %6.0f records per CPU-second, %6.0f a second"):format("a stream of " .. LINES .. " lines:",
  LINES / (posix.cpu_seconds(gw.worker) - before), LINES / (posix.now() - began)))

servers.stop(gw)
kafka:stop()
os.remove(body)
os.remove(script)
