-- SPDX-License-Identifier: Apache-2.0
-- nginx's variables for code that was written for Kong, `ngx.var`: those of a request and its response, and those that
-- Kong has beside them for what goes to the service, which may be set.
local cookie = require "sluice.cookie"

local error, setmetatable, tostring, type = error, setmetatable, tostring, type
local floor, format, gsub, match = math.floor, string.format, string.gsub, string.match

local vars = {}

local function with_query(path, query)
  return query and query ~= "" and path .. "?" .. query or path
end

local function protocol_of(exchange)
  local version = exchange.request:get_http_version()
  return version == 2 and "HTTP/2.0" or format("HTTP/%.1f", version)
end

local function last_try(exchange)
  local tries = exchange.service:get_tries()
  return tries and tries[#tries]
end

local function seconds(ms)
  return ms and format("%.3f", ms / 1000)
end

local function now_as(form)
  return function(_, sluice) return form(sluice.time) end
end

-- By name: function(exchange, sluice) that gives the value. Numbers become texts, as nginx's variables are.
local READ = {
  args = function(exchange) return exchange.request:get_raw_query() end,
  connection = function(exchange) return exchange.client:get_connection().number end,
  connection_requests = function(exchange) return exchange.client:get_connection().requests end,
  bytes_sent = function(exchange) return exchange.response:get_size() end,
  content_length = function(exchange) return exchange.request:get_header("Content-Length") end,
  content_type = function(exchange) return exchange.request:get_header("Content-Type") end,
  host = function(exchange) return exchange.request:get_host() end,
  hostname = function(_, sluice) return sluice.node.get_hostname() end,
  https = function(exchange) return exchange.request:get_scheme() == "https" and "on" or "" end,
  is_args = function(exchange) return exchange.request:get_raw_query() ~= "" and "?" or "" end,
  msec = now_as(function(time) return format("%.3f", time.now()) end),
  pid = function(_, sluice) return sluice.node.get_pid() end,
  realip_remote_addr = function(exchange) return exchange.client:get_ip() end,
  realip_remote_port = function(exchange) return exchange.client:get_port() end,
  remote_addr = function(exchange) return exchange.client:get_forwarded_ip() end,
  remote_port = function(exchange) return exchange.client:get_forwarded_port() end,
  request = function(exchange)
    local request = exchange.request
    return format("%s %s %s", request:get_method(), with_query(request:get_raw_path(), request:get_raw_query()),
      protocol_of(exchange))
  end,
  request_id = function(exchange) return exchange.id end,
  request_length = function(exchange) return exchange.request:get_size() end,
  request_method = function(exchange) return exchange.request:get_method() end,
  request_time = function(exchange, sluice)
    return format("%.3f", sluice.time.now() - exchange.request:get_start_time() / 1000)
  end,
  request_uri = function(exchange)
    return with_query(exchange.request:get_raw_path(), exchange.request:get_raw_query())
  end,
  scheme = function(exchange) return exchange.request:get_scheme() end,
  server_addr = function(exchange) return exchange.client:get_connection().local_ip end,
  server_port = function(exchange) return exchange.request:get_port() end,
  server_protocol = protocol_of,
  ssl_protocol = function(exchange) return exchange.client.tls:get_version() end,
  ssl_server_name = function(exchange) return exchange.client.tls:get_server_name() end,
  status = function(exchange) return exchange.response:get_status() end,
  time_iso8601 = now_as(function(time) return time.iso8601(floor(time.now())) end),
  upstream_addr = function(exchange)
    local try = last_try(exchange)
    return try and try.ip and try.ip .. (try.port and ":" .. try.port or "")
  end,
  upstream_response_time = function(exchange) return seconds(exchange.service.response:get_latency()) end,
  upstream_status = function(exchange) return exchange.service.response:get_status() end,
  upstream_uri = function(exchange)
    local request = exchange.service.request
    return with_query(request:get_path(), request:get_raw_query())
  end,
  upstream_x_forwarded_host = function(exchange) return exchange.request:get_forwarded_host() end,
  upstream_x_forwarded_path = function(exchange) return exchange.request:get_forwarded_path() end,
  upstream_x_forwarded_port = function(exchange) return exchange.request:get_forwarded_port() end,
  upstream_x_forwarded_prefix = function(exchange) return exchange.request:get_forwarded_prefix() end,
  upstream_x_forwarded_proto = function(exchange) return exchange.request:get_forwarded_scheme() end,
}
-- Decoded, in which a + is one.
READ.document_uri = function(exchange, sluice)
  return sluice.query.unescape((gsub(exchange.request:get_path(), "%+", "%%2B")))
end
READ.kong_request_id, READ.query_string, READ.uri = READ.request_id, READ.args, READ.document_uri
READ.upstream_header_time = READ.upstream_response_time

-- By what the name begins with: function(exchange, rest of the name).
local READ_LIKE = {
  { "^http_(.+)", function(exchange, name) return exchange.request:get_header((gsub(name, "_", "-"))) end },
  { "^arg_(.+)", function(exchange, name)
    local value = exchange.request:get_query_arg(name)
    return value == true and "" or value
  end },
  { "^cookie_(.+)", function(exchange, name)
    return cookie.find(exchange.request:get_header("Cookie") or "", name)
  end },
  { "^sent_http_(.+)", function(exchange, name) return exchange.response:get_header((gsub(name, "_", "-"))) end },
  { "^upstream_http_(.+)", function(exchange, name)
    return exchange.service.response:get_header((gsub(name, "_", "-")))
  end },
}

local function forwarded(field)
  return function(exchange, value) exchange.service.request:set_forwarded(field, value) end
end

local WRITE = {
  args = function(exchange, value) exchange.service.request:set_raw_query(value or "") end,
  upstream_host = function(exchange, value) exchange.service.request:set_header("Host", value) end,
  upstream_scheme = function(exchange, value) exchange.service.request:set_scheme(value) end,
  upstream_uri = function(exchange, value)
    local path, query = match(value, "^([^?]*)%??(.*)$")
    exchange.service.request:set_path(path)
    if value:find("?", 1, true) then exchange.service.request:set_raw_query(query) end
  end,
  upstream_x_forwarded_for = forwarded "X-Forwarded-For", upstream_x_forwarded_host = forwarded "X-Forwarded-Host",
  upstream_x_forwarded_path = forwarded "X-Forwarded-Path", upstream_x_forwarded_port = forwarded "X-Forwarded-Port",
  upstream_x_forwarded_prefix = forwarded "X-Forwarded-Prefix",
  upstream_x_forwarded_proto = forwarded "X-Forwarded-Proto",
}

local function read(exchange, sluice, name)
  local plain = READ[name]
  if plain then return true, plain(exchange, sluice) end
  for i = 1, #READ_LIKE do
    local rest = match(name, READ_LIKE[i][1])
    if rest then return true, READ_LIKE[i][2](exchange, rest) end
  end
  return false
end

-- ngx.var.
---@param sluice table
---@param exchange_of fun(): sluice.exchange
---@return table
function vars.new(sluice, exchange_of)
  return setmetatable({}, {
    __metatable = false,
    __index = function(_, name)
      local known, value = read(exchange_of(), sluice, tostring(name))
      if not known then error(format("there is no ngx.var.%s here", tostring(name)), 2) end
      if value == nil or value == false then return nil end
      return tostring(value)
    end,
    __newindex = function(_, name, value)
      local write = WRITE[name]
      if not write then error(format("ngx.var.%s cannot be set here", tostring(name)), 2) end
      if value ~= nil and type(value) ~= "string" then value = tostring(value) end
      write(exchange_of(), value)
    end,
  })
end

return vars
