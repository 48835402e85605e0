-- SPDX-License-Identifier: Apache-2.0
-- What the log plugins write: one exchange as a table in the format of Kong's logs. Times are milliseconds.

local check = require "sluice.api.check"
local core = require "sluice.api.core"
local entities = require "sluice.api.entities"
local fields = require "sluice.api.fields"
local phases = require "sluice.phases"
local query = require "sluice.query"

local E = core.E
local text, number = core.text, core.number
local floor, rawget, rawset, type = math.floor, rawget, rawset, type

local serializer = {}

serializer.PHASES = phases.mask("log", "log (stream)")

local STREAM_LOG = phases.numbers["log (stream)"]

local SOURCES = { [0] = "kong", [1] = "upstream", [2] = "kong" }

-- Credentials that a log must not hold unless somebody puts them there.
local REDACTED = {
  "replace", "request.headers.authorization", "REDACTED",
  "replace", "request.headers.proxy-authorization", "REDACTED",
}

local function ms(handle, what)
  local us = number(handle, what)
  return us and floor(us / 1000)
end

-- A copy without the look-up in any spelling: a record is plain data.
local function plain(list)
  local copy = {}
  for name, value in pairs(list) do copy[name] = value end
  return copy
end

local function tls_of(exchange)
  local version = text(exchange.handle, E.TEXT_TLS_VERSION)
  if not version or version == "" then return nil end
  return {
    version = version,
    cipher = text(exchange.handle, E.TEXT_TLS_CIPHER),
    client_verify = rawget(exchange, "client_verify")
      or (text(exchange.handle, E.TEXT_TLS_CLIENT_CERTIFICATE) and "SUCCESS" or "NONE"),
  }
end

local function request_of(exchange)
  local handle = exchange.handle
  local target = text(handle, E.TEXT_RAW_TARGET) or ""
  return {
    id = exchange.id,
    method = text(handle, E.TEXT_METHOD),
    uri = target,
    url = ("%s://%s:%d%s"):format(text(handle, E.TEXT_SCHEME) or "http", text(handle, E.TEXT_HOST) or "",
      number(handle, E.NUMBER_PORT) or 0, target),
    querystring = query.decode(text(handle, E.TEXT_QUERY) or ""),
    headers = plain(fields.all(handle, E.MESSAGE_REQUEST, nil, "exchange:serialize")),
    size = number(handle, E.NUMBER_REQUEST_BYTES),
    tls = tls_of(exchange),
  }
end

local function response_of(exchange)
  local handle = exchange.handle
  return {
    status = number(handle, E.NUMBER_STATUS),
    headers = plain(fields.all(handle, E.MESSAGE_RESPONSE, nil, "exchange:serialize")),
    size = number(handle, E.NUMBER_RESPONSE_BYTES),
  }
end

local function latencies_of(handle)
  local receive = ms(handle, E.NUMBER_RECEIVE_US)
  return {
    kong = (ms(handle, E.NUMBER_GATEWAY_US) or 0) + (receive or 0),
    proxy = ms(handle, E.NUMBER_SERVICE_US) or -1,
    request = ms(handle, E.NUMBER_ELAPSED_US) or 0,
    receive = receive or 0,
  }
end

local function upstream_uri(handle)
  local path = text(handle, E.TEXT_SERVICE_PATH) or ""
  local args = text(handle, E.TEXT_SERVICE_QUERY)
  if path ~= "" and args then return path .. "?" .. args end
  return path
end

local function tries_of(handle)
  local list = core.tries(handle)
  return list[1] and list
end

-- A copy of the entity's fields: what a log plugin changes in its record must not change the configuration.
local function copy(entity)
  if not entity then return nil end
  local fresh = {}
  for key, value in pairs(entity) do fresh[key] = value end
  fresh.kind = nil
  if type(fresh.service) == "string" then fresh.service = { id = fresh.service } end -- as Kong has references
  return fresh
end

local function entity_of(credential)
  if not credential then return nil end
  local consumer = credential.consumer
  return { id = credential.id, consumer_id = credential.consumer_id or type(consumer) == "table" and consumer.id
    or consumer }
end

local function base(exchange)
  local handle, credential = exchange.handle, exchange.credential or nil
  local service_status = number(handle, E.NUMBER_SERVICE_STATUS)
  return {
    request = request_of(exchange),
    response = response_of(exchange),
    latencies = latencies_of(handle),
    upstream_uri = upstream_uri(handle),
    upstream_status = service_status and tostring(service_status) or "",
    tries = tries_of(handle),
    authenticated_entity = entity_of(credential),
    route = copy(entities.route(exchange)),
    service = copy(entities.service(exchange)),
    consumer = copy(exchange.consumer or nil),
    client_ip = text(handle, E.TEXT_FORWARDED_IP),
    started_at = ms(handle, E.NUMBER_STARTED_US),
    source = SOURCES[number(handle, E.NUMBER_RESPONSE_SOURCE)],
  }
