-- SPDX-License-Identifier: Apache-2.0
-- Traces, log lines, log records of requests and metrics to an OpenTelemetry collector.
local exporter = require "opentelemetry.exporter"
local logging = require "sluice.logging"
local otlp = require "sluice.otlp"
local pusher = require "opentelemetry.pusher"
local queue = require "sluice.queue"
local tracing = require "sluice.tracing"

local opentelemetry = { version = "1.0.0", priority = 14 }

local SCOPE = "sluice"
local DEFAULT_RATE = 0.01 -- Kong's

local states = setmetatable({}, { __mode = "k" }) -- by configuration: what is prepared of it, and its queues

local function access_logs_of(conf)
  return conf.access_logs and conf.access_logs.endpoint and conf.access_logs or nil
end

function opentelemetry.needs(conf)
  local wanted = {}
  for _, name in ipairs(conf.spans or {}) do wanted[name] = true end
  return {
    access = conf.traces_endpoint ~= nil, header_filter = conf.http_response_header_for_traceid ~= nil,
    log = conf.traces_endpoint ~= nil or conf.logs_endpoint ~= nil or access_logs_of(conf) ~= nil,
    tracer = conf.traces_endpoint ~= nil, timings = conf.traces_endpoint and next(wanted) and true or false,
    lines = conf.logs_endpoint ~= nil,
  }
end

local function new_state(conf)
  local wanted = {}
  for _, name in ipairs(conf.spans or {}) do wanted[name] = true end
  return {
    settings = tracing.propagation.settings(conf, conf.sampling_rate or DEFAULT_RATE,
      conf.sampling_strategy == "parent_probability_fallback"),
    wanted = wanted,
    fields = access_logs_of(conf) and logging.fields { custom_fields_by_lua =
      conf.access_logs.custom_attributes_by_lua } or nil,
  }
end

local function open(conf, url, name)
  return url and queue.open(conf, exporter.send, exporter.context(conf, url, SCOPE), name) or nil
end

function opentelemetry.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local state = states[conf] or new_state(conf)
    local access_logs = access_logs_of(conf)
    state.traces, state.lines = open(conf, conf.traces_endpoint, "traces"), open(conf, conf.logs_endpoint, "logs")
    state.records = open(conf, access_logs and access_logs.endpoint, "access_logs")
    states[conf] = state
    if state.traces then
      local traces = state.traces
      tracing.exporter(conf, { settings = state.settings,
        export = function(trace, span) traces:add(otlp.span(trace.id, span)) end })
    end
    if state.lines then tracing.keep_lines() end
  end
  pusher.configure(confs or {})
end

function opentelemetry.access(conf, exchange)
  tracing.begin(exchange, states[conf].settings, "opentelemetry")
end

function opentelemetry.header_filter(conf, exchange)
  local trace = tracing.of(exchange)
  if trace then exchange.response:add_header(conf.http_response_header_for_traceid, trace.id) end
end

local function put_spans(state, exchange, trace)
  local spans = tracing.spans(exchange, state.wanted)
  for i = 1, #spans do state.traces:add(otlp.span(trace.id, spans[i])) end
end

local function put_lines(state, exchange, trace)
  for _, line in ipairs(tracing.lines(exchange)) do
    line.trace_id, line.span_id = trace and trace.id, trace and trace.root
    line.attributes["request.id"] = exchange.id
    state.lines:add(otlp.record(line))
  end
end

-- Tables in tables to names with dots.
local function flatten(map, prefix, out)
  for name, value in pairs(map) do
    local kind = type(value)
    if kind == "table" then
      flatten(value, prefix .. name .. ".", out)
    elseif kind == "string" or kind == "number" or kind == "boolean" then
      out[prefix .. name] = value
    end
  end
  return out
end

local function put_record(state, exchange, trace)
  local record = logging.record(state.fields, exchange)
  local request, response, session = record.request, record.response, record.session
  local said = request and ("%s %s %d"):format(request.method or "-", request.uri, response.status or 0)
    or ("%s %s"):format(session.protocol, session.sni or "")
  state.records:add(otlp.record { time_us = tracing.now_us(), level = 1, body = said,
    attributes = flatten(record, "", {}), trace_id = trace and trace.id, span_id = trace and trace.root })
end

function opentelemetry.log(conf, exchange)
  local state = states[conf]
  local sampled = state.traces and tracing.sampled(exchange, "opentelemetry")
  if sampled then put_spans(state, exchange, sampled) end
  if not state.lines and not state.records then return end
  local trace = tracing.of(exchange)
  if state.lines then put_lines(state, exchange, trace) end
  if state.records then put_record(state, exchange, trace) end
end

return opentelemetry
