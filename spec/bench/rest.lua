-- SPDX-License-Identifier: Apache-2.0
-- Records of 200 bytes through kafka-rest into a real broker on this machine, each acknowledged before it is answered:
--   luajit spec/bench/rest.lua [SECONDS]   4 unless told
-- Requests per CPU-second of one worker (librdkafka's threads included): v2 and v3, one record a request and many.
local broker = require "spec.support.kafka"
local measure = require "spec.bench.measure"
local process = require "spec.support.process"
local servers = require "spec.bench.servers"

local SECONDS = tonumber(arg[1]) or 4
local MANY = 100
local STRIMZI = 2700 -- requests per CPU-second of its bridge on such a machine, at best

local kafka = broker.start()
local topic = kafka:topic(4)
local gw = servers.sluice {
  _format_version = "3.0", gateway = { kafka = { main = { ["bootstrap.servers"] = kafka.servers } } },
  routes = { { name = "rest", paths = { "/" }, plugins = { { name = "kafka-rest" } } } },
}

local script = os.tmpname()
local value = '{"text":"' .. ("r"):rep(189) .. '"}'

local function show(what, path, content, records, connections, kind)
  process.write_file(script, ('wrk.method = "POST"\nwrk.body = %q\nwrk.headers["Content-Type"] = %q\n'):format(content,
    kind))
  local result = measure.throughput(gw.worker, { url = "http://127.0.0.1:" .. gw.port .. path,
    connections = connections, script = script, seconds = SECONDS })
  print(("%-30s %3d connections: %6.0f records per CPU-second, %6.0f a second; %4.1f times Strimzi's"):format(what,
    connections, result.per_cpu * records, result.rate * records, result.per_cpu / STRIMZI))
end

local V2, V3 = "application/vnd.kafka.json.v2+json", "application/json"
local v2_path = "/topics/" .. topic
local v3_path = "/v3/clusters/c2x1aWNlLXNwZWMta2Fmaw/topics/" .. topic .. "/records"
local one, entry = '{"records":[{"value":' .. value .. "}]}", '{"value":{"type":"JSON","data":' .. value .. "}}"
local list = {}
for i = 1, MANY do list[i] = '{"value":' .. value .. "}" end
local many = '{"records":[' .. table.concat(list, ",") .. "]}"

measure.throughput(gw.worker, { url = "http://127.0.0.1:" .. gw.port .. "/brokers", connections = 4, seconds = 1 })
show("v2, one record:", v2_path, one, 1, 32, V2)
show("v2, one record:", v2_path, one, 1, 256, V2)
show("v2, " .. MANY .. " records:", v2_path, many, MANY, 16, V2)
show("v3, one record:", v3_path, entry, 1, 32, V3)
show("v3, one record:", v3_path, entry, 1, 256, V3)
show("v3, " .. MANY .. " records:", v3_path, entry:rep(MANY), MANY, 16, V3)

os.remove(script)
servers.stop(gw)
kafka:stop()
