-- SPDX-License-Identifier: Apache-2.0
-- `sluice top`: what happened between two looks at the workers' boards. The master reads them; no worker is asked.

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

local function look(host, files)
  local seen, why = gateway.ask(host, files, "top", PATIENCE_S)
  if not seen then return nil, why end
  for _, worker in ipairs(seen.workers) do worker.cpu = cpu_of(worker.pid) end
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
  local before, why = look(host, files)
  while before do
    pause(interval)
    local now
    now, why = look(host, files)
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
