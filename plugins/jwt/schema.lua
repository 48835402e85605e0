-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults; `hide_credentials`, `leeway` and `jwks` are Sluice's own.
local jwt = require "sluice.jwt"
local typedefs = require "sluice.typedefs"

local PROTOCOLS = { "grpc", "grpcs", "http", "https" }

local function seconds(default, about)
  return { type = "number", required = true, default = default, between = { 1, 86400 }, about = about }
end

local jwks = { type = "record", about = "take tokens of an issuer that publishes its keys, instead of those of "
  .. "credentials", fields = {
  { uri = typedefs.url { required = true, about = "URL of the issuer's JWK Set" } },
  { issuers = { type = "array", elements = { type = "string" },
    about = "`iss` must be one of these; nothing: any issuer whose token these keys sign" } },
  { audiences = { type = "array", elements = { type = "string" },
    about = "`aud` must name one of these; nothing: any" } },
  { algorithms = { type = "set", required = true, default = jwt.ASYMMETRIC,
    elements = { type = "string", one_of = jwt.ASYMMETRIC }, about = "algorithms that tokens may be signed with" } },
  { consumer_claim = { type = "string",
    about = "claim that names the consumer; nothing: tokens pass without a consumer" } },
  { consumer_by = { type = "set", required = true, default = { "username", "custom_id" },
    elements = { type = "string", one_of = { "id", "username", "custom_id" } },
    about = "what of a consumer the claim is compared with" } },
  { ttl = seconds(300, "seconds after which the keys are fetched again; while that fails, the old ones hold") },
  { interval = seconds(30, "least seconds from one fetch to the next, whatever keys tokens name") },
  { timeout = { type = "number", required = true, default = 5000, between = { 1, 60000 },
    about = "milliseconds that a fetch may take" } },
  { max_bytes = { type = "integer", required = true, default = 65536, between = { 256, 1048576 },
    about = "bytes that a JWK Set may have" } },
  { ssl_verify = { type = "boolean", required = true, default = true, about = "verify the server's certificate" } },
} }

return {
  name = "jwt",
  fields = {
    { consumer = typedefs.no_consumer },
    { consumer_group = typedefs.no_consumer_group },
    { protocols = { type = "set", required = true, default = PROTOCOLS,
      elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { uri_param_names = { type = "set", default = { "jwt" }, elements = { type = "string" },
        about = "arguments of the query in which a token is looked for" } },
      { cookie_names = { type = "set", default = {}, elements = { type = "string" },
        about = "cookies in which a token is looked for" } },
      { header_names = { type = "set", default = { "authorization" }, elements = { type = "string" },
        about = "header fields in which a token is looked for, as `Bearer TOKEN`" } },
      { key_claim_name = { type = "string", default = "iss",
        about = "claim that names the credential by its `key`; without it the member of the header with this name" } },
      { secret_is_base64 = { type = "boolean", required = true, default = false,
        about = "credentials hold their secret in base64" } },
      { claims_to_verify = { type = "set", elements = { type = "string", one_of = { "exp", "nbf" } },
        about = "claims that a token must have, and that must hold" } },
      { anonymous = { type = "string",
        about = "consumer (id or user name) that requests without a good token count as; without it they get 401" } },
      { run_on_preflight = { type = "boolean", required = true, default = true,
        about = "authenticate `OPTIONS` requests too; false: they pass" } },
      { maximum_expiration = { type = "number", default = 0, between = { 0, 31536000 },
        about = "seconds from now that `exp` may lie ahead at most; 0: any" } },
      { realm = { type = "string", about = "realm of the `WWW-Authenticate` field of a 401" } },
      { hide_credentials = { type = "boolean", required = true, default = false,
        about = "the service does not see the token" } },
      { leeway = { type = "number", required = true, default = 0, between = { 0, 3600 },
        about = "seconds that the clocks of issuer and gateway may differ, for `exp` and `nbf`" } },
      { jwks = jwks },
    }, entity_checks = {
      { conditional = { if_field = "maximum_expiration", if_match = { gt = 0 }, then_field = "claims_to_verify",
        then_match = { required = true, contains = "exp" } } },
    } } },
  },
}
