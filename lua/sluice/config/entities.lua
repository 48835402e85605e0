-- SPDX-License-Identifier: Apache-2.0
-- The entities of Kong's declarative format: fields with their defaults and bounds, what may be nested in what, and
-- what makes each one known by name. The fields are in Kong's schema form and checked by the same engine as plugins'.
local cjson = require "cjson"
local address = require "sluice.config.address"
local typedefs = require "sluice.schema.typedefs"

local null = cjson.null
local entities = {}

-- by collection name ("services"): {
--   kind = "service"                name in records and messages
--   fields, entity_checks           as in a schema
--   names = { "name" }              fields that alone identify an entity of this kind, unique in the configuration
--   key = function(record)          text that the id is made from; nil: from the whole record
--   subject = function(record)      text that no two of them have; nil: the key
--   refs = { service = "services" } fields that refer to an entity of that collection
--   nested = { routes = { "routes", "service" } }  lists inside: their collection, the field that refers back
-- }
local by_collection = {}
entities.by_collection = by_collection

local PROTOCOLS = { "http", "https", "grpc", "grpcs", "ws", "wss", "tcp", "tls", "tls_passthrough" }
local SERVICE_PROTOCOLS = { "http", "https", "grpc", "grpcs", "http2", "http2s", "ws", "wss", "tcp", "tls",
  "tls_passthrough" }

