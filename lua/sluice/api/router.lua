-- SPDX-License-Identifier: Apache-2.0
-- exchange.router: the entities that the request matched, as they stand in the configuration.

local core = require "sluice.api.core"
local entities = require "sluice.api.entities"
local phases = require "sluice.phases"

local check_phase = core.check_phase

local MATCHED = phases.mask("access", "balancer", "header_filter", "body_filter", "response", "log")

---@class sluice.router
local Router = {}
local router_mt = { __index = Router, __metatable = false }

---@return table|nil route entity; nil when none matched
function Router:get_route()
  check_phase(MATCHED, self.exchange.phase, "exchange.router:get_route")
  return (entities.route(self.exchange))
end

---@return table|nil service entity; nil when the route has none
function Router:get_service()
  check_phase(MATCHED, self.exchange.phase, "exchange.router:get_service")
  return (entities.service(self.exchange))
end

return {
  ---@param exchange sluice.exchange
  ---@return sluice.router
  new = function(exchange)
    return (setmetatable({ exchange = exchange }, router_mt))
  end,
}
