-- SPDX-License-Identifier: Apache-2.0
-- Gives the core what a generation's entities say: settings, certificates, upstreams, services, routes and plans.
-- Each step takes the generation being built (`held`, see sluice.generation) and calls `pace()` after each entity,
-- which may let the loop run.

local bit = require "bit"
local ffi = require "ffi"
local address = require "sluice.config.address"
local native = require "sluice.ffi"
local handshakes = require "sluice.handshakes"
local plan = require "sluice.plan"
local runtime = require "sluice.runtime"
local watch = require "sluice.balancer.watch"

local C, worker = native.C, native.worker

local build = {}

-- What stops a build: `generation` reports it as the failure of the stage.
local function fail(entity, kind, message)
  error({ entity = kind .. " " .. tostring(entity.name or entity.id), message = message }, 0)
end

-- Why the core refused something.
function build.reason()
  local why = C.bridge_error(worker)
  return why ~= nil and ffi.string(why) or "refused by the core"
end

-- The index or id that the core gave, or the end of the build.
local function must(status, entity, kind)
  if status < 0 then fail(entity, kind, build.reason()) end
  return status
end

local function list(held, kind)
  return held.entities[kind] or {}
end

local function by_id(entities)
  local found = {}
  for _, entity in ipairs(entities) do found[entity.id] = entity end
  return found
end

-- ---- Settings -----------------------------------------------------------------------------------------------------

local TELLS = {
  server = "TELL_SERVER", via = "TELL_VIA", ["x-kong-proxy-latency"] = "TELL_PROXY_LATENCY",
  ["x-kong-upstream-latency"] = "TELL_UPSTREAM_LATENCY", ["x-kong-response-latency"] = "TELL_RESPONSE_LATENCY",
  ["x-kong-upstream-status"] = "TELL_UPSTREAM_STATUS", ["x-kong-request-id"] = "TELL_REQUEST_ID",
  ["server-timing"] = "TELL_SERVER_TIMING",
}
local ON_RELOAD = { keep = 0, drain = 1, cut = 2 } -- enum on_reload of generation.h

