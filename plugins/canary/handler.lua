-- SPDX-License-Identifier: Apache-2.0
-- Sends a share of the requests, fixed or growing with time, to another service: the same clients every time.
local hash = require "sluice.hash"
local sluice = require "sluice"

local canary = { version = "1.0.0", priority = 20 }

local KEPT_S = 30 * 86400 -- that a start is remembered after the end

local states = setmetatable({}, { __mode = "k" }) -- by configuration: { start, groups }

-- Without `start` a release begins when it is first seen. The store remembers, so that neither a reload nor a restart
-- begins it anew; another target is another release.
local function first_seen(conf)
  local now = sluice.time.now()
  local key = table.concat({ "canary", conf.__plugin_id or "", conf.upstream_host or "", conf.upstream_port or "",
    conf.upstream_uri or "", conf.duration }, ":")
  if #key > 400 then key = "canary:" .. hash.number(key) end
  if sluice.store.add(key, tostring(now), conf.duration + KEPT_S) ~= false then return now end
  return tonumber((sluice.store.get(key))) or now
end

local function state_of(conf)
  local state = { groups = {} }
  for _, name in ipairs(conf.groups or {}) do state.groups[name] = true end
  local timed = not conf.percentage and conf.hash ~= "allow" and conf.hash ~= "deny"
  if timed then state.start = conf.start or first_seen(conf) end
  return state
end

function canary.configure(confs)
  for _, conf in ipairs(confs or {}) do states[conf] = states[conf] or state_of(conf) end
end

-- ---- Who goes -----------------------------------------------------------------------------------------------------

local function in_groups(state, exchange)
  for _, name in ipairs(exchange.client:get_acl_groups() or {}) do
    if state.groups[name] then return true end
  end
  for _, group in ipairs(exchange.client:get_consumer_groups() or {}) do
    if state.groups[group.name] then return true end
  end
  return false
end

-- What a client is known by: whoever cannot be told by a consumer or a header is told by the address.
local function key_of(conf, exchange)
  local client = exchange.client
  if conf.hash == "consumer" then
    local one = client:get_consumer() or client:get_credential()
    if one and one.id then return one.id end
  elseif conf.hash == "header" then
    local value = exchange.request:get_header(conf.hash_header)
    if value then return value end
  end
  return client:get_forwarded_ip()
end

local function step_of(conf, exchange)
  if conf.hash == "none" then return sluice.random() * conf.steps end
  return hash.number(key_of(conf, exchange)) % conf.steps
end

-- How many of the steps go to the canary by now.
local function steps_taken(conf, state)
  if conf.percentage then return conf.percentage * conf.steps / 100 end
  local passed = sluice.time.now() - state.start
  if passed < 0 then return 0 end
  if passed >= conf.duration then return conf.steps end
  return passed / conf.duration * conf.steps
end

local function is_chosen(conf, exchange)
  local asked = conf.canary_by_header_name and exchange.request:get_header(conf.canary_by_header_name)
  if asked == "always" then return true end
  if asked == "never" then return false end
  local state = states[conf]
  if conf.hash == "allow" then return in_groups(state, exchange) end
  if conf.hash == "deny" then return not in_groups(state, exchange) end
  local taken = steps_taken(conf, state)
  if taken <= 0 then return false end
  return taken >= conf.steps or step_of(conf, exchange) < taken
end

-- ---- Where to -----------------------------------------------------------------------------------------------------

local function direct(conf, exchange)
  if conf.upstream_host or conf.upstream_port then
    local service = exchange.router:get_service()
    local host = conf.upstream_host or service and service.host
    local port = conf.upstream_port or service and service.port
    if host then exchange.service:set_target(host, port and port > 0 and port or 80) end
  end
  if conf.upstream_uri then exchange.service.request:set_path(conf.upstream_uri:gsub("^/*", "/", 1)) end
end

function canary.access(conf, exchange)
  if not is_chosen(conf, exchange) then return end
  if conf.upstream_fallback and exchange.service:can_take(conf.upstream_host) == false then return end
  direct(conf, exchange)
  exchange:set_serialize_value("canary", true)
end

return canary
