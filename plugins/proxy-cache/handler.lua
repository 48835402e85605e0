-- SPDX-License-Identifier: Apache-2.0
-- Keeps responses and answers from what is kept. Hits leave from the core in one call; all else is judged here.
local cache = require "sluice.cache"
local counters = require "sluice.counters"
local crypto = require "sluice.crypto"
local log = require "sluice.log"
local sleep = require "sluice.sleep"
local time = require "sluice.time"
local conditions = require "proxy-cache.conditions"
local control = require "proxy-cache.control"
local purging = require "proxy-cache.purging"
local storing = require "proxy-cache.storing"

local proxy_cache = { version = "1.0.0", priority = 100 }

local CTX = "proxy-cache"
local HIT, FOUND, NONE = cache.HIT, cache.FOUND, cache.NONE
local ASKS = cache.ASKS
local PASS_SECONDS = 5             -- that requests do not wait for what was last seen not to be stored
local POLL_FROM, POLL_TO = 0.002, 0.05 -- seconds between looks at what another worker stores
local COMPLAIN_EVERY_S = 60
local SAFE = { GET = true, HEAD = true, OPTIONS = true, TRACE = true }
local NOT_CACHED = "Nothing that is cached will do"
local BROKEN = { [500] = true, [502] = true, [503] = true, [504] = true }
local NOTHING = {}

local plans = setmetatable({}, { __mode = "k" }) -- by configuration
local renewals = {}                              -- by handle: states of requests that the cache sends by itself

-- ---- What is made once ----

local function set_of(list)
  local set = {}
  for _, value in ipairs(list) do set[value] = true end
  return set
end

local function tells_of(fields)
  return (fields.age and cache.TELLS.age or 0) + (fields["X-Cache-Status"] and cache.TELLS.status or 0)
    + (fields["X-Cache-Key"] and cache.TELLS.key or 0) + (fields["Cache-Status"] and cache.TELLS.member or 0)
end

-- HEAD is answered from what GET has stored.
local function methods_of(list)
  local methods = {}
  for _, method in ipairs(list) do methods[method] = method end
  if methods.HEAD and methods.GET then methods.HEAD = "GET" end
  return methods
end

