-- SPDX-License-Identifier: Apache-2.0
-- Each exchange as a line of JSON to the system's log, by its socket, or to a server over UDP.
local datagram = require "sluice.datagram"
local logging = require "sluice.logging"
local node = require "sluice.node"
local time = require "sluice.time"

local format = string.format

local syslog = { version = "1.0.0", priority = 4 }

local SEVERITIES = { emerg = 0, alert = 1, crit = 2, err = 3, warning = 4, notice = 5, info = 6, debug = 7 }
local FACILITIES = { kern = 0, user = 1, mail = 2, daemon = 3, auth = 4, syslog = 5, lpr = 6, news = 7, uucp = 8,
  cron = 9, authpriv = 10, ftp = 11, local0 = 16, local1 = 17, local2 = 18, local3 = 19, local4 = 20, local5 = 21,
  local6 = 22, local7 = 23 }
local MONTHS = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }

local states = setmetatable({}, { __mode = "k" }) -- by configuration: custom fields, numbers, losses

function syslog.configure(confs)
  for _, conf in ipairs(confs or {}) do
    states[conf] = states[conf] or {
      fields = logging.fields(conf), losses = logging.losses { to = conf.host or conf.path },
      least = SEVERITIES[conf.log_level], facility = FACILITIES[conf.facility] * 8,
      address = conf.host or "unix:" .. conf.path, port = conf.host and conf.port or 0,
    }
  end
end

local function severity_of(conf, exchange)
  local status = exchange.response:get_status() or 0
  if status >= 500 then return SEVERITIES[conf.server_errors_severity] end
  if status >= 400 then return SEVERITIES[conf.client_errors_severity] end
  return SEVERITIES[conf.successful_severity]
end

-- The head of a line as the system's own log takes it (RFC 3164 without a host), or as servers do (RFC 5424).
local function head_of(conf, priority, id)
  local now = time.now()
  if conf.host then
    return format("<%d>1 %s %s %s %d %s - ", priority, time.iso8601(now, 3), node.get_hostname(), conf.ident,
      node.get_pid(), id)
  end
  local date = time.date(now)
  return format("<%d>%s %2d %02d:%02d:%02d %s[%d]: ", priority, MONTHS[date.month], date.day, date.hour, date.minute,
    date.second, conf.ident, node.get_pid())
end

function syslog.log(conf, exchange)
  local state = states[conf]
  local severity = severity_of(conf, exchange)
  if severity > state.least then return end
  local line, err = logging.line(state.fields, exchange)
  if line then
    line, err = datagram.send(state.address, state.port, head_of(conf, state.facility + severity, exchange.id) .. line)
  end
  if not line then logging.lose(state.losses, err) end
end

return syslog
