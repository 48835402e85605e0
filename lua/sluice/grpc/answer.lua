-- SPDX-License-Identifier: Apache-2.0
-- A gRPC answer on its way to a client that wants JSON. A call is what a plugin knows of the exchange:
--
--   { schema, output = full name, streaming = boolean, flags = of protobuf.flags, most = bytes of a message,
--     response_body = field or nil, format = "ndjson" | "sse" | "json" }
--
-- One message: the response is buffered (enable_buffering), so that its HTTP status can follow gRPC's, which stands in
-- the trailers. Several: each goes on at once, and an error that comes behind them is a line like them.

local crypto = require "sluice.crypto"
local json = require "sluice.json"

local concat = table.concat

local HTTP_BODY = "google.api.HttpBody" -- says itself what it is

local GRPC_FIELDS = { "grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding",
  "grpc-accept-encoding" }

return function(grpc)
  ---@class sluice.grpc.answer
  local answer = {}

  local function clear_fields(response)
    for _, name in ipairs(GRPC_FIELDS) do response:clear_header(name) end
  end

  -- Nobody who wants JSON looks behind the body.
  local function clear_trailers(response)
    for name in pairs(response:get_trailers(1000)) do response:clear_trailer(name) end
  end

  local function member(text, name)
    local whole = json.decode(text)
    local value = whole[name]
    if value == nil then value = json.null end
    return (json.encode(value))
  end

  -- A message as the text and type of a response; nil and why not.
  local function text_of(call, message)
    local text, err = call.schema:to_json(call.output, message, call.flags)
    if not text then return nil, err end
    if call.output == HTTP_BODY then
      local body = json.decode(text)
      return crypto.base64_decode(body.data or ""), body.contentType or body.content_type or ""
    end
    return call.response_body and member(text, call.response_body) or text, "application/json"
  end

  -- The one message of a body.
  local function only_message(call, body)
    local reader = grpc.reader(call.most)
    reader:put(body)
    local message, err = reader:next()
    if not message then return nil, err or "the service answered without a message" end
    if not reader:is_empty() then return nil, "the service answered with more than one message" end
    return message
  end

  local function put(response, status, content_type, text)
    response:set_status(status)
    response:set_header("Content-Type", content_type)
    response:set_raw_body(text)
  end

  -- In header_filter, for a call with one message.
  ---@param exchange sluice.exchange
  ---@param call table
  function answer.whole(exchange, call)
    local response = exchange.response
    local code, message, details = grpc.final_status(exchange)
    local text, content_type
    if code == grpc.OK then
      local bytes, err = only_message(call, response:get_raw_body() or "")
      if bytes then text, content_type = text_of(call, bytes) end
      if not text then code, message = grpc.INTERNAL, err or content_type end
    end
    clear_fields(response)
    clear_trailers(response)
    if text then return put(response, 200, content_type, text) end
    put(response, grpc.http_status(code), "application/json", grpc.error_json(code, message, details, call.schema))
  end

  -- ---- Streams ----

  local TYPES = { ndjson = "application/x-ndjson", sse = "text/event-stream", json = "application/json" }

  -- In header_filter, for a call with any number of messages.
  ---@param exchange sluice.exchange
  ---@param call table
  function answer.head(exchange, call)
    local response = exchange.response
    local code, message, details = grpc.status(exchange)
    local status = exchange.service.response:get_status()
    if code or status ~= 200 then -- there will be no message
      if not code then code, message, details = grpc.final_status(exchange) end
      clear_fields(response)
      call.text = code ~= grpc.OK and grpc.error_json(code, message, details, call.schema) or ""
      response:set_status(grpc.http_status(code))
      response:set_header("Content-Type", code == grpc.OK and TYPES[call.format] or "application/json")
      return
    end
    clear_fields(response)
    call.reader = grpc.reader(call.most)
    response:set_header("Content-Type", TYPES[call.format])
    if call.format == "sse" then response:set_header("Cache-Control", "no-cache") end
  end

  local function line_of(call, text, event)
    if call.format == "sse" then return (event and "event: " .. event .. "\n" or "") .. "data: " .. text .. "\n\n" end
    return call.format == "json" and text or text .. "\n"
  end

  local function error_line(call, code, message, details)
    call.reader = nil
    local text = '{"error":' .. grpc.error_json(code, message, details, call.schema) .. "}"
    return line_of(call, text, "error")
  end

  -- Adds the messages that are whole. Gives what is wrong with the next.
  ---@return string|nil err
  local function add_messages(call, lines)
    while true do
      local message, err = call.reader:next()
      if not message then return err end
      local text, why = text_of(call, message)
      if not text then return why end
      lines[#lines + 1] = line_of(call, text)
    end
  end

  -- In body_filter behind answer.head: what to send on.
  ---@param exchange sluice.exchange
  ---@param call table
  ---@param chunk string
  ---@param last boolean
  ---@return string
  function answer.chunk(exchange, call, chunk, last)
    if last then clear_trailers(exchange.response) end
    if call.text then return last and call.text or "" end
    if not call.reader then return "" end -- an error has been told
    local lines = {}
    call.reader:put(chunk)
    local err = add_messages(call, lines)
    if err then
      lines[#lines + 1] = error_line(call, grpc.INTERNAL, err)
    elseif last then
      local code, message, details = grpc.final_status(exchange)
      if code ~= grpc.OK then
        lines[#lines + 1] = error_line(call, code, message, details)
      elseif not call.reader:is_empty() then
        lines[#lines + 1] = error_line(call, grpc.INTERNAL, "the last message is cut short")
      end
    end
    return concat(lines)
  end

  return answer
end
