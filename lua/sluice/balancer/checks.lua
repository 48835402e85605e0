-- SPDX-License-Identifier: Apache-2.0
-- Active health checks. Each worker looks after every checked upstream of the live generation, and each check that is
-- due is claimed by one of them (see core/endpoint.h): so one worker makes it, whichever is free, and when that one
-- dies another makes it a moment later.
--
--   round: names to addresses -> claim what is due -> check, at most `concurrency` at once -> count -> due again

local bit = require "bit"
local ffi = require "ffi"
local Socket = require "sluice.socket"
local address = require "sluice.config.address"
local dns = require "sluice.dns"
local grpc = require "sluice.balancer.grpc"
local head = require "sluice.http.head"
local native = require "sluice.ffi"
local runtime = require "sluice.runtime"
local timer = require "sluice.timer"
local watch = require "sluice.balancer.watch"

local C, worker = native.C, native.worker
local yield = coroutine.yield

local checks = {}

local ADDRESSES_MOST = 16         -- of a name, TARGET_ADDRESSES of target.h
local LEAST_S, MOST_S = 0.02, 1   -- between two rounds
local LEASE_S = 1                 -- on top of what a check may take
local AT_ONCE = 10                -- upstreams that begin in the same millisecond
local LINE_MOST, LINES_MOST = 8192, 100
local PORTS = { http = 80, https = 443 }

local stopped = false

-- ---- One check ----------------------------------------------------------------------------------------------------

local function outcome_of_error(err)
  if err == "timeout" then return C.ENDPOINT_TIMEOUT, "checks timed out" end
  return C.ENDPOINT_TCP_FAILURE, "checks could not connect: " .. tostring(err)
end

local Check = {}
Check.__index = Check

-- All of a check has `timeout` seconds.
function Check:left()
  return math.max(self.deadline - C.bridge_mono(worker), 0.001)
end

function Check:connect()
  local plan, tls = self.plan, nil
  if plan.tls then
    tls = { name = plan.sni or self.name, verify = plan.verify, alpn = plan.grpc and "h2" or nil,
      certificate = plan.certificate, key = plan.key }
  end
  local socket, err = Socket.connect(self.ip, self.port, { connect_timeout = self:left(), timeout = self:left(),
    tls = tls })
  self.socket = socket
  return socket, err
end

function Check:send(text)
  self.socket:set_timeout(self:left())
  return self.socket:send(text)
end

-- The head alone is read: the connection serves nothing else.
function Check:http_status()
  local line, err
  for _ = 1, LINES_MOST do
    self.socket:set_timeout(self:left())
    line, err = self.socket:receive_line(LINE_MOST)
    if not line then return nil, err end
    local status = head.status_line(line)
    if status and status >= 200 then return status end
  end
  return nil, "no response of HTTP"
end

function Check:http()
  local plan = self.plan
  local ok, err = self:send(plan.request_start .. (plan.host or self.host) .. plan.request_end)
  local status
  if ok then status, err = self:http_status() end
  if not status then return outcome_of_error(err) end
  if plan.healthy[status] then return C.ENDPOINT_SUCCESS, "checks were answered with " .. status end
  if plan.unhealthy[status] then return C.ENDPOINT_HTTP_FAILURE, "checks were answered with " .. status end
end

function Check:ask_grpc()
  local plan = self.plan
  local answer, err = grpc.check({ service = plan.service, authority = plan.host or self.host, tls = plan.tls,
    fields = plan.fields }, function(text) return self:send(text) end, function(count)
    self.socket:set_timeout(self:left())
    return self.socket:receive_exact(count)
  end)
  if not answer then return outcome_of_error(err) end
  if answer == "SERVING" then return C.ENDPOINT_SUCCESS, "checks were answered SERVING" end
  return C.ENDPOINT_HTTP_FAILURE, "checks were answered: " .. answer
end

-- What came of it as an event, and why; nil: it says nothing.
function Check:run()
  local socket, err = self:connect()
  if not socket then return outcome_of_error(err) end
  local plan = self.plan
  if plan.tcp then
    socket:close()
    return C.ENDPOINT_SUCCESS, "checks connected"
  end
  local ask = plan.grpc and self.ask_grpc or self.http
  local event, why = ask(self)
  socket:close()
  return event, why
end

-- ---- The checks of an upstream ------------------------------------------------------------------------------------

local Plan = {}
Plan.__index = Plan

local function set_of(statuses)
  local set = {}
  for _, status in ipairs(statuses or {}) do set[status] = true end
  return set
end

