-- SPDX-License-Identifier: Apache-2.0
-- Who sends a request is told by the certificate that the client has shown in the TLS handshake.
local authentication = require "sluice.authentication"
local log = require "sluice.log"
local revocation = require "mtls-auth.revocation"
local verify = require "mtls-auth.verify"

local mtls = { version = "1.0.0", priority = 1600 }

local MISSING, FAILED = "No required TLS certificate was sent", "TLS certificate failed verification"

-- Any certificate is taken in the handshake, and none: which is good is decided for the route of each request.
function mtls.certificate(conf, exchange)
  local names = conf.send_ca_dn and verify.state(conf, exchange).text or nil
  local ok, err = exchange.client.tls:request_client_certificate(names ~= "" and names or nil)
  if not ok then log.err("a client is not asked for its certificate", { error = err }) end
end

-- ---- Whose it is ----

-- Alternative names before the common name, which certificates should not be told apart by any more.
local function names_of(info)
  local names = {}
  for _, list in ipairs { info.dns, info.email, info.uri, info.ip } do
    for _, name in ipairs(list) do names[#names + 1] = name end
  end
  names[#names + 1] = info.cn
  return names
end

-- One for this authority goes before one for any.
local function credential_of(client, name, authority)
  local for_any
  for _, credential in ipairs(client:load_credentials("mtls_auth_credentials", "subject_name", name)) do
    local its = credential.ca_certificate
    if type(its) == "table" then its = its.id end
    if its == authority then return credential end
    if not its then for_any = for_any or credential end
  end
  return for_any
end

local function consumer_by(conf, client, name)
  for _, field in ipairs(conf.consumer_by or {}) do
    local consumer = client:load_credential("consumers", field, name)
    if consumer then return consumer end
  end
end

-- Credential and consumer.
local function find(conf, client, verdict)
  local names = names_of(verdict.info)
  for _, name in ipairs(names) do
    local credential = credential_of(client, name, verdict.authority)
    if credential then return credential, client:load_consumer(credential.consumer) end
  end
  for _, name in ipairs(names) do
    local consumer = consumer_by(conf, client, name)
    if consumer then return { id = consumer.id, consumer = consumer.id, subject_name = name }, consumer end
  end
  local consumer = conf.default_consumer and client:load_consumer(conf.default_consumer, true)
  if consumer then return { id = consumer.id, consumer = consumer.id }, consumer end
end

local function set_group(conf, exchange, info)
  local group = conf.authenticated_group_by == "DN" and info.subject or info.cn
  exchange.client:authenticate(nil, { id = group or info.subject, subject_name = info.subject })
  exchange.client:forward_identity(group or info.subject)
  exchange.ctx.authenticated_groups = group and { group } or {}
end

-- ---- Phases ----

local function fail(exchange, reason)
  exchange.client.tls:set_client_verify("FAILED:" .. reason)
  return FAILED
end

-- nil when it is known who it is, else what is wrong.
local function authenticate(conf, exchange)
  local client = exchange.client
  local chain = client.tls:get_full_client_certificate_chain()
  if not chain then return MISSING end
  local verdict, err = verify.find(conf, exchange, chain)
  if not verdict then return fail(exchange, err) end
  if not revocation.passes(conf, verdict.info, verdict.pem, verdict.issuer) then
    return fail(exchange, "certificate revoked, or not known not to be")
  end
  client.tls:set_client_verify("SUCCESS")
  if conf.skip_consumer_lookup then return set_group(conf, exchange, verdict.info) end
  local credential, consumer = find(conf, client, verdict)
  if not consumer then return FAILED end
  client:authenticate(consumer, credential)
  client:forward_identity(credential.id)
end

function mtls.access(conf, exchange)
  if authentication.is_settled(conf, exchange) then return end
  local problem = authenticate(conf, exchange)
  if problem then authentication.refuse(conf, exchange, problem) end
end

return mtls
