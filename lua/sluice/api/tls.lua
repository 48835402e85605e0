-- SPDX-License-Identifier: Apache-2.0
-- exchange.client.tls: the TLS of the client's connection.

local check = require "sluice.api.check"
local core = require "sluice.api.core"
local exchanges = require "sluice.exchanges"
local phases = require "sluice.phases"

local E, C, worker = core.E, core.C, core.worker
local check_phase, text = core.check_phase, core.text

local LATER = phases.mask("rewrite", "access", "balancer", "header_filter", "body_filter", "response", "log", "frames",
  "streams")
local BEFORE_LOG = phases.mask("rewrite", "access", "balancer", "response")
local CERTIFICATE = phases.mask("certificate")
local HANDSHAKE = phases.mask("certificate", "rewrite", "access", "balancer", "header_filter", "body_filter",
  "response", "log", "frames", "streams")

---@class sluice.client.tls
local Tls = {}

---@return string|nil PEM of the client's certificate and those it sent with it; nil when it sent none
function Tls:get_full_client_certificate_chain()
  check_phase(LATER, self.handle, "exchange.client.tls:get_full_client_certificate_chain")
  return (text(self.handle, E.TEXT_TLS_CLIENT_CERTIFICATE))
end

---@return string|nil server name that the client asked for; nil without SNI or TLS
function Tls:get_server_name()
  check_phase(HANDSHAKE, self.handle, "exchange.client.tls:get_server_name")
  return (text(self.handle, E.TEXT_TLS_SNI))
end

---@return string|nil such as "TLSv1.3"; nil without TLS
function Tls:get_version()
  check_phase(LATER, self.handle, "exchange.client.tls:get_version")
  return (text(self.handle, E.TEXT_TLS_VERSION))
end

-- Presents this certificate in the handshake under way.
---@param certificate string PEM, its chain behind it
---@param key string PEM
---@return boolean|nil true
---@return string|nil err
function Tls:set_certificate(certificate, key)
  check_phase(CERTIFICATE, self.handle, "exchange.client.tls:set_certificate")
  check.string("exchange.client.tls:set_certificate", "certificate", certificate)
  check.string("exchange.client.tls:set_certificate", "key", key)
  local status = C.bridge_tls_certificate(worker, self.handle, certificate, key)
  if status ~= 0 then return nil, core.reason(status) end
  return true
end

-- What the log says about the client's certificate, in place of the handshake's own result.
---@param result string "SUCCESS", "NONE" or "FAILED:reason"
function Tls:set_client_verify(result)
  check_phase(BEFORE_LOG, self.handle, "exchange.client.tls:set_client_verify")
  check.string("exchange.client.tls:set_client_verify", "result", result)
  if result ~= "SUCCESS" and result ~= "NONE" and result:sub(1, 7) ~= "FAILED:" then
    check.fail("exchange.client.tls:set_client_verify", 'result must be "SUCCESS", "NONE" or "FAILED:reason"')
  end
  rawset(exchanges.of(self.handle), "client_verify", result)
end

-- The client cannot resume its session later, so that its next connection greets anew.
---@return boolean|nil true
---@return string|nil err
function Tls:disable_session_reuse()
  check_phase(CERTIFICATE, self.handle, "exchange.client.tls:disable_session_reuse")
  local status = C.bridge_tls_forget_session(worker, self.handle)
  if status ~= 0 then return nil, core.reason(status) end
  return true
end

-- Asks the client for a certificate; any is taken, and none. Whether it is to be trusted is for the plugin to decide,
-- in a later phase by `get_full_client_certificate_chain`.
---@param authorities? string PEM: the client is told their names, so that it can choose. Of several calls they add up
---@return boolean|nil true
---@return string|nil err
function Tls:request_client_certificate(authorities)
  check_phase(CERTIFICATE, self.handle, "exchange.client.tls:request_client_certificate")
  check.string_or_nil("exchange.client.tls:request_client_certificate", "authorities", authorities)
  local status = C.bridge_tls_ask_client(worker, self.handle, authorities, authorities and #authorities or 0)
  if status ~= 0 then return nil, core.reason(status) end
  return true
end

return core.plain_part(Tls)
