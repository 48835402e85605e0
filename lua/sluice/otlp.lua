-- SPDX-License-Identifier: Apache-2.0
-- OpenTelemetry's wire format (OTLP as protocol buffers, opentelemetry-proto 1.x): spans, log records and metrics to
-- bytes. Each entry is encoded by itself, as the repeated field that it will be, so that a batch is no more than the
-- entries behind a head. Field numbers are those of the .proto files.

local bit = require "bit"
local buffer = require "string.buffer"
local ffi = require "ffi"

local band, bor, rshift = bit.band, bit.bor, bit.rshift
local char, byte = string.char, string.byte
local concat = table.concat
local floor, pairs, tonumber, type, tostring = math.floor, pairs, tonumber, type, tostring

---@class sluice.otlp
local otlp = {}

local cell = ffi.new("union { uint64_t whole; double real; uint8_t bytes[8]; }")

-- ---- Protocol buffers ----

local function long_varint(value)
  local out = {}
  while value >= 128 do
    out[#out + 1] = char(bor(value % 128, 128))
    value = floor(value / 128)
  end
  out[#out + 1] = char(value)
  return concat(out)
end

-- Lengths and small numbers, which are most of them.
local SMALL = {}
for i = 0, 2047 do SMALL[i] = long_varint(i) end

local function varint(value)
  return SMALL[value] or long_varint(value)
end

-- 64 bits of an integer that may be negative.
local function varint64(value)
  if value >= 0 then return SMALL[value] or long_varint(value) end
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

local KEYS = {} -- of fields that have a length
for i = 1, 32 do KEYS[i] = key_of(i, 2) end

local function bytes_field(number, value)
  return KEYS[number] .. varint(#value) .. value
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

local FIXED = {} -- keys of fields of 64 bits
for i = 1, 16 do FIXED[i] = key_of(i, 1) end

-- Nanoseconds of microseconds, which a double holds exactly.
local function time_field(number, us)
  return FIXED[number] .. fixed64(ffi.cast("uint64_t", us) * 1000ULL)
end

local DIGITS = {}
for i = 0, 9 do DIGITS[48 + i] = i end
for i = 10, 15 do DIGITS[87 + i], DIGITS[55 + i] = i, i end

local id_cell = ffi.new("uint8_t[16]")

-- Hex digits to bytes; at most 32 digits.
local function raw(hex)
  local size = #hex / 2
  for i = 0, size - 1 do
    local high, low = byte(hex, i * 2 + 1, i * 2 + 2)
    id_cell[i] = DIGITS[high] * 16 + DIGITS[low]
  end
  return ffi.string(id_cell, size)
end

-- ---- Attributes ----

local function any_value(value)
  local kind = type(value)
  if kind == "string" then return KEYS[1] .. varint(#value) .. value end
  if kind == "boolean" then return value and "\16\1" or "\16\0" end
  if kind ~= "number" then return bytes_field(1, tostring(value)) end
  if value % 1 == 0 and value > -9e15 and value < 9e15 then return "\24" .. varint64(value) end
  return "\33" .. double(value)
end

local MOST_NAMES = 1000
local names, name_count = {}, 0 -- encoded already

local function encoded_name(name)
  local known = text_field(1, name)
  if name_count < MOST_NAMES then names[name], name_count = known, name_count + 1 end
  return known
end

local scratch = buffer.new()

-- Attributes as the repeated field of that number.
local function attributes(number, map)
  local out, key = scratch:reset(), KEYS[number]
  for name, value in pairs(map) do
    local head, any = names[name] or encoded_name(name), any_value(value)
    local size = varint(#any)
    out:put(key, varint(#head + 1 + #size + #any), head, "\18", size, any)
  end
  return out:get()
end

-- ---- Spans ----

local function event(one)
  return bytes_field(11, time_field(1, one.time_us) .. text_field(2, one.name) .. attributes(3, one.attributes))
end

local function events_of(span)
  local list = span.events
  if not list[1] then return "" end
  local events = {}
  for i, one in ipairs(list) do events[i] = event(one) end
  return concat(events)
end

local function link(one)
  return bytes_field(13, bytes_field(1, raw(one.trace_id)) .. bytes_field(2, raw(one.span_id))
    .. text_field(3, one.state) .. attributes(4, one.attributes))
end

local function links_of(span)
  local list = span.links
  if not list then return "" end
  local links = {}
  for i, one in ipairs(list) do links[i] = link(one) end
  return concat(links)
end

local function status_of(span)
  if not span.status or span.status == 0 then return "" end
  return bytes_field(15, text_field(2, span.status_message) .. integer_field(3, span.status))
end

---@param trace_id string 32 hex digits
---@param span sluice.span
---@return string an entry of a batch
function otlp.span(trace_id, span)
  return bytes_field(2, "\10\16" .. raw(trace_id) .. "\18\8" .. raw(span.id)
    .. (span.parent and "\34\8" .. raw(span.parent) or "") .. text_field(5, span.name) .. "\48" .. SMALL[span.kind]
    .. time_field(7, span.start_us) .. time_field(8, span.end_us) .. attributes(9, span.attributes) .. events_of(span)
    .. links_of(span) .. status_of(span))
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
