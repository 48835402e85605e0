-- SPDX-License-Identifier: Apache-2.0
-- Fields that many schemas share, under Kong's names; a plugin's schema gets them by `require "sluice.typedefs"` or by
-- Kong's own name for them. A typedef is a field's description; calling it gives a copy with
-- attributes changed: typedefs.port { default = 6379 }.
local cjson = require "cjson"
local address = require "sluice.config.address"
local regex = require "sluice.config.regex"

local typedefs = {}

local meta = { __metatable = false }

function meta.__call(base, changes)
  local result = setmetatable({}, meta)
  for name, value in pairs(base) do result[name] = value end
  for name, value in pairs(changes or {}) do result[name] = value end
  return result
end

local function define(name, field)
  typedefs[name] = getmetatable(field) == false and field or setmetatable(field, meta)
end

-- A string that `test` passes, called `expected` when it does not.
local function text(test, expected, extra)
  local field = {
    type = "string",
    custom_validator = function(value)
      local ok, why = test(value)
      if ok then return true end
      return nil, "expected " .. expected .. (why and " (" .. why .. ")" or "")
    end,
  }
  for name, value in pairs(extra or {}) do field[name] = value end
  return field
end
typedefs.text = text

local TOKEN = "^[%w!#$%%&'*+.^_`|~-]+$"

local PATH_CHARACTERS = "^[%w%-._~!$&'()*+,;=:@%%/]*$"

local function is_host_with_port(value)
  return address.split(value) ~= nil
end

-- Perhaps with "user:password@", for who sends that on.
local function is_url(value)
  return address.url((value:gsub("^(%a[%w+.-]*://)[^/?#@]*@", "%1"))) ~= nil
end

local function has_good_escapes(path)
  return not path:gsub("%%%x%x", ""):find("%%")
end

-- A plain path: from "/", without empty segments, of RFC 3986's characters.
local function is_path(value)
  if value:sub(1, 1) ~= "/" then return false end
  if value:find("//", 1, true) then return false, "it has an empty segment" end
  if not value:find(PATH_CHARACTERS) then return false, "it has characters that RFC 3986 does not allow" end
  if not has_good_escapes(value) then return false, "a % begins no escape" end
  return true
end

local function is_router_path(value)
  if value:sub(1, 2) == "~/" then
    local ok, why = regex.check(value:sub(2))
    return ok, why and "it does not compile: " .. why
  end
  return is_path(value)
end

-- What a Host header may be matched with: a name or address, with "*" as its first or last label, and perhaps a port.
local function is_wildcard_host(value)
  if not value:find("*", 1, true) then return is_host_with_port(value) end
  if select(2, value:gsub("%*", "")) > 1 then return false, "only one * may stand in it" end
  local host = value:gsub(":(%d+)$", "")
  if host:sub(1, 2) ~= "*." and host:sub(-2) ~= ".*" then return false, "the * must be the first or the last label" end
  return address.split((value:gsub("%*", "wildcard"))) ~= nil
end

local function is_sni(value)
  return address.is_name(value) and not value:find("[:/]")
end

local function is_wildcard_sni(value)
  if value == "*" then return true end
  if not value:find("*", 1, true) then return is_sni(value) end
  if select(2, value:gsub("%*", "")) > 1 then return false, "only one * may stand in it" end
  if value:sub(1, 2) ~= "*." and value:sub(-2) ~= ".*" then
    return false, "the * must be the first or the last label"
  end
  return is_sni((value:gsub("%*", "wildcard")))
end

local function is_pem(label)
  local start, stop = "-----BEGIN [%u ]*" .. label .. "-----", "-----END [%u ]*" .. label .. "-----"
  return function(value)
    return value:find(start) ~= nil and value:find(stop) ~= nil
  end
end

local function is_utf8(value)
  return not value:find("[%z\1-\31\127]")
end

local function is_lua(value)
  local chunk, why = loadstring(value, "=code") -- luacheck: ignore 113
  return chunk ~= nil, why
end

define("name", text(function(v) return v:find("^[%w._~-]+$") ~= nil end, "a name of letters, digits and . _ ~ -"))
define("utf8_name", text(function(v) return is_utf8(v) and not v:find("[%s/?#:]") end,
  "a name without spaces, control characters and / ? # :"))
