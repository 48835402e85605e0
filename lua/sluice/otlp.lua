-- SPDX-License-Identifier: Apache-2.0
-- OpenTelemetry's wire format (OTLP as protocol buffers, opentelemetry-proto 1.x): spans, log records and metrics to
-- bytes. Each entry is encoded by itself, as the repeated field that it will be, so that a batch is no more than the
-- entries behind a head. Field numbers are those of the .proto files.

local bit = require "bit"
local ffi = require "ffi"

local band, bor, rshift = bit.band, bit.bor, bit.rshift
local char, gsub = string.char, string.gsub
local concat, sort = table.concat, table.sort
local floor, pairs, tonumber, type, tostring = math.floor, pairs, tonumber, type, tostring

---@class sluice.otlp
local otlp = {}

local cell = ffi.new("union { uint64_t whole; double real; uint8_t bytes[8]; }")

-- ---- Protocol buffers ----

local function varint(value)
  if value < 128 then return char(value) end
  local out = {}
  while value >= 128 do
    out[#out + 1] = char(bor(value % 128, 128))
    value = floor(value / 128)
  end
  out[#out + 1] = char(value)
  return concat(out)
end

-- 64 bits of an integer that may be negative.
local function varint64(value)
  if value >= 0 then return varint(value) end
  local rest, out = ffi.cast("uint64_t", ffi.cast("int64_t", value)), {}
  while rest >= 128ULL do
    out[#out + 1] = char(bor(tonumber(band(rest, 127ULL)), 128))
    rest = rshift(rest, 7)
  end
  out[#out + 1] = char(tonumber(rest))
  return concat(out)
end

local function key_of(number, wire)
  return varint(number * 8 + wire)
end

local function bytes_field(number, value)
  return key_of(number, 2) .. varint(#value) .. value
end

local function text_field(number, value)
  return value and value ~= "" and bytes_field(number, tostring(value)) or ""
end

local function integer_field(number, value)
  return value and value ~= 0 and key_of(number, 0) .. varint64(value) or ""
end

local function fixed64(value)
  cell.whole = value
  return ffi.string(cell.bytes, 8)
end

local function double(value)
  cell.real = value
  return ffi.string(cell.bytes, 8)
end

-- Nanoseconds of microseconds, which a double holds exactly.
local function time_field(number, us)
  return key_of(number, 1) .. fixed64(ffi.cast("uint64_t", us) * 1000ULL)
end

local function raw(hex)
  return (gsub(hex, "%x%x", function(pair) return char(tonumber(pair, 16)) end))
end

-- ---- Attributes ----

local function any_value(value)
  local kind = type(value)
  if kind == "boolean" then return key_of(2, 0) .. (value and "\1" or "\0") end
  if kind == "number" then
    if value % 1 == 0 and value > -9e15 and value < 9e15 then return key_of(3, 0) .. varint64(value) end
    return key_of(4, 1) .. double(value)
  end
  return bytes_field(1, tostring(value))
end

local function attributes(number, map)
  local names, out = {}, {}
  for name in pairs(map) do names[#names + 1] = name end
  sort(names)
  for i, name in ipairs(names) do
    out[i] = bytes_field(number, text_field(1, name) .. bytes_field(2, any_value(map[name])))
  end
  return concat(out)
end

-- ---- Spans ----

local function event(one)
  return bytes_field(11, time_field(1, one.time_us) .. text_field(2, one.name) .. attributes(3, one.attributes))
end

---@param trace_id string 32 hex digits
---@param span sluice.span
---@return string an entry of a batch
function otlp.span(trace_id, span)
  local events = {}
  for i, one in ipairs(span.events) do events[i] = event(one) end
  local status = span.status and span.status ~= 0
    and bytes_field(15, text_field(2, span.status_message) .. integer_field(3, span.status)) or ""
  return bytes_field(2, bytes_field(1, raw(trace_id)) .. bytes_field(2, raw(span.id))
    .. (span.parent and bytes_field(4, raw(span.parent)) or "") .. text_field(5, span.name)
    .. integer_field(6, span.kind) .. time_field(7, span.start_us) .. time_field(8, span.end_us)
    .. attributes(9, span.attributes) .. concat(events) .. status)
end

-- ---- Log records ----

local SEVERITIES = { [0] = 5, 9, 10, 13, 17, 21 } -- of the log's levels: debug, info, notice, warn, error, crit
local SEVERITY_TEXTS = { [0] = "DEBUG", "INFO", "NOTICE", "WARN", "ERROR", "CRIT" }

---@class sluice.otlp.record
---@field time_us number
---@field level integer 0 debug to 5 crit
---@field body string
---@field attributes table<string, any>
---@field trace_id? string hex
---@field span_id? string hex

---@param record sluice.otlp.record
---@return string an entry of a batch
function otlp.record(record)
  local sampled = record.trace_id and key_of(8, 5) .. "\1\0\0\0" or ""
  return bytes_field(2, time_field(1, record.time_us) .. integer_field(2, SEVERITIES[record.level])
    .. text_field(3, SEVERITY_TEXTS[record.level]) .. bytes_field(5, any_value(record.body))
    .. attributes(6, record.attributes) .. sampled
    .. (record.trace_id and bytes_field(9, raw(record.trace_id)) or "")
    .. (record.span_id and bytes_field(10, raw(record.span_id)) or "") .. time_field(11, record.time_us))
end

-- ---- Metrics ----

local CUMULATIVE = 2

local function point_head(from_us, now_us)
  return time_field(2, from_us) .. time_field(3, now_us)
end

local function number_point(series, head)
  return bytes_field(1, head .. key_of(4, 1) .. double(series.value) .. attributes(7, series.labels))
end

local function histogram_point(series, head)
  local counts, bounds, total = {}, {}, 0
  for i, bucket in ipairs(series.buckets) do
    counts[i], total = fixed64(bucket.count), total + bucket.count
    if bucket.bound < math.huge then bounds[#bounds + 1] = double(bucket.bound) end
  end
  return bytes_field(1, head .. key_of(4, 1) .. fixed64(total) .. key_of(5, 1) .. double(series.value)
    .. bytes_field(6, concat(counts)) .. bytes_field(7, concat(bounds)) .. attributes(9, series.labels))
end

---@param family { name: string, help: string, kind: string, series: table[] } as metrics.families gives it
---@param from_us number since when counters count
---@param now_us number
---@return string an entry of a batch
function otlp.metric(family, from_us, now_us)
  local head, points = point_head(from_us, now_us), {}
  local point = family.kind == "histogram" and histogram_point or number_point
  for i, series in ipairs(family.series) do points[i] = point(series, head) end
  local data = concat(points)
  if family.kind == "counter" then
    data = bytes_field(7, data .. integer_field(2, CUMULATIVE) .. key_of(3, 0) .. "\1")
  elseif family.kind == "histogram" then
    data = bytes_field(9, data .. integer_field(2, CUMULATIVE))
  else
    data = bytes_field(5, data)
  end
  return bytes_field(2, text_field(1, family.name) .. text_field(2, family.help) .. data)
end

-- ---- Batches ----

-- A request with these entries, which are all of one kind. The three requests differ in what the entries are only.
---@param resource table<string, any> attributes of who tells
---@param scope { name: string, version: string }
---@param entries string[]
---@return string
function otlp.request(resource, scope, entries)
  local head = bytes_field(1, text_field(1, scope.name) .. text_field(2, scope.version))
  return bytes_field(1, bytes_field(1, attributes(1, resource)) .. bytes_field(2, head .. concat(entries)))
end

return otlp
