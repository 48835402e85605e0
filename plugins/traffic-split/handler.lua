-- SPDX-License-Identifier: Apache-2.0
-- Spreads requests over services, upstreams and hosts: by rules, by weight, and the same client to the same one.
local cookie = require "sluice.cookie"
local expression = require "sluice.expression"
local query = require "sluice.query"
local shares = require "traffic-split.shares"

local split = { version = "1.0.0", priority = 19 }

local compiled = setmetatable({}, { __mode = "k" }) -- by configuration: its rules

local function compile(conf)
  local rules = {}
  for i, rule in ipairs(conf.rules) do
    rules[i] = shares.new(rule.weighted_upstreams)
    rules[i].holds = rule.match and assert(expression.compile(rule.match)) or false
  end
  return rules
end

-- A configuration that stays over a reload keeps its turns.
function split.configure(confs)
  for _, conf in ipairs(confs or {}) do compiled[conf] = compiled[conf] or compile(conf) end
end

function split.needs(conf)
  return { access = true, header_filter = conf.sticky.by == "cookie" or conf.response_header ~= nil }
end

local function first_rule(conf, exchange)
  local rules = compiled[conf]
  for i = 1, #rules do
    local rule = rules[i]
    if not rule.holds or rule.holds(exchange) then return rule end
  end
end

-- What a client is known by; nil: it cannot be told from others.
local KEYS = {
  header = function(sticky, exchange) return exchange.request:get_header(sticky.name) end,
  ip = function(_, exchange) return exchange.client:get_forwarded_ip() end,
  consumer = function(_, exchange)
    local consumer = exchange.client:get_consumer()
    return consumer and consumer.id
  end,
}

-- The target whose name the client's cookie has, where that one still gets requests.
local function by_cookie(rule, sticky, exchange)
  local value = cookie.of_handle(exchange.handle, sticky.name)
  local target = value and rule.by_name[query.unescape(value)]
  return target and target.weight > 0 and target or nil
end

local function choose(rule, sticky, exchange)
  if sticky.by == "none" then return rule:next() end
  if sticky.by == "cookie" then
    local known = by_cookie(rule, sticky, exchange)
    if known then return known, false end
    return rule:next(), true
  end
  local key = KEYS[sticky.by](sticky, exchange)
  return key and rule:of(key) or rule:next()
end

local function direct(exchange, target)
  local service = exchange.service
  local done, err = true, nil
  if target.service then done, err = service:set_service(target.service) end
  if target.upstream then done, err = service:set_upstream(target.upstream) end
  if not done then error(err) end
  if target.host then service:set_target(target.host, target.port) end
  if target.protocol then service.request:set_scheme(target.protocol) end
end

function split.access(conf, exchange)
  local rule = first_rule(conf, exchange)
  local target, is_new
  if rule then target, is_new = choose(rule, conf.sticky, exchange) end
  if not target then return end
  direct(exchange, target)
  if is_new or conf.response_header then exchange.ctx.traffic_split = { name = target.name, is_new = is_new } end
  exchange:set_serialize_value("traffic_split", target.name)
end

local function cookie_of(sticky, name)
  local text = sticky.name .. "=" .. query.escape(name) .. "; Path=" .. sticky.cookie_path
  if sticky.cookie_ttl then text = text .. ("; Max-Age=%d"):format(sticky.cookie_ttl) end
  if sticky.cookie_domain then text = text .. "; Domain=" .. sticky.cookie_domain end
  if sticky.cookie_secure then text = text .. "; Secure" end
  if sticky.cookie_http_only then text = text .. "; HttpOnly" end
  if sticky.cookie_same_site then text = text .. "; SameSite=" .. sticky.cookie_same_site end
  return text
end

function split.header_filter(conf, exchange)
  local chosen = rawget(exchange, "ctx") and exchange.ctx.traffic_split
  if not chosen then return end
  if conf.response_header then exchange.response:set_header(conf.response_header, chosen.name) end
  if chosen.is_new then exchange.response:add_header("Set-Cookie", cookie_of(conf.sticky, chosen.name)) end
end

return split
