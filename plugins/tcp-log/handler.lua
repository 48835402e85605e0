-- SPDX-License-Identifier: Apache-2.0
-- Each exchange as a line of JSON over a TCP connection that is kept, by way of a queue.
local logging = require "sluice.logging"
local queue = require "sluice.queue"
local tcp = require "sluice.tcp"

local concat = table.concat

local tcp_log = { version = "1.0.0", priority = 7 }

local states = setmetatable({}, { __mode = "k" }) -- by configuration: custom fields and queue

local function context_of(conf)
  return {
    host = conf.host, port = conf.port, keepalive = conf.keepalive / 1000,
    options = {
      connect_timeout = conf.timeout / 1000, timeout = conf.timeout / 1000,
      tls = conf.tls and { name = conf.tls_sni or conf.host, verify = conf.ssl_verify } or nil,
    },
  }
end

-- A connection that was kept may have been closed by now, which shows when it is written to: a fresh one is tried in
-- the next turn of the queue.
local function send(context, batch)
  local connection, err = tcp.connect(context.host, context.port, context.options)
  if not connection then return nil, err end
  batch[#batch + 1] = "" -- a line feed behind the last one
  local sent, why = connection:send(concat(batch, "\n"))
  batch[#batch] = nil
  if not sent then
    connection:close()
    return nil, why
  end
  if context.keepalive > 0 then connection:keep(context.keepalive) else connection:close() end
  return true
end

function tcp_log.configure(confs)
  for _, conf in ipairs(confs or {}) do
    local state = states[conf] or { fields = logging.fields(conf), losses = logging.losses { host = conf.host } }
    state.queue = queue.open(conf, send, context_of(conf))
    states[conf] = state
  end
end

function tcp_log.log(conf, exchange)
  local state = states[conf]
  local line, err = logging.line(state.fields, exchange)
  if line then
    state.queue:add(line)
  else
    logging.lose(state.losses, err)
  end
end

return tcp_log
