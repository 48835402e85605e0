-- SPDX-License-Identifier: Apache-2.0
-- exchange.service.request: what goes to the service. Kong's kong.service.request with its names and meanings.

local bodies = require "sluice.api.body"
local check = require "sluice.api.check"
local core = require "sluice.api.core"
local fields = require "sluice.api.fields"
local phases = require "sluice.phases"
local query = require "sluice.query"
local uuid = require "sluice.uuid"

local E, C, worker = core.E, core.C, core.worker
local check_phase, must = core.check_phase, core.must
local byte, find, format, gsub = string.byte, string.find, string.format, string.gsub

local MESSAGE_REQUEST = E.MESSAGE_REQUEST

local EARLY = phases.mask("rewrite", "access")
local BALANCER = phases.mask("rewrite", "access", "balancer")

local METHODS = {}
for name in ("GET HEAD PUT POST DELETE OPTIONS MKCOL COPY MOVE PROPFIND PROPPATCH LOCK UNLOCK PATCH "
  .. "TRACE"):gmatch("%S+") do
  METHODS[name] = true
end

---@class sluice.service.request
local Request = {}

---@param scheme "http"|"https"
function Request:set_scheme(scheme)
  check_phase(BALANCER, self.handle, "exchange.service.request:set_scheme")
  check.string("exchange.service.request:set_scheme", "scheme", scheme)
  if scheme ~= "http" and scheme ~= "https" then
    check.fail("exchange.service.request:set_scheme", format("scheme must be http or https, got %q", scheme))
  end
  core.set_text(self.handle, E.TEXT_SERVICE_SCHEME, scheme, "exchange.service.request:set_scheme")
end

-- Bytes that cannot stand in a path. "%" stays: the path may be escaped already.
local function escape_path(path)
  return (gsub(path, "[^%w%-%._~!$&'()*+,;=:@/%%]", function(c) return format("%%%02X", byte(c)) end))
end

---@param path string begins with "/"; without a query; bytes that need it are percent-encoded
function Request:set_path(path)
  check_phase(BALANCER, self.handle, "exchange.service.request:set_path")
  check.string("exchange.service.request:set_path", "path", path)
  if byte(path) ~= 47 then check.fail("exchange.service.request:set_path", "path must begin with /") end
  core.set_text(self.handle, E.TEXT_SERVICE_PATH, escape_path(path), "exchange.service.request:set_path")
end

---@return string path as it goes to the service, without the query
function Request:get_path()
  check_phase(BALANCER, self.handle, "exchange.service.request:get_path")
  return (core.text(self.handle, E.TEXT_SERVICE_PATH))
end

---@return string query as it goes to the service, without "?"; "" when there is none
function Request:get_raw_query()
  check_phase(BALANCER, self.handle, "exchange.service.request:get_raw_query")
  return core.text(self.handle, E.TEXT_SERVICE_QUERY) or ""
end

---@param text string query without "?", sent as it is
function Request:set_raw_query(text)
  check_phase(EARLY, self.handle, "exchange.service.request:set_raw_query")
  check.string("exchange.service.request:set_raw_query", "query", text)
  if find(text, "[%c #]") then
    check.fail("exchange.service.request:set_raw_query", "query must not hold spaces, control characters or #")
  end
  core.set_text(self.handle, E.TEXT_SERVICE_QUERY, text, "exchange.service.request:set_raw_query")
end

---@param args table<string, string|number|boolean|(string|number|boolean)[]> written in alphabetical order
function Request:set_query(args)
  check_phase(EARLY, self.handle, "exchange.service.request:set_query")
  check.table("exchange.service.request:set_query", "args", args)
  local text, err = query.encode(args)
  if not text then check.fail("exchange.service.request:set_query", err) end
  core.set_text(self.handle, E.TEXT_SERVICE_QUERY, text, "exchange.service.request:set_query")
end

---@param name string all arguments of that name are removed, the others keep order and spelling
function Request:clear_query_arg(name)
  check_phase(EARLY, self.handle, "exchange.service.request:clear_query_arg")
  check.string("exchange.service.request:clear_query_arg", "name", name)
  local text = core.text(self.handle, E.TEXT_SERVICE_QUERY)
  if not text or text == "" then return end
  core.set_text(self.handle, E.TEXT_SERVICE_QUERY, query.remove(text, name), "exchange.service.request:clear_query_arg")
end

---@param method string upper case
function Request:set_method(method)
  check_phase(EARLY, self.handle, "exchange.service.request:set_method")
  check.string("exchange.service.request:set_method", "method", method)
  if not METHODS[method] then
    check.fail("exchange.service.request:set_method", format("invalid method %q", method))
  end
  core.set_text(self.handle, E.TEXT_SERVICE_METHOD, method, "exchange.service.request:set_method")
end

-- Replaces all fields of that name. "Host" also sets the name that TLS verifies.
---@param name string
---@param value string|number|boolean|(string|number|boolean)[]
function Request:set_header(name, value)
  check_phase(BALANCER, self.handle, "exchange.service.request:set_header")
  fields.check(name, value, "exchange.service.request:set_header")
  must(fields.set(self.handle, MESSAGE_REQUEST, name, value), "exchange.service.request:set_header")
