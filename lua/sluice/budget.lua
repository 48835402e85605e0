-- SPDX-License-Identifier: Apache-2.0
-- Budgets: how much more than what clients ask for may go to services, as retries and hedged requests. Counted by all
-- workers together, in the core (budget.h).

local core = require "sluice.api.core"
local check = require "sluice.api.check"

local C, worker = core.C, core.worker

---@class sluice.budget
local budget = {}

-- The budget of that name; defining it again changes it.
---@param name string
---@param share number of the requests in the window that may be sent besides: 0.2 is a fifth
---@param per_second number that may be sent besides however few requests there are
---@param window number seconds
---@param spent? number handle of a named counter that counts what was sent
---@param refused? number the same of what was not, for want of budget
---@return integer|nil budget
---@return string|nil err
function budget.define(name, share, per_second, window, spent, refused)
  check.string("sluice.budget.define", "name", name)
  check.number("sluice.budget.define", "share", share)
  check.number("sluice.budget.define", "per_second", per_second)
  check.number("sluice.budget.define", "window", window)
  local number = C.bridge_budget(worker, name, #name, share, per_second, window, spent or 0, refused or 0)
  if number > 0 then return number end
  return nil, "there is no room for another budget, or its name is too long"
end

return budget
