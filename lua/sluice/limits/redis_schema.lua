-- SPDX-License-Identifier: Apache-2.0
-- The option `redis` of plugins that count there: Kong's fields, those of its plugins that speak to Sentinels and
-- clusters included; and what they mean for sluice.redis.

local redis_schema = {}

local function port() return { type = "integer", between = { 0, 65535 }, default = 6379 } end

local function nodes(host_field, about)
  return { type = "array", len_min = 1, about = about, elements = { type = "record", fields = {
    { [host_field] = { type = "string", required = true, default = "127.0.0.1" } }, { port = port() },
  } } }
end

local function secret(about)
  return { type = "string", referenceable = true, encrypted = true, len_min = 0, about = about }
end

-- The field, for a plugin's schema.
---@param typedefs table sluice.typedefs
---@return table
function redis_schema.record(typedefs)
  return { type = "record", required = true, about = "of policy `redis`", fields = {
    { host = typedefs.host { about = "name or address" } },
    { port = typedefs.port { default = 6379 } },
    { timeout = typedefs.timeout { default = 2000,
      about = "milliseconds that a request may wait for Redis: for a connection, and until its answer is whole" } },
    { username = { type = "string", referenceable = true } },
    { password = secret() },
    { database = { type = "integer", default = 0 } },
    { ssl = { type = "boolean", required = true, default = false, about = "speak TLS" } },
    { ssl_verify = { type = "boolean", required = true, default = false,
      about = "verify its certificate, against the system's authorities (or those that SSL_CERT_FILE names)" } },
    { server_name = typedefs.sni { about = "name to verify and to ask for; `host` unless set" } },
    { keepalive_pool_size = { type = "integer", between = { 1, 2147483646 }, default = 256,
      about = "connections that a worker has to one server at most" } },
    { keepalive_backlog = { type = "integer", between = { 0, 2147483646 },
      about = "requests that may wait for one of them; 1000 unless set" } },
    { sentinel_master = { type = "string", about = "name that Sentinels know the server by" } },
    { sentinel_nodes = nodes("host", "Sentinels that are asked for it, in place of `host` and `port`") },
    { sentinel_role = { type = "string", one_of = { "any", "master", "slave" },
      about = "which of the servers; counting needs the master" } },
    { sentinel_username = { type = "string", referenceable = true } },
    { sentinel_password = secret() },
    { cluster_nodes = nodes("ip", "nodes of a cluster, in place of `host` and `port`: any that tell the others") },
    { cluster_max_redirections = { type = "integer", between = { 0, 100 }, default = 5,
      about = "how often a request follows a key that has moved" } },
  } }
end

local function present(text)
  if text == "" then return nil end
  return text
end

local function sentinel_of(conf)
  if not conf.sentinel_nodes or not conf.sentinel_master then return nil end
  return { master = conf.sentinel_master, nodes = conf.sentinel_nodes, role = conf.sentinel_role,
    username = present(conf.sentinel_username), password = present(conf.sentinel_password) }
end

local function cluster_of(conf)
  if not conf.cluster_nodes then return nil end
  local list = {}
  for i, node in ipairs(conf.cluster_nodes) do list[i] = { host = node.ip, port = node.port } end
  return { nodes = list, max_redirections = conf.cluster_max_redirections }
end

-- What the option means for sluice.redis.
---@return sluice.redis.options
function redis_schema.options(conf)
  local each, all = conf.timeout or math.max(conf.send_timeout, conf.read_timeout), conf.timeout
  if not all then all = conf.connect_timeout + conf.send_timeout + conf.read_timeout end
  return {
    host = conf.host, port = conf.port, database = conf.database, timeout = math.max(each, 1) / 1000,
    deadline = math.max(all, 1) / 1000, connect_timeout = conf.connect_timeout and conf.connect_timeout / 1000,
    username = present(conf.username), password = present(conf.password),
    tls = conf.ssl and { verify = conf.ssl_verify, name = conf.server_name } or nil,
    pool_size = conf.keepalive_pool_size, max_connections = conf.keepalive_pool_size,
    backlog = conf.keepalive_backlog, sentinel = sentinel_of(conf), cluster = cluster_of(conf),
  }
end