define("uuid", { type = "string", uuid = true })
define("key", { type = "string", unique = true })
define("tag", text(function(v) return not v:find("[,/%z\1-\31\127]") end, "a tag without , and /"))
define("tags", { type = "set", elements = typedefs.tag })
define("host", text(address.is_host, "a host name or an address"))
define("host_with_optional_port", text(is_host_with_port, "a host name or an address, perhaps with a port"))
define("wildcard_host", text(is_wildcard_host, "a host name or an address, perhaps with a * label and a port"))
define("sni", text(is_sni, "a host name"))
define("wildcard_sni", text(is_wildcard_sni, "a host name, perhaps with a * label, or *"))
define("ip", text(address.is_ip, "an IP address"))
define("ip_or_cidr", text(address.is_cidr, "an IP address or a CIDR range"))
define("cidr", text(address.is_cidr, "a CIDR range"))
define("cidr_v4", typedefs.cidr)
define("ip_or_cidr_v4", typedefs.ip_or_cidr)
define("port", { type = "integer", between = { 0, 65535 } })
define("timeout", { type = "integer", between = { 0, 2147483646 } })
define("url", text(is_url, "a URL such as http://host:port/path"))
define("url_without_user", text(function(v) return address.url(v) ~= nil end, "a URL such as http://host:port/path"))
define("path", text(is_path, "a path that starts with /"))
define("router_path", text(is_router_path, "a path that starts with /, or a regular expression that starts with ~/"))
define("header_name", { type = "string", match = TOKEN, err = "a header name" })
define("cookie_name", { type = "string", match = TOKEN, err = "a cookie name" })
define("cookie_value", { type = "string", match = "^[%w!#$%%&'()*+,./:;<=>?@%[%]^_`{|}~-]*$", err = "a cookie value" })
define("http_method", { type = "string", match = "^%u+$", err = "a method in capitals" })
define("semantic_version", { type = "string", match = "^%d+[%.%d]*$", err = "a version" })
define("lua_code", text(is_lua, "Lua code"))
define("certificate", text(is_pem("CERTIFICATE"), "a certificate in PEM form"))
define("private_key", text(is_pem("PRIVATE KEY"), "a private key in PEM form", { encrypted = true }))
define("regex", { type = "string", is_regex = true })
define("auto_timestamp_s", { type = "integer", timestamp = true })
define("auto_timestamp_ms", { type = "number", timestamp = true })
define("unix_timestamp", { type = "number", timestamp = true })
define("hosts", { type = "array", elements = typedefs.wildcard_host })
define("paths", { type = "array", elements = typedefs.router_path })
define("methods", { type = "set", elements = typedefs.http_method })
define("headers", { type = "map", keys = typedefs.header_name, values = { type = "array", elements = { type =
  "string" } } })

-- How a plugin's entries wait for their sink, see sluice.queue.
define("queue", { type = "record", required = true,
  about = "how entries wait for the server and are sent again", fields = {
  { max_batch_size = { type = "integer", default = 1, between = { 1, 1000000 },
    about = "entries that are sent at once" } },
  { max_coalescing_delay = { type = "number", default = 1, between = { 0, 3600 },
    about = "seconds that an entry may wait for others to be sent with" } },
  { max_entries = { type = "integer", default = 10000, between = { 1, 1000000 },
    about = "entries that may wait; past it the oldest is dropped" } },
  { max_bytes = { type = "integer", about = "bytes of entries that may wait, 64 MiB unless told; past it the oldest is "
    .. "dropped" } },
  { max_retry_time = { type = "number", default = 60,
    about = "seconds after which a batch that could not be sent is given up" } },
  { initial_retry_delay = { type = "number", default = 0.01, between = { 0.001, 1000000 },
    about = "seconds before a batch is sent for the second time; each further wait is twice as long" } },
  { max_retry_delay = { type = "number", default = 60, between = { 0.001, 1000000 },
    about = "seconds that such a wait has at most" } },
  { concurrency_limit = { type = "integer", default = 1, one_of = { 1, -1 },
    about = "1: a batch after the other; -1: side by side" } },
} })

typedefs.all_protocols = { "grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp", "ws", "wss" }
define("protocol", { type = "string", one_of = typedefs.all_protocols })

local function protocols(names)
  return { type = "set", required = true, default = names, elements = { type = "string", one_of = names } }
end

define("protocols", { type = "set", required = true, default = { "grpc", "grpcs", "http", "https" },
  elements = typedefs.protocol })
define("protocols_http", protocols { "grpc", "grpcs", "http", "https" })
define("protocols_https", protocols { "grpcs", "https" })
define("protocols_stream", protocols { "tcp", "tls", "udp" })
define("protocols_http_and_https", protocols { "http", "https" })

local function deep(value)
  if type(value) ~= "table" then return value end
  local result = {}
  for key, item in pairs(value) do result[key] = deep(item) end
  return getmetatable(value) == false and setmetatable(result, meta) or result
end

-- The queue with other defaults, which hold for what an instance leaves out of it as well; those of a record's own
-- `default` hold where it says nothing of the queue only.
---@param defaults table<string, any> by field
function typedefs.queue_with(defaults)
  local field = deep(typedefs.queue)
  for _, entry in ipairs(field.fields) do
    local name, one = next(entry)
    if defaults[name] ~= nil then one.default = defaults[name] end
  end
  return field
end

-- All of them anew, for a plugin's schema, which may do with them as it likes.
-- Lists of texts under names that Kong had for them before version 3, as shorthand_fields: { old = "new" }.
---@param names table<string, string>
---@return table[]
function typedefs.formerly(names)
  local list = {}
  for old, new in pairs(names) do
    list[#list + 1] = { [old] = { type = "array", elements = { type = "string" },
      deprecation = { message = ("use %s in place of %s"):format(new, old) },
      func = function(value) return { [new] = value } end } }
  end
  return list
end

function typedefs.copy()
  local result = deep(typedefs)
  result.copy, result.text = nil, nil
  return result
end

for _, name in ipairs { "consumer", "consumer_group", "route", "service" } do
  define("no_" .. name, { type = "foreign", reference = name .. "s", eq = cjson.null })
end

return typedefs
