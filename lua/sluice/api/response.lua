-- SPDX-License-Identifier: Apache-2.0
-- exchange.response: what goes to the client. Kong's kong.response with its names and meanings, and streamed answers.

local check = require "sluice.api.check"
local core = require "sluice.api.core"
local exchanges = require "sluice.exchanges"
local error_answer = require "sluice.api.error_answer"
local fields = require "sluice.api.fields"
local json = require "sluice.json"
local log = require "sluice.log"
local phases = require "sluice.phases"
local stream = require "sluice.api.stream"
local talk = require "sluice.api.talk"

local E, C, worker = core.E, core.C, core.worker
local check_phase, must = core.check_phase, core.must
local error, type, pairs, lower = error, type, pairs, string.lower

local of = exchanges.of

local MESSAGE_RESPONSE, MESSAGE_TRAILERS = E.MESSAGE_RESPONSE, E.MESSAGE_RESPONSE_TRAILERS
local EXIT = phases.EXIT

local READ = phases.mask("header_filter", "response", "body_filter", "log")
local RESULT = phases.mask("header_filter", "response", "body_filter", "log", "frames", "log (stream)")
local CHANGE = phases.mask("rewrite", "access", "heads", "response")
local TRAILERS = phases.mask("rewrite", "access", "header_filter", "body_filter", "response")
local ANSWER = phases.mask("rewrite", "access", "heads", "response")
local EXIT_IN = phases.mask("preread", "rewrite", "access", "heads", "response")
local BREAK = phases.mask("access", "body_filter")
local HINTS = phases.mask("rewrite", "access")
local STREAM = phases.mask("access")
local ENCODE = phases.mask("header_filter")
local BODY = phases.mask("header_filter", "body_filter", "response")
local BODY_FILTER = phases.numbers.body_filter

local SOURCES = { [0] = "exit", [1] = "service", [2] = "error" }

---@class sluice.response
local Response = {}

---@return integer status sent, or to be sent, to the client
function Response:get_status()
  check_phase(RESULT, self.handle, "exchange.response:get_status")
  return (core.number(self.handle, E.NUMBER_STATUS))
end

---@return integer bytes of head and body that have been sent so far
function Response:get_size()
  check_phase(RESULT, self.handle, "exchange.response:get_size")
  return (core.number(self.handle, E.NUMBER_RESPONSE_BYTES))
end

---@param name string in any case; `_` also finds `-`
---@param nth? integer which of several fields of that name, from 1; the first unless told
---@return string|nil value of that field
function Response:get_header(name, nth)
  check_phase(READ, self.handle, "exchange.response:get_header")
  check.string("exchange.response:get_header", "name", name)
  return (fields.get(self.handle, MESSAGE_RESPONSE, name, nth))
end

---@param max_headers? integer how many fields at most, 1 to 1000; 100 unless told
---@return table<string, string|string[]> by lower-case name, found in any spelling
---@return string|nil "truncated" when there were more
function Response:get_headers(max_headers)
  check_phase(READ, self.handle, "exchange.response:get_headers")
  local all, err = fields.all(self.handle, MESSAGE_RESPONSE, max_headers, "exchange.response:get_headers")
  if err then return all, err end
  return all -- and no more: codecs take one argument
end

---@return "service"|"exit"|"error" who made the response: the service, a plugin, or the gateway after a failure
function Response:get_source()
  check_phase(RESULT, self.handle, "exchange.response:get_source")
  return SOURCES[core.number(self.handle, E.NUMBER_RESPONSE_SOURCE)] or "error"
end

---@param status integer 100 to 599
function Response:set_status(status)
  check_phase(CHANGE, self.handle, "exchange.response:set_status")
  check.integer("exchange.response:set_status", "status", status, 100, 599)
  core.set_number(self.handle, E.NUMBER_STATUS, status, "exchange.response:set_status")
end

