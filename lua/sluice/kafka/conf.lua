-- SPDX-License-Identifier: Apache-2.0
-- The part that Kong's Kafka plugins have in common: fields that say which brokers and how, as a schema, and as
-- librdkafka's properties.

local ffi = require "ffi"

local kafka_conf = {}

local max, min = math.max, math.min

local SOCKET_LEAST, SOCKET_MOST = 10, 300000 -- milliseconds that librdkafka takes for socket.timeout.ms

local MECHANISMS = { "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512" }

-- ---- Fields -------------------------------------------------------------------------------------------------------

local function servers()
  return { type = "array", about = "brokers to begin with, when `cluster` is not given", elements = {
    type = "record", fields = {
      { host = { type = "string", required = true, about = "name or address" } },
      { port = { type = "integer", required = true, between = { 0, 65535 }, about = "port" } },
    },
  } }
end

local function oauthbearer()
  return { type = "record", about = "OAuth 2 client that gets tokens for the brokers", fields = {
    { client_id = { type = "string", referenceable = true, encrypted = true, about = "client id" } },
    { client_secret = { type = "string", referenceable = true, encrypted = true, about = "client secret" } },
    { extensions = { type = "map", keys = { type = "string" }, values = { type = "string" },
      about = "SASL extensions" } },
    { scopes = { type = "array", elements = { type = "string" }, about = "scopes to ask for" } },
    { token_endpoint_tls_verify = { type = "boolean", default = true, about = "verify the token endpoint" } },
    { token_endpoint_url = { type = "string", about = "where tokens come from" } },
  } }
end

local function authentication(with_oauth)
  local mechanisms = { unpack(MECHANISMS) }
  if with_oauth then table.insert(mechanisms, 1, "OAUTHBEARER") end
  local fields = {
    { strategy = { type = "string", one_of = { "sasl" }, about = "sasl" } },
    { mechanism = { type = "string", one_of = mechanisms, about = "SASL mechanism" } },
    { tokenauth = { type = "boolean", about = "delegation token: accepted, has no effect" } },
    { user = { type = "string", referenceable = true, encrypted = true, about = "user" } },
    { password = { type = "string", referenceable = true, encrypted = true, about = "password" } },
  }
  if with_oauth then fields[#fields + 1] = { oauthbearer = oauthbearer() } end
  return { type = "record", required = true, about = "how to log in at the brokers", fields = fields }
end

local function security(with_verify)
  local fields = {
    { certificate_id = { type = "string", uuid = true, about = "certificate entity to show to the brokers" } },
    { ssl = { type = "boolean", about = "TLS to the brokers" } },
  }
  if with_verify then
    fields[#fields + 1] = { ssl_verify = { type = "boolean", default = true,
      about = "verify the brokers' certificates" } }
  end
  return { type = "record", required = true, about = "TLS to the brokers", fields = fields }
end

local function integer(default, about, extra)
  local field = extra or {}
  field.type, field.default, field.about = "integer", default, about
  return field
end

local function add_producer(fields)
  local own = "only with `bootstrap_servers`: "
  fields.timeout = integer(10000, "milliseconds that a record may take until it is acknowledged; what was not sent by "
    .. "then never is; 0 or less: as long as message.timeout.ms of the cluster")
  fields.keepalive = integer(60000, "accepted, has no effect: connections stay open")
  fields.keepalive_enabled = { type = "boolean", default = false, about = "accepted, has no effect" }
  fields.producer_request_acks = integer(1, own .. "0: none, 1: the leader's, -1: of all replicas in sync",
    { one_of = { -1, 0, 1 } })
  fields.producer_request_timeout = integer(2000, own .. "milliseconds the broker may take for the acknowledgements")
  fields.producer_request_limits_messages_per_request = integer(200, own .. "records in one request")
  fields.producer_request_limits_bytes_per_request = integer(1048576, own .. "bytes in one request")
  fields.producer_request_retries_max_attempts = integer(10, own .. "tries of one request")
  fields.producer_request_retries_backoff_timeout = integer(100, own .. "milliseconds between tries")
  fields.producer_async = { type = "boolean", default = true, about = "accepted, has no effect: see `wait`" }
  fields.producer_async_flush_timeout = integer(1000, "accepted, has no effect: records go out within a millisecond")
  fields.producer_async_buffering_limits_messages_in_memory = integer(50000, own .. "records in the queue")
  return fields
