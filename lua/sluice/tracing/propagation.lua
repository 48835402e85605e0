-- SPDX-License-Identifier: Apache-2.0
-- Trace contexts in fields of requests, in the formats that Kong knows: w3c, b3 (several fields or one), jaeger, ot,
-- datadog, aws, gcp. An extractor reads what came, an injector writes what goes to the service.
--
-- A context: trace (32 hex digits), parent (16: the caller's span), grandparent (16: its parent, where told), sampled
-- (what the caller decided, nil: nothing), flags (of W3C), short (the trace id came with 16 digits), single (B3 in one
-- field), debug (B3).

local bit = require "bit"
local ffi = require "ffi"
local core = require "sluice.api.core"
local ids = require "sluice.tracing.ids"

local C, worker = core.C, core.worker
local E = core.E
local field = core.field
local REQUEST = worker ~= nil and E.MESSAGE_REQUEST or 0
local find, format, match, gsub, sub = string.find, string.format, string.match, string.gsub, string.sub
local sized = ids.sized

local propagation = {}

local function number_of(name)
  return worker ~= nil and C.bridge_field_name(worker, name, #name) or 0
end

local TRACEPARENT = number_of "traceparent"
local B3 = number_of "b3"
local B3_TRACE, B3_SPAN = number_of "x-b3-traceid", number_of "x-b3-spanid"
local B3_PARENT, B3_SAMPLED = number_of "x-b3-parentspanid", number_of "x-b3-sampled"
local B3_FLAGS = number_of "x-b3-flags"
local JAEGER = number_of "uber-trace-id"
local OT_TRACE, OT_SPAN = number_of "ot-tracer-traceid", number_of "ot-tracer-spanid"
local OT_SAMPLED = number_of "ot-tracer-sampled"
local DATADOG_TRACE, DATADOG_PARENT = number_of "x-datadog-trace-id", number_of "x-datadog-parent-id"
local DATADOG_PRIORITY = number_of "x-datadog-sampling-priority"
local AWS = number_of "x-amzn-trace-id"
local GCP = number_of "x-cloud-trace-context"

local function get(handle, name)
  return field(handle, REQUEST, name, 0)
end

local function set(handle, name, value)
  C.bridge_field_set(worker, handle, REQUEST, name, value, #value)
end

local YES_NO = { ["1"] = true, ["true"] = true, ["True"] = true, ["0"] = false, ["false"] = false, ["False"] = false }

-- ---- Extractors: nil when the request has nothing of the format, or nothing that could be understood ----

local extract = {}

-- A context as a `traceparent` says it; nil when it does not.
---@param text string
---@return table|nil
function propagation.parse(text)
  local version, trace, span, flags, rest = match(text, "^(%x%x)%-(%x+)%-(%x+)%-(%x%x)(.*)$")
  if not version or version == "ff" or #trace ~= 32 or #span ~= 16 or find(text, "%u") then return nil end
  if rest ~= "" and (version == "00" or sub(rest, 1, 1) ~= "-") then return nil end
  trace, span = sized(trace, 32), sized(span, 16)
  if not trace or not span then return nil end
  flags = tonumber(flags, 16)
  return { trace = trace, parent = span, sampled = flags % 2 == 1, flags = flags }
end

function extract.w3c(handle)
  local text = get(handle, TRACEPARENT)
  return text and propagation.parse(text) or nil
end

-- "TRACE-SPAN-SAMPLED-PARENT", "TRACE-SPAN-SAMPLED", "TRACE-SPAN", or the third alone.
local function b3_single(text)
  if text == "0" or text == "1" or text == "d" then
    return { sampled = text ~= "0", debug = text == "d", single = true }
  end
  local trace, span, rest = match(text, "^(%x+)%-(%x+)(.*)$")
  if not trace or (#trace ~= 16 and #trace ~= 32) or #span ~= 16 then return nil end
  local state, parent = match(rest, "^%-([01d])(.*)$")
  if rest ~= "" and not state then return nil end
  local sampled
  if state then sampled = state ~= "0" end
  trace, span = sized(trace, 32), sized(span, 16)
  if not trace or not span then return nil end
  return { trace = trace, parent = span, grandparent = parent and sized(sub(parent, 2), 16), sampled = sampled,
    debug = state == "d", single = true, short = #match(text, "^%x+") == 16 }
end

-- A trace id of 16 or 32 digits and a span's id, each nil unless both are good; and whether the former was short.
local function ids_of(trace, span)
  if not trace or (#trace ~= 16 and #trace ~= 32) then return nil end
  local long, parent = sized(trace, 32), sized(span, 16)
  if not long or not parent then return nil end
  return long, parent, #trace == 16
end

local function b3_fields(handle, trace, flags)
  local debug = flags == "1"
  local decided = YES_NO[get(handle, B3_SAMPLED)]
  if debug then decided = true end
  local long, span, short = ids_of(trace, get(handle, B3_SPAN))
  if not long and decided == nil then return nil end
  return { trace = long, parent = span, grandparent = long and sized(get(handle, B3_PARENT), 16), sampled = decided,
    debug = debug, short = short }
end

function extract.b3(handle)
  local single = get(handle, B3)
  local found = single and b3_single(single)
  if found then return found end
  local trace, flags = get(handle, B3_TRACE), get(handle, B3_FLAGS)
  if not trace and not flags and not get(handle, B3_SAMPLED) then return nil end
  return b3_fields(handle, trace, flags)
end

function extract.jaeger(handle)
  local text = get(handle, JAEGER)
  if not text then return nil end
  local trace, span, parent, flags = match(gsub(text, "%%3[aA]", ":"), "^(%x+):(%x+):(%x+):(%x%x?)$")
  if not trace or #trace > 32 or #span > 16 or #parent > 16 then return nil end
  local short = #trace <= 16
  trace, span = sized(trace, 32), sized(span, 16)
  if not trace or not span then return nil end
  return { trace = trace, parent = span, grandparent = sized(parent, 16), sampled = tonumber(flags, 16) % 2 == 1,
    short = short }
end

function extract.ot(handle)
  local trace, sampled = get(handle, OT_TRACE), get(handle, OT_SAMPLED)
  if not (trace or sampled) then return nil end
  local long, span, short = ids_of(trace, get(handle, OT_SPAN))
  local decided = YES_NO[sampled]
  if not long and decided == nil then return nil end
  return { trace = long, parent = span, sampled = decided, short = short }
end

local PRIORITIES = { ["1"] = true, ["2"] = true, ["0"] = false, ["-1"] = false }

function extract.datadog(handle)
  local trace, priority = get(handle, DATADOG_TRACE), get(handle, DATADOG_PRIORITY)
  if not (trace or priority) then return nil end
  trace = trace and ids.from_decimal(trace)
  local parent = get(handle, DATADOG_PARENT)
  parent = trace and parent and ids.from_decimal(parent) or nil
  local decided = PRIORITIES[priority]
  if not trace and decided == nil then return nil end
  return { trace = trace and sized(trace, 32), parent = parent, sampled = decided, short = true }
end

function extract.aws(handle)
  local text = get(handle, AWS)
  if not text then return nil end
  local time, unique = match(text, "Root=1%-(%x+)%-(%x+)")
  if not time or #time ~= 8 or #unique ~= 24 then return nil end
  local decided = match(text, "Sampled=([01])")
  return { trace = sized(time .. unique, 32), parent = sized(match(text, "Parent=(%x+)"), 16),
    sampled = YES_NO[decided] }
end

function extract.gcp(handle)
  local text = get(handle, GCP)
  if not text then return nil end
  local trace, span, options = match(text, "^(%x+)/(%d+)(.*)$")
  if not trace or #trace ~= 32 then return nil end
  local decided = match(options, "^;o=(%d)$")
  if options ~= "" and not decided then return nil end
  trace = sized(trace, 32)
  if not trace then return nil end
  return { trace = trace, parent = ids.from_decimal(span), sampled = YES_NO[decided] }
end

-- The fields by which each format is recognised, but for W3C.
local FIELDS = {
  w3c = {}, b3 = { B3, B3_TRACE, B3_SAMPLED, B3_FLAGS }, jaeger = { JAEGER }, ot = { OT_TRACE, OT_SAMPLED },
  datadog = { DATADOG_TRACE, DATADOG_PRIORITY }, aws = { AWS }, gcp = { GCP },
}

-- ---- Injectors: `span` is the id that the service shall take for its parent's ----

local inject = {}

inject["w3c"] = function(handle, trace, sampled, context)
  local kept = context and context.flags and bit.band(context.flags, 2) or 0
  set(handle, TRACEPARENT, "00-" .. trace.id .. "-" .. trace.next .. (kept == 0 and (sampled and "-01" or "-00")
    or (sampled and "-03" or "-02")))
end

-- The trace id as it came, where its length says something.
local function original(trace)
  return trace.short and sub(trace.id, 17) or trace.id
end

inject["b3"] = function(handle, trace, sampled, context)
  set(handle, B3_TRACE, original(trace))
  set(handle, B3_SPAN, trace.next)
  set(handle, B3_PARENT, trace.root)
  if context and context.debug then
    set(handle, B3_FLAGS, "1")
  else
    set(handle, B3_SAMPLED, sampled and "1" or "0")
  end
end

inject["b3-single"] = function(handle, trace, sampled, context)
  local state = context and context.debug and "d" or sampled and "1" or "0"
  set(handle, B3, original(trace) .. "-" .. trace.next .. "-" .. state .. "-" .. trace.root)
end

inject["jaeger"] = function(handle, trace, sampled)
  set(handle, JAEGER, trace.id .. ":" .. trace.next .. ":" .. trace.root .. (sampled and ":01" or ":00"))
end

inject["ot"] = function(handle, trace, sampled)
  set(handle, OT_TRACE, original(trace))
  set(handle, OT_SPAN, trace.next)
  set(handle, OT_SAMPLED, sampled and "1" or "0")
end

inject["datadog"] = function(handle, trace, sampled)
  set(handle, DATADOG_TRACE, ids.decimal(trace.id))
  set(handle, DATADOG_PARENT, ids.decimal(trace.next))
  set(handle, DATADOG_PRIORITY, sampled and "1" or "0")
end

inject["aws"] = function(handle, trace, sampled)
  set(handle, AWS, format("Root=1-%s-%s;Parent=%s;Sampled=%s", sub(trace.id, 1, 8), sub(trace.id, 9), trace.next,
    sampled and "1" or "0"))
end

inject["gcp"] = function(handle, trace, sampled)
  set(handle, GCP, trace.id .. "/" .. ids.decimal(trace.next) .. (sampled and ";o=1" or ";o=0"))
end

-- How each format writes a trace id, for logs.
local shown = {}

function shown.w3c(id) return id end
function shown.aws(id) return "1-" .. sub(id, 1, 8) .. "-" .. sub(id, 9) end
function shown.datadog(id) return ids.decimal(id) end

---@param name string of the format
---@param trace table
---@return string
function propagation.shown(name, trace)
  local as = shown[name]
  if as then return as(trace.id) end
  return (name == "b3" or name == "b3-single" or name == "ot") and original(trace) or trace.id
end

-- ---- Settings of an instance ----

local EXTRACT = { "w3c", "b3", "jaeger", "ot", "datadog", "aws", "gcp" }
local INJECT = { "preserve", "w3c", "b3", "b3-single", "jaeger", "ot", "datadog", "aws", "gcp" }
local FORMATS = { "w3c", "b3", "b3-single", "jaeger", "ot", "datadog", "aws", "gcp" }
-- The order in which formats were looked for before instances could say it.
local OLDER_ORDER = { "b3", "w3c", "jaeger", "ot", "datadog", "aws", "gcp" }

-- Fields of schemas: Kong's `propagation`, and the older `header_type`.
---@param default_format string
function propagation.field(default_format)
  local function list(names, about)
    return { type = "array", elements = { type = "string", one_of = names }, about = about }
  end
  return { type = "record", required = true, default = { default_format = default_format },
    about = "which fields of requests carry the trace's context", fields = {
      { extract = list(EXTRACT, "formats that are looked for in requests, in this order; none: each request begins a "
        .. "trace of its own") },
      { clear = { type = "array", elements = { type = "string" },
        about = "fields that are taken out of the request before the context is put in" } },
      { inject = list(INJECT, "formats in which services are told; preserve: the one that the request had") },
      { default_format = { type = "string", required = true, one_of = FORMATS,
        about = "format of what is preserved when the request had none" } },
    } }
end

propagation.header_types = { "preserve", "ignore", "b3", "b3-single", "w3c", "jaeger", "ot", "aws", "gcp", "datadog" }
propagation.formats = FORMATS

local function given(value)
  return type(value) == "table"
end

local function list_or_none(value)
  return given(value) and value or {}
end

-- A loop over a handful of formats would be compiled by itself, and keep the phase around it from being compiled: so
-- the functions of an instance are written out.

local function reader_of(formats)
  local lines, locals = { "local extract = ...", "", "return function(handle)", "  local found" }, {}
  for i, name in ipairs(formats) do
    locals[i] = ("local extract_%d = extract[%q]"):format(i, name)
    lines[#lines + 1] = ("  found = extract_%d(handle)"):format(i)
    lines[#lines + 1] = ("  if found then return found, %q end"):format(name)
  end
  lines[2] = table.concat(locals, "\n")
  lines[#lines + 1] = "  return nil\nend"
  return assert(loadstring(table.concat(lines, "\n"), "=reader"))(extract)
end

-- What `preserve` comes to.
local function preserved(trace, settings)
  local name = trace.format or settings.default
  if name == "b3" and trace.context and trace.context.single then return "b3-single" end
  return name
end

local function clear_field(handle, name)
  C.bridge_header_clear(worker, handle, REQUEST, name, #name)
end

local function writer_of(formats, clear, settings)
  local lines = { "local inject, preserved, clear, settings = ...", "", "return function(handle, trace, sampled)" }
  local locals = {}
  for _, name in ipairs(clear) do lines[#lines + 1] = ("  clear(handle, %q)"):format(name) end
  for i, name in ipairs(formats) do
    if name == "preserve" then
      lines[#lines + 1] = "  inject[preserved(trace, settings)](handle, trace, sampled, trace.context)"
    else
      locals[#locals + 1] = ("local inject_%d = inject[%q]"):format(i, name)
      lines[#lines + 1] = ("  inject_%d(handle, trace, sampled, trace.context)"):format(i)
    end
  end
  lines[2] = table.concat(locals, "\n")
  lines[#lines + 1] = "end"
  return assert(loadstring(table.concat(lines, "\n"), "=writer"))(inject, preserved, clear_field, settings)
end

-- What the core needs to begin traces by itself: of instances that tell services in W3C's format, which nearly all do.
local function options_of(from, into, clear, default)
  local w3c = into[1] == "w3c" or (into[1] == "preserve" and default == "w3c")
  if #into ~= 1 or clear[1] or not w3c then return nil end
  local others, extracts = {}, false
  for _, name in ipairs(from) do
    extracts = extracts or name == "w3c"
    for _, number in ipairs(FIELDS[name]) do others[#others + 1] = number end
  end
  local options = ffi.new("struct trace_options")
  local cell = ffi.new("uint32_t[?]", math.max(#others, 1))
  for i, number in ipairs(others) do cell[i - 1] = number end
  options.traceparent, options.others, options.other_count, options.extract = TRACEPARENT, cell, #others, extracts
  return options, cell
end

-- What the older field says, in the newer ones' words.
local function older(conf, default)
  if conf.header_type == "ignore" then return {}, { default } end
  if conf.header_type == nil or conf.header_type == "preserve" then return OLDER_ORDER, { "preserve" } end
  return OLDER_ORDER, { "preserve", conf.header_type }
end

-- What an instance says, older fields included, ready for use.
---@param conf table
---@param rate number of traces that are kept, 0 to 1
---@param follow? boolean what the caller samples is sampled, whatever the rate
---@param short? boolean traces that begin here get ids of 16 digits
---@return { read: function, write: function, inject: string[], default: string, rate: number, follow: boolean }
function propagation.settings(conf, rate, follow, short)
  local said = conf.propagation or {}
  local default = said.default_format or "w3c"
  local from, into = said.extract, said.inject
  if not given(said.extract) and not given(said.inject) and not given(said.clear) then
    default = conf.default_header_type or default
    from, into = older(conf, default)
  end
  from, into = list_or_none(from), list_or_none(into)
  local clear = list_or_none(said.clear)
  local settings = { default = default, inject = into, rate = rate, follow = follow or false,
    short = short or false }
  settings.read, settings.write = reader_of(from), writer_of(into, clear, settings)
  if worker ~= nil and not short then settings.options, settings.held = options_of(from, into, clear, default) end
  if settings.options then settings.options.rate, settings.options.follow = rate, follow end
  return settings
end

-- The trace id as the formats write it that were injected: "trace_id" of logs.
---@return table<string, string>|nil
function propagation.ids_for_log(trace)
  local list, found = trace.settings.inject, nil
  for i = 1, #list do
    local name = list[i] == "preserve" and preserved(trace, trace.settings) or list[i]
    found = found or {}
    found[name == "b3-single" and "b3" or name] = propagation.shown(name, trace)
  end
  return found
end

return propagation
