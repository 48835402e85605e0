-- SPDX-License-Identifier: Apache-2.0
-- Traces of exchanges: for plugins that tell a collector of them (tracers), and for all others, which may add spans.
--
-- A tracer calls `tracing.begin` in access: the request's context is read, whether to sample is decided, and the
-- service is told. What the core knows of an exchange (when it came, went out, was answered) becomes spans in its log
-- phase, and only for those sampled: an exchange that is not costs three ids and a field.
--
--   server span "GET /hello"            root
--     client span "sluice.balancer"     one a try; the last has the id that the service was told
--     "sluice.access"                   phases, where a tracer asks for them
--       "sluice.access.plugin.key-auth" plugins, likewise
--     spans of plugins                  tracing.start_span
--
-- A tracer's `needs(conf)` has `tracer`, and `timings` when phases or plugins are to be timed. Plans know, so routes
-- without one pay nothing.

local core = require "sluice.api.core"
local ffi = require "ffi"
local ids = require "sluice.tracing.ids"
local phases = require "sluice.phases"
local propagation = require "sluice.tracing.propagation"

local C, worker = core.C, core.worker
local rawget, rawset, setmetatable, tonumber, tostring, type = rawget, rawset, setmetatable, tonumber, tostring, type
local floor = math.floor
local ffi_string = ffi.string
local OK, NONE = 0, 2

---@class sluice.tracing
local tracing = { propagation = propagation }

tracing.INTERNAL, tracing.SERVER, tracing.CLIENT, tracing.PRODUCER, tracing.CONSUMER = 1, 2, 3, 4, 5
tracing.UNSET, tracing.OK, tracing.ERROR = 0, 1, 2

local E = core.E

local function text(handle, what)
  return core.text(handle, what)
end

local function number(handle, what)
  return core.number(handle, what)
end

local KINDS = { internal = 1, server = 2, client = 3, producer = 4, consumer = 5 }
local MOST_SPANS = 512 -- of plugins, in one exchange
local MOST_LINKS = 128 -- of one span

-- Microseconds since 1970, at this moment.
local function now_us()
  return floor((C.bridge_mono_fresh(worker) + C.bridge_now(worker) - C.bridge_mono(worker)) * 1e6)
end
tracing.now_us = now_us

-- ---- Traces ----

---@class sluice.trace
---@field id string 32 hex digits
---@field root string id of the server span
---@field next string id of the client span, which services are told
---@field parent? string of the root
---@field sampled boolean whether any tracer wants it

-- What the caller dropped is dropped; what it sampled is sampled where it is followed; else the rate decides, the same
-- for everybody who looks at the same id. The core does the same (core/bridge_trace.c).
local function decide(trace, settings)
  local context = trace.context
  if context then
    if context.sampled == false then return false end
    if context.sampled and settings.follow then return true end
  end
  return trace.share >= 1 - settings.rate
end

local NO_BYTES = ("0"):rep(16)

local function new_trace(handle, settings)
  local context, format = settings.read(handle)
  local short = settings.short
  local id = context and context.trace
  if id then short = context.short else id = short and NO_BYTES .. ids.span() or ids.trace() end
  return {
    id = id, short = short or false, share = ids.share(id),
    root = ids.span(), next = ids.span(), parent = context and context.parent or nil,
    context = context or false, format = format or false, settings = settings, sampled = false,
  }
end

local cell = ffi.new("struct trace_ids[1]")
local W3C = { inject = { "w3c" }, default = "w3c" }

-- What the core has begun, as the object that the other functions know.
local function adopt(exchange)
  local it, kept = cell[0], rawget(exchange, "trace")
  local trace = {
    id = ffi_string(it.id, 32), root = ffi_string(it.root, 16), next = ffi_string(it.next, 16),
    parent = it.has_parent and ffi_string(it.parent, 16) or nil, settings = W3C, format = false, sampled = it.sampled,
    context = it.has_parent and { sampled = it.flags % 2 == 1, flags = it.flags } or false,
    spans = kept and kept.spans or nil,
  }
  trace.share = ids.share(trace.id)
  rawset(exchange, "trace", trace)
  return trace
