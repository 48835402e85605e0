-- SPDX-License-Identifier: Apache-2.0
-- Limits TCP and TLS streams: how many are open, and how many begin in a time.
local counters = require "sluice.counters"
local leases = require "sluice.leases"
local log = require "sluice.log"
local time = require "sluice.time"

local limiting = { version = "1.0.0", priority = 905 }

local WINDOWS = { { "second", 1 }, { "minute", 60 }, { "hour", 3600 } }
local STATUS = 429

local function subject(conf, exchange)
  if conf.limit_by == "ip" then return exchange.client:get_forwarded_ip() end
  local entity
  if conf.limit_by == "service" then
    entity = exchange.router:get_service()
  else
    entity = exchange.router:get_route()
  end
  return entity and entity.id or exchange.client:get_forwarded_ip()
end

-- A stream that is refused counts as one that began: whoever keeps on knocking stays outside.
local function began_too_often(conf, key)
  local now, refused = time.now(), false
  for _, window in ipairs(WINDOWS) do
    local name, seconds = window[1], window[2]
    if conf[name] then
      local count = counters.add(("%s\1%s\1%d"):format(key, name, now / seconds), 1, seconds + 1)
      refused = refused or (count or 0) > conf[name]
    end
  end
  return refused
end

function limiting.preread(conf, exchange)
  local key = ("connection-limiting\1%s\1%s"):format(conf.__plugin_id, subject(conf, exchange))
  if began_too_often(conf, key) then exchange.response:exit(STATUS, conf.message) end
  if not conf.connections then return end
  local taken, why = leases.take(exchange, key, conf.connections)
  if taken == false then exchange.response:exit(STATUS, conf.message) end
  if not taken then log.warn("a stream is not counted", { error = why }) end
end

return limiting
