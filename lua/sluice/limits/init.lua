-- SPDX-License-Identifier: Apache-2.0
-- What plugins that limit have in common: whose requests are counted together, in which windows, where.

local subjects = require "sluice.limits.subjects"
local time = require "sluice.time"

---@class sluice.limits
local limits = {}

-- Whose request it is, by `conf.limit_by`; the client's address where there is nobody.
---@param conf table with limit_by, header_name, path
---@param exchange sluice.exchange
---@return string
function limits.subject_of(conf, exchange)
  return subjects[conf.limit_by](conf, exchange) or exchange.client:get_forwarded_ip()
end

-- A function that is true when it has not been for so long: for lines of the log that would come with each request.
---@param seconds number
---@return fun(): boolean
function limits.seldom(seconds)
  local last = -seconds
  return function()
    local now = time.monotonic()
    if now - last < seconds then return false end
    last = now
    return true
  end
end

return limits