end

-- Fields of a plugin's schema in the short form: fresh tables, to which the plugin adds its own.
---@param options { producer?: boolean, consumer?: boolean }
---@return table
function kafka_conf.schema(options)
  local fields = {
    cluster = { type = "string", names = "kafka",
      about = "a cluster of gateway.kafka; `main` without `bootstrap_servers`" },
    cluster_name = { type = "string", about = "accepted, has no effect: equal settings share a client" },
    bootstrap_servers = servers(),
    authentication = authentication(options.consumer),
    security = security(options.consumer),
  }
  return options.producer and add_producer(fields) or fields
end

-- Makes the fields of a plugin those of Confluent Cloud: an API key and its secret in place of other logins, over TLS.
---@param fields table as of kafka.schema, with a plugin's own
---@param options { consumer?: boolean } consumers may log in by tokens instead, and have a way around verification
---@return table fields
function kafka_conf.confluent(fields, options)
  local consumer = options.consumer or false
  local function secret(about, required)
    return { type = "string", required = required, referenceable = true, encrypted = true, about = about }
  end
  fields.authentication, fields.security = nil, nil
  fields.bootstrap_servers.about = "brokers of Confluent Cloud to begin with, when `cluster` is not given"
  fields.cluster_api_key = secret("API key of the Kafka cluster; only with `bootstrap_servers`", not consumer)
  fields.cluster_api_secret = secret("its secret", not consumer)
  fields.confluent_cloud_api_key = secret("of Confluent Cloud: accepted, has no effect: nothing is managed there")
  fields.confluent_cloud_api_secret = secret("its secret: accepted, has no effect")
  fields.entity_checks = fields.entity_checks or {}
  table.insert(fields.entity_checks, { mutually_required = { "cluster_api_key", "cluster_api_secret" } })
  if not consumer then return fields end
  fields.timeout = integer(10000, "only with `bootstrap_servers`: milliseconds that a broker may take")
  fields.keepalive = integer(60000, "accepted, has no effect: connections stay open")
  fields.keepalive_enabled = { type = "boolean", default = false, about = "accepted, has no effect" }
  fields.oauthbearer = oauthbearer()
  fields.oauthbearer.about = "OAuth 2 client that gets tokens for the brokers, in place of the API key"
  fields.security = { type = "record", required = true, about = "TLS to the brokers", fields = {
    { ssl_verify = { type = "boolean", default = true, about = "verify the brokers' certificates" } },
  } }
  return fields
end

-- ---- Properties of librdkafka -------------------------------------------------------------------------------------