local function one_of(protocols)
  return function(value)
    for _, name in ipairs(protocols) do
      if name == value then return true end
    end
    if value == "udp" then return nil, "expected a protocol over TCP (this version does not carry UDP)" end
    return nil, "expected one of " .. table.concat(protocols, ", ", 1, #protocols - 1) .. " or "
      .. protocols[#protocols]
  end
end

local check_protocol, check_service_protocol = one_of(PROTOCOLS), one_of(SERVICE_PROTOCOLS)

local protocol = { type = "string", custom_validator = check_protocol }

local function foreign(collection, extra)
  local field = { type = "foreign", reference = collection }
  for name, value in pairs(extra or {}) do field[name] = value end
  return field
end

local function text(extra)
  local field = { type = "string" }
  for name, value in pairs(extra or {}) do field[name] = value end
  return field
end

local function integer(low, high, default)
  return { type = "integer", between = { low, high }, default = default }
end

local function switch(default)
  return { type = "boolean", default = default }
end

local function choice(default, names)
  return { type = "string", default = default, one_of = names }
end

-- Fields that every entity has. What tools write beside the data (_comment, _konnect and so on) is passed over.
local function common(fields)
  local first = {
    { id = typedefs.uuid }, { created_at = { type = "number" } }, { updated_at = { type = "number" } },
    { tags = typedefs.tags }, { _comment = { type = "any", tolerated = true } },
    { _ignore = { type = "any", tolerated = true } }, { ws_id = { type = "any", tolerated = true } },
  }
  for i, field in ipairs(first) do table.insert(fields, i, field) end
  return fields
end

local function by_name(record)
  return record.name
end

local function define(collection, kind, definition)
  definition.kind, definition.collection = kind, collection
  definition.names = definition.names or {}
  definition.nested, definition.refs = definition.nested or {}, definition.refs or {}
  common(definition.fields)
  by_collection[collection] = definition
end

-- ---- Services -------------------------------------------------------------------------------------------------------

local SERVICE_PORTS = { http = 80, https = 443, grpc = 80, grpcs = 443, http2 = 80, http2s = 443, ws = 80, wss = 443 }

local function expand_url(url)
  local parts = address.url(url)
  if not parts then return {} end
  return { protocol = parts.scheme, host = parts.host, port = parts.port or SERVICE_PORTS[parts.scheme],
    path = parts.path }
end

local function only_with_tls(field, match)
  local secure = { "https", "grpcs", "http2s", "wss", "tls" }
  return { conditional = { if_field = "protocol", if_match = { not_one_of = secure },
    then_field = field, then_match = match or { eq = null } } }
end

define("services", "service", {
  names = { "name" }, key = by_name,
  refs = { client_certificate = "certificates" },
  nested = { routes = { "routes", "service" }, plugins = { "plugins", "service" } },
  shorthand_fields = { { url = { type = "string", custom_validator = typedefs.url_without_user.custom_validator,
    func = expand_url } } },
  fields = {
    { name = typedefs.utf8_name }, { retries = integer(0, 32767, 5) },
    { protocol = { type = "string", default = "http", required = true, custom_validator = check_service_protocol } },
    { host = typedefs.host { required = true, expected = "a host name or an address (or url)" } },
    { port = typedefs.port { required = true, default = 80 } }, { path = typedefs.path },
    { connect_timeout = integer(1, 2147483646, 60000) }, { write_timeout = integer(1, 2147483646, 60000) },
    { read_timeout = integer(1, 2147483646, 60000) },
    { client_certificate = foreign("certificates") }, { tls_verify = { type = "boolean" } },
    { tls_verify_depth = { type = "integer", between = { 0, 64 } } },
    { ca_certificates = { type = "array", elements = typedefs.uuid } }, { enabled = switch(true) },
    { proxy_protocol = { type = "string", one_of = { "v1", "v2" } } }, -- Sluice's own
  },
  entity_checks = {
    only_with_tls("client_certificate"), only_with_tls("tls_verify"), only_with_tls("tls_verify_depth"),
    only_with_tls("ca_certificates"),
    { conditional = { if_field = "protocol", if_match = { one_of = { "grpc", "grpcs", "tcp", "tls",
      "tls_passthrough" } }, then_field = "path", then_match = { eq = null } } },
    { conditional = { if_field = "protocol", if_match = { not_one_of = { "tcp", "tls", "tls_passthrough" } },
      then_field = "proxy_protocol", then_match = { eq = null } } },
  },
})

-- ---- Routes ---------------------------------------------------------------------------------------------------------

local function endpoint()
  return { type = "record", fields = { { ip = typedefs.ip_or_cidr }, { port = typedefs.port } },
    entity_checks = { { at_least_one_of = { "ip", "port" } } } }
end

define("routes", "route", {
  names = { "name" }, key = by_name,
  refs = { service = "services" },
  nested = { plugins = { "plugins", "route" } },
  fields = {
    { name = typedefs.utf8_name }, { service = foreign("services") },
    { protocols = { type = "set", len_min = 1, required = true, elements = protocol, default = { "http", "https" },
      mutually_exclusive_subsets = { { "http", "https" }, { "grpc", "grpcs" }, { "ws", "wss" }, { "tcp", "tls" },
        { "tls_passthrough" } } } },
    { methods = typedefs.methods }, { hosts = typedefs.hosts }, { paths = typedefs.paths },
    { headers = { type = "map", keys = typedefs.header_name { not_match = "^[Hh][Oo][Ss][Tt]$" },
      values = { type = "array", elements = { type = "string" } } } },
    { snis = { type = "set", elements = typedefs.wildcard_sni } },
    { sources = { type = "set", elements = endpoint() } }, { destinations = { type = "set", elements = endpoint() } },
    { https_redirect_status_code = { type = "integer", default = 426, one_of = { 426, 301, 302, 307, 308 } } },
    { regex_priority = { type = "integer", default = 0 } }, { strip_path = switch(true) },
    { path_handling = choice("v0", { "v0", "v1" }) }, { preserve_host = switch(false) },
    { request_buffering = switch(true) }, { response_buffering = switch(true) },
    { expression = { type = "string", eq = null } }, { priority = { type = "integer", tolerated = true } },
  },
})

-- What a route must have to match by; ws is http that upgrades.
local MATCHERS = {
  http = { "methods", "hosts", "headers", "paths" }, https = { "methods", "hosts", "headers", "paths", "snis" },
  grpc = { "hosts", "headers", "paths" }, grpcs = { "hosts", "headers", "paths", "snis" },
  ws = { "hosts", "headers", "paths" }, wss = { "hosts", "headers", "paths", "snis" },
  tcp = { "sources", "destinations" }, tls = { "sources", "destinations", "snis" }, tls_passthrough = { "snis" },
}

-- The fields of which a route of these protocols needs one, the most permissive protocol's; and whether it has one, as
-- written (`item`): one that is wrong has been told.
function entities.route_matchers(protocols, item)
  local needed = {}
  for _, name in ipairs(protocols) do
    local matchers = MATCHERS[name] or {}
    if #matchers > #needed then needed = matchers end
  end
  for _, name in ipairs(needed) do
    local value = item[name]
    if value ~= nil and value ~= null and not (type(value) == "table" and next(value) == nil) then
      return needed, true
    end
  end
  return needed, #needed == 0
end

-- ---- Consumers and credentials --------------------------------------------------------------------------------------

define("consumers", "consumer", {
  names = { "username", "custom_id" },
  key = function(record) return record.username or "custom_id:" .. tostring(record.custom_id) end,
  nested = {
    plugins = { "plugins", "consumer" }, keyauth_credentials = { "keyauth_credentials", "consumer" },
    basicauth_credentials = { "basicauth_credentials", "consumer" }, jwt_secrets = { "jwt_secrets", "consumer" },
    hmacauth_credentials = { "hmacauth_credentials", "consumer" }, acls = { "acls", "consumer" },
    mtls_auth_credentials = { "mtls_auth_credentials", "consumer" },
    groups = { "consumer_group_consumers", "consumer", "consumer_group" },
  },
  fields = { { username = text() }, { custom_id = text() } },
  entity_checks = { { at_least_one_of = { "username", "custom_id" } } },
})

define("consumer_groups", "consumer_group", {
  names = { "name" }, key = by_name,
  nested = { plugins = { "plugins", "consumer_group" },
    consumers = { "consumer_group_consumers", "consumer_group", "consumer" } },
  fields = { { name = typedefs.utf8_name { required = true } } },
})

define("consumer_group_consumers", "consumer_group_consumer", {
  refs = { consumer = "consumers", consumer_group = "consumer_groups" },
  key = function(record) return record.consumer .. ":" .. record.consumer_group end,
  fields = { { consumer = foreign("consumers", { required = true }) },
    { consumer_group = foreign("consumer_groups", { required = true }) } },
})

local function credential(collection, unique, fields, extra)
  local definition = { names = unique and { unique } or {}, refs = { consumer = "consumers" }, fields = fields }
  for name, value in pairs(extra or {}) do definition[name] = value end
  if unique then definition.key = function(record) return record[unique] end end
  table.insert(fields, { consumer = foreign("consumers", { required = true }) })
  define(collection, collection, definition)
end

local secret = { type = "string", encrypted = true }

credential("keyauth_credentials", "key", { { key = { type = "string", encrypted = true, required = true } },
  { ttl = { type = "integer", between = { 0, 100000000 } } } })
credential("basicauth_credentials", "username", { { username = text { required = true } },
  { password = { type = "string", encrypted = true, required = true } } })
credential("hmacauth_credentials", "username", { { username = text { required = true } },
  { secret = { type = "string", encrypted = true, required = true } } })
-- The core reads keys; it is there when a credential is.
local function is_public_key(value)
  local key, why = require("sluice.crypto").key(value)
  return key ~= nil, why
end

local public_key = typedefs.text(is_public_key, "a public key or a certificate in PEM form")

credential("jwt_secrets", "key", {
  { key = text { required = true } }, { secret = secret }, { rsa_public_key = public_key },
  { algorithm = choice("HS256", { "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512",
    "PS256", "PS384", "PS512", "EdDSA" }) },
}, { entity_checks = {
  { conditional = { if_field = "algorithm", if_match = { match = "^HS" }, then_field = "secret",
    then_match = { required = true } } },
  { conditional = { if_field = "algorithm", if_match = { match = "^[REP]" }, then_field = "rsa_public_key",
    then_match = { required = true } } },
} })
credential("mtls_auth_credentials", nil, { { subject_name = text { required = true } },
  { ca_certificate = foreign("ca_certificates") } }, {
  refs = { consumer = "consumers", ca_certificate = "ca_certificates" },
  key = function(record) return record.subject_name .. ":" .. (record.ca_certificate or "") end,
})
credential("acls", nil, { { group = text { required = true } } },
  { key = function(record) return record.consumer .. ":" .. record.group end })

-- ---- Upstreams and targets ------------------------------------------------------------------------------------------

local function statuses(default)
  return { type = "array", default = default, elements = { type = "integer", between = { 100, 999 } } }
end

local function record(fields)
  return { type = "record", required = true, fields = fields }
end

local function counter()
  return integer(0, 255, 0)
end

local function seconds(default)
  return { type = "number", between = { 0, 65535 }, default = default }
end

local CHECK_TYPES = { "tcp", "http", "https", "grpc", "grpcs" }

local active = record {
  { type = choice("http", CHECK_TYPES) }, { timeout = seconds(1) }, { concurrency = integer(1, 2147483648, 10) },
  { http_path = typedefs.path { default = "/" } }, { https_sni = typedefs.sni },
  { https_verify_certificate = switch(true) }, { headers = typedefs.headers },
  { grpc_service = text() },
  { healthy = record { { interval = seconds(0) }, { http_statuses = statuses { 200, 302 } },
    { successes = counter() } } },
  { unhealthy = record { { interval = seconds(0) },
    { http_statuses = statuses { 429, 404, 500, 501, 502, 503, 504, 505 } }, { tcp_failures = counter() },
    { timeouts = counter() }, { http_failures = counter() } } },
}

local passive = record {
  { type = choice("http", CHECK_TYPES) },
  { healthy = record { { successes = counter() }, { http_statuses = statuses { 200, 201, 202, 203, 204, 205, 206, 207,
    208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308 } } } },
  { unhealthy = record { { http_statuses = statuses { 429, 500, 503 } }, { tcp_failures = counter() },
    { timeouts = counter() }, { http_failures = counter() } } },
}

local HASH_ON = { "none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture" }

local function needs(if_field, word, then_field)
  return { conditional = { if_field = if_field, if_match = { one_of = { word } }, then_field = then_field,
    then_match = { required = true } } }
end

-- Who says what to hash by, and no algorithm, wants it hashed.
local function expand_hash_on(hash_on)
  return { hash_on = hash_on, algorithm = hash_on ~= "none" and "consistent-hashing" or nil }
end

define("upstreams", "upstream", {
  names = { "name" }, key = by_name,
  refs = { client_certificate = "certificates" },
  nested = { targets = { "targets", "upstream" } },
  shorthand_fields = { { hash_on = { type = "string", func = expand_hash_on } } },
  fields = {
    { name = typedefs.host { required = true } },
    { algorithm = choice("round-robin", { "consistent-hashing", "least-connections", "round-robin", "latency",
      "sticky-sessions", "power-of-two-choices" }) },
    { hash_on = choice("none", HASH_ON) }, { hash_fallback = choice("none", HASH_ON) },
    { hash_on_header = typedefs.header_name }, { hash_fallback_header = typedefs.header_name },
    { hash_on_cookie = typedefs.cookie_name }, { hash_on_cookie_path = typedefs.path { default = "/" } },
    { hash_on_query_arg = text() }, { hash_fallback_query_arg = text() },
    { hash_on_uri_capture = text() }, { hash_fallback_uri_capture = text() },
    { sticky_sessions_cookie = typedefs.cookie_name },
    { sticky_sessions_cookie_path = typedefs.path { default = "/" } },
    { slots = integer(10, 65536, 10000) }, { slow_start = seconds(0) },
    { healthchecks = record { { active = active }, { passive = passive },
      { threshold = { type = "number", between = { 0, 100 }, default = 0 } } } },
    { host_header = typedefs.host_with_optional_port }, { client_certificate = foreign("certificates") },
    { use_srv_name = switch(false) },
  },
  entity_checks = {
    needs("algorithm", "sticky-sessions", "sticky_sessions_cookie"),
    needs("hash_on", "header", "hash_on_header"), needs("hash_fallback", "header", "hash_fallback_header"),
    needs("hash_on", "cookie", "hash_on_cookie"), needs("hash_fallback", "cookie", "hash_on_cookie"),
    needs("hash_on", "query_arg", "hash_on_query_arg"), needs("hash_fallback", "query_arg", "hash_fallback_query_arg"),
    needs("hash_on", "uri_capture", "hash_on_uri_capture"),
    needs("hash_fallback", "uri_capture", "hash_fallback_uri_capture"),
    { conditional = { if_field = "hash_on", if_match = { one_of = { "none", "cookie" } },
      then_field = "hash_fallback", then_match = { one_of = { "none" } } } },
  },
})

local DEFAULT_TARGET_PORT = 8000

-- "host" and "host:port" alike as "host:port".
function entities.full_target(target)
  local host, port = address.split(target)
  return address.join(host, port or DEFAULT_TARGET_PORT)
end

define("targets", "target", {
  refs = { upstream = "upstreams" },
  key = function(target) return target.upstream .. ":" .. target.target end,
  fields = {
    { target = typedefs.host_with_optional_port { required = true } }, { weight = integer(0, 65535, 100) },
    { upstream = foreign("upstreams", { required = true }) },
  },
})

-- ---- Certificates ---------------------------------------------------------------------------------------------------

define("certificates", "certificate", {
  key = function(certificate) return certificate.cert end,
  nested = { snis = { "snis", "certificate", "name" } },
  fields = {
    { cert = typedefs.certificate { required = true } }, { key = typedefs.private_key { required = true } },
    { cert_alt = typedefs.certificate }, { key_alt = typedefs.private_key }, { passphrase = { type = "any",
      tolerated = true } },
  },
  entity_checks = { { mutually_required = { "cert_alt", "key_alt" } } },
})

define("ca_certificates", "ca_certificate", {
  key = function(certificate) return certificate.cert end,
  fields = { { cert = typedefs.certificate { required = true } }, { cert_digest = text() } },
})

define("snis", "sni", {
  names = { "name" }, key = by_name, refs = { certificate = "certificates" },
  fields = { { name = typedefs.wildcard_sni { required = true } },
    { certificate = foreign("certificates", { required = true }) } },
})

-- ---- Plugins and vaults ---------------------------------------------------------------------------------------------

local function subject_of_plugin(p)
  return table.concat({ p.name, p.service or "", p.route or "", p.consumer or "", p.consumer_group or "" }, ":")
end

define("plugins", "plugin", {
  names = { "instance_name" },
  refs = { service = "services", route = "routes", consumer = "consumers", consumer_group = "consumer_groups" },
  key = function(p) return subject_of_plugin(p) .. ":" .. (p.instance_name or "") end,
  subject = subject_of_plugin,
  fields = {
    { name = text { required = true } }, { instance_name = typedefs.utf8_name },
    { service = foreign("services") }, { route = foreign("routes") }, { consumer = foreign("consumers") },
    { consumer_group = foreign("consumer_groups") },
    { config = { type = "any" } }, { enabled = switch(true) },
    { when = { type = "string", custom_validator = function(value) -- Sluice's own
      return require("sluice.expression").check(value)
    end } },
    { protocols = { type = "set", elements = typedefs.protocol } },
    { ordering = { type = "record", fields = { { before = { type = "any" } }, { after = { type = "any" } } } } },
    { _config = { type = "any", tolerated = true } },
  },
})

define("vaults", "vault", {
  names = { "prefix" }, key = function(vault) return vault.prefix end,
  fields = {
    { prefix = text { required = true, match = "^[a-z][a-z%d-]*[a-z%d]+$", not_one_of = { "env" },
      err = "a name of lower-case letters, digits and -" } },
    { name = choice(nil, { "env" }) }, { description = text() },
    { config = { type = "record", required = true, fields = { { prefix = text() },
      { base64_decode = switch(false) }, { ttl = { type = "any", tolerated = true } },
      { neg_ttl = { type = "any", tolerated = true } }, { resurrect_ttl = { type = "any", tolerated = true } } } } },
  },
})

-- Records stand in a snapshot in this order: each kind behind those it refers to.
entities.order = {
  "certificates", "ca_certificates", "snis", "upstreams", "targets", "services", "consumer_groups", "consumers",
  "consumer_group_consumers", "keyauth_credentials", "basicauth_credentials", "hmacauth_credentials", "jwt_secrets",
  "mtls_auth_credentials", "acls", "routes", "plugins",
}

-- Collections of Kong's that this version has no use for: an entry is refused, not passed over, since it may have been
-- there to protect something.
entities.unsupported = {
  oauth2_credentials = true, oauth2_tokens = true, oauth2_authorization_codes = true, sessions = true, keys = true,
  key_sets = true, filter_chains = true, parameters = true, licenses = true,
  rbac_roles = true, partials = true,
}

return entities
