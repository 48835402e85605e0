-- SPDX-License-Identifier: Apache-2.0
-- `sluice top`: what happened between two looks at the workers' boards. The master reads them; no worker is asked, but
-- where there are Kafka clusters: what these do is told by one worker for all of them.

local columns = require "sluice.cli.columns"
local ffi = require "ffi"
local gateway = require "sluice.cli.gateway"
local json = require "sluice.json"
local options = require "sluice.cli.options"

local top = {}

local PATIENCE_S = 10
local LEAST_S, MOST_S = 0.1, 3600
local TICKS = 100 -- of /proc, a second
local CLEAR = "\27[H\27[2J"

pcall(ffi.cdef, [[int sluice_top_poll(void *, unsigned long, int) __asm__("poll");]])

local function pause(seconds)
  ffi.C.sluice_top_poll(nil, 0, math.ceil(seconds * 1000))
end

-- Seconds of CPU that a process has used; nil when it has gone.
local function cpu_of(pid)
  local file = io.open("/proc/" .. pid .. "/stat")
  local text = file and file:read("*a")
  if file then file:close() end
  local user, system = (text or ""):match("%) %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ (%d+) (%d+)")
  return user and (user + system) / TICKS
end

-- What all workers have done with each cluster; nil where there is none, or no worker answers.
local function clusters_of(host, files)
  local state = gateway.ask(host, files, "status", PATIENCE_S)
  local worker = state and type(state.worker) == "table" and state.worker
  local list = worker and type(worker.kafka) == "table" and worker.kafka
  if not list or not list[1] then return nil end
  return list, state.started_at + state.uptime
end

local function look(host, files, with_kafka)
  local seen, why = gateway.ask(host, files, "top", PATIENCE_S)
  if not seen then return nil, why end
  for _, worker in ipairs(seen.workers) do worker.cpu = cpu_of(worker.pid) end
  if with_kafka then seen.kafka, seen.kafka_at = clusters_of(host, files) end
  return seen
end

-- ---- Differences ----

-- Microseconds at the upper end of a step, as core/exchange.c counts them.
local function end_of(step)
  if step < 4 then return step + 1 end
  local doublings, part = math.floor(step / 4) + 1, step % 4
  return 2 ^ doublings + (part + 1) * 2 ^ (doublings - 2)
end
top.end_of = end_of

local function less(now, before)
  local list = {}
  for i, value in ipairs(now) do list[i] = value - (before and before[i] or 0) end
  return list
end

-- Milliseconds below which that share of the requests stayed; nil without requests.
local function quantile(steps, total, share)
  local sum = 0
  for i, count in ipairs(steps) do
    sum = sum + count
    if total > 0 and sum >= total * share then return end_of(i - 1) / 1000 end
  end
end

local function sum_of(list)
  local sum = 0
  for _, value in ipairs(list) do sum = sum + value end
  return sum
end

local function add_to(sums, list)
  for i, value in ipairs(list) do sums[i] = (sums[i] or 0) + value end
end

local function by_pid(workers)
  local map = {}
  for _, worker in ipairs(workers) do map[worker.pid] = worker end
  return map
end

local function add_plugins(all, worker, before)
  local known = {}
  for _, plugin in ipairs(before and before.plugins or {}) do known[plugin.name] = plugin end
  for _, plugin in ipairs(worker.plugins) do
    local old = known[plugin.name] or {}
    local one = all[plugin.name] or { name = plugin.name, calls = 0, errors = 0, stops = 0, cpu_us = 0 }
    all[plugin.name] = one
    for _, field in ipairs { "calls", "errors", "stops", "cpu_us" } do
      one[field] = one[field] + plugin[field] - (old[field] or 0)
    end
  end
end

local function plugin_rates(all, seconds)
  local list = {}
  for _, one in pairs(all) do
    list[#list + 1] = { name = one.name, calls_per_second = one.calls / seconds, errors = one.errors,
      stops = one.stops, cpu = one.cpu_us / 1e6 / seconds,
      us_per_call = one.calls > 0 and one.cpu_us / one.calls or nil }
  end
  table.sort(list, function(a, b)
    if a.cpu ~= b.cpu then return a.cpu > b.cpu end
    if a.calls_per_second ~= b.calls_per_second then return a.calls_per_second > b.calls_per_second end
    return a.name < b.name
  end)
  return list
