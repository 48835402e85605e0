-- SPDX-License-Identifier: Apache-2.0
-- exchange.request: what the client sent. Kong's kong.request with its names and meanings.

local bodies = require "sluice.api.body"
local check = require "sluice.api.check"
local core = require "sluice.api.core"
local fields = require "sluice.api.fields"
local json = require "sluice.json"
local phases = require "sluice.phases"
local query = require "sluice.query"

local E = core.E
local text, number, check_phase = core.text, core.number, core.check_phase

local MESSAGE_REQUEST, TRAILERS = E.MESSAGE_REQUEST, E.MESSAGE_REQUEST_TRAILERS

local HEAD = phases.mask("rewrite", "access", "balancer", "heads", "body_filter", "response", "log", "frames")
local BODY = phases.mask("rewrite", "access", "response")
local LIMIT = phases.mask("rewrite", "access")
local ACCESS = phases.mask("access")
local KEPT = phases.mask("header_filter", "body_filter", "response", "log")
local CONNECTION = phases.mask("certificate", "rewrite", "access", "balancer", "heads", "body_filter",
  "response", "log", "frames", "streams")
local SIZE = phases.mask("rewrite", "access", "balancer", "heads", "body_filter", "response", "log", "frames",
  "log (stream)")

---@class sluice.request
local Request = {}

---@return string "http" or "https", of the connection
function Request:get_scheme()
  check_phase(HEAD, self.handle, "exchange.request:get_scheme")
  return (text(self.handle, E.TEXT_SCHEME))
end

---@return string host of the URL or the Host header, lower case, without port
function Request:get_host()
  check_phase(HEAD, self.handle, "exchange.request:get_host")
  return text(self.handle, E.TEXT_HOST) or ""
end

---@return integer port of the gateway that the client connected to
function Request:get_port()
  check_phase(CONNECTION, self.handle, "exchange.request:get_port")
  return (number(self.handle, E.NUMBER_PORT))
end

---@return string scheme, from X-Forwarded-Proto when a trusted address sent it
function Request:get_forwarded_scheme()
  check_phase(HEAD, self.handle, "exchange.request:get_forwarded_scheme")
  return (text(self.handle, E.TEXT_FORWARDED_SCHEME))
end

---@return string host, from X-Forwarded-Host when a trusted address sent it
function Request:get_forwarded_host()
  check_phase(HEAD, self.handle, "exchange.request:get_forwarded_host")
  return text(self.handle, E.TEXT_FORWARDED_HOST) or ""
end

---@return integer port, from X-Forwarded-Port when a trusted address sent it
function Request:get_forwarded_port()
  check_phase(HEAD, self.handle, "exchange.request:get_forwarded_port")
  return (number(self.handle, E.NUMBER_FORWARDED_PORT))
end

---@return string path, from X-Forwarded-Path when a trusted address sent it
function Request:get_forwarded_path()
  check_phase(HEAD, self.handle, "exchange.request:get_forwarded_path")
  return (text(self.handle, E.TEXT_FORWARDED_PATH))
end

---@return string|nil prefix that strip_path took off, or X-Forwarded-Prefix of a trusted address
function Request:get_forwarded_prefix()
  check_phase(HEAD, self.handle, "exchange.request:get_forwarded_prefix")
  return (text(self.handle, E.TEXT_FORWARDED_PREFIX))
end

---@return number 1.0, 1.1 or 2
function Request:get_http_version()
  check_phase(HEAD, self.handle, "exchange.request:get_http_version")
  return (number(self.handle, E.NUMBER_HTTP_VERSION))
end

---@return string method as the client sent it
function Request:get_method()
  check_phase(HEAD, self.handle, "exchange.request:get_method")
  return (text(self.handle, E.TEXT_METHOD))
end

---@return string path in its canonical form, without the query: the one that was matched
function Request:get_path()
  check_phase(HEAD, self.handle, "exchange.request:get_path")
  return (text(self.handle, E.TEXT_PATH))
end

---@return string path as the client sent it, without the query
function Request:get_raw_path()
  check_phase(HEAD, self.handle, "exchange.request:get_raw_path")
  return (text(self.handle, E.TEXT_RAW_PATH))
end