local function types_of(plan, list)
  plan.types = {}
  for _, text in ipairs(list) do
    local media = storing.media(text)
    if media then plan.types[#plan.types + 1] = media end
    plan.any_type = plan.any_type or text:match("^%s*%*/%*%s*$") ~= nil
  end
end

local function plan_of(conf)
  local params = conf.vary_query_params
  local plan = {
    rules = cache.rules {
      headers = conf.vary_headers, params = params and params[1] and params or nil, ignore_case = conf.ignore_uri_case,
      by_authorization = not conf.cache_control, ignores_control = not conf.cache_control,
      tells = tells_of(conf.response_headers),
    },
    methods = methods_of(conf.request_method), statuses = set_of(conf.response_code), scopes = {},
    has_head = set_of(conf.request_method).HEAD, tells = tells_of(conf.response_headers),
    purge = purging.of(conf), hidden = table.concat(conf.tag_headers, ","),
  }
  plan.statuses[206] = plan.statuses[206] or plan.statuses[200]
  types_of(plan, conf.content_type)
  return plan
end

function proxy_cache.configure(confs)
  for _, conf in ipairs(confs or {}) do plans[conf] = plan_of(conf) end
end

-- ---- What a request is about ----

-- Responses are kept apart by route and by cache.
local function scope_of(conf, plan, exchange)
  local route = exchange.router:get_route()
  local id = route and route.id or ""
  local scope = plan.scopes[id]
  if not scope then
    scope = conf.memory.dictionary_name .. "\1" .. id
    plan.scopes[id] = scope
  end
  return scope
end

local function who_of(exchange)
  local consumer = exchange.client:get_consumer()
  return consumer and consumer.id or ""
end

-- The digest of the content, which makes a difference for methods that have one; nil: it cannot be had.
local function body_of(exchange, method)
  if method == "GET" or method == "HEAD" then return "" end
  local body = exchange.request:get_raw_body()
  return body and crypto.digest("sha256", body)
end

local function joined(value)
  return type(value) == "table" and table.concat(value, ", ") or value
end

local function request_field(exchange, name)
  local values, nth = nil, 1
  while true do
    local value = exchange.request:get_header(name, nth)
    if not value then return values end
    values, nth = values and values .. ", " .. value or value, nth + 1
  end
end

local function stored_field(exchange)
  return function(name)
    local values, nth = nil, 1
    while true do
      local value = cache.field(exchange, name, nth)
      if not value then return values end
      values, nth = values and values .. ", " .. value or value, nth + 1
    end
  end
end

local function response_field(exchange)
  local all = exchange.service.response:get_headers(1000)
  return function(name) return joined(all[name]) end
end

-- ---- Telling ----

-- For a response that does not come from the cache. `why`: "fwd" of RFC 9211.
local function tell(plan, exchange, state, label)
  local response, tells = exchange.response, plan.tells
  state.label = label
  if tells % 4 >= 2 then response:set_header("X-Cache-Status", label) end
  if tells % 8 >= 4 and state.key then response:set_header("X-Cache-Key", state.key) end
end

local function tell_member(plan, exchange, state, status, stored)
  if plan.tells < 8 then return end
  local member = "sluice; fwd=" .. (state.why or "miss")
  if status then member = member .. "; fwd-status=" .. status end
  if stored then member = member .. "; stored" end
  if state.waited then member = member .. "; collapsed=?0" end
  exchange.response:add_header("Cache-Status", member)
end

local function bypass(plan, exchange, state, why)
  state.why, state.bypass = why, true
  exchange.ctx[CTX] = state
  tell(plan, exchange, state, "Bypass")
end

-- ---- Serving ----

local function serve_ranges(exchange, ranges, length, field, first)
  local response = exchange.response
  if #ranges == 0 then
    response:set_header("Content-Range", "bytes */" .. length)
    return 416
  end
  if #ranges == 1 then
    local from, to = ranges[1][1], ranges[1][2]
    response:set_header("Content-Range", ("bytes %d-%d/%d"):format(from, to - 1, length))
    cache.piece(exchange, "", from - first, to - first)
    return 206
  end
  local boundary, kind = exchange.id, field "content-type"
  response:set_header("Content-Type", "multipart/byteranges; boundary=" .. boundary)
  for i, range in ipairs(ranges) do
    cache.piece(exchange, ("%s--%s\r\n%sContent-Range: bytes %d-%d/%d\r\n\r\n"):format(i > 1 and "\r\n" or "", boundary,
      kind and "Content-Type: " .. kind .. "\r\n" or "", range[1], range[2] - 1, length), range[1] - first,
      range[2] - first)
  end
  cache.piece(exchange, "\r\n--" .. boundary .. "--\r\n", 0, 0)
  return 206
end

-- Answers with what was found, or what of it the request asks for.
local function serve(plan, exchange, state, label, member)
  local field, asks, found = stored_field(exchange), state.asks, state.found
  local status
  if found.status == 200 and asks >= ASKS.condition and state.conditional then
    if conditions.is_not_modified(state.conditional, field) then
      status = 304
    elseif state.conditional.range and state.method == "GET" then
      local ranges = conditions.ranges(state.conditional, found.length, field)
      if ranges then status = serve_ranges(exchange, ranges, found.length, field, 0) end
    end
  end
  cache.answer(exchange, plan.tells, status, label, member)
end

-- Of a part that is stored: whether it holds the ranges that are asked for, and they have been sent.
local function serve_part(plan, exchange, state)
  local field, part = stored_field(exchange), state.found
  local conditional = state.conditional
  if not conditional or state.method ~= "GET" or conditional.if_none_match or conditional.if_modified_since then
    return false
  end
  local ranges = conditions.ranges(conditional, part.total, field)
  if not ranges or #ranges == 0 then return false end
  for i = 1, #ranges do
    if ranges[i][1] < part.first or ranges[i][2] > part.first + part.length then return false end
  end
  cache.answer(exchange, plan.tells, serve_ranges(exchange, ranges, part.total, field, part.first), "Hit")
  return true
end

-- ---- One for all ----

local function pass_key(state)
  return "cache pass " .. state.key
end

-- Looks again after having waited. True: the request has been answered.
local function look(conf, plan, exchange, state)
  local status = cache.find(exchange, plan.rules, state.scope, state.who, state.subject, state.body)
  if status == HIT then return true end
  if status ~= FOUND then
    state.found = nil
    return false
  end
  state.found = cache.describe()
  local found = state.found
  if found.flags >= cache.ALWAYS_VALIDATE or found.age >= found.lifetime or found.status == 206 then return false end
  if conf.cache_control and state.asks % 2 == 1 then return false end
  serve(plan, exchange, state, "Hit")
  return true
end

-- True: answered from what another request has brought. Else this one goes to the service; others may wait for it.
local function gather(conf, plan, exchange, state)
  local deadline, poll = time.monotonic() + conf.collapse_timeout, POLL_FROM
  while true do
    local left = deadline - time.monotonic()
    if left <= 0 then return false end
    local status = cache.lead(exchange, conf.collapse_timeout)
    if status == HIT then
      -- Another worker's may have come between the last look and this.
      local answered = look(conf, plan, exchange, state)
      if answered then cache.unlead(exchange, true) end
      return answered
    elseif status == FOUND then
      local ended = cache.wait(exchange, left)
      if ended ~= cache.LANDED and ended ~= cache.GONE then return false end
    elseif status == NONE then
      sleep(math.min(poll, left))
      poll = math.min(poll * 1.5, POLL_TO)
    else
      return false
    end
    state.waited = true
    -- What another worker brings is looked for once that one has finished, and this one leads.
    if status == FOUND and look(conf, plan, exchange, state) then return true end
    if counters.get(pass_key(state)) then return false end
  end
end

local function may_gather(conf, state)
  return conf.collapse and state.asks % 32 < ASKS.authorization * 2 and not state.ranged
    and not counters.get(pass_key(state))
end

-- ---- Going to the service ----

local VALIDATING = { "If-None-Match", "If-Modified-Since", "Range", "If-Range" }

-- The service is asked whether what is stored is still good, and for the whole if not.
local function ask_to_validate(exchange, state)
  local request = exchange.service.request
  local tag, modified = cache.field(exchange, "etag"), cache.field(exchange, "last-modified")
  state.validating = tag ~= nil or modified ~= nil
  if not state.validating then return end
  for i = 1, #VALIDATING do request:clear_header(VALIDATING[i]) end
  if tag then request:set_header("If-None-Match", tag) end
  if modified then request:set_header("If-Modified-Since", modified) end
end

local function forward(conf, plan, exchange, state, label, why)
  state.why = why
  if may_gather(conf, state) and gather(conf, plan, exchange, state) then return end
  if state.found and state.found.status ~= 206 then
    label = "Refresh"
    ask_to_validate(exchange, state)
  end
  exchange.ctx[CTX] = state
  tell(plan, exchange, state, label)
end

-- ---- What is found ----

-- Whether a stored response may be used as it is, by what the request says (RFC 9111 5.2.1); else why not.
local function suits(conf, cc, state)
  local found = state.found
  local stale_for = found.age - found.lifetime
  if found.flags >= cache.ALWAYS_VALIDATE then return false, "stale" end
  if not conf.cache_control then return stale_for < 0, "stale" end
  if cc["no-cache"] then return false, "request" end
  local most, least = control.seconds(cc, "max-age"), control.seconds(cc, "min-fresh")
  if most and found.age > most then return false, "request" end
  if least and found.lifetime - found.age < least then return false, "request" end
  if stale_for < 0 then return true end
  if found.flags % 2 == 1 or not cc["max-stale"] then return false, "stale" end
  return cc["max-stale"] == true or stale_for <= control.seconds(cc, "max-stale"), "stale"
end

-- Stale, but good enough while a fresh one is fetched (RFC 5861 3).
local function serves_meanwhile(state, why)
  local found = state.found
  return why == "stale" and found.flags == 0 and state.body == "" and found.age - found.lifetime < found.revalidate
end

local function renew(exchange, state)
  local handle = cache.renew(exchange)
  if not handle then return end
  local copy = {}
  for key, value in pairs(state) do copy[key] = value end
  copy.renewing, copy.validating = true, cache.field(exchange, "etag") ~= nil
    or cache.field(exchange, "last-modified") ~= nil
  renewals[handle] = copy
end

local function use(conf, plan, exchange, state, cc)
  local good, why = suits(conf, cc, state)
  if state.found.status == 206 then
    if good and serve_part(plan, exchange, state) then return end
    if cc["only-if-cached"] then return exchange.response:error(504, NOT_CACHED) end
    return forward(conf, plan, exchange, state, "Miss", "partial")
  end
  if good then return serve(plan, exchange, state, "Hit") end
  if serves_meanwhile(state, why) then
    renew(exchange, state)
    return serve(plan, exchange, state, "Hit")
  end
  if conf.cache_control and cc["only-if-cached"] then return exchange.response:error(504, NOT_CACHED) end
  return forward(conf, plan, exchange, state, "Refresh", why)
end

local function conditional_of(exchange, asks)
  if asks < ASKS.condition then return nil end
  return {
    if_none_match = request_field(exchange, "If-None-Match"),
    if_modified_since = exchange.request:get_header("If-Modified-Since"),
    range = exchange.request:get_header("Range"), if_range = exchange.request:get_header("If-Range"),
  }
end

local function request_control(conf, exchange, asks)
  if not conf.cache_control or asks % 2 == 0 then return NOTHING end
  local text = request_field(exchange, "Cache-Control")
  if text then return control.parse(text) end
  return control.parse(request_field(exchange, "Pragma"))
end

-- What needs a closer look than the core's: nothing stored, stale, or a request that asks for more.
local function consider(conf, plan, exchange, state, status)
  local seen = cache.describe()
  state.key, state.asks, state.found = seen.key, seen.asks, status == FOUND and seen or nil
  local asks = state.asks
  local cc = request_control(conf, exchange, asks)
  state.cc = cc
  state.authorized = asks >= ASKS.authorization
  state.conditional = conditional_of(exchange, asks % ASKS.authorization)
  state.ranged = state.conditional ~= nil and (state.conditional.range ~= nil or state.found == nil)
  if asks % 8 >= ASKS.precondition then return bypass(plan, exchange, state, "request") end
  state.no_store = cc["no-store"] ~= nil
  if state.found then return use(conf, plan, exchange, state, cc) end
  if cc["only-if-cached"] then return exchange.response:error(504, NOT_CACHED) end
  if state.no_store then return bypass(plan, exchange, state, "request") end
  forward(conf, plan, exchange, state, "Miss", "uri-miss")
end

local complained_at = -COMPLAIN_EVERY_S

-- The files cannot be read, or such: requests go on without.
local function complain(status)
  if status ~= cache.FAILED or time.monotonic() - complained_at < COMPLAIN_EVERY_S then return end
  complained_at = time.monotonic()
  log.warn("responses cannot be cached", { error = cache.reason(status) })
end

-- A method that is not stored: the cache steps aside, and what the request changes is forgotten afterwards.
local function step_aside(plan, exchange, method)
  if method == "PURGE" and plan.purge then return purging.answer(plan, exchange) end
  bypass(plan, exchange, { method = method, unsafe = not SAFE[method] }, "method")
end

function proxy_cache.access(conf, exchange)
  local plan, method = plans[conf], exchange.request:get_method()
  local subject = plan.methods[method]
  if not subject then return step_aside(plan, exchange, method) end
  local scope, who, body = scope_of(conf, plan, exchange), who_of(exchange), body_of(exchange, method)
  if not body then return bypass(plan, exchange, { method = method, unsafe = not SAFE[method] }, "request") end
  local status = cache.find(exchange, plan.rules, scope, who, subject, body)
  if status == HIT then return end
  if status == NONE and method == "HEAD" and subject ~= "HEAD" then
    subject = "HEAD"
    status = cache.find(exchange, plan.rules, scope, who, subject, body)
    if status == HIT then return end
  end
  if status < 0 then
    complain(status)
    return bypass(plan, exchange, { method = method }, "bypass")
  end
  consider(conf, plan, exchange, { method = method, subject = subject, scope = scope, who = who, body = body }, status)
end

-- ---- What the service says ----

-- A failure that a stale response may stand in for (RFC 5861 4, RFC 9111 4.2.4).
local function serve_stale(plan, exchange, state, status)
  local found = state.found
  if not found or found.flags ~= 0 or found.status == 206 or state.renewing then return false end
  local window = math.max(found.error, control.seconds(state.cc, "stale-if-error") or 0)
  if found.age - found.lifetime >= window then return false end
  local member = plan.tells >= 8 and "sluice; hit; fwd=" .. state.why .. (status and "; fwd-status=" .. status or "")
  serve(plan, exchange, state, "Hit", member or nil)
  return true
end

-- The fields of a stored response with those of a new one over them; how old it is the new one alone can say.
local function merge(field, old)
  return function(name)
    if name == "date" or name == "age" then return field(name) end
    return field(name) or old(name)
  end
end

-- What is stored is still good, and takes over the fields of the 304.
local function take_validation(conf, plan, exchange, state, field)
  local old = stored_field(exchange)
  local merged = merge(field, old)
  local how = storing.judge(conf, plan, state, state.found.status, merged, cache.delay(exchange), cache)
  if how and not conditions.differs(field, old) and not state.no_store then
    cache.refresh(exchange, how)
  else
    cache.unlead(exchange, false)
  end
  if state.renewing then return end
  local member = plan.tells >= 8 and "sluice; fwd=" .. state.why .. "; fwd-status=304"
    .. (state.waited and "; collapsed=?0" or "")
  serve(plan, exchange, state, "Refresh", member or nil)
end

-- A response to HEAD says of the one to GET that is stored whether it is still good (RFC 9111 4.3.5).
local function compare_head(conf, plan, exchange, state, field)
  local old, length = stored_field(exchange), field "content-length"
  local same = not conditions.differs(field, old) and (not length or tonumber(length) == state.found.length)
  local how = same
    and storing.judge(conf, plan, state, state.found.status, merge(field, old), cache.delay(exchange), cache)
  if how then cache.refresh(exchange, how) else cache.drop(exchange) end
end

local function path_of(exchange, location)
  local host, path = location:match("^https?://([^/?#]+)([^#]*)")
  if not host then return location:match("^/[^/]") and location:match("^[^#]*") or location == "/" and "/" or nil end
  local own = exchange.request:get_header("Host") or ""
  if host:lower() ~= own:lower() then return nil end
  return path ~= "" and path or "/"
end

-- A request that changes something makes what is stored of it worthless (RFC 9111 4.4).
local function invalidate(plan, exchange, status)
  if status < 200 or status >= 400 then return end
  local response = exchange.service.response
  cache.invalidate(exchange, plan.rules)
  for _, name in ipairs { "Location", "Content-Location" } do
    local location = response:get_header(name)
    local path = location and path_of(exchange, location)
    if path then cache.invalidate(exchange, plan.rules, path) end
  end
end

-- A part is stored where it is known which (RFC 9110 14.4) and of what: a strong entity tag tells. It joins what is
-- stored of the same.
local function describe_part(exchange, state, how, field)
  local first, last, total = (field "content-range" or ""):match("^%s*bytes (%d+)%-(%d+)/(%d+)%s*$")
  local tag = field "etag"
  if not first or not tag or tag:sub(1, 1) ~= '"' or state.method ~= "GET" then return nil, "partial" end
  how.first, how.total = tonumber(first), tonumber(total)
  how.length = tonumber(last) + 1 - how.first
  if how.length <= 0 or how.first + how.length > how.total then return nil, "partial" end
  how.joins = state.found ~= nil and state.found.status == 206 and cache.field(exchange, "etag") == tag
  how.drop = how.drop .. ",content-range"
  return how
end

local function store(conf, plan, exchange, state, status, field)
  local how, why = storing.judge(conf, plan, state, status, field, cache.delay(exchange), cache)
  if how and status == 206 then how, why = describe_part(exchange, state, how, field) end
  local stored = how ~= nil
  if how then
    stored, why = cache.store(exchange, how)
  end
  if not stored and state.key and status ~= 304 then
    counters.set(pass_key(state), 1, PASS_SECONDS)
    log.debug("a response is not cached", { reason = why })
  end
  if not stored and not state.renewing then tell(plan, exchange, state, status == 304 and state.label or "Bypass") end
  tell_member(plan, exchange, state, status, stored)
end

local function take(conf, plan, exchange, state, status)
  local field = response_field(exchange)
  if plan.hidden ~= "" then cache.hide(exchange, plan.hidden) end
  if status == 304 and state.validating then return take_validation(conf, plan, exchange, state, field) end
  if state.method == "HEAD" and state.subject == "GET" then
    local whole = state.found and state.found.status ~= 206
    if whole and status == 200 then compare_head(conf, plan, exchange, state, field) end
    return tell_member(plan, exchange, state, status, false)
  end
  if state.no_store then return tell_member(plan, exchange, state, status, false) end
  store(conf, plan, exchange, state, status, field)
end

-- What must be validated cannot be (RFC 9111 5.2.2.2).
local function refuse_stale(exchange, state)
  local found = state.found
  if not found or found.flags % 2 == 0 or found.status == 206 or state.renewing then return end
  exchange.response:error(504)
end

local function state_of(exchange)
  local handle = exchange.handle
  local renewal = renewals[handle]
  renewals[handle] = nil
  return renewal or exchange.ctx[CTX]
end

function proxy_cache.service_head(conf, exchange)
  local plan, state = plans[conf], state_of(exchange)
  if not state then return end
  local status = exchange.service.response:get_status()
  if state.unsafe and status then invalidate(plan, exchange, status) end
  if state.bypass then
    if status and plan.hidden ~= "" then cache.hide(exchange, plan.hidden) end
    return tell_member(plan, exchange, state, status, false)
  end
  if (not status or BROKEN[status]) and serve_stale(plan, exchange, state, status) then return end
  if status then return take(conf, plan, exchange, state, status) end
  refuse_stale(exchange, state)
end

return proxy_cache
