-- SPDX-License-Identifier: Apache-2.0
-- Metrics that all workers add to: each series is a named counter in shared memory, so a scrape of any worker gives
-- the sums of all. The name of a cell says all that its text needs (exposition.h):
--
--   m SEP kind SEP scale SEP family SEP labels SEP extra
--
-- Cells hold integers; `scale` is how many of them make one.

local buffer = require "string.buffer"
local counters = require "sluice.counters"
local core = require "sluice.api.core"
local exposition = require "sluice.exposition"
local log = require "sluice.log"

local C, worker = core.C, core.worker
local concat = table.concat
local floor, format, gsub, find = math.floor, string.format, string.gsub, string.find
local error, type, tostring, pairs = error, type, tostring, pairs

---@class sluice.metrics
local metrics = {}

local SEP = "\1"
local COUNTER, GAUGE, MAXIMUM, HISTOGRAM = "c", "g", "x", "h"
local MAX_LABELS = 8
local MAX_LABEL_BYTES = 4096 -- of one series, with its labels' names: what is in them may come from clients
local DEFAULT_MAX_SERIES = 10000
local DEFAULT_BUCKETS = { 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 }

local families = {} -- by name
local REFUSED = "sluice_metrics_refused_total"

-- ---- Series ----

local ESCAPES = { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n", [SEP] = "?" }

local function label_text(names, values)
  if #names == 0 then return "" end
  local parts = {}
  for i = 1, #names do parts[i] = names[i] .. '="' .. gsub(tostring(values[i]), '[\\"\n\1]', ESCAPES) .. '"' end
  return concat(parts, ",")
end

local function cell(family, labels, extra)
  return counters.name(concat({ "m", family.kind, family.scale, family.name, labels, extra }, SEP))
end

local function new_series(family, labels)
  if family.kind == COUNTER then return { handle = cell(family, labels, "") } end
  if family.kind == HISTOGRAM then
    local series = { sum = cell(family, labels, "sum"), buckets = {} }
    for i, bound in ipairs(family.buckets) do series.buckets[i] = cell(family, labels, format("%.15g", bound)) end
    series.handle = cell(family, labels, "+Inf")
    return series
  end
  -- What this worker says is a cell of its own: it knows what stands there and can put something else in its place.
  local handle = cell(family, labels, tostring(C.bridge_worker_id(worker)))
  return { handle = handle, last = handle and counters.at(handle) }
end

-- What takes the place of a series that cannot be had.
local NOWHERE = { refused = true }

-- Counted each time, logged once for each family and worker.
local function refuse(family, why)
  if not family.told then
    family.told = true
    log.warn("a series of a metric is refused, and those that follow", { metric = family.name, why = why,
      series = family.series_count })
  end
  metrics.counter(REFUSED, "Series that were refused because a limit was reached."):add(1)
  return NOWHERE
end

-- Made once per combination of label values; kept by the values as they were given.
local function create(family, a, b, c, d, e, f, g, h)
  local values = { a, b, c, d, e, f, g, h }
  local count = family.label_count
  for i = 1, count do
    if values[i] == nil then error(family.name .. ": no value for label " .. family.labels[i], 4) end
  end
  if family.name ~= REFUSED and family.series_count >= family.max_series then
    return refuse(family, "the limit of series is reached")
  end
  local labels = label_text(family.labels, values)
  if #labels > MAX_LABEL_BYTES then return refuse(family, "its labels are too long") end
  local series = new_series(family, labels)
  if not series.handle then
    return family.name == REFUSED and NOWHERE or refuse(family, "no room is left for named counters")
  end
  family.series_count = family.series_count + 1
  local node = family.root
  for i = 1, count - 1 do
    node[values[i]] = node[values[i]] or {}
    node = node[values[i]]
  end
  if count > 0 then node[values[count]] = series else family.only = series end
  return series
end

-- The look-up of every add, written out so that it compiles without a loop or an allocation.
local function series_of(family, a, b, c, d, e, f, g, h) -- luacheck: ignore 561
  local count, node = family.label_count, family.root
  if count == 0 then return family.only or create(family) end
  node = node[a]
  if node and count > 1 then node = node[b] end
  if node and count > 2 then node = node[c] end
  if node and count > 3 then node = node[d] end
  if node and count > 4 then node = node[e] end
  if node and count > 5 then node = node[f] end
  if node and count > 6 then node = node[g] end
  if node and count > 7 then node = node[h] end
  return node or create(family, a, b, c, d, e, f, g, h)
end

-- ---- Families ----

---@class sluice.metrics.counter
local Counter = {}

---@param amount number above 0
---@param ... string|number values of the labels, in their order
function Counter:add(amount, a, b, c, d, e, f, g, h)
  local series = series_of(self, a, b, c, d, e, f, g, h)
  if series.refused then return end
  counters.add_at(series.handle, self.scale == 1 and amount or floor(amount * self.scale + 0.5))
end

-- The named counter of a series, for the core to add to; nil: there is no room for it.
---@param ... string|number values of the labels, in their order
---@return number|nil
function Counter:handle(a, b, c, d, e, f, g, h)
  return (series_of(self, a, b, c, d, e, f, g, h).handle)
end

---@param ... string|number values of the labels, in their order
function Counter:increment(a, b, c, d, e, f, g, h)
  self:add(1, a, b, c, d, e, f, g, h)
end

---@class sluice.metrics.gauge
local Gauge = {}

---@param value number of this worker; the gauge is the sum (or the highest) of all workers'
---@param ... string|number values of the labels, in their order
function Gauge:set(value, a, b, c, d, e, f, g, h)
  local series = series_of(self, a, b, c, d, e, f, g, h)
  if series.refused then return end
  local units = floor(value * self.scale + 0.5)
  if units ~= series.last then counters.add_at(series.handle, units - series.last) end
  series.last = units
end

---@param amount number above or below 0
---@param ... string|number values of the labels, in their order
function Gauge:add(amount, a, b, c, d, e, f, g, h)
  local series = series_of(self, a, b, c, d, e, f, g, h)
  if series.refused then return end
  local units = floor(amount * self.scale + 0.5)
  counters.add_at(series.handle, units)
  series.last = series.last + units
end

---@class sluice.metrics.histogram
local Histogram = {}

---@param value number
---@param ... string|number values of the labels, in their order
function Histogram:observe(value, a, b, c, d, e, f, g, h)
  local series = series_of(self, a, b, c, d, e, f, g, h)
  if series.refused then return end
  local bounds, handle = self.buckets, series.handle
  for i = 1, #bounds do
    if value <= bounds[i] then
      handle = series.buckets[i] or handle
      break
    end
  end
  counters.add_at(handle, 1)
  if series.sum then counters.add_at(series.sum, floor(value * self.scale + 0.5)) end
end

-- Adds values that were observed elsewhere, in the core: so many in one bucket.
---@param index integer of the bucket, from 1; the one behind the last has no bound
---@param count integer
---@param sum number of the values
---@param ... string|number values of the labels, in their order
function Histogram:add(index, count, sum, a, b, c, d, e, f, g, h)
  local series = series_of(self, a, b, c, d, e, f, g, h)
  if series.refused then return end
  counters.add_at(series.buckets[index] or series.handle, count)
  if series.sum then counters.add_at(series.sum, floor(sum * self.scale + 0.5)) end
end

local METHODS = { c = Counter, g = Gauge, x = Gauge, h = Histogram }
local METATABLES = {}
for kind, methods in pairs(METHODS) do METATABLES[kind] = { __index = methods, __metatable = false } end

local function check_names(api, name, labels)
  if type(name) ~= "string" or not find(name, "^[%a_:][%w_:]*$") then
    error(api .. ": " .. tostring(name) .. " is no name of a metric", 4)
  end
  if #labels > MAX_LABELS then error(api .. ": more than " .. MAX_LABELS .. " labels", 4) end
  for _, label in ipairs(labels) do
    if type(label) ~= "string" or not find(label, "^[%a_][%w_]*$") or label == "le" then
      error(api .. ": " .. tostring(label) .. " is no name of a label", 4)
    end
  end
end

local function same(family, kind, labels, scale, buckets)
  return family and family.kind == kind and family.scale == scale
    and concat(family.labels, ",") == concat(labels, ",")
    and concat(family.buckets or {}, ",") == concat(buckets or {}, ",")
end

-- The family of that name. Plugins are reloaded and define theirs again: the same definition gives the same family,
-- another one takes its place.
local function define(api, kind, name, help, labels, options, scale, buckets)
  labels, options = labels or {}, options or {}
  check_names(api, name, labels)
  scale = options.scale or scale
  local known = families[name]
  if same(known, kind, labels, scale, buckets) then return known end
  local family = setmetatable({
    name = name, help = help or "", kind = kind, labels = labels, label_count = #labels, scale = scale,
    buckets = buckets, root = {}, series_count = 0, told = false, max_series = options.max_series or DEFAULT_MAX_SERIES,
  }, METATABLES[kind])
  families[name] = family
  return family
end

---@class sluice.metrics.options
---@field scale? integer parts of one that are counted: 1 for counters, 1000 for gauges and histograms unless told
---@field max_series? integer 10000 unless told, in each worker; more are counted in sluice_metrics_refused_total and
---  logged. So are those whose labels are longer than 4096 bytes
---@field merge? "sum"|"max" of the workers' gauges; sum unless told
---@field buckets? number[] upper bounds of a histogram in order

---@param name string
---@param help? string
---@param labels? string[] at most 8
---@param options? sluice.metrics.options
---@return sluice.metrics.counter
function metrics.counter(name, help, labels, options)
  local family = define("sluice.metrics.counter", COUNTER, name, help, labels, options, 1)
  return family
end

---@return sluice.metrics.gauge
function metrics.gauge(name, help, labels, options)
  local kind = options and options.merge == "max" and MAXIMUM or GAUGE
  local family = define("sluice.metrics.gauge", kind, name, help, labels, options, 1000)
  return family
end

---@return sluice.metrics.histogram
function metrics.histogram(name, help, labels, options)
  local buckets = options and options.buckets or DEFAULT_BUCKETS
  local family = define("sluice.metrics.histogram", HISTOGRAM, name, help, labels, options, 1000, buckets)
  return family
end

-- ---- What is told ----

-- All metrics in Prometheus' text format (version 0.0.4), into a string.buffer.
---@param out table what stands in it may be taken out by `pause`
---@param pause fun() called after each few lines
function metrics.put(out, pause)
  exposition.put(out, families, pause)
end

-- The same as one string.
---@return string
function metrics.text()
  local out = buffer.new()
  exposition.put(out, families)
  return out:get()
end

-- The same as tables, for who tells them in another format. Buckets of histograms are in order, each with its own count
-- (not that of those below it); `value` of a histogram is the sum.
---@param pause? fun() called now and then
---@param prefix? string of the names that are wanted; all unless told
---@return { name: string, help: string, kind: "counter"|"gauge"|"histogram", series: { labels: table<string, string>,
---  value: number, buckets?: { bound: number, count: number }[] }[] }[]
function metrics.families(pause, prefix)
  return exposition.tables(families, pause, prefix)
end

-- A worker that takes a dead one's place says nothing yet: what that one's gauges last said is not so any more.
local function forget_gauges()
  local mine = SEP .. tostring(C.bridge_worker_id(worker))
  for _, kind in ipairs { GAUGE, MAXIMUM } do
    for key, value in counters.each("m" .. SEP .. kind .. SEP) do
      if value ~= 0 and key:sub(-#mine) == mine then counters.add_at(counters.name(key), -value) end
    end
  end
end

if worker ~= nil then forget_gauges() end

return metrics
