-- SPDX-License-Identifier: Apache-2.0
-- Lets in by address: of requests, and of TCP and TLS streams.
local ip = require "sluice.ip"

local restriction = { version = "1.0.0", priority = 990 }

local states = setmetatable({}, { __mode = "k" }) -- by configuration: matchers, made once

local function matcher_of(ranges)
  if not ranges or #ranges == 0 then return nil end
  local made, why = ip.matcher(ranges)
  if not made then error(why, 0) end
  return made
end

function restriction.configure(confs)
  for _, conf in ipairs(confs or {}) do
    states[conf] = states[conf] or { allow = matcher_of(conf.allow), deny = matcher_of(conf.deny) }
  end
end

-- The address, when it may not come in.
local function refused(conf, exchange)
  local state = states[conf]
  local address = exchange.client:get_forwarded_ip()
  if state.deny and state.deny:matches(address) then return address end
  if state.allow and not state.allow:matches(address) then return address end
  return nil
end

function restriction.access(conf, exchange)
  local address = refused(conf, exchange)
  if not address then return end
  local status, message = conf.status or 403, conf.message or "IP address not allowed: " .. address
  if status < 400 then exchange.response:exit(status, { message = message }) end
  exchange.response:error(status, message)
end

function restriction.preread(conf, exchange)
  local address = refused(conf, exchange)
  if not address then return end
  exchange.response:exit(conf.status or 403, conf.message or "IP address not allowed: " .. address)
end

return restriction
