-- SPDX-License-Identifier: Apache-2.0
-- The option `schema_registry` of plugins for Kafka: Kong's fields with Kong's defaults, `timeout` besides.

local fields = {}

local function secret(about)
  return { type = "string", referenceable = true, encrypted = true, about = about }
end

local function texts(about)
  return { type = "map", keys = { type = "string" }, values = { type = "string", referenceable = true }, about = about }
end

local function strings(default, about)
  return { type = "array", elements = { type = "string" }, default = default, about = about }
end

local function oauth2()
  return { type = "record", about = "of mode oauth2: where tokens come from, and for whom", fields = {
    { token_endpoint = { type = "string", required = true, match = "^https?://", about = "URL that gives tokens" } },
    { token_headers = texts("more fields of requests for tokens") },
    { token_post_args = texts("more arguments of requests for tokens") },
    { grant_type = { type = "string", default = "client_credentials", one_of = { "client_credentials", "password" },
      about = "by what a token is had" } },
    { client_id = secret("of this gateway, at the identity provider") },
    { client_secret = secret("of this gateway, at the identity provider") },
    { username = secret("of grant_type password") },
    { password = secret("of grant_type password") },
    { scopes = strings({ "openid" }, "scopes to ask for") },
    { audience = strings({}, "audiences to ask for") },
  } }
end

local function proxy(about)
  return { type = "string", match = "^http://", err = "a URL of http", about = about }
end

local function oauth2_client()
  return { type = "record", about = "how the token endpoint is asked", fields = {
    { auth_method = { type = "string", default = "client_secret_post",
      one_of = { "client_secret_basic", "client_secret_jwt", "client_secret_post", "none" },
      about = "how client_id and client_secret are told" } },
    { client_secret_jwt_alg = { type = "string", default = "HS512", one_of = { "HS256", "HS512" },
      about = "of client_secret_jwt" } },
    { http_proxy = proxy "proxy for a token endpoint at http://" },
    { http_proxy_authorization = { type = "string", about = "Proxy-Authorization for http_proxy" } },
    { http_version = { type = "number", default = 1.1, one_of = { 1.0, 1.1 },
      about = "accepted, has no effect: HTTP/1.1 is spoken, and 1.0 is understood" } },
    { https_proxy = proxy "proxy that opens tunnels (CONNECT) to a token endpoint at https://" },
    { https_proxy_authorization = { type = "string", about = "Proxy-Authorization for https_proxy" } },
    { keep_alive = { type = "boolean", default = true, about = "keep connections to the token endpoint open" } },
    { no_proxy = { type = "string",
      about = "hosts that are asked without a proxy, with commas between them; a domain stands for those below it" } },
    { ssl_verify = { type = "boolean", default = true, about = "verify the token endpoint's certificate" } },
    { timeout = { type = "integer", default = 10000, between = { 0, 2147483646 },
      about = "milliseconds that the token endpoint may take" } },
  } }
end

local function authentication()
  return { type = "record", about = "how to log in at the registry", fields = {
    { mode = { type = "string", default = "none", one_of = { "none", "basic", "oauth2" }, about = "which way" } },
    { basic = { type = "record", about = "of mode basic", fields = {
      { username = { type = "string", required = true, referenceable = true, encrypted = true, about = "user" } },
      { password = { type = "string", required = true, referenceable = true, encrypted = true, about = "password" } },
    } } },
    { oauth2 = oauth2() },
    { oauth2_client = oauth2_client() },
  } }
end

local function version(value)
  if value == "latest" or value:find("^[1-9]%d*$") then return true end
  return nil, "expected latest or a number from 1"
end

local function subject(about)
  return { type = "record", about = about, fields = {
    { subject_name = { type = "string", about = "subject of the registry; the topic's unless set" } },
    { schema_version = { type = "string", default = "latest", custom_validator = version,
      about = "version of the subject: latest or a number" } },
    { message = { type = "string",
      about = "of Protobuf: full name of the message; the first of the schema unless set" } },
  } }
end

-- The field, for a plugin's schema.
---@param options? { schemas: boolean, decodes: boolean } schemas: with key_schema and value_schema, for those who
---  produce; decodes: for those who consume
---@return table
function fields.record(options)
  local confluent = {
    { url = { type = "string", match = "^https?://", about = "the registry's URL" } },
    { ttl = { type = "number", between = { 0, 3600 },
      about = "seconds that `latest` of a subject is kept, 60 unless set; a schema by its id does not change" } },
    { timeout = { type = "integer", default = 5000, between = { 1, 60000 },
      about = "milliseconds that the registry may take" } },
    { ssl_verify = { type = "boolean", default = true, about = "verify the registry's certificate" } },
    { authentication = authentication() },
  }
  if options and (options.schemas or options.decodes) then
    confluent[#confluent + 1] = { avro_form = { type = "string", default = "plain", one_of = { "plain", "avro" },
      about = "JSON of Avro values: plain: a value of a union stands alone, and dates, times and decimals are as "
        .. "people write them; avro: as Avro's JSON encoding has it" } }
  end
  if options and options.schemas then
    confluent[#confluent + 1] = { key_schema = subject(
      "schema of keys, which are not encoded unless it is set") }
    confluent[#confluent + 1] = { value_schema = subject(
      "schema of values; the latest of subject TOPIC-value where neither it nor key_schema is set") }
  end
  return { type = "record", about = "Confluent's Schema Registry, or one that speaks as it does", fields = {
    { confluent = { type = "record", about = "how the registry is reached", fields = confluent } },
  } }
end

return fields
