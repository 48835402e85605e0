-- SPDX-License-Identifier: Apache-2.0
-- Windows of time that requests are counted in: they begin when the clock does, in UTC, as Kong's.
local time = require "sluice.time"

local max = math.max

local windows = {}

-- In order of length.
windows.names = { "second", "minute", "hour", "day", "month", "year" }

-- Whether no longer window holds less than a shorter one, which would be an error of whoever wrote it. `of` has the
-- limits by the windows' names.
---@return boolean|nil true
---@return string|nil err
---@return string|nil name of the longer one
function windows.in_order(of)
  for i, short in ipairs(windows.names) do
    for j = i + 1, #windows.names do
      local long = windows.names[j]
      if of[short] and of[long] and of[long] < of[short] then
        return nil, ("The limit for %s(%.1f) cannot be lower than the limit for %s(%.1f)"):format(long, of[long], short,
          of[short]), long
      end
    end
  end
  return true
end

local SECONDS = { second = 1, minute = 60, hour = 3600, day = 86400 }
local SPARE_SECONDS = 1 -- that a counter outlives its window

local function first_of(year, month)
  if month > 12 then year, month = year + 1, 1 end
  return time.parse_iso8601(("%04d-%02d-01T00:00:00Z"):format(year, month))
end

-- When the window of that length in which `now` lies begins and ends.
---@param name string
---@param now number seconds since 1970
---@return number from
---@return number to
function windows.around(name, now)
  local seconds = SECONDS[name]
  if seconds then
    local from = now - now % seconds
    return from, from + seconds
  end
  local date = time.date(now)
  if name == "month" then return first_of(date.year, date.month), first_of(date.year, date.month + 1) end
  return first_of(date.year, 1), first_of(date.year + 1, 1)
end

local function key_of(plan, limit, from)
  return ("%s%s:%.14g:"):format(plan.prefix, limit.label, from)
end

local function bounds(limit, at)
  local seconds = limit.seconds
  if seconds then
    local from = at - at % seconds
    return from, from + seconds
  end
  return windows.around(limit.name, at)
end

local function move(plan, limit, now)
  limit.from, limit.to = bounds(limit, now)
  limit.key = key_of(plan, limit, limit.from)
  if plan.sliding then
    limit.from_before = bounds(limit, limit.from - 0.001)
    limit.key_before = key_of(plan, limit, limit.from_before)
  end
end

-- Limit number i of a plan, its keys those of the window in which `now` lies.
function windows.turn(plan, i, now)
  local limit = plan.limits[i]
  if now >= limit.to or now < limit.from then move(plan, limit, now) end
  return limit
end

-- Of the window before the present one, the share that a window which ends now still covers.
function windows.share(limit, now)
  return (limit.to - now) / (limit.to - limit.from)
end

-- How long a counter of a sliding window is needed: through the next one, which may be longer by some days.
function windows.life(limit, now)
  return limit.to - now + (limit.to - limit.from) * 1.12 + SPARE_SECONDS
end

-- In how many seconds one more request fits: when the window ends or, where it slides, when what it has counted
-- (`limit.present`, and `limit.before` in the one before) has slid out far enough.
function windows.wait(plan, limit, now)
  local left, most = limit.to - now, limit.most
  if not plan.sliding then return left end
  local present, before, length = limit.present, limit.before, limit.to - limit.from
  if present + 1 <= most and before > 0 then -- until the share of the one before has shrunk enough
    return max(0, left - (most - 1 - present) / before * length)
  end
  if most < 1 then return left + length end
  return left + (1 - (most - 1) / present) * length
end

return windows