end

-- The trace of an exchange; nil: no tracer has begun one.
---@param exchange sluice.exchange
---@return sluice.trace|nil
function tracing.of(exchange)
  local trace = rawget(exchange, "trace")
  if trace and trace.id then return trace end
  if C.bridge_trace(worker, exchange.handle, cell) == OK then return adopt(exchange) end
  return nil
end

-- In Lua: formats other than W3C's, and what a second tracer wants.
local function begin_here(exchange, settings)
  local handle, trace = exchange.handle, tracing.of(exchange)
  if not trace then
    local kept = rawget(exchange, "trace")
    trace = new_trace(handle, settings)
    trace.spans = kept and kept.spans or nil
    rawset(exchange, "trace", trace)
  end
  local sampled = decide(trace, settings)
  if sampled then trace.sampled = true end
  settings.write(handle, trace, sampled)
  return sampled
end

-- Begins the exchange's trace, or joins the one that another tracer has begun, and tells the service in the formats of
-- `settings`.
---@param exchange sluice.exchange in access
---@param settings table from propagation.settings
---@param tracer string name of the plugin: see tracing.sampled
function tracing.begin(exchange, settings, tracer)
  local options, sampled = settings.options, true
  local status = options and C.bridge_trace_begin(worker, exchange.handle, options, cell) or NONE
  if status == OK then
    if not cell[0].sampled then return end -- nothing of it is in Lua unless somebody asks
    adopt(exchange)
  else
    sampled = begin_here(exchange, settings)
  end
  if sampled then rawget(exchange, "trace")[tracer] = true end
end

-- The trace of an exchange that this tracer has sampled, else nil.
---@param exchange sluice.exchange
---@param tracer string
---@return sluice.trace|nil
function tracing.sampled(exchange, tracer)
  local trace = rawget(exchange, "trace")
  return trace and trace[tracer] and trace or nil
end

-- ---- Spans of plugins ----

---@class sluice.span
local Span = {}
local span_mt = { __index = Span, __metatable = false }

---@param name string
---@param value string|number|boolean|nil nil takes it away
function Span:set_attribute(name, value)
  local kind = type(value)
  if type(name) ~= "string" then error("span:set_attribute: name must be a string, got " .. type(name), 2) end
  if value ~= nil and kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
    error("span:set_attribute: value must be a string, number or boolean, got " .. kind, 2)
  end
  self.attributes[name] = value
end

---@param name string
---@param attributes? table<string, string|number|boolean>
---@param time_ns? number since 1970
function Span:add_event(name, attributes, time_ns)
  if type(name) ~= "string" then error("span:add_event: name must be a string, got " .. type(name), 2) end
  self.events[#self.events + 1] = { name = name, attributes = attributes or {},
    time_us = time_ns and floor(time_ns / 1000) or now_us() }
end

-- Another span, of this trace or of another, that this one has to do with.
---@param context { trace: string, parent: string, state?: string } ids as hex digits, and W3C's tracestate
---@param attributes? table<string, string|number|boolean>
function Span:add_link(context, attributes)
  local links = self.links
  if not links then
    links = {}
    self.links = links
  end
  if #links >= MOST_LINKS then return end
  links[#links + 1] = { trace_id = context.trace, span_id = context.parent, state = context.state,
    attributes = attributes or {} }
end

---@param err any
function Span:record_error(err)
  self:add_event("exception", { ["exception.message"] = tostring(err) })
end

---@param status integer tracing.UNSET, OK or ERROR
---@param message? string
function Span:set_status(status, message)
  self.status, self.status_message = status, message
end

-- `traceparent` for a request that is made within the span; nil where nothing is traced.
---@return string|nil
function Span:traceparent()
  return "00-" .. self.trace.id .. "-" .. self.id .. "-01"
end

---@param time_ns? number since 1970; this moment unless told
function Span:finish(time_ns)
  if self.end_us then return end
  self.end_us = time_ns and floor(time_ns / 1000) or now_us()
  local trace = self.trace
  if trace.active == self then trace.active = self.outer end
  if self.alone then self.alone(trace, self) end
