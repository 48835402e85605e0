-- SPDX-License-Identifier: Apache-2.0
-- Metrics of exchanges to a StatsD server, over UDP or TCP.
local datagram = require "sluice.datagram"
local lines = require "statsd.lines"
local queue = require "sluice.queue"
local tcp = require "sluice.tcp"

local concat = table.concat

local statsd = { version = "1.0.0", priority = 11 }

local TIMEOUT_S, KEEPALIVE_S = 10, 60

local states = setmetatable({}, { __mode = "k" }) -- by configuration: how lines are made, and the queue

local function send_tcp(context, batch)
  local connection, err = tcp.connect(context.host, context.port, { connect_timeout = TIMEOUT_S, timeout = TIMEOUT_S })
  if not connection then return nil, err end
  local sent, why = connection:send(concat(batch, "\n") .. "\n")
  if not sent then
    connection:close()
    return nil, why
  end
  connection:keep(KEEPALIVE_S)
  return true
end

-- Lines in datagrams: as many together as `most` bytes hold, at least one.
local function send_udp(context, batch)
  local most, packet = context.packet_size, nil
  for line in concat(batch, "\n"):gmatch("[^\n]+") do
    if packet and #packet + 1 + #line <= most then
      packet = packet .. "\n" .. line
    else
      if packet then
        local ok, err = datagram.send(context.host, context.port, packet)
        if not ok then return nil, err end
      end
      packet = line
    end
  end
  if not packet then return true end
  return datagram.send(context.host, context.port, packet)
end

function statsd.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local state = states[conf] or lines.prepare(conf)
    state.queue = queue.open(conf, conf.use_tcp and send_tcp or send_udp,
      { host = conf.host, port = conf.port, packet_size = conf.udp_packet_size })
    states[conf] = state
  end
end

function statsd.log(conf, exchange)
  local state = states[conf]
  local list = lines.of(state, exchange)
  if list[1] then state.queue:add(concat(list, "\n")) end
end

return statsd
