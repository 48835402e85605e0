-- SPDX-License-Identifier: Apache-2.0
-- Each exchange as JSON in a datagram. Nobody knows whether it arrives.
local datagram = require "sluice.datagram"
local logging = require "sluice.logging"

local udp_log = { version = "1.0.0", priority = 8 }

local states = setmetatable({}, { __mode = "k" }) -- by configuration: custom fields, losses

function udp_log.configure(confs)
  for _, conf in ipairs(confs or {}) do
    states[conf] = states[conf] or { fields = logging.fields(conf),
      losses = logging.losses { host = conf.host, port = conf.port } }
  end
end

function udp_log.log(conf, exchange)
  local state = states[conf]
  local line, err = logging.line(state.fields, exchange)
  if line then line, err = datagram.send(conf.host, conf.port, line) end
  if not line then logging.lose(state.losses, err) end
end

return udp_log