end

-- What plugins get where nothing is traced.
local NOWHERE = setmetatable({ attributes = {}, events = {}, is_recording = false }, { __metatable = false, __index = {
  set_attribute = function() end, add_event = function() end, add_link = function() end,
  record_error = function() end,
  set_status = function() end, finish = function() end, traceparent = function() return nil end,
} })

local function exchange_at_hand()
  local job = require("sluice.runtime").job()
  return job and job.exchange or nil, job
end

-- The trace that spans of the running code belong to. Before a tracer has decided, spans are kept for it.
local function trace_at_hand()
  local exchange, job = exchange_at_hand()
  if not exchange then return nil end
  local trace = rawget(exchange, "trace")
  if trace then return (trace.sampled or not trace.id) and trace or nil end
  local plan = exchange.generation and exchange.generation.plans[job.route]
  if not plan or not plan.tracer then return nil end
  trace = { spans = {} }
  rawset(exchange, "trace", trace)
  return trace
end

local NO_OPTIONS = {}

local function new_span_of(trace, name, options)
  local parent, start = options.parent or trace.active, options.start_time_ns
  local kind = options.kind or options.span_kind
  local span = setmetatable({
    name = name, kind = KINDS[kind] or tonumber(kind) or tracing.INTERNAL, id = ids.span(),
    parent = parent and parent.id or nil, attributes = {}, events = {}, trace = trace,
    start_us = start and floor(start / 1000) or now_us(), is_recording = true,
  }, span_mt)
  for key, value in pairs(options.attributes or NO_OPTIONS) do span:set_attribute(key, value) end
  return span
end

