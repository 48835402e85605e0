-- SPDX-License-Identifier: Apache-2.0
-- Tells browsers which other sites may use a service (the Fetch standard, 3.2), and answers their preflight requests.
local origins = require "cors.origins"

local cors = { version = "1.0.0", priority = 2000 }

local METHODS = "GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS,TRACE,CONNECT"

local plans = setmetatable({}, { __mode = "k" }) -- by configuration

local function joined(list)
  return list and #list > 0 and table.concat(list, ",") or nil
end

local function plan_of(conf)
  return {
    allowed = origins.compile(conf.origins), methods = joined(conf.methods) or METHODS, headers = joined(conf.headers),
    exposed = joined(conf.exposed_headers), max_age = conf.max_age and ("%.14g"):format(conf.max_age),
  }
end

function cors.configure(confs)
  for _, conf in ipairs(confs or {}) do plans[conf] = plan_of(conf) end
end

function cors.needs(conf)
  return { access = not conf.preflight_continue, header_filter = true }
end

local function is_preflight(request)
  return request:get_method() == "OPTIONS" and request:get_header("origin") ~= nil
    and request:get_header("access-control-request-method") ~= nil
end

-- The answer differs by origin, or by whether there is one, which caches must know. Kong says so always, and a plugin
-- that is for some origins today is for all of them tomorrow.
local function vary(response)
  local nth = 1
  local value = response:get_header("vary", nth)
  while value do
    if (value:lower() .. ","):find("origin%s*,") or value:find("*", 1, true) then return end
    nth = nth + 1
    value = response:get_header("vary", nth)
  end
  response:add_header("Vary", "Origin")
end

-- `told`: what Access-Control-Allow-Origin says; "*" cannot stand beside credentials.
local function put_origin(conf, response, told, origin)
  if told == "*" and conf.credentials and origin then told = origin end
  if not told then return response:clear_header("Access-Control-Allow-Origin") end
  response:set_header("Access-Control-Allow-Origin", told)
  if conf.credentials and told ~= "*" then response:set_header("Access-Control-Allow-Credentials", "true") end
end

local function put_preflight(conf, plan, request, response)
  local headers = plan.headers or request:get_header("access-control-request-headers")
  if headers then response:set_header("Access-Control-Allow-Headers", headers) end
  response:set_header("Access-Control-Allow-Methods", plan.methods)
  if plan.max_age then response:set_header("Access-Control-Max-Age", plan.max_age) end
  if conf.private_network and request:get_header("access-control-request-private-network") == "true" then
    response:set_header("Access-Control-Allow-Private-Network", "true")
  end
end

function cors.access(conf, exchange)
  local request, response = exchange.request, exchange.response
  if not is_preflight(request) or conf.preflight_continue then return end
  local plan, origin = plans[conf], request:get_header("origin")
  response:set_header("Vary", "Origin")
  put_origin(conf, response, origins.answer(plan.allowed, origin), origin)
  put_preflight(conf, plan, request, response)
  response:exit(200)
end

function cors.header_filter(conf, exchange)
  local request, response = exchange.request, exchange.response
  if is_preflight(request) then return end -- answered above, or the service's to answer
  local origin, plan = request:get_header("origin"), plans[conf]
  vary(response)
  if not origin and not conf.allow_origin_absent then return end
  put_origin(conf, response, origins.answer(plan.allowed, origin), origin)
  if plan.exposed then response:set_header("Access-Control-Expose-Headers", plan.exposed) end
end

return cors
