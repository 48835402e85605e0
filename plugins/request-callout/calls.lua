-- SPDX-License-Identifier: Apache-2.0
-- One callout: its context, which code of the configuration may look at and change, and the request that it makes.
local crypto = require "sluice.crypto"
local json = require "sluice.json"
local merge = require "request-callout.merge"
local template = require "sluice.template"

local calls = {}

-- Of the client's request, what is between it and the gateway.
local NOT_FORWARDED = { host = true, connection = true, ["keep-alive"] = true, ["proxy-connection"] = true,
  ["transfer-encoding"] = true, te = true, trailer = true, upgrade = true, ["content-length"] = true, expect = true,
  ["accept-encoding"] = true } -- an answer is to be read here

local function headers_of(exchange, call, values)
  local headers = {}
  if call.given.request.headers.forward then
    for name, value in pairs((exchange.request:get_headers(1000))) do
      if not NOT_FORWARDED[name] then headers[name] = value end
    end
  end
  for name, value in pairs(call.headers and call.headers(values) or {}) do
    for present in pairs(headers) do
      if present:lower() == name:lower() then headers[present] = nil end
    end
    headers[name] = template.text(value)
  end
  return headers
end

local function query_of(exchange, call, values)
  local args = call.given.request.query.forward and exchange.request:get_query(1000) or {}
  for name, value in pairs(call.query and call.query(values) or {}) do
    args[name] = type(value) == "boolean" and value or template.text(value)
  end
  return args
end

local function has_field(headers, wanted)
  for name in pairs(headers) do
    if name:lower() == wanted then return true end
  end
  return false
end

-- A text as it came, or a table that goes as JSON.
local function body_of(exchange, call, values)
  local given = call.given.request.body
  local custom = call.body and call.body(values)
  return merge.body(exchange, given, custom)
end

-- The context of a callout, under Kong's names.
function calls.context(exchange, call, values)
  local request = call.given.request
  local timeouts, proxy = request.http_opts.timeouts or {}, request.http_opts.proxy
  return {
    request = {
      params = {
        url = template.text(call.url(values)), method = request.method, query = query_of(exchange, call, values),
        headers = headers_of(exchange, call, values), body = body_of(exchange, call, values),
        decode = request.body.decode, ssl_verify = request.http_opts.ssl_verify,
        ssl_server_name = request.http_opts.ssl_server_name,
        timeouts = { connect = timeouts.connect, write = timeouts.write, read = timeouts.read },
        proxy = proxy and { http_proxy = proxy.http_proxy, https_proxy = proxy.https_proxy,
          auth_username = proxy.auth_username, auth_password = proxy.auth_password },
      },
      retries = {}, n_retries = 0,
    },
    caching = { bypass = call.given.cache.bypass },
  }
end

-- The proxy for a URL, and what it is told of who asks.
local function proxy_of(given, url)
  if not given then return nil end
  local proxy = given.http_proxy
  if url:find("^[Hh][Tt][Tt][Pp][Ss]:") then proxy = given.https_proxy end
  if not proxy then return nil end
  return proxy, given.auth_username
    and "Basic " .. crypto.base64_encode(given.auth_username .. ":" .. given.auth_password)
end

local DEFAULT_MS = 60000

-- What the HTTP client is told. `left`: seconds until all callouts have to be done.
function calls.options(call, context, left)
  local params = context.request.params
  local headers, body, timeouts = params.headers or {}, params.body, params.timeouts or {}
  if type(body) == "table" then
    body = assert(json.encode(body))
    if not has_field(headers, "content-type") then headers["Content-Type"] = "application/json" end
  end
  local proxy, authorization = proxy_of(params.proxy, params.url)
  local connect, write, read = timeouts.connect or DEFAULT_MS, timeouts.write or DEFAULT_MS, timeouts.read or DEFAULT_MS
  return {
    url = params.url, method = params.method, query = next(params.query or {}) and params.query or nil,
    headers = headers, body = body, max_body = call.given.response.body.max_bytes,
    connect_timeout = math.min(connect / 1000, left), timeout = math.min((connect + write + read) / 1000, left),
    tls = { verify = params.ssl_verify == true, name = params.ssl_server_name },
    proxy = proxy, proxy_authorization = authorization or nil,
  }
end

-- Why an answer is a failure, in Kong's form; nil: it is none.
function calls.fault_of(policy, response, err)
  if not response then return { reason = "error", err = err } end
  for _, status in ipairs(policy.http_statuses or {}) do
    if status == response.status then return { reason = "code", err = "HTTP status", http_code = status } end
  end
end

return calls
