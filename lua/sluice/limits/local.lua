-- SPDX-License-Identifier: Apache-2.0
-- Counts in memory that all workers of this gateway share, exactly. A policy takes (plan, who, now) and counts one
-- request in all windows of the plan or, when one of them is full, in none. It gives how many each window has counted,
-- and the number of a full one; nil and why when it could not count.
--
-- It counts first and looks then: of requests that come at once to several workers, exactly as many pass as may.
local counters = require "sluice.counters"
local windows = require "sluice.limits.windows"

local add, get = counters.add, counters.get
local ceil, max = math.ceil, math.max

local policy = {}

local SPARE_SECONDS = 1 -- that a counter outlives its window

-- ---- Fixed windows ----

-- Takes back what was counted in the windows before number `full`, and in that one; tells what they hold without it.
local function take_back(plan, full, who, now)
  local used = plan.used
  for i = 1, #plan.limits do
    local limit = windows.turn(plan, i, now)
    if i < full then
      used[i] = used[i] - 1
      add(limit.key, -1, limit.to - now + SPARE_SECONDS, who)
    elseif i == full then
      used[i] = limit.most
      add(limit.key, -1, limit.to - now + SPARE_SECONDS, who)
    else
      used[i] = get(limit.key .. who) or 0
    end
  end
  return used, full
end

function policy.fixed(plan, who, now)
  local used = plan.used -- one table for all requests: nothing here waits
  for i = 1, #plan.limits do
    local limit = windows.turn(plan, i, now)
    local count, err = add(limit.key, 1, limit.to - now + SPARE_SECONDS, who)
    if not count then return nil, err end
    if count > limit.most then return take_back(plan, i, who, now) end
    used[i] = count
  end
  return used
end

-- ---- Sliding windows ----

-- What the window that ends now has counted: all of the present one, and of the one before the share that it still
-- covers.
local function slid(limit, present, before, now)
  limit.present, limit.before = present, before
  return present + before * windows.share(limit, now)
end

local function take_back_slid(plan, full, who, now)
  local used = plan.used
  for i = 1, #plan.limits do
    local limit = windows.turn(plan, i, now)
    local present
    if i <= full then
      present = max(0, add(limit.key, -1, windows.life(limit, now), who) or 0)
    else
      present = get(limit.key .. who) or 0
    end
    used[i] = ceil(slid(limit, present, get(limit.key_before .. who) or 0, now))
  end
  return used, full
end

-- A counter lives for two windows: in the second it is the one before.
function policy.sliding(plan, who, now)
  local used = plan.used
  for i = 1, #plan.limits do
    local limit = windows.turn(plan, i, now)
    local present, err = add(limit.key, 1, windows.life(limit, now), who)
    if not present then return nil, err end
    local total = slid(limit, present, get(limit.key_before .. who) or 0, now)
    if total > limit.most then return take_back_slid(plan, i, who, now) end
    used[i] = ceil(total)
  end
  return used
end

-- The same where refused requests count like others: whoever keeps on knocking stays outside.
function policy.penalty(plan, who, now)
  local used, full = plan.used, nil
  for i = 1, #plan.limits do
    local limit = windows.turn(plan, i, now)
    local present, err = add(limit.key, 1, windows.life(limit, now), who)
    if not present then return nil, err end
    local total = slid(limit, present, get(limit.key_before .. who) or 0, now)
    if total > limit.most and not full then full = i end
    used[i] = ceil(total)
  end
  return used, full
end

-- ---- Amounts that are known only afterwards ----

-- What each window has counted so far.
function policy.peek(plan, who, now)
  local used = {}
  for i = 1, #plan.limits do used[i] = get(windows.turn(plan, i, now).key .. who) or 0 end
  return used
end

-- Counts `amounts[i]` in window i, whether that is full or not.
---@return boolean|nil true
---@return string|nil err
function policy.add(plan, who, now, amounts)
  for i = 1, #plan.limits do
    if amounts[i] > 0 then
      local limit = windows.turn(plan, i, now)
      local count, err = add(limit.key, amounts[i], limit.to - now + SPARE_SECONDS, who)
      if not count then return nil, err end
    end
  end
  return true
end

return policy
