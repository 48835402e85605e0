-- SPDX-License-Identifier: Apache-2.0
-- A log's sink that is away for a minute while requests come as fast as they can:
--   luajit spec/bench/sink.lua    requests per CPU-second and latency with the sink there and away, memory, and where
--                                 each entry went: what the sink itself counted, what was dropped, what fitted
local http = require "spec.support.http"
local measure = require "spec.bench.measure"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local servers = require "spec.bench.servers"

local THERE_SECONDS, AWAY_SECONDS, RATE, RATE_SECONDS = 5, 60, 5000, 5
local PUBLISHED_SECONDS = 2 -- after which the metrics say how a queue stands
local MEGABYTE = 1024 * 1024
local BOUND = 64 * MEGABYTE -- of http-log's queue, unless told

local directory = posix.temporary_directory()
os.execute("chmod 777 '" .. directory .. "'")
local sink_port = process.free_port()

-- Writes each body that it gets to a file.
local function start_sink()
  return servers.nginx(servers.OTHER_CORE, sink_port, ([[
  log_format body escape=none '$request_body';
  server {
    listen 127.0.0.1:%d backlog=4096;
    client_max_body_size 64m;
    client_body_buffer_size 64m;
    access_log %s/entries body;
    location / { echo_read_request_body; echo ok; }
  }]]):format(sink_port, directory))
end

local function entries_at_sink()
  local pipe = io.popen(("grep -o '\"started_at\":' '%s/entries' | wc -l"):format(directory))
  local count = tonumber(pipe:read("*l"))
  pipe:close()
  return count
end

local function metric(gw, name)
  local client = assert(http.connect(gw.status_port))
  local body = assert(client:request({ path = "/metrics" })).body
  client:close()
  return tonumber(body:match("\n" .. name .. "{[^}]*} (%d+)")) or 0
end

local origin, sink = servers.origin(), start_sink()
local gw = servers.sluice({ _format_version = "3.0",
  services = { { name = "origin", url = "http://127.0.0.1:" .. origin.port,
    routes = { { name = "all", paths = { "/" } } } } },
  plugins = { { name = "http-log", config = { http_endpoint = "http://127.0.0.1:" .. sink_port .. "/",
    queue = { max_batch_size = 200, max_entries = 1000000, max_retry_time = 300, max_retry_delay = 1 } } } } })
local url = "http://127.0.0.1:" .. gw.port .. "/128"

local function drained()
  process.wait_until(function() return metric(gw, "sluice_queue_length") == 0 end, 120, "an empty queue")
end

-- Full load, then a fixed rate.
local function loaded(what, seconds)
  local result = measure.throughput(gw.worker, { url = url, seconds = seconds })
  local times = measure.latency({ url = url, rate = RATE, seconds = RATE_SECONDS })
  print(("%-6s %7d requests in %2d s, %6.0f per CPU-second; at %d/s p50 %.2f ms, p99 %.2f ms, greatest %.2f ms")
    :format(what, result.requests, seconds, result.per_cpu, RATE, times.p50, times.p99, times.greatest))
  return result.requests + times.count
end

measure.throughput(gw.worker, { url = url, seconds = 1 }) -- warm
drained()
local before, dropped_before = entries_at_sink(), metric(gw, "sluice_queue_dropped_total")
local idle = measure.private_bytes(gw.worker)
loaded("there", THERE_SECONDS)
drained()
local there, dropped_there = entries_at_sink(), metric(gw, "sluice_queue_dropped_total")
servers.stop(sink)
loaded("away", AWAY_SECONDS)
posix.pause(PUBLISHED_SECONDS)
local held, bytes = metric(gw, "sluice_queue_length"), metric(gw, "sluice_queue_bytes")
local memory, dropped_away = measure.private_bytes(gw.worker), metric(gw, "sluice_queue_dropped_total")
sink = start_sink()
drained()
local after = entries_at_sink()
print(("while it was there %d entries arrived, %d were dropped"):format(there - before, dropped_there - dropped_before))
print(("while it was away %d were dropped, the oldest; %d waited, %.1f MB of %d"):format(dropped_away - dropped_there,
  held, bytes / MEGABYTE, BOUND / MEGABYTE))
print(("of those that waited %d arrived when it was back, %d were dropped"):format(after - there,
  metric(gw, "sluice_queue_dropped_total") - dropped_away))
print(("memory of the worker: %.1f MB before, %.1f MB with the queue full"):format(idle / MEGABYTE, memory / MEGABYTE))
servers.stop(gw)
servers.stop(sink)
servers.stop(origin)
process.remove(directory)
os.exit(after - there == held and bytes <= BOUND and 0 or 1, true)