---@return string path and query as the client sent them
function Request:get_path_with_query()
  check_phase(HEAD, self.handle, "exchange.request:get_path_with_query")
  return (text(self.handle, E.TEXT_RAW_TARGET))
end

---@return string query as the client sent it, without "?"; "" when there is none
function Request:get_raw_query()
  check_phase(HEAD, self.handle, "exchange.request:get_raw_query")
  return text(self.handle, E.TEXT_QUERY) or ""
end

---@param name string
---@return string|boolean|nil value of the first argument of that name; true when it has none
function Request:get_query_arg(name)
  check_phase(HEAD, self.handle, "exchange.request:get_query_arg")
  check.string("exchange.request:get_query_arg", "name", name)
  local raw = text(self.handle, E.TEXT_QUERY)
  if not raw then return nil end
  return query.first(raw, name)
end

---@param max_args? integer how many arguments at most, 1 to 1000; 100 unless told
---@return table<string, string|boolean|(string|boolean)[]>
---@return string|nil "truncated" when there were more
function Request:get_query(max_args)
  check_phase(HEAD, self.handle, "exchange.request:get_query")
  if max_args ~= nil then check.integer("exchange.request:get_query", "max_args", max_args, 1, 1000) end
  return query.decode(text(self.handle, E.TEXT_QUERY) or "", max_args)
end

---@param name string in any case; `_` also finds `-`
---@param nth? integer which of several fields of that name, from 1; the first unless told
---@return string|nil value of that field
function Request:get_header(name, nth)
  check_phase(HEAD, self.handle, "exchange.request:get_header")
  check.string("exchange.request:get_header", "name", name)
  return (fields.get(self.handle, MESSAGE_REQUEST, name, nth))
end

-- For what a request may say only once, such as who sends it.
---@param name string in any spelling; "_" stands for "-" too
---@return string|nil value of the first field of that name
---@return boolean several whether there are more of that name
function Request:get_only_header(name)
  check_phase(HEAD, self.handle, "exchange.request:get_only_header")
  check.string("exchange.request:get_only_header", "name", name)
  local value, several = fields.only(self.handle, MESSAGE_REQUEST, name)
  return value, several
end

---@param max_headers? integer how many fields at most, 1 to 1000; 100 unless told
---@return table<string, string|string[]> by lower-case name, found in any spelling
---@return string|nil "truncated" when there were more
function Request:get_headers(max_headers)
  check_phase(HEAD, self.handle, "exchange.request:get_headers")
  local all, err = fields.all(self.handle, MESSAGE_REQUEST, max_headers, "exchange.request:get_headers")
  if err then return all, err end
  return all -- and no more: codecs take one argument
end

-- Waits for the whole body, which is buffered from here on.
---@return string|nil body "" when there is none
---@return string|nil err when it passes the limit, is late or broken, or the client went away
---@return integer|nil status to answer with then: 413, 408 or 400
function Request:get_raw_body()
  check_phase(BODY, self.handle, "exchange.request:get_raw_body")
  local body, err, status = core.body(self.handle, MESSAGE_REQUEST)
  if body then return body end
  return nil, err, status
end

-- The next piece of the body as it comes, for a plugin that answers by itself: what it has taken is not kept, and no
-- service is called afterwards. Also while the answer is streamed (see exchange.response:stream): of what comes then,
-- before the first piece is taken, 256 KB are kept, and more is an error.
---@return string|nil piece nil without an error: that was all
---@return string|nil err when it is refused (too large, late, broken), or the client went away
---@return integer|nil status to answer with then: 413, 408 or 400
function Request:read_body()
  check_phase(ACCESS, self.handle, "exchange.request:read_body")
  local piece, err, status = core.take_body(self.handle)
  return piece, err, status
end

-- Takes no more bytes of a body than that (nor than `gateway.limits.max_body_bytes`), whether it is buffered or
-- streamed: a client that sends more is answered 413, as long as the answer has not begun.
---@param bytes integer at least 1
---@return boolean|nil true; nil when more has come already, or is announced by Content-Length
---@return string|nil err
function Request:limit_body(bytes)
  check_phase(LIMIT, self.handle, "exchange.request:limit_body")
  check.integer("exchange.request:limit_body", "bytes", bytes, 1, 2 ^ 53 - 1)
  local status = core.C.bridge_body_limit(core.worker, self.handle, bytes)
  if status == E.BRIDGE_FULL then return nil, "the body is larger" end
  core.must(status, "exchange.request:limit_body")
  return true
