-- SPDX-License-Identifier: Apache-2.0
-- So many messages in a second or minute from a client, over all of its WebSockets and workers, and no more.
local counters = require "sluice.counters"
local time = require "sluice.time"

local floor = math.floor

local websocket_rate_limit = { version = "1.0.0", priority = 900 }

local WINDOWS = { { "second", 1 }, { "minute", 60 } }
local TOO_MANY = 1008

local limits_of = setmetatable({}, { __mode = "k" }) -- by configuration

local function limits(conf)
  local list = {}
  for _, window in ipairs(WINDOWS) do
    local most = conf[window[1]]
    if most then
      list[#list + 1] = { most = most, seconds = window[2],
        prefix = ("wsrl:%s:%s:"):format(conf.__plugin_id or "", window[1]) }
    end
  end
  return list
end

function websocket_rate_limit.configure(confs)
  for _, conf in ipairs(confs or {}) do limits_of[conf] = limits(conf) end
end

local function client_of(conf, exchange)
  local client = exchange.client
  if conf.limit_by == "consumer" then
    local who = client:get_consumer() or client:get_credential()
    if who and who.id then return who.id end
  elseif conf.limit_by == "connection" then
    return exchange.id
  end
  return client:get_forwarded_ip()
end

-- Whether one more message is too many. A window that cannot be counted, for want of room, lets it pass.
local function is_too_many(limit, who, now)
  local window = floor(now / limit.seconds)
  local key = limit.prefix .. who .. ":" .. window
  local used = counters.add(key, 1, (window + 1) * limit.seconds - now + 1)
  return used and used > limit.most
end

function websocket_rate_limit.ws_client_frame(conf, exchange, frame)
  local kind = frame.type
  if kind == "close" or (not conf.count_control and (kind == "ping" or kind == "pong")) then return end
  local who, now, list = client_of(conf, exchange), time.now(), limits_of[conf]
  for i = 1, #list do
    if is_too_many(list[i], who, now) then
      if conf.action == "drop" then return frame:drop() end
      return exchange.websocket.client:close(TOO_MANY, conf.message, 1001)
    end
  end
end

return websocket_rate_limit