end

local function worker_rates(worker, before, seconds)
  return {
    id = worker.id, pid = worker.pid, state = worker.state, requests_open = worker.requests_open,
    connections_open = worker.connections_open, longest_turn_ms = worker.longest_turn_us / 1000,
    requests_per_second = (worker.requests - (before and before.requests or 0)) / seconds,
    connections_per_second = (worker.connections - (before and before.connections or 0)) / seconds,
    cpu = worker.cpu and (worker.cpu - (before and before.cpu or 0)) / seconds or nil,
  }
end

-- Seconds below which that share of the acknowledgements came; nil without any, math.huge: more than is told apart.
local function latency_below(now, before, share)
  local counts, total = {}, 0
  for i, bucket in ipairs(now or {}) do
    counts[i] = bucket.count - (before and before[i] and before[i].count or 0)
    total = total + counts[i]
  end
  local sum = 0
  for i, count in ipairs(counts) do
    sum = sum + count
    if total > 0 and sum >= total * share then return tonumber(now[i].bound) or math.huge end
  end
end

local KAFKA_RATES = { "produced", "produced_bytes", "failed", "refused", "consumed", "consumed_bytes" }

local function cluster_rates(cluster, old, seconds)
  local all, known = cluster.all, type(old.all) == "table" and old.all or {}
  local one = { name = cluster.name, state = cluster.state, queued = all.queued, readers = all.readers, lag = all.lag,
    latency_ms = {} }
  for _, field in ipairs(KAFKA_RATES) do
    one[field .. "_per_second"] = math.max(0, all[field] - (known[field] or 0)) / seconds
  end
  for name, share in pairs { p50 = 0.5, p99 = 0.99 } do
    local below = latency_below(all.latency, known.latency, share)
    one.latency_ms[name] = below and below < math.huge and below * 1000 or nil
  end
  return one
end

local function kafka_rates(before, now)
  if not now.kafka or not before.kafka then return nil end
  local known, list = {}, {}
  for _, cluster in ipairs(before.kafka) do known[cluster.name] = cluster end
  local seconds = math.max(now.kafka_at - before.kafka_at, 1e-3)
  for _, cluster in ipairs(now.kafka) do
    if type(cluster.all) == "table" and known[cluster.name] then
      list[#list + 1] = cluster_rates(cluster, known[cluster.name], seconds)
    end
  end
  return list
end

-- What happened between two looks.
---@param before table
---@param now table
---@return table
function top.between(before, now)
  local seconds = math.max(now.time - before.time, 1e-3)
  local old, statuses, steps, plugins, workers = by_pid(before.workers), {}, {}, {}, {}
  for i, worker in ipairs(now.workers) do
    local known = old[worker.pid]
    workers[i] = worker_rates(worker, known, seconds)
    add_to(statuses, less(worker.statuses, known and known.statuses))
    add_to(steps, less(worker.latencies, known and known.latencies))
    add_plugins(plugins, worker, known)
  end
  local ended, timed, rates = sum_of(statuses), sum_of(steps), {}
  for digit = 1, 5 do rates[digit .. "xx"] = (statuses[digit + 1] or 0) / seconds end
  return {
    seconds = seconds, requests_per_second = ended / seconds, statuses_per_second = rates, workers = workers,
    unanswered_per_second = (statuses[1] or 0) / seconds, plugins = plugin_rates(plugins, seconds),
    kafka = kafka_rates(before, now),
    latency_ms = { p50 = quantile(steps, timed, 0.5), p90 = quantile(steps, timed, 0.9),
      p99 = quantile(steps, timed, 0.99), greatest = quantile(steps, timed, 1) },
  }
end

-- ---- The screen ----

local function rate(value)
  return value >= 100 and ("%.0f"):format(value) or ("%.1f"):format(value)
end

local function percent(value)
  return value and ("%.1f %%"):format(value * 100) or ""
end

local function ms(value)
  if not value then return "-" end
  return value < 10 and ("%.2f ms"):format(value) or ("%.0f ms"):format(value)
end

local function put_kafka(out, clusters)
  local rows = {}
  for i, one in ipairs(clusters) do
    rows[i] = { one.name, one.state, rate(one.produced_per_second), columns.bytes(one.produced_bytes_per_second),
      rate(one.failed_per_second + one.refused_per_second), ms(one.latency_ms.p50), ms(one.latency_ms.p99),
      rate(one.consumed_per_second), columns.bytes(one.consumed_bytes_per_second), ("%.0f"):format(one.queued),
      ("%.0f"):format(one.readers), ("%.0f"):format(one.lag) }
  end
  if #rows == 0 then return end
  out[#out + 1] = "\n" .. columns.format({ "KAFKA", "STATE", "PRODUCED/S", "BYTES/S", "LOST/S", "P50", "P99",
    "CONSUMED/S", "BYTES/S", "QUEUED", "READERS", "BEHIND" }, rows, { [3] = true, [4] = true, [5] = true, [6] = true,
    [7] = true, [8] = true, [9] = true, [10] = true, [11] = true, [12] = true })
