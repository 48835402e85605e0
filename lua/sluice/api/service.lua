-- SPDX-License-Identifier: Apache-2.0
-- exchange.service: where the request goes, with `request` and `response` for what goes there and comes back.

local check = require "sluice.api.check"
local core = require "sluice.api.core"
local entities = require "sluice.api.entities"
local exchanges = require "sluice.exchanges"
local phases = require "sluice.phases"
local service_request = require "sluice.api.service_request"
local service_response = require "sluice.api.service_response"

local E, C, worker = core.E, core.C, core.worker
local check_phase, must = core.check_phase, core.must

local ACCESS = phases.mask("access")
local BEFORE = phases.mask("preread", "rewrite", "access")
local TARGET = phases.mask("preread", "rewrite", "access", "balancer", "balancer (stream)")
local TRIED = phases.mask("balancer", "balancer (stream)", "header_filter", "body_filter", "response", "log")

local HEDGED = { "refused", "lost", "won" }

local MAX_DEPTH = 100
local MAX_MS = 2147483646 -- as in Kong

---@class sluice.service
---@field request sluice.service.request
---@field response sluice.service.response
local methods = {}

-- Balances over the targets of an upstream of the configuration.
---@param name string
---@return boolean|nil true
---@return string|nil err when there is no such upstream
function methods:set_upstream(name)
  check_phase(BEFORE, self.handle, "exchange.service:set_upstream")
  check.string("exchange.service:set_upstream", "name", name)
  local status = C.bridge_service_upstream(worker, self.handle, name, #name)
  if status == E.BRIDGE_NONE then return nil, "could not find an upstream named '" .. name .. "'" end
  must(status, "exchange.service:set_upstream")
  return true
end

-- Calls another service of the configuration in place of the route's: with its protocol, host, path, timeouts and
-- certificates.
---@param name string or id
---@return boolean|nil true
---@return string|nil err when there is no such service, or it is disabled
function methods:set_service(name)
  check_phase(ACCESS, self.handle, "exchange.service:set_service")
  check.string("exchange.service:set_service", "name", name)
  local exchange = exchanges.of(self.handle)
  local service = entities.find(exchange, "services", "name", name) or entities.find(exchange, "services", "id", name)
  local index = service and entities.generation(exchange).service_indexes[service.id]
  if not index then return nil, "could not find a service named '" .. name .. "'" end
  must(C.bridge_service_use(worker, self.handle, index), "exchange.service:set_service")
  return true
end

-- Whether an upstream of the configuration has a target that takes requests, by all that is known of their health.
---@param name string
---@return boolean|nil nil: there is no such upstream
function methods:can_take(name)
  check_phase(ACCESS, self.handle, "exchange.service:can_take")
  check.string("exchange.service:can_take", "name", name)
  local status = C.bridge_upstream_takes(worker, self.handle, name, #name)
  if status == E.BRIDGE_NONE then return nil end
  if status == E.BRIDGE_CLOSED then return false end
  must(status, "exchange.service:can_take")
  return true
end

-- Sends the request to this host and port in place of the route's service.
---@param host string name or address
---@param port integer 1 to 65535
function methods:set_target(host, port)
  check_phase(TARGET, self.handle, "exchange.service:set_target")
  check.string("exchange.service:set_target", "host", host)
  check.integer("exchange.service:set_target", "port", port, 1, 65535)
  must(C.bridge_service_target(worker, self.handle, host, #host, port), "exchange.service:set_target")
end

---@param retries integer 0 to 32767
function methods:set_retries(retries)
  check_phase(BEFORE, self.handle, "exchange.service:set_retries")
  check.integer("exchange.service:set_retries", "retries", retries, 0, 32767)
  core.set_number(self.handle, E.NUMBER_RETRIES, retries, "exchange.service:set_retries")
end

-- Retries of this request are bound by a budget, which the request counts for.
---@param budget integer see sluice.budget
function methods:set_retry_budget(budget)
  check_phase(BEFORE, self.handle, "exchange.service:set_retry_budget")
  must(C.bridge_service_retry_budget(worker, self.handle, budget), "exchange.service:set_retry_budget")
end

-- Where the service has not answered after `delay`, another of its targets is asked too, and the first response is
-- taken; the other one is given up. Only where the request has no content and a method that may come twice, and as far
-- as the budget goes.
---@param delay number seconds, 0 to 3600
---@param budget integer see sluice.budget
function methods:set_hedge(delay, budget)
  check_phase(BEFORE, self.handle, "exchange.service:set_hedge")
  check.number("exchange.service:set_hedge", "delay", delay)
  must(C.bridge_service_hedge(worker, self.handle, delay, budget), "exchange.service:set_hedge")
end

-- What came of it.
---@return "refused"|"lost"|"won"|nil nil: there was no need for a second try; refused: no budget for one; else its fate
function methods:get_hedge()
  check_phase(TRIED, self.handle, "exchange.service:get_hedge")
  return HEDGED[core.number(self.handle, E.NUMBER_HEDGED)]
end

---@param connect_timeout integer milliseconds
---@param write_timeout integer milliseconds
---@param read_timeout integer milliseconds
function methods:set_timeouts(connect_timeout, write_timeout, read_timeout)
  local name = "exchange.service:set_timeouts"
  check_phase(BEFORE, self.handle, name)
  check.integer(name, "connect_timeout", connect_timeout, 1, MAX_MS)
  check.integer(name, "write_timeout", write_timeout, 1, MAX_MS)
  check.integer(name, "read_timeout", read_timeout, 1, MAX_MS)
  core.set_number(self.handle, E.NUMBER_CONNECT_TIMEOUT_MS, connect_timeout, name)
  core.set_number(self.handle, E.NUMBER_SEND_TIMEOUT_MS, write_timeout, name)
  core.set_number(self.handle, E.NUMBER_READ_TIMEOUT_MS, read_timeout, name)
end

---@return integer connect_timeout milliseconds, as is the rest
---@return integer write_timeout
---@return integer read_timeout
function methods:get_timeouts()
  local handle = self.handle
  return core.number(handle, E.NUMBER_CONNECT_TIMEOUT_MS) or 0, core.number(handle, E.NUMBER_SEND_TIMEOUT_MS) or 0,
    core.number(handle, E.NUMBER_READ_TIMEOUT_MS) or 0
end

-- What has been tried so far, as Kong logs it: those that failed say how ("failed": not reached, or broken; "next": it
-- answered that it cannot serve), with the status that the client would have been told.
---@return { ip: string?, port: integer?, balancer_start: number, state: string?, code: integer? }[]
function methods:get_tries()
  check_phase(TRIED, self.handle, "exchange.service:get_tries")
  return (core.tries(self.handle))
end

---@return integer how many tries have been begun
function methods:count_tries()
  check_phase(TRIED, self.handle, "exchange.service:count_tries")
  return (core.number(self.handle, E.NUMBER_TRIES))
end

---@param on boolean whether the service's certificate is verified
function methods:set_tls_verify(on)
  check_phase(TARGET, self.handle, "exchange.service:set_tls_verify")
  check.boolean("exchange.service:set_tls_verify", "on", on)
  must(C.bridge_service_tls_verify(worker, self.handle, on and 1 or 0), "exchange.service:set_tls_verify")
end

---@param depth integer intermediate certificates that the service's chain may have, 0 to 100
function methods:set_tls_verify_depth(depth)
  check_phase(TARGET, self.handle, "exchange.service:set_tls_verify_depth")
  check.integer("exchange.service:set_tls_verify_depth", "depth", depth, 0, MAX_DEPTH)
  must(C.bridge_service_tls_depth(worker, self.handle, depth), "exchange.service:set_tls_verify_depth")
end

-- The gateway's own certificate towards the service, for this request; its connections serve no other certificate. Both
-- are parsed at each call: for a certificate that does not change, a service's `client_certificate` costs less.
---@param certificate string PEM, the chain behind it
---@param key string PEM
---@return boolean|nil true
---@return string|nil err what is wrong with them
function methods:set_tls_cert_key(certificate, key)
  check_phase(TARGET, self.handle, "exchange.service:set_tls_cert_key")
  check.string("exchange.service:set_tls_cert_key", "certificate", certificate)
  check.string("exchange.service:set_tls_cert_key", "key", key)
  local status = C.bridge_service_tls_pair(worker, self.handle, certificate, key)
  if status == E.BRIDGE_INVALID then return nil, core.reason(status) end
  must(status, "exchange.service:set_tls_cert_key")
  return true
end

return core.part(function(self, key)
  if key == "request" then return (service_request(self.handle)) end
  if key == "response" then return (service_response(self.handle)) end
  return methods[key]
end)
