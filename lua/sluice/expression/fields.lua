-- SPDX-License-Identifier: Apache-2.0
-- What an expression can ask of an exchange: each field's kind, how it is read, and the first phase that knows it.
--
-- A reader is `get(exchange, nth)`: the nth value, from 1; nil: there is none. It reads the core and the exchange
-- object directly, so that it can be called in every phase.

local core = require "sluice.api.core"
local cookie = require "sluice.cookie"
local fields_of = require "sluice.api.fields"
local query = require "sluice.query"

local E = core.E
local text, number = core.text, core.number
local gsub, lower, match, sub, find = string.gsub, string.lower, string.match, string.sub, string.find
local tonumber = tonumber

local fields = {}

local entities -- loaded by who runs exchanges: the checker cannot

local function route_of(exchange)
  entities = entities or require "sluice.api.entities"
  return (entities.route(exchange))
end

local function service_of(exchange)
  entities = entities or require "sluice.api.entities"
  return (entities.service(exchange))
end

-- ---- Plain ones -----------------------------------------------------------------------------------------------------

local function of_text(what)
  return function(exchange, nth)
    if nth > 1 then return nil end
    local value = text(exchange.handle, what)
    if value == "" then return nil end -- as the core has it of a stream
    return value
  end
end

local function of_number(what)
  return function(exchange, nth)
    if nth > 1 then return nil end
    return (number(exchange.handle, what))
  end
end

local function member(part, name)
  return function(exchange, nth)
    local one = nth == 1 and part(exchange)
    return one and one[name] or nil
  end
end

local function consumer_of(exchange)
  return exchange.consumer
end

local function protocol(exchange, nth)
  if nth > 1 then return nil end
  local route = route_of(exchange)
  local first = route and route.protocols and route.protocols[1]
  if first == "tls_passthrough" then return first end
  local secure = number(exchange.handle, E.NUMBER_TLS) == 1
  if first == "tcp" or first == "tls" then return secure and "tls" or "tcp" end
  return (text(exchange.handle, E.TEXT_SCHEME))
end

local function consumer_group(exchange, nth)
  local list = exchange.consumer and require("sluice.api.client").groups(exchange)
  return list and list[nth] and list[nth].name
end

local PLAIN = {
  ["net.protocol"] = { "string", protocol },
  ["net.src.ip"] = { "ip", of_text(E.TEXT_FORWARDED_IP) },
  ["net.src.port"] = { "int", of_number(E.NUMBER_CLIENT_PORT) },
  ["net.dst.ip"] = { "ip", of_text(E.TEXT_LOCAL_IP) },
  ["net.dst.port"] = { "int", of_number(E.NUMBER_PORT) },
  ["tls.sni"] = { "string", of_text(E.TEXT_TLS_SNI) },
  ["tls.version"] = { "string", of_text(E.TEXT_TLS_VERSION) },
  ["http.method"] = { "string", of_text(E.TEXT_METHOD), "rewrite" },
  ["http.host"] = { "string", of_text(E.TEXT_HOST), "rewrite" },
  ["http.path"] = { "string", of_text(E.TEXT_PATH), "rewrite" },
  ["http.query"] = { "string", of_text(E.TEXT_QUERY), "rewrite" },
  ["http.content_length"] = { "int", of_number(E.NUMBER_CONTENT_LENGTH), "rewrite" },
  ["route.id"] = { "string", member(route_of, "id"), "access" },
  ["route.name"] = { "string", member(route_of, "name"), "access" },
  ["service.id"] = { "string", member(service_of, "id"), "access" },
  ["service.name"] = { "string", member(service_of, "name"), "access" },
  ["consumer.id"] = { "string", member(consumer_of, "id"), "access" },
  ["consumer.username"] = { "string", member(consumer_of, "username"), "access" },
  ["consumer.custom_id"] = { "string", member(consumer_of, "custom_id"), "access" },
  ["consumer.groups"] = { "string", consumer_group, "access" },
  ["response.status"] = { "int", of_number(E.NUMBER_STATUS), "header_filter" },
  ["response.source"] = { "string", function(exchange, nth)
    if nth > 1 then return nil end
    return ({ [0] = "exit", "service", "error" })[number(exchange.handle, E.NUMBER_RESPONSE_SOURCE)]
  end, "header_filter" },
}

