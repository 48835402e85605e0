-- SPDX-License-Identifier: Apache-2.0
-- Refuses bots that say who they are, by their User-Agent. What came of one is kept.
local bots = require "bot-detection.bots"
local recent = require "sluice.recent"
local regex = require "sluice.regex"

local detection = { version = "1.0.0", priority = 2500 }

local ONLY_ONE = "Only one User-Agent header allowed"
local MOST_BYTES = 1024 -- of a User-Agent that is kept

local plans = setmetatable({}, { __mode = "k" }) -- by configuration
local verdicts = recent.new(8192, 4 * 1024 * 1024)
local known

local function compile(pattern, options)
  local compiled, err = regex.new(pattern, options)
  if not compiled then error(("%q: %s"):format(pattern, err), 0) end
  return compiled
end

-- Each by itself: groups have their own numbers and names.
local function compile_all(list)
  local all = {}
  for i, pattern in ipairs(list or {}) do all[i] = compile(pattern) end
  return all
end

function detection.configure(confs)
  known = known or compile(table.concat(bots, "|"), { caseless = true })
  for _, conf in ipairs(confs or {}) do
    plans[conf] = plans[conf] or { allow = compile_all(conf.allow), deny = compile_all(conf.deny) }
  end
end

local function any(expressions, text)
  for i = 1, #expressions do
    if expressions[i]:test(text) then return true end
  end
  return false
end

local function is_refused(conf, agent)
  local plan = plans[conf]
  if any(plan.allow, agent) then return false end
  return any(plan.deny, agent) or known:test(agent)
end

function detection.access(conf, exchange)
  local agent, several = exchange.request:get_only_header("user-agent")
  if several then exchange.response:error(400, ONLY_ONE) end
  if not agent then return end
  local refused = verdicts:get(conf, agent)
  if refused == nil then
    refused = is_refused(conf, agent)
    if #agent <= MOST_BYTES then verdicts:put(conf, agent, refused) end
  end
  if refused then exchange.response:error(403, "Forbidden") end
end

return detection