end

-- A TCP or TLS stream, as Kong's logs have one.
local function stream_base(exchange)
  local handle = exchange.handle
  local elapsed = ms(handle, E.NUMBER_ELAPSED_US) or 0
  local failure = text(handle, E.TEXT_ERROR)
  return {
    session = {
      id = exchange.id, protocol = text(handle, E.TEXT_SCHEME), sni = text(handle, E.TEXT_TLS_SNI),
      received = number(handle, E.NUMBER_REQUEST_BYTES), sent = number(handle, E.NUMBER_RESPONSE_BYTES),
      status = number(handle, E.NUMBER_STATUS), error = failure ~= "" and failure or nil,
      server_port = number(handle, E.NUMBER_PORT), client_port = number(handle, E.NUMBER_CLIENT_PORT),
      tls = tls_of(exchange),
    },
    latencies = { kong = ms(handle, E.NUMBER_GATEWAY_US) or 0, session = elapsed },
    tries = tries_of(handle),
    route = copy(entities.route(exchange)),
    service = copy(entities.service(exchange)),
    client_ip = text(handle, E.TEXT_FORWARDED_IP),
    started_at = ms(handle, E.NUMBER_STARTED_US),
    source = SOURCES[number(handle, E.NUMBER_RESPONSE_SOURCE)],
  }
end

-- The table that holds the last part of a dotted key, and that part; nil when `replace` finds no such table.
local function locate(record, key, mode)
  local node, from = record, 1
  while true do
    local dot = key:find(".", from, true)
    if not dot then return node, key:sub(from) end
    local name = key:sub(from, dot - 1)
    if node[name] == nil then
      if mode == "replace" then return nil end
      node[name] = {}
    end
    node = node[name]
    if type(node) ~= "table" then error(("serialize value %q: %q is no table"):format(key, name), 0) end
    from = dot + 1
  end
end

local NOTHING = {} -- stands for nil in a list

-- Changes are mode, key and value in turn in one list, for one is made for each request that a plugin marks, and most
-- are never serialized.
---@param record table
---@param changes any[]
function serializer.apply(record, changes)
  for i = 1, #changes, 3 do
    local mode, value = changes[i], changes[i + 2]
    if value == NOTHING then value = nil end
    local node, name = locate(record, changes[i + 1], mode)
    if node then
      local present = node[name]
      if mode == "set" or (present == nil) == (mode == "add") then node[name] = value end
    end
  end
end

local PLAIN = { ["nil"] = true, number = true, string = true, boolean = true }

-- Whether a value can be logged: no functions or the like, no cycle.
local function loggable(value, seen)
  local kind = type(value)
  if PLAIN[kind] then return true end
  if kind ~= "table" or seen[value] then return false end
  seen[value] = true
  for key, item in pairs(value) do
    local key_kind = type(key)
    if key_kind ~= "string" and key_kind ~= "number" and key_kind ~= "boolean" then return false end
    if not loggable(item, seen) then return false end
  end
  return true
end

---@param exchange sluice.exchange
function serializer.set_value(exchange, key, value, options)
  local name = "exchange:set_serialize_value"
  local mode = options and options.mode or "set"
  if type(key) ~= "string" then check.fail(name, "key must be a string, got " .. type(key), 4) end
  if mode ~= "set" and mode ~= "add" and mode ~= "replace" then
    check.fail(name, "mode must be 'set', 'add' or 'replace'", 4)
  end
  if not PLAIN[type(value)] and not loggable(value, {}) then
    check.fail(name, "value must be nil, a number, string, boolean or a table of those without cycles", 4)
  end
  if not exchange.logged then return end
  local changes = rawget(exchange, "serialize_changes")
  if value == nil then value = NOTHING end
  if changes then
    local count = #changes
    changes[count + 1], changes[count + 2], changes[count + 3] = mode, key, value
  else
    rawset(exchange, "serialize_changes", { mode, key, value })
  end
end

---@param exchange sluice.exchange
---@return table
function serializer.serialize(exchange)
  local record = exchange.phase == STREAM_LOG and stream_base(exchange) or base(exchange)
  serializer.apply(record, REDACTED)
  local tracing = package.loaded["sluice.tracing"]
  local trace = tracing and tracing.of(exchange)
  if trace then record.trace_id = tracing.propagation.ids_for_log(trace) end
  local changes = rawget(exchange, "serialize_changes")
  if changes then serializer.apply(record, changes) end
  return record
end

return serializer