-- ---- Those with a name in them --------------------------------------------------------------------------------------

-- Kong's names have `_` where a header has `-`; a header that is spelt with `_` is found where there is no other.
local function of_header(message)
  return function(name)
    name = lower(name)
    local plain = gsub(name, "_", "-")
    return function(exchange, nth)
      local handle = exchange.handle
      local value = fields_of.get(handle, message, plain, nth)
      if value == nil and plain ~= name then value = fields_of.get(handle, message, name, nth) end
      return value
    end
  end
end

local function of_query(name)
  return function(exchange, nth)
    local raw = text(exchange.handle, E.TEXT_QUERY)
    if not raw then return nil end
    local value = query.nth(raw, name, nth)
    if value == true then return "" end -- `?name` is `?name=`, as in Kong
    return value
  end
end

local function of_cookie(name)
  return function(exchange, nth)
    if nth > 1 then return nil end
    return (cookie.of_handle(exchange.handle, name))
  end
end

-- Segment number `index`, from 0, of "/a/b"; a "/" at the end begins none.
local function segment(path, index)
  local at = 1
  for _ = 0, index do
    at = find(path, "/", at, true)
    if not at or at == #path then return nil end
    at = at + 1
  end
  local stop = find(path, "/", at, true) or #path + 1
  return sub(path, at, stop - 1), at, stop
end

local function segment_count(exchange, nth)
  if nth > 1 then return nil end
  local path = text(exchange.handle, E.TEXT_PATH)
  if not path or path == "" then return nil end
  local _, slashes = gsub(path, "/", "")
  return sub(path, -1) == "/" and slashes - 1 or slashes
end

local function of_segments(which)
  local first, last = match(which, "^(%d+)_?(%d*)$")
  if not first then return nil end
  if last == "" then last = first end
  first, last = tonumber(first), tonumber(last)
  if last < first then return nil end
  return function(exchange, nth)
    local path = nth == 1 and text(exchange.handle, E.TEXT_PATH)
    if not path then return nil end
    local one, from = segment(path, first)
    if first == last then return one end
    local _, _, to = segment(path, last)
    return to and sub(path, from, to - 1)
  end
end

-- By what stands in front of the name: { kind, maker of a reader, phase }
local NAMED = {
  ["http.headers."] = { "string", of_header(E.MESSAGE_REQUEST), "rewrite" },
  ["http.queries."] = { "string", of_query, "rewrite" },
  ["http.cookies."] = { "string", of_cookie, "rewrite" },
  ["http.path.segments."] = { "string", of_segments, "rewrite" },
  ["response.headers."] = { "string", of_header(E.MESSAGE_RESPONSE), "header_filter" },
}

fields.names = {}
for name in pairs(PLAIN) do fields.names[#fields.names + 1] = name end
for prefix in pairs(NAMED) do fields.names[#fields.names + 1] = prefix .. "*" end
table.sort(fields.names)

-- The field of that name.
---@param name string
---@return { kind: "string"|"int"|"ip", get: function, since: string|nil }|nil since: first phase that knows it
function fields.find(name)
  if name == "http.path.segments.len" then return { kind = "int", get = segment_count, since = "rewrite" } end
  local plain = PLAIN[name]
  if plain then return { kind = plain[1], get = plain[2], since = plain[3] } end
  for prefix, named in pairs(NAMED) do
    if #name > #prefix and sub(name, 1, #prefix) == prefix then
      local get = named[2](sub(name, #prefix + 1))
      return get and { kind = named[1], get = get, since = named[3] }
    end
  end
end

return fields
