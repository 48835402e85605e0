-- SPDX-License-Identifier: Apache-2.0
-- Balancing policies: which target of an upstream takes the next try. One file a policy, `sluice.balancer.NAME` with
-- dashes as underscores, that gives
--
--   new(upstream, targets) -> policy          targets = { { host, port, weight, id }, ... }, the core's order
--   policy:schedule()      -> indexes | nil   an order that the core walks round by itself, without entering Lua
--   policy:pick(exchange)  -> index | nil     asked at each try when there is no schedule; nil: no target. Never waits
--
-- `exchange` is the handle, a number. A policy belongs to a generation and may keep state between calls.

local runtime = require "sluice.runtime"

local balancer = {}

local FALLBACK = "round-robin"

local function policy_module(algorithm)
  local name = "sluice.balancer." .. algorithm:gsub("%-", "_")
  local found, module = pcall(require, name)
  if found then return module end
  if not tostring(module):find("module '" .. name .. "' not found", 1, true) then error(module, 0) end
end

-- The policy of an upstream entity.
---@param upstream table
---@param targets table[]
---@return table policy with `name`, the upstream's
function balancer.new(upstream, targets)
  local algorithm = upstream.algorithm or FALLBACK
  local module = policy_module(algorithm)
  if not module then
    runtime.log("warn", "no such balancing policy, round-robin instead", "upstream", upstream.name,
      "algorithm", algorithm)
    module = policy_module(FALLBACK)
  end
  local policy = module.new(upstream, targets)
  policy.name = upstream.name
  return policy
end

return balancer
