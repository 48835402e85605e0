-- SPDX-License-Identifier: Apache-2.0
-- What a response, or none, means for the records that were sent.
local failures = {}

-- Statuses of a service that may be different next time.
local PASSING = { [408] = true, [425] = true, [429] = true, [500] = true, [502] = true, [503] = true, [504] = true }
-- Of the gateway's own: the service was not reached, or plugins in front of it let no call of this sink pass.
local AWAY = { [401] = true, [403] = true, [429] = true, [502] = true, [503] = true,
  [504] = true }

local RETRY_MOST_S = 3600

local function retry_after(response)
  local seconds = tonumber((response.headers["retry-after"] or ""):match("^%s*(%d+)%s*$"))
  return seconds and math.min(seconds, RETRY_MOST_S) or nil
end

-- "good", "again" (it may pass), "away" (the service cannot be reached) or "bad" (it will not pass); then for people
-- why, and seconds to wait at least.
---@return "good"|"again"|"away"|"bad"
---@return string|nil why
---@return number|nil seconds
function failures.judge(response, err, code)
  if not response then
    return code == "failed" and "again" or "away", err
  end
  local status = response.status
  if status >= 200 and status < 300 then return "good" end
  local why = ("%s %d"):format(response.by_service and "the service answered" or "the gateway answered", status)
  if not response.by_service and AWAY[status] then return "away", why, retry_after(response) end
  if PASSING[status] then return "again", why, retry_after(response) end
  return "bad", why
end

return failures