-- The framing of the response is the gateway's. As in Kong, trying to set it is no error.
local function is_framing(name)
  if #name ~= 17 or lower(name):gsub("_", "-") ~= "transfer-encoding" then return false end
  log.warn("a plugin tried to set Transfer-Encoding: ignored")
  return true
end

-- Replaces all fields of that name. Before the service has answered: kept, and put over what it sends.
---@param name string
---@param value string|number|boolean|(string|number|boolean)[]
function Response:set_header(name, value)
  check_phase(CHANGE, self.handle, "exchange.response:set_header")
  fields.check(name, value, "exchange.response:set_header")
  if is_framing(name) then return end
  must(fields.set(self.handle, MESSAGE_RESPONSE, name, value), "exchange.response:set_header")
end

---@param name string
---@param value string|number|boolean|(string|number|boolean)[]
function Response:add_header(name, value)
  check_phase(CHANGE, self.handle, "exchange.response:add_header")
  fields.check(name, value, "exchange.response:add_header")
  if is_framing(name) then return end
  must(fields.add(self.handle, MESSAGE_RESPONSE, name, value), "exchange.response:add_header")
end

---@param name string
function Response:clear_header(name)
  check_phase(CHANGE, self.handle, "exchange.response:clear_header")
  fields.check_name(name, "exchange.response:clear_header")
  must(fields.clear(self.handle, MESSAGE_RESPONSE, name), "exchange.response:clear_header")
end

-- A copy without the framing fields; the table itself when it has none.
local function without_framing(headers)
  for name in pairs(headers) do
    if is_framing(name) then
      local kept = {}
      for key, value in pairs(headers) do
        if key ~= name then kept[key] = value end
      end
      return without_framing(kept)
    end
  end
  return headers
end

---@param headers table<string, string|number|boolean|(string|number|boolean)[]>
function Response:set_headers(headers)
  check_phase(CHANGE, self.handle, "exchange.response:set_headers")
  fields.check_all(headers, "exchange.response:set_headers")
  must(fields.set_all(self.handle, MESSAGE_RESPONSE, without_framing(headers)), "exchange.response:set_headers")
end

-- Fields behind the body (RFC 9110 6.5): the service's, in response and log, and in body_filter with the last chunk,
-- and what plugins have made of them.
---@param name string in any case; `_` also finds `-`
---@return string|nil value of the first trailer of that name, once they are known
function Response:get_trailer(name)
  check_phase(READ, self.handle, "exchange.response:get_trailer")
  check.string("exchange.response:get_trailer", "name", name)
  return (fields.get(self.handle, MESSAGE_TRAILERS, name))
end

---@param max_trailers? integer how many at most, 1 to 1000; 100 unless told
---@return table<string, string|string[]> by lower-case name, found in any spelling
---@return string|nil "truncated" when there were more
function Response:get_trailers(max_trailers)
  check_phase(READ, self.handle, "exchange.response:get_trailers")
  local all, err = fields.all(self.handle, MESSAGE_TRAILERS, max_trailers, "exchange.response:get_trailers")
  if err then return all, err end
  return all -- and no more: codecs take one argument
end

-- Replaces the trailers of that name. Before the service's have come: kept, and put over them. A client of HTTP/1.1
-- gets a trailer that the service did not send only where it asked for trailers (`TE: trailers`).
---@param name string
---@param value string|number|boolean|(string|number|boolean)[]
function Response:set_trailer(name, value)
  check_phase(TRAILERS, self.handle, "exchange.response:set_trailer")
  fields.check(name, value, "exchange.response:set_trailer")
  must(fields.set(self.handle, MESSAGE_TRAILERS, name, value), "exchange.response:set_trailer")
end

---@param name string
---@param value string|number|boolean|(string|number|boolean)[]
function Response:add_trailer(name, value)
  check_phase(TRAILERS, self.handle, "exchange.response:add_trailer")
  fields.check(name, value, "exchange.response:add_trailer")
  must(fields.add(self.handle, MESSAGE_TRAILERS, name, value), "exchange.response:add_trailer")
