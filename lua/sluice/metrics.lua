-- SPDX-License-Identifier: Apache-2.0
-- Metrics that all workers add to: each series is a named counter in shared memory, so a scrape of any worker gives
-- the sums of all. The name of a cell says all that its text needs:
--
--   m SEP type SEP scale SEP family SEP labels SEP extra     extra: bucket or "sum" of a histogram, worker of a gauge
--
-- Cells hold integers; `scale` is how many of them make one.

local buffer = require "string.buffer"
local counters = require "sluice.counters"
local core = require "sluice.api.core"
local log = require "sluice.log"

local C, worker = core.C, core.worker
local concat, sort = table.concat, table.sort
local floor, format, gsub, match, find = math.floor, string.format, string.gsub, string.match, string.find
local error, type, tostring, tonumber, pairs = error, type, tostring, tonumber, pairs

---@class sluice.metrics
local metrics = {}

local SEP = "\1"
local COUNTER, GAUGE, MAXIMUM, HISTOGRAM = "c", "g", "x", "h"
local TYPE_NAMES = { c = "counter", g = "gauge", x = "gauge", h = "histogram" }
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

-- ---- The text ----

local function number_text(value)
  if value % 1 == 0 and value < 1e15 and value > -1e15 then return format("%d", value) end
  local short = format("%.15g", value)
  return tonumber(short) == value and short or format("%.17g", value)
end

-- What the names of cells say is taken apart once, for cells never end: a scrape reads numbers only. In `index` is, for
-- each name and kind, the list of series in the order in which they were met. A series has the cells whose sum (or
-- highest) it is; most have one.
local index, known = {}, {}

local function parse(key)
  local kind, scale, name, labels, extra = match(key, "^m\1(.)\1([^\1]*)\1([^\1]*)\1([^\1]*)\1(.*)$")
  if not kind then return nil end
  return kind, tonumber(scale), name, labels, extra
end

