-- SPDX-License-Identifier: Apache-2.0
-- What needs no handshake; the rest is in spec/gateway/mtls_auth_spec.lua, with real certificates.
local spec = require "sluice.spec"

local CA = "11111111-2222-4333-8444-555555555555"
local PEM = [[
-----BEGIN CERTIFICATE-----
MIIBgTCCASegAwIBAgIUGwoY4q3AAL13sFABRq8nVFq1WUAwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKRXhhbXBsZSBDQTAgFw0yNjExMjMxNDQ3MjJaGA8yMTI2MTAz
MDE0NDcyMlowFTETMBEGA1UEAwwKRXhhbXBsZSBDQTBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABOizgw7oYPWgOkEZgOUWkfhdZp4hSwG9qliLKnvZhGd6/55TTYFz
9Jy84ZzvXhmGnQqPgvcrmWBdqck7P9TctemjUzBRMB0GA1UdDgQWBBR6hjMjSzWS
tnkAYVTXCgrWTjZKATAfBgNVHSMEGDAWgBR6hjMjSzWStnkAYVTXCgrWTjZKATAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCID7NcLK465A2uidXJOkV
DFzhfMden8BJ0sZMQ/gYufluAiEAsDTdF0jFq7rEVL7puJerXO+UtVQ/znksatTJ
jd4S8pA=
-----END CERTIFICATE-----
]]

describe("mtls-auth", function()
  local function options(config)
    config.ca_certificates = config.ca_certificates or { CA }
    return { ca_certificates = { { id = CA, cert = PEM } }, consumers = { { username = "nobody" } },
      plugins = { { name = "mtls-auth", config = config } } }
  end

  it("refuses requests without TLS", function()
    local gateway = spec.gateway(options {})
    local response = gateway:get("/", { ["X-Consumer-Username"] = "root" })
    assert.same({ 401, "No required TLS certificate was sent" }, { response.status, response.json.message })
    assert.equal(0, #gateway:requests())
  end)

  it("counts them as anonymous when told so", function()
    local gateway = spec.gateway(options { anonymous = "nobody" })
    assert.equal(200, gateway:get("/").status)
    assert.equal("nobody", gateway:requests()[1].headers["x-consumer-username"])
    gateway = spec.gateway(options { anonymous = "stranger" })
    local response = gateway:get("/")
    assert.same({ 500, "anonymous consumer stranger is configured but doesn't exist" },
      { response.status, response.json.message })
  end)

  it("has Kong's defaults, and takes what Kong takes", function()
    assert.is_true(spec.check(options { revocation_check_mode = "STRICT", http_timeout = 1000, cert_cache_ttl = 1,
      cache_ttl = 10, allow_partial_chain = true, send_ca_dn = true, skip_consumer_lookup = true,
      authenticated_group_by = "DN", default_consumer = "nobody", consumer_by = { "username" },
      http_proxy_host = "proxy.test", http_proxy_port = 3128 }))
  end)

  it("refuses a configuration that cannot have its effect", function()
    local function refusal(config)
      return select(2, spec.check(options(config)))
    end
    assert.matches("ca_certificates: expected", refusal { ca_certificates = {} })
    assert.matches("ca_certificates%[0%]: expected a UUID", refusal { ca_certificates = { "x" } })
    assert.matches("consumer_by.*expected one of username or custom_id", refusal { consumer_by = { "id" } })
    assert.matches("authenticated_group_by: expected one of CN or DN", refusal { authenticated_group_by = "SAN" })
    assert.matches("https_proxy_host and https_proxy_port or none", refusal { https_proxy_port = 3128 })
    assert.matches("http_timeout: expected", refusal { http_timeout = 0 })
  end)
end)
