-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults, and where to send lines other than to the system's own log.
local logging = require "sluice.logging"
local typedefs = require "sluice.typedefs"

local SEVERITIES = { "debug", "info", "notice", "warning", "err", "crit", "alert", "emerg" }
local FACILITIES = { "auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news", "syslog", "user",
  "uucp", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7" }

local function severity(about)
  return { type = "string", default = "info", one_of = SEVERITIES, about = about }
end

return {
  name = "syslog",
  fields = {
    { protocols = typedefs.protocols },
    { consumer_group = typedefs.no_consumer_group },
    { config = { type = "record", required = true, fields = {
      { log_level = severity "what is less severe than this is not logged" },
      { successful_severity = severity "severity of exchanges with a status below 400" },
      { client_errors_severity = severity "of those with a status from 400 to 499" },
      { server_errors_severity = severity "of those with a status of 500 or more" },
      { facility = { type = "string", default = "user", one_of = FACILITIES, about = "part of the system that logs" } },
      { custom_fields_by_lua = logging.custom_fields_by_lua },
      { path = { type = "string", default = "/dev/log", starts_with = "/", len_max = 107,
        about = "the system log's socket; not used where there is a `host`" } },
      { host = typedefs.host { about = "server that takes lines as datagrams (RFC 5424 over UDP)" } },
      { port = typedefs.port { default = 514, about = "its port" } },
      { ident = { type = "string", default = "sluice", match = "^[!-~]+$", len_max = 48,
        err = "printable characters without spaces", about = "name of the program in each line" } },
    } } },
  },
}