end

---@param name string
---@param value string|number|boolean|(string|number|boolean)[]
function Request:add_header(name, value)
  check_phase(EARLY, self.handle, "exchange.service.request:add_header")
  fields.check(name, value, "exchange.service.request:add_header")
  must(fields.add(self.handle, MESSAGE_REQUEST, name, value), "exchange.service.request:add_header")
end

---@param name string
function Request:clear_header(name)
  check_phase(EARLY, self.handle, "exchange.service.request:clear_header")
  fields.check_name(name, "exchange.service.request:clear_header")
  must(fields.clear(self.handle, MESSAGE_REQUEST, name), "exchange.service.request:clear_header")
end

-- Removes the field and every other that a service may take for it: behind CGI, X_User is X-User.
---@param name string
function Request:clear_alike(name)
  check_phase(EARLY, self.handle, "exchange.service.request:clear_alike")
  fields.check_name(name, "exchange.service.request:clear_alike")
  must(fields.clear_alike(self.handle, MESSAGE_REQUEST, name), "exchange.service.request:clear_alike")
end

---@param headers table<string, string|number|boolean|(string|number|boolean)[]>
function Request:set_headers(headers)
  check_phase(EARLY, self.handle, "exchange.service.request:set_headers")
  fields.check_all(headers, "exchange.service.request:set_headers")
  must(fields.set_all(self.handle, MESSAGE_REQUEST, headers), "exchange.service.request:set_headers")
end

local FORWARDED = { ["x-forwarded-for"] = E.FORWARDED_FOR, ["x-real-ip"] = E.FORWARDED_REAL_IP,
  ["x-forwarded-proto"] = E.FORWARDED_PROTO, ["x-forwarded-host"] = E.FORWARDED_HOST,
  ["x-forwarded-port"] = E.FORWARDED_PORT, ["x-forwarded-path"] = E.FORWARDED_PATH,
  ["x-forwarded-prefix"] = E.FORWARDED_PREFIX }

-- What the service is told of the client in a field that the gateway writes itself: X-Real-IP or X-Forwarded-For,
-- -Proto, -Host, -Port, -Path, -Prefix. What plugins see of the client stays as it is.
---@param name string
---@param value string|nil nil: the field is not sent
function Request:set_forwarded(name, value)
  check_phase(EARLY, self.handle, "exchange.service.request:set_forwarded")
  check.string("exchange.service.request:set_forwarded", "name", name)
  check.string_or_nil("exchange.service.request:set_forwarded", "value", value)
  local which = FORWARDED[name:lower()]
  if not which then
    check.fail("exchange.service.request:set_forwarded", ("%q is no field of the gateway's own"):format(name))
  end
  must(C.bridge_forwarded_set(worker, self.handle, which, value, value and #value or 0),
    "exchange.service.request:set_forwarded")
end

-- Takes the place of the request's body; Content-Length follows.
---@param body string
function Request:set_raw_body(body)
  check_phase(BALANCER, self.handle, "exchange.service.request:set_raw_body")
  check.string("exchange.service.request:set_raw_body", "body", body)
  must(C.bridge_body_set(worker, self.handle, MESSAGE_REQUEST, body, #body), "exchange.service.request:set_raw_body")
end

-- Has the response gathered whole, up to a limit, before header_filter runs, which then sees its body and trailers: for
-- a status or fields that depend on them. (Phase response is for plugins that wait as well.)
function Request:enable_buffering()
  check_phase(EARLY, self.handle, "exchange.service.request:enable_buffering")
  must(C.bridge_body_gather(worker, self.handle), "exchange.service.request:enable_buffering")
end

-- Asks the service for a response without a content coding (RFC 9110 12.5.3), for a plugin that reads it. What the
-- client accepts stays to be seen in `exchange.request`.
function Request:want_identity()
  check_phase(EARLY, self.handle, "exchange.service.request:want_identity")
  must(C.bridge_request_identity(worker, self.handle), "exchange.service.request:want_identity")
end

-- Encodes `args` as a form, JSON or multipart/form-data and sets body and Content-Type.
---@param args table
---@param mimetype? string in place of the request's Content-Type
---@return boolean|nil true
---@return string|nil err
function Request:set_body(args, mimetype)
  local name = "exchange.service.request:set_body"
  check_phase(EARLY, self.handle, name)
  check.table(name, "args", args)
  check.string_or_nil(name, "mimetype", mimetype)
  local content_type = mimetype or core.header(self.handle, MESSAGE_REQUEST, "content-type")
  if not content_type then return nil, "no content type was given, and the request has none" end
  local body, sent_type = bodies.encode(args, content_type, uuid.v4)
  if not body then check.fail(name, sent_type) end
  must(C.bridge_body_set(worker, self.handle, MESSAGE_REQUEST, body, #body), name)
  must(fields.set(self.handle, MESSAGE_REQUEST, "Content-Type", sent_type), name)
  return true
end

return core.plain_part(Request)
