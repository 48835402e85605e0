-- SPDX-License-Identifier: Apache-2.0
-- How often functions (of the plugin of that name) were called, how many of the calls failed, how long they took: of
-- all workers, for `sluice status` and the metrics.

local core = require "sluice.api.core"
local counters = require "sluice.counters"
local metrics = require "sluice.metrics"

local C, worker = core.C, core.worker

local function_stats = {}

local OUTCOMES = { ok = true, error = true, timeout = true }

local cells = {} -- by name: handles of counters, of which there are as many as functions
local names = {} -- that the running configuration has, by plugin instance
local calls, duration

local function cell(name, what)
  return counters.name("function:" .. what .. ":" .. name)
end

local function cells_of(name)
  local known = cells[name]
  if not known then
    known = { ok = cell(name, "ok"), error = cell(name, "error"), timeout = cell(name, "timeout"),
      us = cell(name, "us") }
    cells[name] = known
  end
  return known
end

-- Seconds, for how long a call took: a function that computes takes its time within one turn of the loop.
---@return number
function function_stats.now()
  return C.bridge_mono_exact(worker)
end

-- One call has ended.
---@param name string of the function
---@param outcome "ok"|"error"|"timeout"
---@param seconds number that it took
function function_stats.note(name, outcome, seconds)
  if not OUTCOMES[outcome] then error("sluice.function_stats.note: no such outcome: " .. tostring(outcome), 2) end
  local own = cells_of(name)
  if own[outcome] then counters.add_at(own[outcome], 1) end
  if own.us then counters.add_at(own.us, math.floor(seconds * 1e6)) end
  calls = calls or metrics.counter("sluice_function_calls_total", "Calls of functions", { "function", "outcome" })
  duration = duration or metrics.histogram("sluice_function_seconds", "Time that functions took", { "function" })
  calls:increment(name, outcome)
  duration:observe(seconds, name)
end

-- The functions that an instance of the plugin has now.
---@param instance string its id
---@param list string[] names
function function_stats.have(instance, list)
  names[instance] = list
end

local function value(handle)
  return handle and counters.at(handle) or 0
end

---@return { name: string, calls: integer, errors: integer, timeouts: integer, seconds: number }[]
function function_stats.list()
  local seen, list = {}, {}
  for _, of_one in pairs(names) do
    for _, name in ipairs(of_one) do
      if not seen[name] then
        seen[name] = true
        local own = cells_of(name)
        local ok, failed, late = value(own.ok), value(own.error), value(own.timeout)
        list[#list + 1] = { name = name, calls = ok + failed + late, errors = failed, timeouts = late,
          seconds = value(own.us) / 1e6 }
      end
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

return function_stats
