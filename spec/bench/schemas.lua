-- SPDX-License-Identifier: Apache-2.0
-- What schemas cost: orders of 180 bytes, one a request, into the embedded cluster, as they are and by the schemas of a
-- registry, acknowledged before they are answered. Records per CPU-second of a worker's own thread: what librdkafka's
-- threads take depends on how full its queue is more than on what we do.
--   luajit spec/bench/schemas.lua [SECONDS]   3 unless told
local measure = require "spec.bench.measure"
local process = require "spec.support.process"
local servers = require "spec.bench.servers"
local upstream = require "spec.support.upstream"

local SECONDS = tonumber(arg[1]) or 3
local ORDER = '{"id":7123456,"customer":"c-000123","note":"leave at the door",'
  .. '"lines":[{"sku":"abc-1","count":2,"price":12.5},'
  .. '{"sku":"abd-2","count":1,"price":3.25}],"at":1772352900250,"open":true}'

local registry = upstream.start(function(request, connection)
  if not _G.schema_registry then
    package.path = "lua/?.lua;lua/?/init.lua;" .. package.path
    dofile "lua/sluice/iterate.lua"
    _G.schema_registry = require("spec.support.schema_registry").new()
    _G.schema_registry:add("avro-value", { text = [[{"type":"record","name":"Order","fields":[
      {"name":"id","type":"long"},{"name":"customer","type":"string"},
      {"name":"note","type":["null","string"],"default":null},
      {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
        {"name":"sku","type":"string"},{"name":"count","type":"int"},{"name":"price","type":"double"}]}}},
      {"name":"at","type":"long"},{"name":"open","type":"boolean"}]}]] })
    _G.schema_registry:add("protobuf-value", { type = "PROTOBUF", text = [[syntax = "proto3";
      message Order { int64 id = 1; string customer = 2; string note = 3; repeated Line lines = 4; int64 at = 5;
        bool open = 6; } message Line { string sku = 1; int32 count = 2; double price = 3; }]] })
    _G.schema_registry:add("json-value", { type = "JSON", text = [[{"type":"object","required":["id","customer"],
      "properties":{"id":{"type":"integer"},"customer":{"type":"string","maxLength":20},"note":{"type":"string"},
        "at":{"type":"integer"},"open":{"type":"boolean"},"lines":{"type":"array","items":{"type":"object",
          "properties":{"sku":{"type":"string"},"count":{"type":"integer","minimum":1},
            "price":{"type":"number"}}}}}}]] })
  end
  connection:read_body()
  local answer = _G.schema_registry:handle { method = request.method, path = request.target, headers = request.headers,
    body = request.body }
  connection:respond(answer.status, answer.headers, answer.body)
end)

local NAMES = { "raw", "avro", "protobuf", "json" }
local routes = {}
for i, name in ipairs(NAMES) do
  routes[i] = { name = name, paths = { "/" .. name }, plugins = { { name = "kafka-upstream", config = {
    topic = name, value = "body", schema_registry = name ~= "raw" and {
      confluent = { url = "http://127.0.0.1:" .. registry.port } } or nil } } } }
end

local gw = servers.sluice { _format_version = "3.0", gateway = { kafka = { main = { embedded = true } } },
  routes = routes }
local script = os.tmpname()
process.write_file(script, ('wrk.method = "POST"\nwrk.body = %q\n'):format(ORDER))

local TICKS = 100 -- of a CPU-second, in /proc

local function own_seconds()
  local stat = process.read_file(("/proc/%d/task/%d/stat"):format(gw.worker, gw.worker)):match("%) (.*)$")
  local user, system = stat:match(("%S+ "):rep(11) .. "(%d+) (%d+)")
  return (user + system) / TICKS
end

for _, name in ipairs(NAMES) do
  local load = { url = "http://127.0.0.1:" .. gw.port .. "/" .. name, connections = 64, script = script, seconds = 1 }
  measure.throughput(gw.worker, load)
  load.seconds = SECONDS
  local before = own_seconds()
  local result = measure.round(gw.worker, load)
  print(("%-10s %6.0f records per CPU-second, %6.0f a second"):format(name,
    result.requests / (own_seconds() - before), result.rate))
end

servers.stop(gw)
registry:stop()
os.remove(script)
