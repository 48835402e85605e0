-- SPDX-License-Identifier: Apache-2.0
-- Metrics that all workers add to: each series is a named counter in shared memory, so a scrape of any worker gives
-- the sums of all. The name of a cell says all that its text needs:
--
--   m SEP type SEP scale SEP family SEP labels SEP extra     extra: bucket or "sum" of a histogram, worker of a gauge
--
-- Cells hold integers; `scale` is how many of them make one.

local buffer = require "string.buffer"
local ffi = require "ffi"
local counters = require "sluice.counters"
local core = require "sluice.api.core"
local log = require "sluice.log"

local C, worker = core.C, core.worker
local concat, sort = table.concat, table.sort
local floor, format, gsub, match, find = math.floor, string.format, string.gsub, string.match, string.find
local ffi_string = ffi.string
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

-- ---- The text ----

local function number_text(value)
  if value % 1 == 0 and value < 1e15 and value > -1e15 then return format("%d", value) end
  local short = format("%.15g", value)
  return tonumber(short) == value and short or format("%.17g", value)
end

-- What the names of cells say is taken apart once, for cells never end: a scrape reads numbers only. In `index` is, for
-- each name and kind, the series in the order in which they were met, their parts in one array each: thousands of small
-- tables and texts would keep the collector busy. A series has the cells whose sum (or highest) it is; most have one.
local index = {}

local function new_found(kind)
  return {
    kind = kind, count = 0,
    places = {},                               -- labels -> place in what follows
    labels = {}, handles = {}, scales = {},    -- 0: a histogram whose sum has not been met
    more = {},                                 -- false, or the other cells: handle, scale, handle, scale...
    bounds = {},                               -- false, or a histogram's buckets: bound, text, handle, bound...
  }
end

local function place_in(found, labels)
  local place = found.places[labels]
  if place then return place end
  place = found.count + 1
  found.count, found.places[labels], found.labels[place] = place, place, labels
  found.handles[place], found.scales[place], found.more[place], found.bounds[place] = 0, 1, false, false
  return place
end

-- Among the other buckets, in order.
local function add_bound(found, place, text, handle)
  local bounds = found.bounds[place] or {}
  local bound, at = text == "+Inf" and math.huge or tonumber(text), #bounds + 1
  while at > 1 and bounds[at - 3] > bound do
    bounds[at], bounds[at + 1], bounds[at + 2] = bounds[at - 3], bounds[at - 2], bounds[at - 1]
    at = at - 3
  end
  bounds[at], bounds[at + 1], bounds[at + 2] = bound, text, handle
  found.bounds[place] = bounds
end

local SEP_BYTE = SEP:byte()

local function field_end(data, at, len)
  while at < len and data[at] ~= SEP_BYTE do at = at + 1 end
  return at
end

-- The name of a cell is no text of Lua's: each would be one more, used once.
local function add_cell(handle, data, len)
  local kind_end = field_end(data, 2, len)
  local scale_end = field_end(data, kind_end + 1, len)
  local name_end = field_end(data, scale_end + 1, len)
  local labels_end = field_end(data, name_end + 1, len)
  if labels_end >= len then return end
  local kind = ffi_string(data + 2, kind_end - 2)
  local name = ffi_string(data + scale_end + 1, name_end - scale_end - 1)
  index[name] = index[name] or { first = kind }
  local found = index[name][kind] or new_found(kind)
  index[name][kind] = found
  local place = place_in(found, ffi_string(data + name_end + 1, labels_end - name_end - 1))
  local extra = ffi_string(data + labels_end + 1, len - labels_end - 1)
  local scale = tonumber(ffi_string(data + kind_end + 1, scale_end - kind_end - 1))
  if kind == HISTOGRAM and extra ~= "sum" then
    add_bound(found, place, extra, handle)
  elseif found.handles[place] == 0 then
    found.handles[place], found.scales[place] = handle, scale
  else
    local more = found.more[place] or {}
    more[#more + 1], more[#more + 2] = handle, scale
    found.more[place] = more
  end
end

local look_for_cells = counters.watch("m" .. SEP, add_cell)

local function value_of(found, place)
  local handle, more, kind = found.handles[place], found.more[place], found.kind
  if handle == 0 then return 0 end
  local value = counters.at(handle) / found.scales[place]
  for i = 1, more and #more or 0, 2 do
    local other = counters.at(more[i]) / more[i + 1]
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

local function put_histogram(out, name, found, place)
  local labels, bounds, total = found.labels[place], found.bounds[place], 0
  local comma = labels == "" and "" or ","
  for i = 1, bounds and #bounds or 0, 3 do
    total = total + counters.at(bounds[i + 2])
    out:put(name, "_bucket{", labels, comma, 'le="', bounds[i + 1], '"} ')
    put_number(out, total)
  end
  local from, to = "{", "} "
  if labels == "" then from, to = "", " " end
  out:put(name, "_sum", from, labels, to)
  put_number(out, value_of(found, place))
  out:put(name, "_count", from, labels, to)
  put_number(out, total)
end

local PAUSE_EVERY = 16

-- Pauses outside of the loop, which thus compiles without it.
local function put_some(out, name, found, first, last)
  local kind, labels = found.kind, found.labels
  for place = first, last do
    if kind == HISTOGRAM then
      put_histogram(out, name, found, place)
    else
      if labels[place] == "" then out:put(name, " ") else out:put(name, "{", labels[place], "} ") end
      put_number(out, value_of(found, place))
    end
  end
end

local function put_family(out, name, found, pause)
  local defined = families[name]
  if defined and defined.help ~= "" then
    out:put("# HELP ", name, " ", (gsub(defined.help, "[\\\n]", ESCAPES)), "\n")
  end
  out:put("# TYPE ", name, " ", TYPE_NAMES[found.kind], "\n")
  local count = found.count
  for first = 1, count, PAUSE_EVERY do
    put_some(out, name, found, first, math.min(first + PAUSE_EVERY - 1, count))
    pause()
  end
end

local function no_pause() end

-- Looks for new cells; the families' names in order. Of a family that is another kind by now, only the cells of that
-- kind count.
local function refresh(pause)
  look_for_cells(pause)
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

local function table_of(found, place)
  local it = { labels = labels_of(found.labels[place]), value = value_of(found, place) }
  if found.kind ~= HISTOGRAM then return it end
  local bounds = found.bounds[place]
  it.buckets = {}
  for i = 1, bounds and #bounds or 0, 3 do
    it.buckets[#it.buckets + 1] = { bound = bounds[i], count = counters.at(bounds[i + 2]) }
  end
  return it
end

local function family_table(name, pause)
  local found, defined, series = found_of(name), families[name], {}
  for place = 1, found.count do
    series[place] = table_of(found, place)
    if place % PAUSE_EVERY == 0 then pause() end
  end
  return { name = name, help = defined and defined.help or "", kind = TYPE_NAMES[found.kind], series = series }
end

-- The same as tables, for who tells them in another format. Buckets of histograms are in order, each with its own count
-- (not that of those below it); `value` of a histogram is the sum.
---@param pause? fun() called now and then
---@param prefix? string of the names that are wanted; all unless told
---@return { name: string, help: string, kind: "counter"|"gauge"|"histogram", series: { labels: table<string, string>,
---  value: number, buckets?: { bound: number, count: number }[] }[] }[]
function metrics.families(pause, prefix)
  pause = pause or no_pause
  local out = {}
  for _, name in ipairs(refresh(pause)) do
    if not prefix or name:sub(1, #prefix) == prefix then out[#out + 1] = family_table(name, pause) end
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
