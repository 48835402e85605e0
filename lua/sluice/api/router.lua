-- SPDX-License-Identifier: Apache-2.0
-- exchange.router: the entities that the request matched, as they stand in the configuration.

local core = require "sluice.api.core"
local entities = require "sluice.api.entities"
local exchanges = require "sluice.exchanges"
local phases = require "sluice.phases"

local check_phase = core.check_phase
local of = exchanges.of

local MATCHED = phases.mask("access", "balancer", "heads", "body_filter", "response", "log", "frames",
  "streams")

---@class sluice.router
local Router = {}

---@return table|nil route entity; nil when none matched
function Router:get_route()
  check_phase(MATCHED, self.handle, "exchange.router:get_route")
  return (entities.route(of(self.handle)))
end

---@return table|nil service entity; nil when the route has none
function Router:get_service()
  check_phase(MATCHED, self.handle, "exchange.router:get_service")
  return (entities.service(of(self.handle)))
end

return core.plain_part(Router)