end

---@param seen table from top.between
---@return string
function top.screen(seen)
  local out = {}
  local status, latency = seen.statuses_per_second, seen.latency_ms
  out[1] = ("requests/s  %s   2xx %s   3xx %s   4xx %s   5xx %s   unanswered %s\n"):format(
    rate(seen.requests_per_second), rate(status["2xx"]), rate(status["3xx"]), rate(status["4xx"]), rate(status["5xx"]),
    rate(seen.unanswered_per_second))
  out[2] = ("latency     p50 %s   p90 %s   p99 %s   greatest %s\n"):format(ms(latency.p50), ms(latency.p90),
    ms(latency.p99), ms(latency.greatest))
  local rows = {}
  for i, worker in ipairs(seen.workers) do
    rows[i] = { worker.id, worker.pid, worker.state, percent(worker.cpu), rate(worker.requests_per_second),
      worker.requests_open, worker.connections_open, rate(worker.connections_per_second), ms(worker.longest_turn_ms) }
  end
  out[3] = "\n" .. columns.format({ "WORKER", "PID", "STATE", "CPU", "REQUESTS/S", "OPEN", "CONNECTIONS", "NEW/S",
    "LONGEST TURN" }, rows, { [2] = true, [4] = true, [5] = true, [6] = true, [7] = true, [8] = true, [9] = true })
  rows = {}
  for i, plugin in ipairs(seen.plugins) do
    rows[i] = { plugin.name, rate(plugin.calls_per_second), percent(plugin.cpu),
      plugin.us_per_call and ("%.1f us"):format(plugin.us_per_call) or "", plugin.errors, plugin.stops }
  end
  if #rows > 0 then
    out[4] = "\n" .. columns.format({ "PLUGIN", "CALLS/S", "CPU", "A CALL", "ERRORS", "STOPPED" }, rows,
      { [2] = true, [3] = true, [4] = true, [5] = true, [6] = true })
  end
  put_kafka(out, seen.kafka or {})
  return table.concat(out)
end

local function interval_of(text)
  local seconds = tonumber(text or 1)
  if not seconds or seconds < LEAST_S or seconds > MOST_S then
    options.fail("--interval needs a number of seconds from %g to %g", LEAST_S, MOST_S)
  end
  return seconds
end

function top.run(args, host)
  local parsed = options.parse(args, { options.config, { "--once", key = "once" }, { "--json", key = "json" },
    { "--interval", key = "interval", value = "SECONDS" } })
  local files, interval = options.files(parsed), interval_of(parsed.interval)
  local before, why = look(host, files, true)
  while before do
    pause(interval)
    local now
    now, why = look(host, files, before.kafka ~= nil)
    if not now then break end
    local seen = top.between(before, now)
    local text = parsed.json and json.encode(seen) .. "\n" or top.screen(seen)
    io.write(host.terminal and not parsed.json and not parsed.once and CLEAR or "", text)
    io.flush()
    if parsed.once or (not host.terminal and not parsed.json) then return 0 end
    before = now
  end
  return gateway.complain(why)
end

return top