local function timeout(about)
  return { type = "integer", between = { 0, 2147483646 }, default = 2000, about = "milliseconds " .. about }
end

-- Pairs of "host:port" as records.
local function addresses(host_field)
  return function(list)
    local records = {}
    for i, text in ipairs(list) do
      local host, number = text:match("^(.*):(%d+)$")
      records[i] = { [host_field] = host or text, port = tonumber(number) or 6379 }
    end
    return records
  end
end

-- The same with the fields that Kong's advanced plugins have instead.
---@return table
function redis_schema.advanced(typedefs)
  local record = redis_schema.record(typedefs)
  local fields = {}
  for _, entry in ipairs(record.fields) do
    local name, field = next(entry)
    if name == "host" then field = typedefs.host { default = "127.0.0.1", about = "name or address" } end
    if name ~= "timeout" then fields[#fields + 1] = { [name] = field } end
  end
  fields[#fields + 1] = { connect_timeout = timeout "for a connection" }
  fields[#fields + 1] = { send_timeout = timeout "for a command to go" }
  fields[#fields + 1] = { read_timeout = timeout "for its answer" }
  fields[#fields + 1] = { connection_is_proxied = { type = "boolean", default = false,
    about = "a proxy stands before Redis; nothing else changes" } }
  fields[#fields + 1] = { redis_proxy_type = { type = "string", one_of = { "envoy_v1.31" },
    about = "which proxy; nothing else changes" } }
  local sentinels, nodes_of = addresses "host", addresses "ip"
  return { type = "record", required = true, about = "of strategy `redis`", fields = fields, shorthand_fields = {
    { timeout = { type = "integer", func = function(value)
      return { connect_timeout = value, send_timeout = value, read_timeout = value }
    end } },
    { sentinel_addresses = { type = "array", len_min = 1, elements = { type = "string" }, func = function(list)
      return { sentinel_nodes = sentinels(list) }
    end } },
    { cluster_addresses = { type = "array", len_min = 1, elements = { type = "string" }, func = function(list)
      return { cluster_nodes = nodes_of(list) }
    end } },
  } }
end

-- The older names of its fields, which stand beside it: shorthand_fields of a plugin's schema.
---@return table[]
function redis_schema.shorthands()
  local kinds = { host = "string", port = "integer", username = "string", password = "string", ssl = "boolean",
    ssl_verify = "boolean", server_name = "string", timeout = "integer", database = "integer" }
  local list = {}
  for name, kind in pairs(kinds) do
    local func = function(value) return { redis = { [name] = value } } end
    list[#list + 1] = { ["redis_" .. name] = { type = kind, len_min = name == "password" and 0 or nil, func = func } }
  end
  return list
end

-- What tells servers, and ways to speak to them, apart.
---@param options sluice.redis.options
---@return string
function redis_schema.name(options)
  local parts = { tostring(options.host), tostring(options.port), tostring(options.database),
    tostring(options.username), tostring(options.password), tostring(options.timeout), tostring(options.tls ~= nil) }
  for _, group in ipairs { options.sentinel or {}, options.cluster or {} } do
    parts[#parts + 1] = tostring(group.master)
    for _, node in ipairs(group.nodes or {}) do parts[#parts + 1] = node.host .. ":" .. node.port end
  end
  return table.concat(parts, "\0")
end

-- ---- Checks of a plugin's configuration ----

local function has_server(conf)
  local one = conf.redis
  local named = one.host and one.port or one.sentinel_nodes and one.sentinel_master or one.cluster_nodes
  if conf.policy ~= "redis" or named then return true end
  return nil, "expected a value, or sentinel_nodes and sentinel_master, or cluster_nodes, found nothing", "redis.host"
end

local function has_database(conf)
  if conf.policy ~= "cluster" then return true end
  return nil, '"cluster" needs a database, which comes with a later version; expected "local" or "redis"', "policy"
end

-- Of `policy`, and of what `redis` has to say for it.
---@return table[] entity_checks
function redis_schema.checks()
  return {
    { custom_entity_check = { field_sources = { "policy" }, fn = has_database } },
    { custom_entity_check = { field_sources = { "policy", "redis" }, fn = has_server } },
  }
end

return redis_schema
