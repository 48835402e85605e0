-- SPDX-License-Identifier: Apache-2.0
-- Windows of time that requests are counted in: they begin when the clock does, in UTC, as Kong's.
local time = require "sluice.time"

local windows = {}

-- In order of length.
windows.names = { "second", "minute", "hour", "day", "month", "year" }

local SECONDS = { second = 1, minute = 60, hour = 3600, day = 86400 }

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

return windows