local function series_in(found, name, labels)
  local series = found.by_labels[labels]
  if not series then
    series = { line = name .. (labels == "" and " " or "{" .. labels .. "} "), labels = labels, handle = 0, scale = 1,
      more = false, bounds = false }
    found.by_labels[labels] = series
    found.list[#found.list + 1] = series
  end
  return series
end

local function by_bound(a, b)
  return a.bound < b.bound
end

local function add_bound(series, text, handle)
  local comma = series.labels == "" and "" or ","
  local bounds = series.bounds or {}
  bounds[#bounds + 1] = { bound = text == "+Inf" and math.huge or tonumber(text), handle = handle,
    line = "_bucket{" .. series.labels .. comma .. 'le="' .. text .. '"} ' }
  sort(bounds, by_bound)
  series.bounds = bounds
end

local function add_cell(handle, key)
  local kind, scale, name, labels, extra = parse(key)
  if not kind then return end
  index[name] = index[name] or { first = kind }
  local found = index[name][kind] or { kind = kind, list = {}, by_labels = {} }
  index[name][kind] = found
  local series = series_in(found, name, labels)
  if kind == HISTOGRAM and extra ~= "sum" then
    add_bound(series, extra, handle)
  elseif series.handle == 0 then
    series.handle, series.scale = handle, scale
  else
    series.more = series.more or {}
    series.more[#series.more + 1] = { handle = handle, scale = scale }
  end
end

local function value_of(series, kind)
  if series.handle == 0 then return 0 end
  local value = counters.at(series.handle) / series.scale
  for _, one in ipairs(series.more or {}) do
    local other = counters.at(one.handle) / one.scale
    value = kind == MAXIMUM and math.max(value, other) or kind ~= MAXIMUM and value + other or value
  end
  return value
end

-- Whole numbers, which most are, become no strings of their own.
local function put_number(out, value)
  if value % 1 == 0 and value < 1e15 and value > -1e15 then
    out:putf("%d\n", value)
  else
    out:put(number_text(value), "\n")
  end
end

local function put_histogram(out, name, series)
  local labels, total = series.labels, 0
  for _, bucket in ipairs(series.bounds or {}) do
    total = total + counters.at(bucket.handle)
    out:put(name, bucket.line)
    put_number(out, total)
  end
  local behind = labels == "" and " " or "{" .. labels .. "} "
  out:put(name, "_sum", behind)
  put_number(out, value_of(series, HISTOGRAM))
  out:put(name, "_count", behind)
  put_number(out, total)
end

local PAUSE_EVERY = 16

-- Pauses outside of the loop, which thus compiles without it.
local function put_some(out, name, found, first, last)
  local kind, list = found.kind, found.list
  for i = first, last do
    local series = list[i]
    if kind == HISTOGRAM then
      put_histogram(out, name, series)
    else
      out:put(series.line)
      put_number(out, value_of(series, kind))
    end
  end
end

local function put_family(out, name, found, pause)
  local defined = families[name]
  if defined and defined.help ~= "" then
    out:put("# HELP ", name, " ", (gsub(defined.help, "[\\\n]", ESCAPES)), "\n")
  end
  out:put("# TYPE ", name, " ", TYPE_NAMES[found.kind], "\n")
  local count = #found.list
  for first = 1, count, PAUSE_EVERY do
    put_some(out, name, found, first, math.min(first + PAUSE_EVERY - 1, count))
    pause()
  end
end

local function no_pause() end

-- Looks for new cells; the families' names in order. Of a family that is another kind by now, only the cells of that
-- kind count.
local function refresh(pause)
  counters.each_new("m" .. SEP, known, add_cell, pause)
  local names, count = {}, 0
  for name, kinds in pairs(index) do
    if kinds[families[name] and families[name].kind or kinds.first] then
      count = count + 1
      names[count] = name
    end
  end
  sort(names)
  return names
end

local function found_of(name)
  local kinds = index[name]
  return kinds[families[name] and families[name].kind] or kinds[kinds.first]
end

-- All metrics in Prometheus' text format (version 0.0.4), into a string.buffer.
---@param out table what stands in it may be taken out by `pause`
---@param pause fun() called after each few lines
function metrics.put(out, pause)
  for _, name in ipairs(refresh(pause)) do put_family(out, name, found_of(name), pause) end
end

-- The same as one string.
---@return string
function metrics.text()
  local out = buffer.new()
  metrics.put(out, no_pause)
  return out:get()
end

local UNESCAPES = { ["\\\\"] = "\\", ['\\"'] = '"', ["\\n"] = "\n" }

-- 'a="b",c="d"' to { a = "b", c = "d" }.
local function labels_of(text)
  local labels, at = {}, 1
  while true do
    local name, from = match(text, '^,?([%w_]+)="()', at)
    if not name then return labels end
    local to = from
    while true do
      to = find(text, '["\\]', to)
      if text:sub(to, to) == '"' then break end
      to = to + 2
    end
    labels[name] = gsub(text:sub(from, to - 1), '\\.', UNESCAPES)
    at = to + 1
  end
end

local function table_of(series, kind)
  local it = { labels = labels_of(series.labels), value = value_of(series, kind) }
  if kind ~= HISTOGRAM then return it end
  it.buckets = {}
  for i, bucket in ipairs(series.bounds or {}) do
    it.buckets[i] = { bound = bucket.bound, count = counters.at(bucket.handle) }
  end
  return it
end

-- The same as tables, for who tells them in another format. Buckets of histograms are in order, each with its own count
-- (not that of those below it); `value` of a histogram is the sum.
---@param pause? fun() called now and then
---@return { name: string, help: string, kind: "counter"|"gauge"|"histogram", series: { labels: table<string, string>,
---  value: number, buckets?: { bound: number, count: number }[] }[] }[]
function metrics.families(pause)
  pause = pause or no_pause
  local out = {}
  for i, name in ipairs(refresh(pause)) do
    local found, defined, series = found_of(name), families[name], {}
    for at, one in ipairs(found.list) do
      series[at] = table_of(one, found.kind)
      if at % PAUSE_EVERY == 0 then pause() end
    end
    out[i] = { name = name, help = defined and defined.help or "", kind = TYPE_NAMES[found.kind], series = series }
  end
  return out
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
