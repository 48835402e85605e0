-- SPDX-License-Identifier: Apache-2.0
-- What a scrape of /metrics costs:
--   luajit spec/bench/scrape.lua    10,000 series: CPU per scrape, longest turn of the loop with and without scraping
-- A machine that is shared keeps a process from its core now and then, and not all of that is to be seen from inside:
-- so the longest turn is told beside that of small requests, which take as much CPU and none of which takes long.
local cjson = require "cjson"
local http = require "spec.support.http"
local measure = require "spec.bench.measure"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local servers = require "spec.bench.servers"

local SERIES, SCRAPES, ROUNDS, GAP_SECONDS = 10000, 50, 15, 0.05
local REQUESTS = 150 -- whose CPU is about that of a scrape
local FORGOTTEN_SECONDS = 3.2 -- after which a turn is no recent one

-- Half of the series are counters, half lines of histograms.
local handler = [[
local metrics = require "sluice.metrics"
local fill = { version = "1.0.0", priority = 10 }
local names = { "service", "route", "code" }
local counter = metrics.counter("bench_requests_total", "Of the benchmark.", names)
local histogram = metrics.histogram("bench_latency_ms", "Of the benchmark.", names, { buckets = { 1, 10, 100 } })
function fill.access(_, exchange)
  local first, last = exchange.request:get_path():match("^/(%d+)/(%d+)$")
  for i = tonumber(first), tonumber(last) do
    local service, route = "service-" .. i % 100, "route-of-some-length-" .. i
    if i % 2 == 0 then counter:add(i, service, route, 200) end
    for value = 1, i % 12 == 1 and 4 or 0 do histogram:observe(value * 40, service, route, 200) end
  end
  exchange.response:exit(200, "")
end
return fill
]]

local config = { _format_version = "3.0",
  routes = { { name = "fill", paths = { "/" }, plugins = { { name = "fill" } } } } }

local function make_series(client)
  for first = 1, SERIES, 100 do
    assert(assert(client:request({ path = ("/%d/%d"):format(first, first + 99) })).status == 200)
  end
end

local function get(connection, path)
  local response = assert(connection:request({ path = path }))
  assert(response.status == 200, response.status)
  return response.body
end

-- So many times at even distances: a scrape, or small requests, or nothing. The last body.
local function times(gw, what, count)
  local status, proxy, body = assert(http.connect(gw.status_port)), assert(http.connect(gw.port)), nil
  for _ = 1, count or SCRAPES do
    posix.pause(GAP_SECONDS)
    if what == "scrape" then body = get(status, "/metrics") end
    for _ = 1, what == "requests" and REQUESTS or 0 do get(proxy, "/2/2") end
  end
  status:close()
  proxy:close()
  return body
end

-- The longest turn of the loop in the last second, at least.
local function recent_turn_ms(gw)
  local _, out = gw:command("status", "--json")
  return cjson.decode(out).workers[1].recent_turn_us / 1000
end

-- How long the worker has been kept from its core by others so far.
local function waited_ms(gw)
  local text = process.read_file(("/proc/%d/schedstat"):format(gw.worker))
  return tonumber(text:match("^%d+ (%d+)")) / 1e6
end

-- Milliseconds of CPU, the longest turn, the last body.
local function measured(gw, what)
  posix.pause(FORGOTTEN_SECONDS)
  local before = posix.cpu_seconds(gw.worker)
  local body = times(gw, what)
  local cpu = (posix.cpu_seconds(gw.worker) - before) * 1000
  return cpu, recent_turn_ms(gw), body
end

local function of_all(values)
  local over = 0
  for _, value in ipairs(values) do over = over + (value > 1 and 1 or 0) end
  return ("median %.2f ms, greatest %.2f ms"):format(measure.median(values), math.max(unpack(values))), over
end

local gw = servers.sluice(config, { plugins = { fill = { ["handler.lua"] = handler, ["schema.lua"] = "return {}" } } })
-- Who asks stays off the worker's core: each piece of the body wakes it.
local own_pid = process.read_file("/proc/self/stat"):match("^%d+")
assert(process.run({ "taskset", "-p", "-c", servers.OTHER_CORE, own_pid }) == 0)
local client = assert(http.connect(gw.port))
make_series(client)
recent_turn_ms(gw) -- the first time it loads what tells it
posix.pause(FORGOTTEN_SECONDS)
times(gw, "scrape", 1)
print(("longest turn of the first scrape  %.2f ms"):format(recent_turn_ms(gw)))
local turns, waits, costs, others, body = { idle = {}, scrape = {}, requests = {} }, {}, {}, {}, nil
for number = 1, ROUNDS do
  local idle, requests, cpu
  idle, turns.idle[number] = measured(gw, "nothing")
  requests, turns.requests[number] = measured(gw, "requests")
  local waited = waited_ms(gw)
  cpu, turns.scrape[number], body = measured(gw, "scrape")
  waits[number] = waited_ms(gw) - waited
  costs[number], others[number] = (cpu - idle) / SCRAPES, (requests - idle) / SCRAPES
end
local _, lines = body:gsub("\nbench_", "")
print(("%d series, a body of %d bytes, %d rounds of %d scrapes"):format(lines, #body, ROUNDS, SCRAPES))
print("CPU of a scrape  " .. of_all(costs) .. " (limit 50)")
print(("CPU of %d small requests  %s"):format(REQUESTS, (of_all(others))))
for _, case in ipairs { { "scrape", "scraping (limit 1)" }, { "requests", "small requests come" },
  { "idle", "nothing comes" } } do
  local text, over = of_all(turns[case[1]])
  print(("longest turn of the loop while %s  %s, over 1 ms in %d rounds"):format(case[2], text, over))
end
print("kept from its core by others, in a round of scrapes  " .. of_all(waits))
servers.stop(gw)