end

-- Has a copy of the body kept for a later phase, while the body goes its way: nobody waits for it.
---@param max_bytes integer a longer body is not kept
function Request:keep_body(max_bytes)
  check_phase(ACCESS, self.handle, "exchange.request:keep_body")
  check.integer("exchange.request:keep_body", "max_bytes", max_bytes, 0, 4294967294)
  local status = core.C.bridge_body_keep(core.worker, self.handle, max_bytes)
  if status ~= 0 then core.must(status, "exchange.request:keep_body") end
end

-- The body that keep_body has kept.
---@return string|nil body
---@return string|nil err "incomplete": not all of it has come; "too large"
function Request:get_kept_body()
  check_phase(KEPT, self.handle, "exchange.request:get_kept_body")
  local body, err = core.kept_body(self.handle)
  return body, err
end

-- Fields behind the body (RFC 9110 6.5). They come with its end: after get_raw_body in access, or in a later phase.
---@param name string in any case; `_` also finds `-`
---@return string|nil value of the first trailer of that name, once the whole request has come
function Request:get_trailer(name)
  check_phase(HEAD, self.handle, "exchange.request:get_trailer")
  check.string("exchange.request:get_trailer", "name", name)
  return (fields.get(self.handle, TRAILERS, name))
end

---@param max_trailers? integer how many at most, 1 to 1000; 100 unless told
---@return table<string, string|string[]> by lower-case name, found in any spelling
---@return string|nil "truncated" when there were more
function Request:get_trailers(max_trailers)
  check_phase(HEAD, self.handle, "exchange.request:get_trailers")
  local all, err = fields.all(self.handle, TRAILERS, max_trailers, "exchange.request:get_trailers")
  if err then return all, err end
  return all -- and no more: codecs take one argument
end

-- The body as a table: a form, JSON or multipart/form-data by its Content-Type. Waits for the whole body.
---@param mimetype? string takes the place of the request's Content-Type
---@param max_args? integer how many form arguments at most, 1 to 1000; 100 unless told
---@return table|nil
---@return string|nil err
---@return string|nil mimetype that it was decoded as
function Request:get_body(mimetype, max_args)
  check_phase(BODY, self.handle, "exchange.request:get_body")
  check.string_or_nil("exchange.request:get_body", "mimetype", mimetype)
  if max_args ~= nil then check.integer("exchange.request:get_body", "max_args", max_args, 1, 1000) end
  local sent_type = core.header(self.handle, MESSAGE_REQUEST, "content-type")
  local content_type = mimetype or sent_type
  if not content_type then return nil, "missing content type" end
  -- The boundary stands in the request's own field.
  if mimetype and sent_type and bodies.mime(sent_type) == bodies.mime(mimetype) then content_type = sent_type end
  local raw, err = core.body(self.handle, MESSAGE_REQUEST)
  if not raw then return nil, err, bodies.mime(content_type) end
  return bodies.decode(raw, content_type, max_args)
end

---@return integer bytes of head and body that have come so far
function Request:get_size()
  check_phase(SIZE, self.handle, "exchange.request:get_size")
  return (number(self.handle, E.NUMBER_REQUEST_BYTES))
end

---@return number when the request began, milliseconds since 1970
function Request:get_start_time()
  check_phase(CONNECTION, self.handle, "exchange.request:get_start_time")
  return math.floor((number(self.handle, E.NUMBER_STARTED_US) or 0) / 1000)
end

-- What the groups of the route's regex path matched.
---@return { unnamed: string[], named: table<string, string> } unnamed[0]: the whole match
function Request:get_uri_captures()
  check_phase(HEAD, self.handle, "exchange.request:get_uri_captures")
  local handle = self.handle
  local unnamed, named = json.array(), {}
  local group = 0
  while true do
    local value = core.capture(handle, group)
    if not value and group > 0 then break end
    unnamed[group] = value
    group = group + 1
  end
  local index = 0
  while true do
    local name, at = core.capture_name(handle, index)
    if not name then break end
    named[name] = unnamed[at]
    index = index + 1
  end
  return { unnamed = unnamed, named = named }
end

return core.plain_part(Request)
