-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults; `deadline` and `max_bytes` are Sluice's own.
local code = require "sluice.code"
local limits = require "sluice.limits"
local template = require "sluice.template"
local typedefs = require "sluice.typedefs"

local function is_url(text)
  if text:find("$(", 1, true) then return template.check(text) end
  return typedefs.url.custom_validator(text)
end

local function custom(about)
  return { type = "map", keys = { type = "string" }, values = { type = "any" }, custom_validator = template.check,
    about = about }
end

local function record(fields, about)
  return { type = "record", required = true, fields = fields, about = about }
end

local function switch(default, about)
  return { type = "boolean", default = default, about = about }
end

local function lua(about)
  return { type = "string", custom_validator = code.check, about = about }
end

local function timeout(about)
  return { type = "integer", between = { 0, 2147483646 }, about = about }
end

local function proxy(about)
  return { type = "string", match = "^http://", err = "a URL of http", about = about }
end

local request = record {
  { url = { type = "string", required = true, custom_validator = is_url,
    about = "what is called; may hold expressions" } },
  { method = typedefs.http_method { default = "GET" } },
  { query = record { { forward = switch(false, "send the arguments of the request") },
    { custom = custom "arguments to send" } } },
  { headers = record { { forward = switch(false, "send the fields of the request") },
    { custom = custom "fields to send" } } },
  { body = record { { forward = switch(false, "send the body of the request") },
    { decode = switch(false, "as JSON, which `custom` members are put into") },
    { custom = custom "members of a JSON body to send" } } },
  { http_opts = record {
    { ssl_verify = switch(false, "verify the server's certificate") },
    { ssl_server_name = typedefs.sni { about = "name to ask for and verify, in place of the URL's" } },
    { timeouts = { type = "record", about = "milliseconds, 60000 each unless told", fields = {
      { connect = timeout "for connecting" }, { write = timeout "for sending" }, { read = timeout "for the answer" },
    } } },
    { proxy = { type = "record", about = "by which calls go", fields = {
      { http_proxy = proxy "that http URLs are asked by" },
      { https_proxy = proxy "that opens tunnels (`CONNECT`) to https URLs" },
      { auth_username = { type = "string", referenceable = true, about = "told to the proxy" } },
      { auth_password = { type = "string", referenceable = true, encrypted = true } },
    }, entity_checks = { { mutually_required = { "auth_username", "auth_password" } } } } },
  } },
  { error = record {
    { on_error = { type = "string", default = "fail", one_of = { "fail", "retry", "continue" },
      about = "answer the client, call again (and fail in the end), or go on without the answer" } },
    { retries = { type = "integer", default = 2, between = { 0, 100 }, about = "of `retry`" } },
    { http_statuses = { type = "array", elements = { type = "integer", between = { 100, 999 } },
      about = "statuses that are errors; no answer always is one" } },
    { error_response_code = { type = "integer", default = 400, between = { 200, 599 },
      about = "status that the client gets" } },
    { error_response_msg = { type = "string", default = "service callout error", custom_validator = template.check,
      about = "message that the client gets; may hold expressions" } },
  } },
  { by_lua = lua "Lua code that runs before the cache is asked and the call made" },
}

local response = record {
  { headers = record { { store = switch(true, "keep them for expressions and code") } } },
  { body = record { { store = switch(true, "keep it for expressions and code") },
    { decode = switch(false, "as JSON") },
    { max_bytes = { type = "integer", default = 1048576, between = { 0, 67108864 },
      about = "a longer one is an error" } } } },
  { by_lua = lua "Lua code that runs with the answer, before it is cached" },
}

local callout = { type = "record", fields = {
  { name = { type = "string", required = true, match = "^[%a_][%w_]*$",
    err = "a name that Lua code can use (letters, digits and _)", about = "what expressions and code call it" } },
  { depends_on = { type = "array", default = {}, elements = { type = "string" },
    about = "names of callouts that have to be done before; those that do not need each other go at once" } },
  { request = request }, { response = response },
  { cache = record { { bypass = switch(false, "never cache this one") } } },
} }

local cache = record({
  { strategy = { type = "string", default = "off", one_of = { "off", "memory", "redis" },
    about = "`memory` is the gateway's store, which all its workers share; `redis` is for several gateways" } },
  { cache_ttl = { type = "integer", default = 300, gt = 0, about = "seconds" } },
  { memory = record { { dictionary_name = { type = "string", default = "kong_db_cache", about = "passed over" } } } },
  { redis = limits.redis_schema_advanced(typedefs) },
}, "of answers")

local upstream = record({
  { query = record { { forward = switch(true, "keep the arguments of the request") },
    { custom = custom "arguments to set" } } },
  { headers = record { { forward = switch(true, "keep the fields of the request") },
    { custom = custom "fields to set" } } },
  { body = record { { forward = switch(true, "keep the body of the request") },
    { decode = switch(true, "as JSON, which `custom` members are put into") },
    { custom = custom "members of a JSON body to set" } } },
  { by_lua = lua "Lua code that runs last; it may answer the client" },
}, "the request that goes to the service")

local function visit(name, by_name, state)
  if state[name] == "done" then return nil end
  if state[name] then return name end
  state[name] = "open"
  for _, other in ipairs(by_name[name].depends_on or {}) do
    local ring = by_name[other] and visit(other, by_name, state)
    if ring then return ring end
  end
  state[name] = "done"
end

-- Names are there, once, and do not wait for each other in a ring.
local function in_order(conf)
  local by_name, state = {}, {}
  for _, one in ipairs(conf.callouts) do
    if by_name[one.name] then return nil, ("two callouts are named %q"):format(one.name), "callouts" end
    by_name[one.name] = one
  end
  for _, one in ipairs(conf.callouts) do
    for _, other in ipairs(one.depends_on or {}) do
      if not by_name[other] then
        return nil, ("%q depends on %q, which there is not"):format(one.name, other), "callouts"
      end
    end
  end
  for _, one in ipairs(conf.callouts) do
    local ring = visit(one.name, by_name, state)
    if ring then return nil, ("callouts wait for each other in a ring: %q"):format(ring), "callouts" end
  end
  return true
end

return {
  name = "request-callout",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { callouts = { type = "array", required = true, len_min = 1, elements = callout, about = "HTTP calls" } },
      { upstream = upstream }, { cache = cache },
      { deadline = { type = "integer", required = true, default = 60000, between = { 1, 3600000 },
        about = "milliseconds in which all callouts are done, or the client is told 504" } },
    }, entity_checks = { { custom_entity_check = { field_sources = { "callouts" }, fn = in_order } } } } },
  },
}
