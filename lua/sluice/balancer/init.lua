-- SPDX-License-Identifier: Apache-2.0
-- Balancing policies: which target of an upstream takes the next try. One file a policy, `sluice.balancer.NAME` with
-- dashes as underscores, that gives
--
--   new(upstream, targets) -> policy          targets = { { host, port, weight, id }, ... }, the core's order
--   policy:schedule()      -> indexes | nil   an order that the core walks round by itself, without entering Lua; a
--                                             policy that has none leaves the method out
--   policy:pick(exchange)  -> index | nil     asked at each try when there is no schedule; nil: no target. Never waits
--   policy.spread          -> text | nil      how the core chooses among the addresses of one target: "load",
--                                             "latency", "hash" (of what was picked by), and then it watches all of
--                                             them; nil: in turns
--
-- `exchange` is the handle, a number. A policy belongs to a generation and may keep state between calls; `generation`
-- and `index`, by which the core knows the upstream, are set before it is asked. Which targets take requests and what
-- they have in flight is told by bridge_target_states; the core itself passes over targets that are out, whatever a
-- policy picks.

local runtime = require "sluice.runtime"

local balancer = {}

local FALLBACK = "round-robin"

-- Of this folder, and no policies.
local OTHERS = { init = true, watch = true, health = true, cookie = true, checks = true, grpc = true }

local function policy_module(algorithm)
  local word = algorithm:gsub("%-", "_")
  if OTHERS[word] then return nil end
  local name = "sluice.balancer." .. word
  local found, module = pcall(require, name)
  if found then return module end
  if not tostring(module):find("module '" .. name .. "' not found", 1, true) then error(module, 0) end
end

-- The policy of an upstream entity.
---@param upstream table
---@param targets table[]
---@return table policy with `name` (the upstream's), `upstream` and `targets`
function balancer.new(upstream, targets)
  local algorithm = upstream.algorithm or FALLBACK
  local module = policy_module(algorithm)
  if not module then
    runtime.log("warn", "no such balancing policy, round-robin instead", "upstream", upstream.name,
      "algorithm", algorithm)
    module = policy_module(FALLBACK)
  end
  local policy = module.new(upstream, targets)
  policy.name, policy.upstream, policy.targets = upstream.name, upstream, targets
  return policy
end

return balancer