function build.settings(held)
  local gateway = held.meta.gateway or {}
  local function set(name, value)
    if type(value) == "number" then C.bridge_gen_setting(worker, held.id, name, #name, value) end
  end
  for name, value in pairs(gateway.limits or {}) do set(name, value) end
  set("plugin_cpu_budget_ms", gateway.plugin_cpu_budget_ms)
  local tells = 0
  for _, name in ipairs(gateway.headers or {}) do tells = tells + tonumber(ffi.C[TELLS[name]]) end
  set("headers", gateway.headers and tells)
  local log = gateway.access_log
  if log and log.path ~= "off" then
    must(C.bridge_gen_access_log(worker, held.id, log.path, log.format == "json"), { name = log.path }, "access_log")
  end
  local websocket = gateway.websocket or {}
  set("websocket_on_reload", ON_RELOAD[websocket.on_reload])
  for _, name in ipairs { "drain_timeout", "client_max_payload", "upstream_max_payload" } do
    set("websocket_" .. name, websocket[name])
  end
  for _, cidr in ipairs(gateway.trusted_ips or {}) do
    must(C.bridge_gen_trusted_ip(worker, held.id, cidr, #cidr), { name = cidr }, "trusted_ips")
  end
end

-- ---- Certificates -------------------------------------------------------------------------------------------------

function build.certificates(held, pace)
  local indexes = {}
  for _, certificate in ipairs(list(held, "certificates")) do
    indexes[certificate.id] = must(C.bridge_gen_certificate(worker, held.id, certificate.cert, certificate.key,
      certificate.cert_alt, certificate.key_alt), certificate, "certificate")
    pace()
  end
  for _, sni in ipairs(list(held, "snis")) do
    must(C.bridge_gen_sni(worker, held.id, indexes[sni.certificate] or 0, sni.name), sni, "sni")
    pace()
  end
end

-- ---- Upstreams ----------------------------------------------------------------------------------------------------

local function targets_by_upstream(held, pace)
  local found = {}
  for _, target in ipairs(list(held, "targets")) do
    local of_one = found[target.upstream] or {}
    found[target.upstream] = of_one
    local host, port = address.split(target.target)
    of_one[#of_one + 1] = { host = host, port = port or 8000, weight = target.weight or 100, id = target.id }
    pace()
  end
  return found
end

-- A policy that can say its order beforehand spares each exchange a call into Lua.
local function give_schedule(held, upstream, index, policy)
  local order = policy.schedule and policy:schedule()
  if not order or #order == 0 then return end
  local cells = ffi.new("uint32_t[?]", #order)
  for i, target in ipairs(order) do cells[i - 1] = target end
  must(C.bridge_gen_schedule(worker, held.id, index, cells, #order), upstream, "upstream")
end

function build.upstreams(held, pace)
  local targets = targets_by_upstream(held, pace)
  for _, upstream in ipairs(list(held, "upstreams")) do
    local index = must(C.bridge_gen_upstream(worker, held.id, upstream.name, upstream.host_header), upstream,
      "upstream")
    local its_targets = targets[upstream.id] or {}
    for _, target in ipairs(its_targets) do
      must(C.bridge_gen_target(worker, held.id, index, target.host, target.port, target.weight), upstream, "upstream")
      pace()
    end
    local policy = require("sluice.balancer").new(upstream, its_targets)
    held.upstreams[index], policy.generation, policy.index = policy, held.id, index
    give_schedule(held, upstream, index, policy)
    must(watch.start(held.id, index, upstream, policy), upstream, "upstream")
    pace()
  end
end

-- ---- Services -----------------------------------------------------------------------------------------------------

local TLS = { https = true, grpcs = true, http2s = true, wss = true, tls = true }
local HTTP2 = { grpc = true, grpcs = true, http2 = true, http2s = true }

local PROXY_PROTOCOLS = { v1 = 1, v2 = 2 }

-- Texts in `conf` are only borrowed: `alive` holds those made here until the core has copied them.
local function ca_text(service, authorities, alive)
  if type(service.ca_certificates) ~= "table" or #service.ca_certificates == 0 then return nil end
  local pems = {}
  for i, id in ipairs(service.ca_certificates) do
    local authority = authorities[id]
    if not authority then fail(service, "service", "there is no ca_certificate " .. tostring(id)) end
    pems[i] = authority.cert
  end
  alive[1] = table.concat(pems, "\n")
  return alive[1]
end

-- Certificates by the upstream (its name in lower case) whose targets they are shown to.
local function certificates_of_upstreams(held, certificates)
  local found = {}
  for _, upstream in ipairs(list(held, "upstreams")) do
    found[upstream.name:lower()] = certificates[upstream.client_certificate]
  end
  return found
end

-- `certificates` by id, and those of upstreams by name: the service's own comes first.
local function fill_service(conf, service, certificates, authorities, alive)
  local certificate = certificates.by_id[service.client_certificate]
    or certificates.by_upstream[service.host:lower()]
  conf.name, conf.host, conf.port = service.name, service.host, service.port
  conf.path, conf.tls = service.path, TLS[service.protocol] == true
  conf.http2 = HTTP2[service.protocol] == true
  conf.tls_verify, conf.tls_verify_depth = service.tls_verify == true, service.tls_verify_depth or -1
  conf.proxy_protocol = PROXY_PROTOCOLS[service.proxy_protocol] or 0
  conf.ca_pem = ca_text(service, authorities, alive)
  conf.client_certificate_pem = certificate and certificate.cert
  conf.client_key_pem = certificate and certificate.key
  conf.connect_timeout_ms, conf.send_timeout_ms = service.connect_timeout, service.write_timeout
  conf.read_timeout_ms, conf.retries = service.read_timeout, service.retries
end

-- Fills held.services by index and held.service_indexes by id, which it gives.
function build.services(held, pace)
  local conf, alive, indexes = ffi.new("struct service_conf"), {}, {}
  held.service_indexes = indexes
  local certificates, authorities = { by_id = by_id(list(held, "certificates")) }, by_id(list(held, "ca_certificates"))
  certificates.by_upstream = certificates_of_upstreams(held, certificates.by_id)
  for _, service in ipairs(list(held, "services")) do
    if service.enabled ~= false then
      fill_service(conf, service, certificates, authorities, alive)
      local index = must(C.bridge_gen_service(worker, held.id, conf), service, "service")
      held.services[index], indexes[service.id] = service, index
    end
    pace()
  end
  return indexes
end

-- ---- Plugins and routes -------------------------------------------------------------------------------------------

-- Runs a handler's `needs`, which is the plugin's code and has its budget.
local function asker(held)
  return function(plugin, conf)
    local ok, set = runtime.call(plugin, held.id, "configure", plugin.handler.needs, conf)
    if ok and type(set) ~= "table" then ok, set = false, "expected a table, found a " .. type(set) end
    if not ok then error({ plugin = plugin.name, phase = "needs", message = (tostring(set):gsub("\n.*", "")) }, 0) end
    return set
  end
end

local function planner_of(held, previous, pace, streams)
  local planner = plan.new(held.plugins, previous, asker(held), streams)
  for _, instance in ipairs(list(held, "plugins")) do
    planner:add(instance)
    pace()
  end
  planner:settle()
  return planner
end

local function has_streams(held)
  for _, route in ipairs(list(held, "routes")) do
    if plan.is_stream(route.protocols) then return true end
  end
  return false
end

---@param previous? table the running generation
function build.planner(held, previous, pace)
  held.planner = planner_of(held, previous and previous.planner, pace)
  if has_streams(held) then
    held.stream_planner = planner_of(held, previous and previous.stream_planner, pace, true)
  end
end

-- PROTOCOL_* of bridge.h
local PROTOCOLS = { http = 1, https = 2, grpc = 4, grpcs = 8, ws = 16, wss = 32, tcp = 64, tls = 128,
  tls_passthrough = 256 }

local function protocol_mask(route)
  local mask = 0
  for _, name in ipairs(route.protocols or {}) do mask = bit.bor(mask, PROTOCOLS[name] or 0) end
  return mask
end

local function match(held, index, kind, value)
  return C.bridge_gen_route_match(worker, held.id, index, kind, value, #value)
end

local function match_each(held, route, index, kind, values)
  if type(values) ~= "table" then return end
  for i = 1, #values do must(match(held, index, kind, values[i]), route, "route") end
end

local function match_headers(held, route, index)
  for name, values in pairs(type(route.headers) == "table" and route.headers or {}) do
    must(match(held, index, C.MATCH_HEADER_NAME, name), route, "route")
    match_each(held, route, index, C.MATCH_HEADER_VALUE, values)
  end
end

local function fill_route(conf, route, service, made)
  conf.name, conf.service, conf.phases = route.name, service or 0, plan.route_mask(made)
  conf.protocols, conf.regex_priority = protocol_mask(route), route.regex_priority or 0
  conf.created_at = route.created_at or 0
  conf.https_redirect_status = route.https_redirect_status_code or 426
  conf.strip_path, conf.preserve_host = route.strip_path ~= false, route.preserve_host == true
  conf.path_handling_v1 = route.path_handling == "v1"
  conf.identity = made.identity == true
end

-- "ADDRESS PORT" as the core wants them, "*" and 0 for any.
local function match_ends(held, route, index, kind, ends)
  for _, place in ipairs(type(ends) == "table" and ends or {}) do
    must(match(held, index, kind, ("%s %d"):format(place.ip or "*", place.port or 0)), route, "route")
  end
end

local function add_route(held, conf, route, service, made)
  fill_route(conf, route, service, made)
  local index = must(C.bridge_gen_route(worker, held.id, conf), route, "route")
  held.routes[index], held.plans[index] = route, made
  match_each(held, route, index, C.MATCH_METHOD, route.methods)
  match_each(held, route, index, C.MATCH_HOST, route.hosts)
  match_each(held, route, index, C.MATCH_PATH, route.paths)
  match_each(held, route, index, C.MATCH_SNI, route.snis)
  match_headers(held, route, index)
  match_ends(held, route, index, C.MATCH_SOURCE, route.sources)
  match_ends(held, route, index, C.MATCH_DESTINATION, route.destinations)
end

local function id_of(reference)
  return type(reference) == "table" and reference.id or reference or nil
end

-- Plugins that call the service that they stand at (handler.calls_service) have a way to it, which no client's request
-- takes: one a service.
local function add_inner_route(held, conf, instance, service)
  local made, err = held.planner:service_plan(service)
  if not made then fail(instance, "plugin", err) end
  fill_route(conf, {}, held.service_indexes[service], made)
  conf.inner, conf.preserve_host, conf.protocols = true, false, 0
  local index = must(C.bridge_gen_route(worker, held.id, conf), instance, "plugin")
  held.plans[index] = made
  return index
end

local function inner_routes(held)
  local conf, of_service = ffi.new("struct route_conf"), {}
  held.ways = {}
  for _, instance in ipairs(list(held, "plugins")) do
    local plugin = instance.enabled ~= false and held.plugins[instance.name]
    local service = plugin and plugin.handler.calls_service and id_of(instance.service)
    if service and held.service_indexes[service] then
      of_service[service] = of_service[service] or add_inner_route(held, conf, instance, service)
      held.ways[instance.id] = { route = of_service[service], config = instance.config,
        service = held.services[held.service_indexes[service]] }
    end
  end
end

-- A route of a disabled service matches nothing, as in Kong.
function build.routes(held, services, pace)
  local conf = ffi.new("struct route_conf")
  for _, route in ipairs(list(held, "routes")) do
    local service = route.service and services[route.service]
    if service or not route.service then
      local planner = plan.is_stream(route.protocols) and held.stream_planner or held.planner
      local made, err = planner:plan(route.id, route.service)
      if not made then fail(route, "route", err) end
      add_route(held, conf, route, service, made)
    end
    pace()
  end
  local globals, err = held.planner:plan(nil, nil)
  if not globals then fail({ name = "global" }, "plugins", err) end
  globals = handshakes.extend(held, globals)
  held.plans[0] = globals
  inner_routes(held)
  held.planner:close()
  if held.stream_planner then held.stream_planner:close() end
  C.bridge_gen_phases(worker, held.id, plan.no_route_mask(globals))
end

-- ---- Targets that plugins take out of use ----

local UPSTREAM_NAME_BYTES = 127 -- of endpoint.h

local function has_breaker(held)
  for _, plugin in pairs(held.plugins) do
    if plugin.handler.breaks_targets then return true end
  end
  return false
end

-- Ids of services whose targets some plugin does that to; `all`: everywhere.
local function broken_services(held)
  local found, services_of = { all = false }, {}
  for _, route in ipairs(list(held, "routes")) do services_of[route.id] = id_of(route.service) end
  for _, instance in ipairs(list(held, "plugins")) do
    local plugin = instance.enabled ~= false and held.plugins[instance.name]
    if plugin and plugin.handler.breaks_targets then
      local route, service = id_of(instance.route), id_of(instance.service)
      service = service or services_of[route or ""]
      if service then found[service] = true end
      found.all = found.all or not (service or route)
    end
  end
  return found
end

-- The core watches their targets, from the same plan on all workers.
---@param services table<string, integer> indexes by id
function build.breakers(held, services)
  held.breakable = {}
  if not has_breaker(held) then return end
  local wanted, upstreams = broken_services(held), {}
  for index, policy in pairs(held.upstreams) do upstreams[policy.name] = index end
  local conf = ffi.new("struct upstream_watch", { heeds = C.REASON_BREAKER })
  for _, service in ipairs(list(held, "services")) do
    local index = services[service.id]
    if index and (wanted.all or wanted[service.id]) then
      local upstream = upstreams[service.host]
      local status = upstream and C.bridge_gen_watch(worker, held.id, upstream, conf)
        or C.bridge_gen_watch_service(worker, held.id, index, C.REASON_BREAKER)
      must(status, service, "service")
      -- The core names the targets of a host that is no upstream by both.
      local name = upstream and service.host or ("%s:%d"):format(service.host, service.port or 80)
      held.breakable[name:sub(1, UPSTREAM_NAME_BYTES)] = true
    end
  end
  if not wanted.all then return end
  for name, index in pairs(upstreams) do
    must(C.bridge_gen_watch(worker, held.id, index, conf), { name = name }, "upstream")
    held.breakable[name:sub(1, UPSTREAM_NAME_BYTES)] = true
  end
end

-- The generation is live: what a plugin took out of use that is no more is back.
function build.mend_targets(held)
  local health = package.loaded["sluice.balancer.health"] or (next(held.breakable) and require "sluice.balancer.health")
  for _, endpoint in ipairs(health and health.endpoints() or {}) do
    if not held.breakable[endpoint.upstream] then
      C.bridge_endpoint_set(worker, endpoint.endpoint, C.REASON_BREAKER, false, 0, "nothing breaks it any more")
    end
  end
end

-- ---- All ----------------------------------------------------------------------------------------------------------

local COMPILE_US = 800

-- Has the core compile what it was given, a piece at a time.
function build.compile(held, pace)
  repeat
    local status = must(C.bridge_gen_compile(worker, held.id, COMPILE_US), { name = tostring(held.revision) },
      "generation")
    pace()
  until status ~= C.BRIDGE_AGAIN
end

return build