local function open_span(trace, name, options)
  local spans = trace.spans
  if not spans then
    spans = {}
    trace.spans = spans
  end
  if #spans >= MOST_SPANS then return NOWHERE end
  local span = new_span_of(trace, name, options or NO_OPTIONS)
  spans[#spans + 1] = span
  return span
end

-- A span within the running exchange, under the active span.
---@param name string
---@param options? { kind?: string|integer, start_time_ns?: number, attributes?: table, parent?: sluice.span }
---@return sluice.span
function tracing.start_span(name, options)
  if type(name) ~= "string" or name == "" then error("sluice.tracing.start_span: name must be a string", 2) end
  local trace = trace_at_hand()
  if not trace then return NOWHERE end
  return (open_span(trace, name, options))
end

-- The plan of an exchange in which tracers have not begun yet; nil: they have, or there are none.
local function untold_plan(exchange)
  local held, job = exchange.generation, require("sluice.runtime").job()
  local plan = held and job and job.exchange == exchange and held.plans[job.route]
  if not plan or not plan.tracer or C.bridge_trace(worker, exchange.handle, cell) ~= NONE then return nil end
  return plan
end

local function have_begun(exchange, plan)
  local conf_of = require("sluice.runtime").conf_of
  for _, item in ipairs(plan[phases.numbers.access] or NO_OPTIONS) do
    local conf = item.tracer and conf_of(item, exchange)
    if conf then item.run(conf, exchange) end
  end
end

-- The trace of an exchange, if it is sampled. Tracers run late in access: a plugin that makes spans before that, and
-- perhaps answers, has them begin now, and so a tracer may begin twice.
---@param exchange sluice.exchange
---@return sluice.trace|nil
function tracing.begun(exchange)
  local trace = rawget(exchange, "trace")
  if not trace or not trace.id then
    local plan = untold_plan(exchange)
    if not plan then return nil end
    have_begun(exchange, plan)
    trace = rawget(exchange, "trace")
  end
  return trace and trace.id and trace.sampled and trace or nil
end

-- A span in that trace.
---@param trace sluice.trace
---@param name string
---@param options? table as for start_span
---@return sluice.span
function tracing.span_in(trace, name, options)
  return (open_span(trace, name, options))
end

-- ---- Spans outside of exchanges ----

local exporters = setmetatable({}, { __mode = "k" }) -- by the configurations of tracers

-- A tracer's way to tell of spans that belong to no exchange, to be given in `configure` for each configuration.
---@param conf table of the tracer's instance, which nothing in `exporter` may lead to
---@param exporter { settings: table, export: fun(trace: sluice.trace, span: sluice.span) }
function tracing.exporter(conf, exporter)
  exporters[conf] = exporter
end

local function id_of(reference)
  if type(reference) == "table" then return reference.id end
  return reference or nil
end

-- How special an instance is to a route and a service; nil: it is not for them.
local function rank_of(instance, route, service)
  if id_of(instance.consumer) or id_of(instance.consumer_group) then return nil end
  local its_route, its_service = id_of(instance.route), id_of(instance.service)
  if (its_route and its_route ~= route) or (its_service and its_service ~= service) then return nil end
  return (its_route and 2 or 0) + (its_service and 1 or 0)
end

local function exporters_of(held, route, service)
  local best, ranks, list = {}, {}, {}
  for _, instance in ipairs(held.entities.plugins or NO_OPTIONS) do
    local exporter = instance.enabled ~= false and exporters[instance.config]
    local rank = exporter and rank_of(instance, route, service)
    if rank and rank >= (ranks[instance.name] or 0) then best[instance.name], ranks[instance.name] = exporter, rank end
  end
  for _, exporter in pairs(best) do list[#list + 1] = exporter end
  return list
end

local by_generation = setmetatable({}, { __mode = "k" })

local function exporters_for(route, service)
  local held = require("sluice.generation").current()
  if not held then return NO_OPTIONS end
  local known = by_generation[held]
  if not known then
    known = {}
    by_generation[held] = known
  end
  local key = (route or "") .. "|" .. (service or "")
  local list = known[key]
  if not list then
    list = exporters_of(held, route, service)
    known[key] = list
  end
  return list
end

local function finish_alone(trace, span)
  for _, exporter in ipairs(trace.exporters) do exporter.export(trace, span) end
end

-- A trace outside of an exchange, or the part of one that the gateway sees: as the tracers of the route, the service or
-- all of them would have it for a request with this context.
---@param context? table as tracing.propagation.parse gives it
---@param scope? { route?: string, service?: string } ids
---@return sluice.trace|nil nil: there is no tracer
function tracing.alone(context, scope)
  local list = exporters_for(scope and scope.route, scope and scope.service)
  if not list[1] then return nil end
  local trace = { id = context and context.trace or ids.trace(), context = context or false, exporters = {} }
  trace.share = ids.share(trace.id)
  for _, exporter in ipairs(list) do
    if decide(trace, exporter.settings) then trace.exporters[#trace.exporters + 1] = exporter end
  end
  trace.sampled = trace.exporters[1] ~= nil
  return trace
end

-- A span in such a trace, which is told when it is finished.
---@param trace sluice.trace
---@param name string
---@param options table as for start_span; `under`: id of the span that it is under
---@return sluice.span
function tracing.span_alone(trace, name, options)
  if not trace.sampled then return NOWHERE end
  local span = new_span_of(trace, name, options)
  span.parent, span.alone = span.parent or options.under, finish_alone
  return span
end

-- The span that new ones are under; nil: the exchange's own.
---@return sluice.span|nil
function tracing.active_span()
  local trace = trace_at_hand()
  return trace and trace.active or nil
end

-- Until it is finished, new spans are under this one.
---@param span sluice.span
function tracing.set_active_span(span)
  local trace = trace_at_hand()
  if not trace or not span.is_recording then return end
  if span ~= trace.active then span.outer = trace.active end
  trace.active = span
end

-- An id for a span that a tracer makes up itself.
---@return string 16 hex digits
function tracing.new_span_id()
  return (ids.span())
end

-- When the exchange began.
---@return number microseconds since 1970
function tracing.started_us(exchange)
  return (number(exchange.handle, E.NUMBER_STARTED_US))
end

-- Finished spans are told with the exchange, whichever plugin made them: for each, in the log phase.
---@param exchange sluice.exchange
---@param fn fun(span: sluice.span)
function tracing.process_span(exchange, fn)
  local list = tracing.spans(exchange)
  for i = 1, #list do fn(list[i]) end
end

-- ---- Timings of phases and plugins ----

local PHASE, NAME, BEGAN, ENDED = 1, 2, 3, 4
local FIELDS = 4

-- Called by the runtime in place of its own loop, where a tracer asks for timings.
function tracing.run_timed(run_item, job, list, exchange, phase)
  local timings = rawget(exchange, "timings")
  if not timings then
    timings = {}
    rawset(exchange, "timings", timings)
  end
  for i = 1, #list do
    local at = #timings
    timings[at + PHASE], timings[at + NAME], timings[at + BEGAN] = phase, list[i].name, now_us()
    timings[at + ENDED] = false
    local result = run_item(job, list[i], exchange, phase)
    timings[at + ENDED] = now_us()
    if result then return result end
  end
  return 0
end

-- ---- Log lines of plugins ----

local MOST_LINES = 128 -- of one exchange
local RANKS = { debug = 0, info = 1, notice = 2, warn = 3, error = 4, err = 4, crit = 5 }

local function keep_line(level, plugin, message, facts)
  local exchange, job = exchange_at_hand()
  local held = exchange and exchange.generation
  local plan = held and held.plans[job.route]
  if not plan or not plan.lines then return end
  local settings = held.meta.gateway and held.meta.gateway.log
  if level < (RANKS[settings and settings.level] or 2) then return end
  local lines = rawget(exchange, "lines")
  if not lines then
    lines = {}
    rawset(exchange, "lines", lines)
  end
  if #lines >= MOST_LINES then return end
  local attributes = { plugin = plugin }
  for name, value in pairs(facts) do attributes[name] = type(value) == "table" and tostring(value) or value end
  lines[#lines + 1] = { time_us = now_us(), level = level, body = message, attributes = attributes }
end

-- From now on lines that plugins log while they work on an exchange are kept with it, where a tracer's `needs` says
-- `lines`.
function tracing.keep_lines()
  require("sluice.log").tap(keep_line)
end

---@param exchange sluice.exchange
---@return sluice.otlp.record[]
function tracing.lines(exchange)
  return rawget(exchange, "lines") or {}
end

-- ---- The spans of an exchange ----

local function flavor(handle)
  local version = number(handle, E.NUMBER_HTTP_VERSION) or 1.1
  return version >= 2 and tostring(floor(version)) or ("%.1f"):format(version)
end

local function route_path(route)
  local path = route and route.paths and route.paths[1]
  return type(path) == "string" and path or nil
end

local function root_attributes(exchange, route, service)
  local handle = exchange.handle
  local target = text(handle, E.TEXT_RAW_TARGET) or ""
  local scheme, host, port = text(handle, E.TEXT_SCHEME), text(handle, E.TEXT_HOST), number(handle, E.NUMBER_PORT)
  local attributes = {
    ["http.method"] = text(handle, E.TEXT_METHOD), ["http.scheme"] = scheme, ["http.host"] = host,
    ["http.url"] = ("%s://%s:%d%s"):format(scheme or "http", host or "", port or 0, target),
    ["http.target"] = target, ["http.flavor"] = flavor(handle), ["http.status_code"] = number(handle, E.NUMBER_STATUS),
    ["http.user_agent"] = core.header(handle, E.MESSAGE_REQUEST, "user-agent"),
    ["net.peer.ip"] = text(handle, E.TEXT_CLIENT_IP), ["http.client_ip"] = text(handle, E.TEXT_FORWARDED_IP),
    ["http.route"] = route_path(route), ["kong.request.id"] = exchange.id,
    ["http.request_content_length"] = number(handle, E.NUMBER_CONTENT_LENGTH),
    ["http.response_content_length"] = number(handle, E.NUMBER_RESPONSE_BODY_BYTES),
  }
  if route then attributes["kong.route.id"], attributes["kong.route.name"] = route.id, route.name end
  if service then attributes["kong.service.id"], attributes["kong.service.name"] = service.id, service.name end
  local consumer = exchange.consumer
  if consumer then
    attributes["kong.consumer.id"] = consumer.id
    attributes["kong.consumer.name"] = consumer.username or consumer.custom_id
  end
  return attributes
end

local function new_span(name, kind, id, parent, start_us, end_us, attributes)
  return { name = name, kind = kind, id = id, parent = parent, start_us = start_us, end_us = math.max(end_us, start_us),
    attributes = attributes, events = {}, is_recording = true }
end

local function root_span(exchange, trace)
  local entities = require "sluice.api.entities"
  local handle = exchange.handle
  local route, service = entities.route(exchange), entities.service(exchange)
  local path, method = route_path(route), text(handle, E.TEXT_METHOD) or "HTTP"
  local start_us = number(handle, E.NUMBER_STARTED_US) or 0
  local span = new_span(path and method .. " " .. path or method, tracing.SERVER, trace.root, trace.parent, start_us,
    start_us + (number(handle, E.NUMBER_ELAPSED_US) or 0), root_attributes(exchange, route, service))
  local status = span.attributes["http.status_code"] or 0
  if status >= 500 then
    span.status = tracing.ERROR
    local why = text(handle, E.TEXT_ERROR)
    if why and why ~= "" then span.status_message = why end
  end
  return span
end

-- One span a try. The last that was answered has the id that the service knows.
local function put_tries(list, exchange, trace, root)
  local handle = exchange.handle
  local tries = core.tries(handle)
  local service_status = number(handle, E.NUMBER_SERVICE_STATUS)
  for i, one in ipairs(tries) do
    local last = i == #tries
    local begun = floor(one.balancer_start_ns / 1000)
    local ends = last and root.end_us or tries[i + 1].balancer_start_ns / 1000
    local host = text(handle, E.TEXT_SERVICE_HOST)
    local span = new_span("sluice.balancer", tracing.CLIENT, last and trace.next or ids.span(), trace.root, begun,
      floor(ends), { ["net.peer.ip"] = one.ip, ["net.peer.port"] = one.port, ["net.peer.name"] = host,
        ["try_count"] = i, ["http.method"] = text(handle, E.TEXT_SERVICE_METHOD) or text(handle, E.TEXT_METHOD) })
    if last and service_status then
      span.attributes["http.status_code"] = service_status
      if service_status >= 500 then span.status = tracing.ERROR end
    elseif one.state == "failed" then
      span.status = tracing.ERROR
      span.attributes["http.status_code"] = one.code
    end
    list[#list + 1] = span
  end
end

local function put_timings(list, exchange, trace, wanted)
  local timings = rawget(exchange, "timings")
  local phase_span, phase_number
  for at = 0, #(timings or {}) - 1, FIELDS do
    local phase, ended = timings[at + PHASE], timings[at + ENDED] or now_us()
    local name = "sluice." .. phases.names[phase]
    if wanted.phases then
      if phase ~= phase_number then
        phase_span = new_span(name, tracing.INTERNAL, ids.span(), trace.root, timings[at + BEGAN], ended, {})
        phase_number = phase
        list[#list + 1] = phase_span
      end
      phase_span.end_us = ended
    end
    if wanted.plugins then
      list[#list + 1] = new_span(name .. ".plugin." .. timings[at + NAME], tracing.INTERNAL, ids.span(),
        phase_span and phase_span.id or trace.root, timings[at + BEGAN], ended, {})
    end
  end
end

local NOTHING = {}

-- All spans of an exchange in its log phase: its own, of tries, of what is wanted, and what plugins made; none when it
-- is not traced.
---@param exchange sluice.exchange
---@param wanted? { phases?: boolean, plugins?: boolean }
---@return sluice.span[]
function tracing.spans(exchange, wanted)
  local trace = tracing.of(exchange)
  if not trace then return NOTHING end
  local root = root_span(exchange, trace)
  local list = { root }
  put_tries(list, exchange, trace, root)
  if wanted then put_timings(list, exchange, trace, wanted) end
  local made = trace.spans
  for i = 1, made and #made or 0 do
    local span = made[i]
    span.parent = span.parent or trace.root
    span.end_us = span.end_us or root.end_us
    list[#list + 1] = span
  end
  return list
end

return tracing