-- Configured fields as a list of pairs; those that frame the request are not theirs to say.
local FRAMING = { ["content-length"] = true, ["transfer-encoding"] = true, connection = true, host = true }

local function fields_of(headers)
  local fields, host = {}, nil
  for name, values in pairs(headers or {}) do
    for _, value in ipairs(type(values) == "table" and values or { values }) do
      local plain = name:lower()
      if plain == "host" then host = value end
      if not FRAMING[plain] and head.is_token(name) and head.is_value(value) then
        fields[#fields + 1] = { name, value }
      end
    end
  end
  table.sort(fields, function(a, b) return a[1] < b[1] end)
  return fields, host
end

local function fill_request(plan, active, upstream)
  local fields, host = fields_of(active.headers)
  plan.fields, plan.host = fields, host or upstream.host_header
  local lines = {}
  for i, field in ipairs(fields) do lines[i] = field[1] .. ": " .. field[2] .. "\r\n" end
  plan.request_start = "GET " .. (active.http_path or "/") .. " HTTP/1.1\r\nHost: "
  plan.request_end = "\r\n" .. table.concat(lines) .. "Connection: close\r\n\r\n"
end

local function fill_tls(plan, active, upstream, certificate)
  plan.verify = active.https_verify_certificate ~= false
  plan.sni = active.https_sni or (upstream.host_header and (address.split(upstream.host_header)))
  if certificate then plan.certificate, plan.key = certificate.cert, certificate.key end
end

-- How often a worker looks: as often as the state with the shorter interval is checked.
local function pace_of(healthy_s, unhealthy_s)
  if healthy_s == 0 or unhealthy_s == 0 then return math.max(healthy_s, unhealthy_s) end
  return math.min(healthy_s, unhealthy_s)
end

-- `scope` is what there is to know of the generation, whose memory a plan must not hold.
local function new_plan(scope, index, policy, certificate)
  local upstream = policy.upstream
  local active = upstream.healthchecks.active
  local kind, healthy_s, unhealthy_s = active.type, watch.intervals(upstream)
  local plan = setmetatable({
    generation = scope.id, unresolved = scope.unresolved, index = index, upstream = upstream, targets = policy.targets,
    running = 0, at = 0, healthy_s = healthy_s, unhealthy_s = unhealthy_s, pace = pace_of(healthy_s, unhealthy_s),
    timeout = active.timeout > 0 and active.timeout or 1, concurrency = active.concurrency, tcp = kind == "tcp",
    grpc = kind == "grpc" or kind == "grpcs", tls = kind == "https" or kind == "grpcs",
    service = active.grpc_service or "",
    healthy = set_of(active.healthy.http_statuses), unhealthy = set_of(active.unhealthy.http_statuses),
  }, Plan)
  fill_tls(plan, active, upstream, certificate)
  fill_request(plan, active, upstream)
  return plan
end

function Plan:is_over()
  return stopped or runtime.live ~= self.generation
end

-- The addresses of a target now, as the core takes them: texts and ports; nil when its name has none.
local function addresses_of(target)
  if address.is_ip(target.host) then return { { ip = target.host, port = target.port } } end
  local records = dns.resolve(target.host, target.host:sub(1, 1) == "_" and "srv" or "address")
  if not records or #records == 0 then return nil end
  local list = {}
  for i = 1, math.min(#records, ADDRESSES_MOST) do
    local port = records[i].port
    list[i] = { ip = records[i].address, port = port > 0 and port or target.port }
  end
  return list
end

local function bind(plan, place, list)
  local count = #list
  local texts, ports = ffi.new("const char *[?]", count), ffi.new("uint32_t[?]", count)
  local endpoints = ffi.new("double[?]", count)
  for i, one in ipairs(list) do texts[i - 1], ports[i - 1] = one.ip, one.port end
  local status = C.bridge_target_bind(worker, plan.generation, plan.index, place, texts, ports, count, endpoints)
  if status ~= C.BRIDGE_OK then return false end
  for i, one in ipairs(list) do one.endpoint = endpoints[i - 1] end
  return true
end

-- Follows DNS: what a name has no longer is not checked any more.
function Plan:update(place, target)
  local key = self.upstream.name .. " " .. address.join(target.host, target.port)
  local list = addresses_of(target)
  self.unresolved[key] = list == nil or nil
  if not list or self:is_over() then return end
  if bind(self, place, list) then target.addresses = list end
end

local info = ffi.new("struct endpoint_info[1]")

function Plan:interval(endpoint)
  if C.bridge_endpoint_info(worker, endpoint, info) ~= C.BRIDGE_OK then return 0 end
  return bit.band(info[0].out, C.REASON_CHECKS) ~= 0 and self.unhealthy_s or self.healthy_s
end

local function run_check(plan, target, one)
  local check = setmetatable({ plan = plan, ip = one.ip, port = one.port, name = target.host,
    deadline = C.bridge_mono(worker) + plan.timeout }, Check)
  local port = PORTS[plan.tls and "https" or "http"] ~= one.port and ":" .. one.port or ""
  check.host = (target.host:find(":", 1, true) and "[" .. target.host .. "]" or target.host) .. port
  local began = C.bridge_mono(worker)
  local ok, event, why = pcall(check.run, check)
  if not ok then runtime.log("error", "a health check failed", "upstream", plan.upstream.name, "error", event) end
  plan.running = plan.running - 1
  if plan:is_over() then
    C.bridge_endpoint_check_in(worker, one.endpoint, 0) -- the next generation, or another worker, begins at once
    return
  end
  if ok and event then
    C.bridge_endpoint_count(worker, plan.generation, plan.index, one.endpoint, event, why)
  end
  local interval = plan:interval(one.endpoint)
  if interval > 0 then
    C.bridge_endpoint_check_in(worker, one.endpoint, math.max(interval - (C.bridge_mono(worker) - began), 0.001))
  end
end

function Plan:addresses()
  local list = {}
  for _, target in ipairs(self.targets) do
    for _, one in ipairs(target.addresses or {}) do list[#list + 1] = { target = target, address = one } end
  end
  return list
end

-- Begins the check if it is due and nobody else makes it. Seconds until this worker should look again.
function Plan:begin(target, one)
  if one.endpoint == 0 or self:interval(one.endpoint) == 0 then return MOST_S end
  local due = C.bridge_endpoint_claim(worker, one.endpoint, self.timeout + LEASE_S)
  if due ~= 0 then return due end
  self.running = self.running + 1
  timer.at(0, run_check, self, target, one)
  return self.pace
end

-- Claims and begins what is due, from where the last round came to the bound, so that all have their turn. Gives the
-- seconds until something else will be due.
function Plan:begin_due()
  local soonest, list, at = MOST_S, self:addresses(), self.at
  for i = 0, #list - 1 do
    local place = (at + i) % #list
    if self.running >= self.concurrency then
      self.at = place
      return LEAST_S
    end
    local due = self:begin(list[place + 1].target, list[place + 1].address)
    if due < soonest then soonest = due end
  end
  return soonest
end

local function sleep(seconds)
  if C.bridge_sleep(worker, seconds) == C.BRIDGE_AGAIN then yield() end
end

function Plan:run()
  while not self:is_over() do
    for place, target in ipairs(self.targets) do
      if target.weight > 0 and not (target.addresses and address.is_ip(target.host)) then
        self:update(place, target)
      end
    end
    if self:is_over() then return end
    sleep(math.max(self:begin_due(), LEAST_S))
  end
end

local function run_plan(scope, index, policy, certificate)
  new_plan(scope, index, policy, certificate):run()
end

-- ---- Beginning and end --------------------------------------------------------------------------------------------

local function certificate_of(held, upstream)
  for _, certificate in ipairs(upstream.client_certificate and held.entities.certificates or {}) do
    if certificate.id == upstream.client_certificate then return certificate end
  end
end

-- The generation has gone live: its upstreams are checked, until it is no longer the live one.
---@param held sluice.generation
function checks.start(held)
  local begun, scope = 0, { id = held.id, unresolved = {} }
  held.unresolved = scope.unresolved
  for index, policy in pairs(held.upstreams) do
    local upstream = policy.upstream
    local healthy, unhealthy = watch.intervals(upstream)
    if healthy > 0 or unhealthy > 0 then
      -- A thousand at once would hold the loop up.
      timer.at(math.floor(begun / AT_ONCE) / 1000, run_plan, scope, index, policy, certificate_of(held, upstream))
      begun = begun + 1
    end
  end
end

-- Health of upstreams that are not checked any more is forgotten with their checks.
---@param before sluice.generation|nil
---@param held sluice.generation
function checks.forget(before, held)
  local checked = {}
  for _, policy in pairs(held.upstreams) do
    if watch.has_checks(policy.upstream) then checked[policy.upstream.name] = true end
  end
  for _, policy in pairs(before and before.upstreams or {}) do
    local name = policy.upstream.name
    if watch.has_checks(policy.upstream) and not checked[name] then
      C.bridge_endpoint_forget(worker, held.id, name, #name)
    end
  end
end

runtime.on("stop", function() stopped = true end)

return checks
