-- SPDX-License-Identifier: Apache-2.0
-- What the cells of metrics say, as Prometheus' text and as tables. The core takes their names apart and makes lines
-- (exposition.h); here is which families there are, in their order.

local ffi = require "ffi"
local core = require "sluice.api.core"
local log = require "sluice.log"

local C, worker = core.C, core.worker
local char, gsub, match, find = string.char, string.gsub, string.match, string.find
local ffi_string, sort, pairs = ffi.string, table.sort, pairs

-- Runs a few times a minute: compiling it takes longer, and all at once, than it ever saves.
jit.off(true, true)

local exposition = {}

local AGAIN = core.E.BRIDGE_AGAIN
local HISTOGRAM = "h"
local TYPE_NAMES = { c = "counter", g = "gauge", x = "gauge", h = "histogram" }
local ESCAPES = { ["\\"] = "\\\\", ["\n"] = "\\n" }

-- What the names of cells say is taken apart by the core, once (exposition.h). Here is which of its families has a name
-- and kind, by index.
local index, known = {}, 0
local family_cell, text_cell = ffi.new("struct metric_family[1]"), ffi.new("struct bytes[1]")

local function meet_families()
  while C.bridge_metrics_family(worker, known, family_cell) == 0 do
    local family = family_cell[0]
    local name, kind = ffi_string(family.name.data, family.name.len), char(family.kind)
    index[name] = index[name] or { first = kind }
    index[name][kind], known = known, known + 1
  end
end

-- Of a family that is another kind by now, only the cells of that kind count.
local function kind_of(name, defined)
  local kinds = index[name]
  return defined and kinds[defined.kind] and defined.kind or kinds.first
end

-- The names of all families in order, after a look for new cells.
local function refresh(pause)
  local status = C.bridge_metrics_look(worker)
  while status == AGAIN do
    pause()
    status = C.bridge_metrics_look(worker)
  end
  if status < 0 then log.warn("not all metrics are told", { error = core.reason(status) }) end
  meet_families()
  local names = {}
  for name in pairs(index) do names[#names + 1] = name end
  sort(names)
  return names
end

local function first_row(name, kind)
  C.bridge_metrics_family(worker, index[name][kind], family_cell)
  return family_cell[0].first_row
end

local function put_head(out, name, defined, kind)
  if defined and defined.help ~= "" then
    out:put("# HELP ", name, " ", (gsub(defined.help, "[\\\n]", ESCAPES)), "\n")
  end
  out:put("# TYPE ", name, " ", TYPE_NAMES[kind], "\n")
end

local function no_pause() end

local SERIES_AT_ONCE = 32

local function put_family(out, name, defined, row, pause)
  local kind = kind_of(name, defined)
  put_head(out, name, defined, kind)
  row[0] = first_row(name, kind)
  while row[0] ~= 0 do
    local status = C.bridge_metrics_text(worker, row, SERIES_AT_ONCE, text_cell)
    if status < 0 then
      return log.warn("not all series of a metric are told", { metric = name, error = core.reason(status) })
    end
    out:putcdata(text_cell[0].data, text_cell[0].len)
    pause()
  end
end

-- All metrics in Prometheus' text format (version 0.0.4), into a string.buffer.
---@param out table what stands in it may be taken out by `pause`
---@param families table<string, { kind: string, help: string }> as they are defined now, by name
---@param pause? fun() called after each few lines
function exposition.put(out, families, pause)
  pause = pause or no_pause
  local row = ffi.new("uint32_t[1]")
  for _, name in ipairs(refresh(pause)) do put_family(out, name, families[name], row, pause) end
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

local series_cell = ffi.new("struct metric_series[1]")
local bound_cell, count_cell = ffi.new("double[1]"), ffi.new("double[1]")

local function buckets_of(row)
  local buckets = {}
  while C.bridge_metrics_bucket(worker, row, #buckets, bound_cell, count_cell) == 0 do
    buckets[#buckets + 1] = { bound = bound_cell[0], count = count_cell[0] }
  end
  return buckets
end

local function family_table(name, defined, pause)
  local kind, series = kind_of(name, defined), {}
  local row = first_row(name, kind)
  while row ~= 0 do
    C.bridge_metrics_series(worker, row, series_cell)
    local one = series_cell[0]
    series[#series + 1] = { labels = labels_of(ffi_string(one.labels.data, one.labels.len)), value = one.value,
      buckets = kind == HISTOGRAM and buckets_of(row) or nil }
    row = one.next_row
    if #series % SERIES_AT_ONCE == 0 then pause() end
  end
  return { name = name, help = defined and defined.help or "", kind = TYPE_NAMES[kind], series = series }
end

-- The same as tables: see metrics.families.
---@param families table<string, { kind: string, help: string }>
---@param pause? fun() called now and then
---@param prefix? string of the names that are wanted; all unless told
---@return table[]
function exposition.tables(families, pause, prefix)
  pause = pause or no_pause
  local out = {}
  for _, name in ipairs(refresh(pause)) do
    if not prefix or name:sub(1, #prefix) == prefix then
      out[#out + 1] = family_table(name, families[name], pause)
    end
  end
  return out
end

return exposition
