-- SPDX-License-Identifier: Apache-2.0
-- exchange.service.response: what the service answered, before any plugin changed it.

local bodies = require "sluice.api.body"
local check = require "sluice.api.check"
local core = require "sluice.api.core"
local fields = require "sluice.api.fields"
local phases = require "sluice.phases"

local E = core.E
local check_phase = core.check_phase

local MESSAGE, TRAILERS = E.MESSAGE_SERVICE_RESPONSE, E.MESSAGE_SERVICE_TRAILERS

local HEAD = phases.mask("heads", "response", "body_filter", "log")
local LOG = phases.mask("log")
local BODY = phases.mask("header_filter", "response")

---@class sluice.service.response
local Response = {}

---@return integer|nil status; nil when the service did not answer
function Response:get_status()
  check_phase(HEAD, self.handle, "exchange.service.response:get_status")
  return (core.number(self.handle, E.NUMBER_SERVICE_STATUS))
end

-- How long the service took: from the request's going out to the head of its response, of the last try.
---@return number|nil milliseconds; nil when it did not answer
function Response:get_latency()
  check_phase(HEAD, self.handle, "exchange.service.response:get_latency")
  local us = core.number(self.handle, E.NUMBER_SERVICE_US)
  return us and us / 1000
end

---@param name string in any case; `_` also finds `-`
---@return string|nil value of the first field of that name
function Response:get_header(name)
  check_phase(HEAD, self.handle, "exchange.service.response:get_header")
  check.string("exchange.service.response:get_header", "name", name)
  return (fields.get(self.handle, MESSAGE, name))
end

---@param max_headers? integer how many fields at most, 1 to 1000; 100 unless told
---@return table<string, string|string[]> by lower-case name, found in any spelling
---@return string|nil "truncated" when there were more
function Response:get_headers(max_headers)
  check_phase(HEAD, self.handle, "exchange.service.response:get_headers")
  local all, err = fields.all(self.handle, MESSAGE, max_headers, "exchange.service.response:get_headers")
  if err then return all, err end
  return all -- and no more: codecs take one argument
end

-- Whether it broke off in the middle.
---@return boolean
function Response:is_broken()
  check_phase(LOG, self.handle, "exchange.service.response:is_broken")
  return core.number(self.handle, E.NUMBER_BROKEN) == 1
end

-- What gRPC's call came to: in the head of a response that is nothing but its status, else behind the content.
---@return integer|nil status 0 to 16; nil: it has not come yet, or is no call
function Response:get_grpc_status()
  check_phase(HEAD, self.handle, "exchange.service.response:get_grpc_status")
  return (core.number(self.handle, E.NUMBER_GRPC_STATUS))
end

-- Fields behind the body, which gRPC has its status in: in response and log, and in body_filter with the last chunk.
---@param name string in any case; `_` also finds `-`
---@return string|nil value of the first trailer of that name, once they have come
function Response:get_trailer(name)
  check_phase(HEAD, self.handle, "exchange.service.response:get_trailer")
  check.string("exchange.service.response:get_trailer", "name", name)
  return (fields.get(self.handle, TRAILERS, name))
end

---@param max_trailers? integer how many at most, 1 to 1000; 100 unless told
---@return table<string, string|string[]> by lower-case name, found in any spelling
---@return string|nil "truncated" when there were more
function Response:get_trailers(max_trailers)
  check_phase(HEAD, self.handle, "exchange.service.response:get_trailers")
  local all, err = fields.all(self.handle, TRAILERS, max_trailers, "exchange.service.response:get_trailers")
  if err then return all, err end
  return all -- and no more: codecs take one argument
end

-- In response, and in header_filter behind `exchange.service.request:enable_buffering()`.
---@return string|nil body
---@return string|nil err
function Response:get_raw_body()
  check_phase(BODY, self.handle, "exchange.service.response:get_raw_body")
  return core.body(self.handle, E.MESSAGE_RESPONSE)
end

-- The body as a table, by its Content-Type or the type given.
---@param mimetype? string
---@param max_args? integer how many form arguments at most, 1 to 1000; 100 unless told
---@return table|nil
---@return string|nil err
---@return string|nil mimetype that it was decoded as
function Response:get_body(mimetype, max_args)
  check_phase(BODY, self.handle, "exchange.service.response:get_body")
  check.string_or_nil("exchange.service.response:get_body", "mimetype", mimetype)
  if max_args ~= nil then check.integer("exchange.service.response:get_body", "max_args", max_args, 1, 1000) end
  local content_type = mimetype or core.header(self.handle, MESSAGE, "content-type")
  if not content_type then return nil, "missing content type" end
  local raw, err = core.body(self.handle, E.MESSAGE_RESPONSE)
  if not raw then return nil, err, bodies.mime(content_type) end
  return bodies.decode(raw, content_type, max_args)
end

return core.plain_part(Response)
