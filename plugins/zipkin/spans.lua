-- SPDX-License-Identifier: Apache-2.0
-- An exchange as Zipkin's spans (its JSON, version 2): the request, what was proxied, each try.
local node = require "sluice.node"
local tracing = require "sluice.tracing"

local spans = {}

local floor, max = math.floor, math.max

local function name_of(conf, exchange)
  local method = exchange.request:get_method() or ""
  return conf.http_span_name == "method_path" and method .. " " .. exchange.request:get_path() or method
end

-- Tags that the request names itself: "a=b; c=d".
local function requested_tags(conf, exchange, tags)
  local text = exchange.request:get_header(conf.tags_header)
  for name, value in (type(text) == "string" and text or ""):gmatch("([^;=]+)=([^;]*)") do
    name = name:match("^%s*(.-)%s*$")
    if name ~= "" then tags[name] = value:match("^%s*(.-)%s*$") end
  end
end

local function request_tags(conf, exchange)
  local tags = {}
  for _, tag in ipairs(conf.static_tags or {}) do tags[tag.name] = tag.value end
  requested_tags(conf, exchange, tags)
  local status = exchange.response:get_status()
  local version = exchange.request:get_http_version()
  tags.lc, tags["kong.node.id"] = "kong", node.get_id()
  tags["http.method"], tags["http.path"] = exchange.request:get_method(), exchange.request:get_path()
  tags["http.host"], tags["http.status_code"] = exchange.request:get_host(), status and tostring(status)
  tags["http.protocol"] = version and "HTTP/" .. tostring(version)
  local consumer, credential = exchange.client:get_consumer(), exchange.client:get_credential()
  if consumer then tags["kong.consumer"] = consumer.id end
  if credential and conf.include_credential then tags["kong.credential"] = credential.id end
  return tags
end

local function entity_tags(exchange, tags)
  local route, service = exchange.router:get_route(), exchange.router:get_service()
  if route then tags["kong.route"], tags["kong.route_name"] = route.id, route.name end
  if service then tags["kong.service"], tags["kong.service_name"] = service.id, service.name end
  return service
end

local function endpoint(ip, port, service_name)
  if not ip then return service_name and { serviceName = service_name } or nil end
  local six = ip:find(":", 1, true)
  return { serviceName = service_name, port = port, ipv4 = not six and ip or nil, ipv6 = six and ip or nil }
end

-- When the phases of a request began and ended, in Kong's words: k, the phase's letter (access, header_filter,
-- body_filter), s or f.
local function put_phases(conf, span, times)
  for i, one in ipairs(times) do
    local phase, from, to = one[1], one[2], one[3]
    if conf.phase_duration_flavor == "tags" then
      span.tags["kong." .. phase .. ".duration_ms"] = ("%.3f"):format((to - from) / 1000)
    else
      local short = phase:sub(1, 1)
      span.annotations[i * 2 - 1] = { value = "k" .. short .. "s", timestamp = from }
      span.annotations[i * 2] = { value = "k" .. short .. "f", timestamp = to }
    end
  end
end

local function new_span_of(service_name, trace, id, parent, name, from, to)
  return {
    traceId = trace.short and trace.id:sub(17) or trace.id, id = id, parentId = parent, name = name, timestamp = from,
    duration = max(floor(to - from), 1), tags = {}, annotations = {},
    localEndpoint = { serviceName = service_name },
  }
end

local function new_span(conf, trace, id, parent, name, from, to)
  return (new_span_of(conf.local_service_name, trace, id, parent, name, from, to))
end

local KINDS = { "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER" } -- of tracing; Zipkin does not know the first

-- A span that a plugin has made.
---@param service_name string of the gateway
---@param trace sluice.trace
---@param made sluice.span finished
---@return table
function spans.made(service_name, trace, made)
  local span = new_span_of(service_name, trace, made.id, made.parent or trace.root, made.name, made.start_us,
    made.end_us)
  local kind = KINDS[made.kind]
  if kind ~= "INTERNAL" then span.kind = kind end
  for name, value in pairs(made.attributes) do span.tags[name] = tostring(value) end
  if made.status == tracing.ERROR then span.tags.error = made.status_message or "true" end
  for i, event in ipairs(made.events) do span.annotations[i] = { value = event.name, timestamp = event.time_us } end
  local system = made.attributes["messaging.system"]
  if system then span.remoteEndpoint = { serviceName = system } end
  return span
end

local function try_span(conf, trace, proxy, name, try, nth, ends, remote)
  local from = floor(try.balancer_start_ns / 1000)
  local span = new_span(conf, trace, tracing.new_span_id(), proxy.id, ("%s (balancer try %d)"):format(name, nth), from,
    ends)
  span.kind, span.tags["kong.balancer.try"] = "CLIENT", tostring(nth)
  span.remoteEndpoint = endpoint(try.ip, try.port, remote)
  if try.state then
    span.tags.error, span.tags["kong.balancer.state"] = "true", try.state
    span.tags["http.status_code"] = try.code and tostring(try.code)
  end
  return span
end

-- When what happened, in microseconds since 1970: the request's start and end, when it went to the service, when the
-- service's answer began.
local function times_of(exchange)
  local whole, in_gateway, to_service = exchange:get_latencies()
  local began = floor(tracing.started_us(exchange))
  local sent = began + floor(in_gateway * 1000)
  return began, began + floor(whole * 1000), sent, to_service and sent + floor(to_service * 1000)
end

local function put_proxied(list, conf, exchange, trace, service, name, times)
  local remote = service and service.name or conf.default_service_name
  local proxy = new_span(conf, trace, trace.next, trace.root, name .. " (proxy)", times.sent, times.ended)
  local tries = exchange.service:get_tries()
  local last = tries[#tries]
  proxy.kind = "CLIENT"
  proxy.remoteEndpoint = endpoint(last and last.ip, last and last.port, remote)
  entity_tags(exchange, proxy.tags)
  put_phases(conf, proxy, { { "access", times.began, times.sent },
    times.answered and { "header_filter", times.answered, times.answered } or nil,
    times.answered and { "body_filter", times.answered, times.ended } or nil })
  list[#list + 1] = proxy
  for i, try in ipairs(tries) do
    local ends = i == #tries and times.ended or floor(tries[i + 1].balancer_start_ns / 1000)
    list[#list + 1] = try_span(conf, trace, proxy, name, try, i, ends, remote)
  end
end

---@param conf table
---@param exchange sluice.exchange in its log phase
---@param trace sluice.trace
---@return table[]
function spans.of(conf, exchange, trace)
  local name, times = name_of(conf, exchange), {}
  times.began, times.ended, times.sent, times.answered = times_of(exchange)
  local request = new_span(conf, trace, trace.root, trace.parent, name, times.began, times.ended)
  request.kind, request.tags = "SERVER", request_tags(conf, exchange)
  local service = entity_tags(exchange, request.tags)
  request.remoteEndpoint = endpoint(exchange.client:get_forwarded_ip(), exchange.client:get_forwarded_port())
  if exchange.response:get_source() == "error" then request.tags.error = "true" end
  local list = { request }
  if exchange.service:get_tries()[1] then put_proxied(list, conf, exchange, trace, service, name, times) end
  for _, made in ipairs(trace.spans or {}) do
    made:finish(times.ended * 1000)
    list[#list + 1] = spans.made(conf.local_service_name, trace, made)
  end
  return list
end

return spans
