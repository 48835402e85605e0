-- SPDX-License-Identifier: Apache-2.0
-- A record as a line of text: the "combined" format of web servers, and behind it what else is asked of a gateway.
--
--   127.0.0.1 - alice [23/Nov/2026:08:11:19 +0000] "GET /a HTTP/1.1" 200 512 "-" "curl/8.0" 12 shop 6f1e...

local json = require "sluice.json"

local text = {}

local function to_hex(byte)
  return ("\\x%02X"):format(byte:byte())
end

-- Nothing from the network may end a line or a quoted value.
local function safe(value)
  if value == nil or value == "" then return "-" end
  if type(value) == "table" then value = json.encode(value) or "-" end
  return (tostring(value):gsub('[%z\1-\31\127"\\]', to_hex))
end

local function first(value)
  if type(value) == "table" then return value[1] end
  return value
end

local function request_line(record, exchange)
  local version = exchange.request:get_http_version()
  return ("%s %s HTTP/%.1f"):format(record.request.method or "-", record.request.uri or "-", version or 1.1)
end

-- The value at "a.b" of a record.
local function at(record, path)
  local value = record
  for key in path:gmatch("[^.]+") do
    if type(value) ~= "table" then return nil end
    value = value[key]
  end
  return value
end

-- "tls db.example:5432", in the place of a request; as in the gateway's own access log.
local function stream_line(session)
  return ("%s %s:%d"):format(session.protocol, session.sni or "", session.server_port)
end

-- A stream has fields where a request has others; none where it has nothing alike.
local function stream(record)
  local session = record.session
  return {
    line = stream_line(session), status = session.status, size = session.sent, headers = {},
    elapsed = record.latencies.session, id = session.id,
  }
end

local function request(record, exchange)
  return {
    line = request_line(record, exchange), status = record.response.status, size = record.response.size,
    headers = record.request.headers, elapsed = record.latencies.request, id = record.request.id,
  }
end

---@param record table from exchange:serialize()
---@param exchange sluice.exchange
---@param fields { name: string }[] custom ones, put at the end as name="value"
---@return string
function text.line(record, exchange, fields)
  local what = record.session and stream(record) or request(record, exchange)
  local headers = what.headers
  local line = ('%s - %s [%s] "%s" %s %s "%s" "%s" %s %s %s'):format(
    safe(record.client_ip), safe(record.consumer and record.consumer.username),
    os.date("!%d/%b/%Y:%H:%M:%S +0000", math.floor((record.started_at or 0) / 1000)),
    safe(what.line), safe(what.status), safe(what.size), safe(first(headers.referer)),
    safe(first(headers["user-agent"])), safe(what.elapsed), safe(record.service and record.service.name),
    safe(what.id))
  for _, field in ipairs(fields) do
    line = line .. (' %s="%s"'):format(safe(field.name), safe(at(record, field.name)))
  end
  return line
end

return text
