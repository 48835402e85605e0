-- SPDX-License-Identifier: Apache-2.0
-- Bounds retries to a share of the requests. Where each request may be retried several times, a service that fails
-- under its load gets a multiple of it; with a budget it gets a little more.
local budget = require "sluice.budget"
local log = require "sluice.log"
local metrics = require "sluice.metrics"

local retry_budget = { version = "1.0.0", priority = 4 }

local taken = metrics.counter("sluice_retry_budget_retries_total", "Retries that the budget paid for", { "service" })
local refused = metrics.counter("sluice_retry_budget_exhausted_total", "Retries that were not made for want of budget",
  { "service" })

local by_conf = setmetatable({}, { __mode = "k" }) -- budgets by service, by configuration

function retry_budget.configure(confs)
  for _, conf in ipairs(confs or {}) do by_conf[conf] = setmetatable({}, { __mode = "k" }) end
end

local function define(conf, service)
  local name = service.name or service.id
  local number, err = budget.define(("retry:%s:%s"):format(conf.__plugin_id or "", service.id), conf.retry_ratio,
    conf.min_retries_per_second, conf.ttl, taken:handle(name), refused:handle(name))
  if not number then log.warn("retries have no budget", { service = name, error = err }) end
  by_conf[conf][service] = number or false
  return number
end

function retry_budget.access(conf, exchange)
  local service = exchange.router:get_service()
  if not service then return end
  local number = by_conf[conf][service]
  if number == nil then number = define(conf, service) end
  if number then exchange.service:set_retry_budget(number) end
end

return retry_budget