local function extensions_of(map)
  local list = {}
  for name, value in pairs(map or {}) do list[#list + 1] = name .. "=" .. value end
  table.sort(list)
  return list[1] and table.concat(list, ",") or nil
end

local function put_login(properties, login)
  if not login or login.strategy ~= "sasl" then return false end
  properties["sasl.mechanism"] = login.mechanism
  properties["sasl.username"], properties["sasl.password"] = login.user, login.password
  local oauth = login.mechanism == "OAUTHBEARER" and login.oauthbearer
  if oauth then
    properties["sasl.oauthbearer.method"] = "oidc"
    properties["sasl.oauthbearer.client.id"] = oauth.client_id
    properties["sasl.oauthbearer.client.secret"] = oauth.client_secret
    properties["sasl.oauthbearer.token.endpoint.url"] = oauth.token_endpoint_url
    properties["sasl.oauthbearer.scope"] = oauth.scopes and table.concat(oauth.scopes, " ") or nil
    properties["sasl.oauthbearer.token.endpoint.verify"] = oauth.token_endpoint_tls_verify ~= false
    properties["sasl.oauthbearer.extensions"] = extensions_of(oauth.extensions)
  end
  return true
end

local function put_tls(properties, security_, certificate)
  if not security_ or not security_.ssl then return false end
  if security_.ssl_verify == false then properties["enable.ssl.certificate.verification"] = "false" end
  if security_.certificate_id then
    local entity = certificate(security_.certificate_id)
    if not entity then return nil, "no certificate " .. security_.certificate_id end
    properties["ssl.certificate.pem"], properties["ssl.key.pem"] = entity.cert, entity.key
  end
  return true
end

-- How Confluent Cloud lets in; nil: the configuration is none of kafka_conf.confluent.
local function confluent_login(conf)
  if conf.oauthbearer then
    return { strategy = "sasl", mechanism = "OAUTHBEARER", oauthbearer = conf.oauthbearer }
  end
  if not conf.cluster_api_key then return nil end
  return { strategy = "sasl", mechanism = "PLAIN", user = conf.cluster_api_key, password = conf.cluster_api_secret }
end

local function put_producer(properties, conf)
  properties["acks"] = conf.producer_request_acks
  properties["request.timeout.ms"] = conf.producer_request_timeout
  properties["batch.num.messages"] = conf.producer_request_limits_messages_per_request
  properties["batch.size"] = conf.producer_request_limits_bytes_per_request
  properties["message.send.max.retries"] = conf.producer_request_retries_max_attempts
  properties["retry.backoff.ms"] = conf.producer_request_retries_backoff_timeout
  properties["queue.buffering.max.messages"] = conf.producer_async_buffering_limits_messages_in_memory
  properties["socket.timeout.ms"] = conf.timeout > 0 and max(SOCKET_LEAST, min(SOCKET_MOST, conf.timeout)) or nil
end

-- What a plugin's configuration says in Kong's words, in librdkafka's.
---@param conf table
---@param certificate fun(id: string): table|nil
---@return table<string, any>|nil
---@return string|nil err
function kafka_conf.properties(conf, certificate)
  local list = {}
  for i, server in ipairs(conf.bootstrap_servers) do list[i] = server.host .. ":" .. server.port end
  local properties = { ["bootstrap.servers"] = table.concat(list, ",") }
  local confluent, security_ = confluent_login(conf), conf.security
  if confluent then security_ = { ssl = true, ssl_verify = (security_ or confluent).ssl_verify } end
  local login = put_login(properties, confluent or conf.authentication)
  local tls, err = put_tls(properties, security_, certificate)
  if tls == nil then return nil, err end
  properties["security.protocol"] = (login and "sasl_" or "") .. (tls and "ssl" or "plaintext")
  if conf.producer_request_acks then
    put_producer(properties, conf)
  elseif confluent then
    properties["socket.timeout.ms"] = conf.timeout
  end
  return properties
end

-- ---- librdkafka's word -------------------------------------------------------------------------------------------

-- Pairs for C, in an order that does not depend on the table's; the texts are to be held while C reads.
function kafka_conf.pairs_of(properties)
  local names, texts = {}, {}
  for name in pairs(properties) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    texts[#texts + 1] = name
    texts[#texts + 1] = tostring(properties[name])
  end
  return ffi.new("const char *[?]", #texts + 1, texts), #names, texts
end

-- Whether librdkafka takes these properties. True where there is no librdkafka to ask: in a plain Lua process.
---@param properties table<string, string|number|boolean>
---@return boolean|nil
---@return string|nil property that is wrong
---@return string|nil why
function kafka_conf.check(properties)
  if not package.loaded["sluice.native"] then return true end
  local said = ffi.new("char[256]")
  local array, count, texts = kafka_conf.pairs_of(properties)
  local status = require("sluice.ffi").C.bridge_kafka_check(array, count, said, ffi.sizeof(said))
  if status == 0 and texts then return true end
  local property, why = ffi.string(said):match("^([^:]*): (.*)$")
  return nil, property or "", why or ffi.string(said)
end

return kafka_conf
