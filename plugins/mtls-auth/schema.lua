-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults.
local typedefs = require "sluice.typedefs"

local PROTOCOLS = { "grpc", "grpcs", "http", "https" }

local function prepare(config, files)
  for i, id in ipairs(config.ca_certificates) do
    if not files.has("ca_certificates", id) then
      return { field = "ca_certificates." .. i, expected = "the id of a ca certificate in the configuration",
        found = ("%q"):format(id) }
    end
  end
end

return {
  name = "mtls-auth",
  prepare = prepare,
  fields = {
    { consumer = typedefs.no_consumer },
    { consumer_group = typedefs.no_consumer_group },
    { protocols = { type = "set", required = true, default = PROTOCOLS,
      elements = { type = "string", one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { ca_certificates = { type = "array", required = true, len_min = 1, elements = typedefs.uuid,
        about = "ids of the `ca_certificates` that vouch for clients" } },
      { consumer_by = { type = "array", default = { "username", "custom_id" },
        elements = { type = "string", one_of = { "username", "custom_id" } },
        about = "what of a consumer the names in a certificate are compared with; `[]`: only `mtls_auth_credentials` "
          .. "tell whose it is" } },
      { skip_consumer_lookup = { type = "boolean", required = true, default = false,
        about = "any client with a good certificate passes, without a consumer" } },
      { authenticated_group_by = { type = "string", default = "CN", one_of = { "CN", "DN" },
        about = "with `skip_consumer_lookup`: what of the certificate is the group that `acl` sees, its common name or "
          .. "its distinguished name" } },
      { default_consumer = { type = "string",
        about = "consumer (id or user name) of clients whose certificate is good and nobody's" } },
      { anonymous = { type = "string",
        about = "consumer (id or user name) that requests without a good certificate count as; without it they get "
          .. "401" } },
      { revocation_check_mode = { type = "string", required = true, default = "IGNORE_CA_ERROR",
        one_of = { "SKIP", "IGNORE_CA_ERROR", "STRICT" },
        about = "whether certificates are looked up as revoked, where they say how (OCSP, lists): `SKIP` no; "
          .. "`IGNORE_CA_ERROR` yes, and pass when that cannot be found out; `STRICT` only who is known not to be "
          .. "revoked passes" } },
      { http_timeout = { type = "number", default = 30000, between = { 1, 600000 },
        about = "milliseconds that asking one URL may take" } },
      { cert_cache_ttl = { type = "number", default = 60000, between = { 0, 31536000 },
        about = "seconds after which it is asked again whether a certificate has been revoked, or sooner when the "
          .. "answer says so" } },
      { cache_ttl = { type = "number", required = true, default = 60, between = { 0, 31536000 },
        about = "seconds for which a certificate that was verified counts as such" } },
      { http_proxy_host = typedefs.host { about = "proxy by which http URLs of OCSP and of lists are asked" } },
      { http_proxy_port = typedefs.port { about = "its port" } },
      { https_proxy_host = typedefs.host { about = "proxy that opens tunnels (`CONNECT`) to https URLs" } },
      { https_proxy_port = typedefs.port { about = "its port" } },
      { allow_partial_chain = { type = "boolean", required = true, default = false,
        about = "a `ca_certificate` that does not sign itself ends a chain too" } },
      { send_ca_dn = { type = "boolean", required = true, default = false,
        about = "tell clients the names of the `ca_certificates`, so that they can choose a certificate" } },
    }, entity_checks = {
      { mutually_required = { "http_proxy_host", "http_proxy_port" } },
      { mutually_required = { "https_proxy_host", "https_proxy_port" } },
    } } },
  },
}
