-- SPDX-License-Identifier: Apache-2.0
-- Traces to Zipkin, and to whatever else takes its spans.
local http = require "sluice.http"
local json = require "sluice.json"
local queue = require "sluice.queue"
local spans = require "zipkin.spans"
local tracing = require "sluice.tracing"

local zipkin = { version = "1.0.0", priority = 100000 }

local MAX_ANSWER = 64 * 1024
local SHOWN_ANSWER = 256

local states = setmetatable({}, { __mode = "k" }) -- by configuration: what is prepared of it, and its queue

function zipkin.needs(conf)
  return { access = true, header_filter = conf.http_response_header_for_traceid ~= nil,
    log = conf.http_endpoint ~= nil, tracer = true }
end

local function context_of(conf)
  return {
    url = conf.http_endpoint, connect_timeout = conf.connect_timeout / 1000, verify = conf.ssl_verify,
    timeout = (conf.connect_timeout + conf.send_timeout + conf.read_timeout) / 1000,
  }
end

local function send(context, batch)
  local response, err = http.request {
    url = context.url, method = "POST", headers = { ["Content-Type"] = "application/json" },
    body = "[" .. table.concat(batch, ",") .. "]", connect_timeout = context.connect_timeout,
    timeout = context.timeout, tls = { verify = context.verify }, max_body = MAX_ANSWER,
  }
  if not response then return nil, err end
  if response.status < 400 then return true end
  return nil, ("the server answered %d: %s"):format(response.status, response.body:sub(1, SHOWN_ANSWER))
end

local function add(entries, span)
  if not span.annotations[1] then span.annotations = nil end
  entries:add(assert(json.encode(span)))
end

-- For spans that belong to no exchange.
local function put_exporter(conf, state)
  local entries, name = state.queue, conf.local_service_name
  tracing.exporter(conf, { settings = state.settings,
    export = function(trace, span) add(entries, spans.made(name, trace, span)) end })
end

function zipkin.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local state = states[conf]
    if not state then
      state = { settings = tracing.propagation.settings(conf, conf.sample_ratio, true, conf.traceid_byte_count == 8) }
      states[conf] = state
    end
    state.queue = conf.http_endpoint and queue.open(conf, send, context_of(conf)) or nil
    if state.queue then put_exporter(conf, state) end
  end
end

function zipkin.access(conf, exchange)
  tracing.begin(exchange, states[conf].settings, "zipkin")
end

function zipkin.header_filter(conf, exchange)
  local trace = tracing.of(exchange)
  if trace then
    exchange.response:add_header(conf.http_response_header_for_traceid, trace.short and trace.id:sub(17) or trace.id)
  end
end

function zipkin.log(conf, exchange)
  local trace = tracing.sampled(exchange, "zipkin")
  if not trace then return end
  local state = states[conf]
  for _, span in ipairs(spans.of(conf, exchange, trace)) do add(state.queue, span) end
end

return zipkin