end

-- The service's can be cleared once they have come: in response, and in body_filter with the last chunk.
---@param name string
function Response:clear_trailer(name)
  check_phase(TRAILERS, self.handle, "exchange.response:clear_trailer")
  fields.check_name(name, "exchange.response:clear_trailer")
  must(fields.clear(self.handle, MESSAGE_TRAILERS, name), "exchange.response:clear_trailer")
end

-- Raises in the plugin that would hold more than the gateway's limits allow: the response then breaks off.
local function check_held(handle, bytes)
  local most = core.number(handle, E.NUMBER_BUFFERED_MOST)
  if bytes <= most then return end
  error(("exchange.response:get_raw_body: the body is larger than gateway.limits.max_buffered_body_bytes (%d)")
    :format(most), 3)
end

-- In body_filter: holds the chunks back and gives the whole body with the last one, nil until then. It comes as the
-- service sent it: Content-Encoding tells whether it is compressed.
-- In response, and in header_filter behind `exchange.service.request:enable_buffering()`: the whole body.
---@return string|nil body
---@return string|nil err
function Response:get_raw_body()
  local exchange = of(self.handle)
  check_phase(BODY, self.handle, "exchange.response:get_raw_body")
  if exchange.phase ~= BODY_FILTER then return core.body(self.handle, MESSAGE_RESPONSE) end
  local held, chunk = exchange.held_body, exchange.chunk
  if chunk and chunk ~= "" and (held or not exchange.last) then
    held = held or { bytes = 0 }
    held.bytes = held.bytes + #chunk
    check_held(self.handle, held.bytes)
    held[#held + 1] = chunk
    exchange.held_body = held
  end
  if not exchange.last then
    exchange.taken = ""
    return nil
  end
  local body = held and table.concat(held) or chunk or ""
  exchange.taken = body
  exchange.held_body = nil
  return body
end

local CODINGS = { gzip = 0, br = 1, zstd = 2 }
local LEVELS = { gzip = { 1, 9 }, br = { 0, 11 }, zstd = { 1, 19 } }

-- Has the response's content pass through a content coding (RFC 9110 8.4) on its way to the client, behind all of
-- body_filter, in a stream. Fields are the caller's business, but for Content-Encoding and Content-Length.
---@param coding "gzip"|"br"|"zstd"
---@param level integer 1 to 9 of gzip, 0 to 11 of br, 1 to 19 of zstd
function Response:encode(coding, level)
  check_phase(ENCODE, self.handle, "exchange.response:encode")
  check.string("exchange.response:encode", "coding", coding)
  local number, range = CODINGS[coding], LEVELS[coding]
  if not number then check.fail("exchange.response:encode", 'coding must be "gzip", "br" or "zstd"') end
  if type(level) ~= "number" or level < range[1] or level > range[2] then
    check.fail("exchange.response:encode",
      ("level of %s must be a number from %d to %d"):format(coding, range[1], range[2]))
  end
  must(C.bridge_response_encode(worker, self.handle, number, level), "exchange.response:encode")
  must(fields.set(self.handle, MESSAGE_RESPONSE, "Content-Encoding", coding), "exchange.response:encode")
end

-- In body_filter: takes the place of the chunk. In response, and in header_filter behind
-- `exchange.service.request:enable_buffering()`: of the whole body, and Content-Length follows.
---@param body string
function Response:set_raw_body(body)
  local exchange = of(self.handle)
  check_phase(BODY, self.handle, "exchange.response:set_raw_body")
  check.string("exchange.response:set_raw_body", "body", body)
  if exchange.phase == BODY_FILTER then
    exchange.taken = body
    exchange.held_body = nil
    return
  end
  must(C.bridge_body_set(worker, self.handle, MESSAGE_RESPONSE, body, #body), "exchange.response:set_raw_body")
end

local function has_field(headers, wanted)
  for name in pairs(headers) do
    if #name == #wanted and lower(name):gsub("_", "-") == wanted then return name end
  end
  return nil
end

-- A table as JSON; sets its content type unless `headers` has one.
local function encode_body(exchange, body, headers, name)
  local text, err = json.encode(body)
  if not text then check.fail(name, "cannot encode body: " .. err, 4) end
  if not headers or not has_field(headers, "content-type") then
    fields.set(exchange.handle, MESSAGE_RESPONSE, "Content-Type", "application/json; charset=utf-8")
  end
  return text
end

-- Answers the client from here: the phase ends, no service is called; header_filter, body_filter and log still run.
-- In preread it closes the stream: a body is sent before that where the status is below 400, else it is the reason that
-- the log gets.
---@param status integer 100 to 599
---@param body? string|table a table becomes JSON
---@param headers? table<string, string|number|boolean|(string|number|boolean)[]>
function Response:exit(status, body, headers)
  local exchange, handle = of(self.handle), self.handle
  check_phase(EXIT_IN, handle, "exchange.response:exit")
  check.integer("exchange.response:exit", "status", status, 100, 599)
  check.table_or_nil("exchange.response:exit", "headers", headers)
  if headers then
    fields.check_all(headers, "exchange.response:exit")
    must(fields.set_all(handle, MESSAGE_RESPONSE, without_framing(headers)), "exchange.response:exit")
  end
  local message -- of an error, which a client that speaks gRPC gets in place of the body
  if type(body) == "table" then
    message = body.message
    body = encode_body(exchange, body, headers, "exchange.response:exit")
  else
    check.string_or_nil("exchange.response:exit", "body (if it is no table)", body)
  end
  must(C.bridge_exit(worker, handle, status, body, body and #body or 0), "exchange.response:exit")
  if type(message) == "string" then C.bridge_exit_message(worker, handle, message, #message) end
  exchange.answered = true
  error(EXIT, 0)
end

-- Ends the exchange here without (the rest of) a response: the client sees a connection that breaks, or a stream that
-- is reset. In body_filter, what has been returned before has gone out.
function Response:break_off()
  local exchange, handle = of(self.handle), self.handle
  check_phase(BREAK, handle, "exchange.response:break_off")
  must(C.bridge_break_off(worker, handle), "exchange.response:break_off")
  exchange.answered = true
  error(EXIT, 0)
end

local function content_type_of(headers)
  local name = headers and has_field(headers, "content-type")
  local value = name and headers[name]
  if type(value) == "table" then value = value[1] end
  return value
end

-- Answers with an error in the gateway's form: JSON, HTML, XML or text, by the Content-Type in `headers`, else by
-- the client's Accept.
---@param status integer 400 to 599
---@param message? string|table the usual one of the status unless told
---@param headers? table<string, string|number|boolean|(string|number|boolean)[]>
---@param template? string in place of the gateway's: %s for the message, %s for the request id
function Response:error(status, message, headers, template)
  local exchange, handle = of(self.handle), self.handle
  check_phase(ANSWER, handle, "exchange.response:error")
  check.integer("exchange.response:error", "status", status, 400, 599)
  check.table_or_nil("exchange.response:error", "headers", headers)
  check.string_or_nil("exchange.response:error", "template", template)
  if headers then
    fields.check_all(headers, "exchange.response:error")
    must(fields.set_all(handle, MESSAGE_RESPONSE, without_framing(headers)), "exchange.response:error")
  end
  if type(message) == "table" then
    local err
    message, err = json.encode(message)
    if not message then check.fail("exchange.response:error", "cannot encode message: " .. err) end
  else
    check.string_or_nil("exchange.response:error", "message (if it is no table)", message)
  end
  message = message or error_answer.message(status)
  local content_type, body = content_type_of(headers), nil
  if template then
    body = error_answer.from_template(template, message, exchange.id)
  elseif content_type then
    body = error_answer.body(content_type, message, exchange.id)
  end
  if body then
    must(C.bridge_exit(worker, handle, status, body, #body), "exchange.response:error")
    C.bridge_exit_message(worker, handle, message, #message)
  else
    must(C.bridge_exit_error(worker, handle, status, message, #message), "exchange.response:error")
  end
  exchange.answered = true
  error(EXIT, 0)
end

-- Tells the client of what the answer will need, before there is one: a response 103 (RFC 8297) with these fields.
---@param headers table<string, string|(string)[]> such as { Link = "</style.css>; rel=preload; as=style" }
---@return boolean whether it was sent: not to a client of HTTP/1.0, nor to one that does not read
function Response:early_hints(headers)
  local handle = self.handle
  check_phase(HINTS, handle, "exchange.response:early_hints")
  fields.check_all(headers, "exchange.response:early_hints")
  must(fields.set_all(handle, E.MESSAGE_EARLY_HINTS, headers), "exchange.response:early_hints")
  local status = C.bridge_early_hints(worker, handle)
  if status == E.BRIDGE_NONE then return false end
  must(status, "exchange.response:early_hints")
  return true
end

-- Begins an answer that is sent piece by piece, such as server-sent events; waits until its head has been sent. The
-- plugin goes on: it sends, then finishes; later plugins of the phase do not run.
---@param status integer 200 to 599
---@param headers? table<string, string|number|boolean|(string|number|boolean)[]>
---@return sluice.stream
function Response:stream(status, headers)
  local exchange, handle = of(self.handle), self.handle
  check_phase(STREAM, handle, "exchange.response:stream")
  check.integer("exchange.response:stream", "status", status, 200, 599)
  check.table_or_nil("exchange.response:stream", "headers", headers)
  if headers then
    fields.check_all(headers, "exchange.response:stream")
    must(fields.set_all(handle, MESSAGE_RESPONSE, without_framing(headers)), "exchange.response:stream")
  end
  local begun = core.wait(C.bridge_stream_begin(worker, handle, status))
  if begun ~= E.BRIDGE_CLOSED and begun ~= E.BRIDGE_STALE then must(begun, "exchange.response:stream") end
  exchange.answered = true
  return stream.new(handle, begun ~= 0)
end

---@return boolean whether the request asks for a WebSocket (RFC 6455), which `websocket` can answer
function Response:may_be_websocket()
  check_phase(STREAM, self.handle, "exchange.response:may_be_websocket")
  return (C.bridge_talk_asked(worker, self.handle))
end

-- Answers the handshake of a WebSocket, whose other end the plugin is from here on; waits until its head has been sent.
-- The plugin goes on in access; when it returns, the WebSocket is closed.
---@param headers? table<string, string|number|boolean|(string|number|boolean)[]> such as Sec-WebSocket-Protocol
---@return sluice.talk|nil
---@return "closed"|nil err the client has left
function Response:websocket(headers)
  local exchange, handle = of(self.handle), self.handle
  check_phase(STREAM, handle, "exchange.response:websocket")
  check.table_or_nil("exchange.response:websocket", "headers", headers)
  if not C.bridge_talk_asked(worker, handle) then
    check.fail("exchange.response:websocket", "the request asks for no WebSocket")
  end
  if headers then
    fields.check_all(headers, "exchange.response:websocket")
    must(fields.set_all(handle, MESSAGE_RESPONSE, without_framing(headers)), "exchange.response:websocket")
  end
  local begun = core.wait(C.bridge_talk_accept(worker, handle))
  exchange.answered = true
  if begun == E.BRIDGE_CLOSED or begun == E.BRIDGE_STALE then return nil, "closed" end
  must(begun, "exchange.response:websocket")
  return talk.new(handle)
end

return core.plain_part(Response)
