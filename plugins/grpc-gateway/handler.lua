-- SPDX-License-Identifier: Apache-2.0
-- JSON over HTTP for a gRPC service, by the google.api.http annotations of its methods. A request becomes the call that
-- its rule names; the answer becomes JSON, with the HTTP status of gRPC's.
local grpc = require "sluice.grpc"
local message = require "grpc-gateway.message"
local protobuf = require "sluice.protobuf"
local rules = require "grpc-gateway.rules"

local gateway = { version = "1.0.0", priority = 998 }

local JSON = { ["Content-Type"] = "application/json" }
local PREFLIGHT = {
  ["Content-Type"] = "application/json", ["Access-Control-Allow-Origin"] = "*",
  ["Access-Control-Allow-Methods"] = "GET,POST,PUT,PATCH,DELETE", ["Access-Control-Allow-Headers"] = "content-type",
}

-- ---- What a configuration comes to ----------------------------------------------------------------------------------

local apis = setmetatable({}, { __mode = "k" }) -- by configuration

local function make(conf)
  local schema = grpc.schema(conf)
  if not schema then return {} end
  return {
    schema = schema, rules = assert(rules.compile(schema)), strict = conf.reject_unknown_fields,
    input_flags = protobuf.flags { known_only = conf.reject_unknown_fields },
    output_flags = protobuf.flags { defaults = conf.emit_defaults, proto_names = conf.field_names == "proto",
      enum_numbers = conf.enum_numbers },
  }
end

local function api_of(conf)
  local api = apis[conf]
  if not api then
    api = make(conf)
    apis[conf] = api
  end
  return api
end

-- Only where a method streams has a response to be filtered piece by piece.
function gateway.needs(conf)
  local api = api_of(conf)
  return { access = true, header_filter = true, body_filter = api.rules ~= nil and api.rules.streams }
end

function gateway.configure(confs)
  for _, conf in ipairs(confs or {}) do api_of(conf) end
end

-- ---- Requests -------------------------------------------------------------------------------------------------------

local function refuse(exchange, status, code, text)
  return exchange.response:exit(status, grpc.error_json(code, text), JSON)
end

local function mime(value)
  return value and value:match("^%s*([^;%s]*)"):lower()
end

local function is_json(content_type)
  local kind = mime(content_type)
  return kind == "application/json" or kind == "text/json" or kind == "application/x-ndjson"
    or (kind:find("^application/[%w.-]+%+json$")) ~= nil
end

local function no_rule(exchange, others)
  if not others then return refuse(exchange, 404, grpc.NOT_FOUND, "Not Found") end
  local verbs = {}
  for verb in pairs(others) do verbs[#verbs + 1] = verb end
  table.sort(verbs)
  exchange.response:set_header("Allow", table.concat(verbs, ", "))
  return refuse(exchange, 405, grpc.UNIMPLEMENTED, "Method Not Allowed")
end

-- The body of a request whose rule takes one.
local function read_body(exchange, rule)
  local request = exchange.request
  local encoding = request:get_header("content-encoding")
  if encoding and encoding:lower() ~= "identity" then
    return refuse(exchange, 415, grpc.INVALID_ARGUMENT, "the body must not be encoded")
  end
  local body, err = request:get_raw_body()
  if not body then return refuse(exchange, 413, grpc.RESOURCE_EXHAUSTED, err) end
  local content_type = request:get_header("content-type")
  if body ~= "" and content_type and not is_json(content_type) and not message.takes_any_body(rule) then
    return refuse(exchange, 415, grpc.INVALID_ARGUMENT, "the body must be JSON")
  end
  return body, content_type
end

local function frame_of(exchange, api, rule, body, content_type, target)
  local bytes, err = message.of_body(api, rule, body, content_type)
  if not bytes then return refuse(exchange, 400, grpc.INVALID_ARGUMENT, err) end
  return grpc.frame(bytes .. target)
end

-- Of a method that takes several messages: one a line.
local function frames_of(exchange, api, rule, body, content_type, target)
  local frames = {}
  for line in body:gmatch("[^\r\n]+") do
    frames[#frames + 1] = frame_of(exchange, api, rule, line, content_type, target)
  end
  return table.concat(frames)
end

local function content_of(conf, exchange, api, rule, values)
  local target, err = message.of_target(api, rule, values, exchange.request:get_raw_query())
  if not target then return refuse(exchange, 400, grpc.INVALID_ARGUMENT, err) end
  if rule.body == "" then return grpc.frame(target) end
  local body, content_type = read_body(exchange, rule)
  if #body > conf.max_message_bytes then
    return refuse(exchange, 413, grpc.RESOURCE_EXHAUSTED, "the body is too large")
  end
  local framed = rule.method.client_streaming and frames_of or frame_of
  return framed(exchange, api, rule, body, content_type, target)
end

local function send_call(exchange, rule, content)
  local request = exchange.service.request
  request:set_method("POST")
  request:set_path(rule.method.path)
  request:set_raw_query("")
  request:set_header("Content-Type", "application/grpc")
  request:set_header("TE", "trailers")
  request:set_header("grpc-accept-encoding", "identity")
  request:clear_header("Content-Encoding")
  request:clear_header("Accept-Encoding")
  request:set_raw_body(content)
  if not rule.method.server_streaming then request:enable_buffering() end
end

local function format_of(conf, exchange)
  if conf.stream_format ~= "auto" then return conf.stream_format end
  local accept = exchange.request:get_header("accept")
  return accept and accept:lower():find("text/event-stream", 1, true) and "sse" or "ndjson"
end

local function is_grpc(exchange)
  local kind = mime(exchange.request:get_header("content-type"))
  return kind ~= nil and (kind == "application/grpc" or kind:sub(1, 17) == "application/grpc+")
end

function gateway.access(conf, exchange)
  if is_grpc(exchange) then return end -- speaks for itself
  local response, request, api = exchange.response, exchange.request, api_of(conf)
  response:set_header("Access-Control-Allow-Origin", "*")
  if not api.rules then
    return refuse(exchange, 400, grpc.INVALID_ARGUMENT,
      "transcoding requests require a .proto file defining the service")
  end
  local rule, values = api.rules:match(request:get_method(), request:get_path())
  if not rule then
    if request:get_method() == "OPTIONS" then return response:exit(200, "OK", PREFLIGHT) end
    return no_rule(exchange, values)
  end
  send_call(exchange, rule, content_of(conf, exchange, api, rule, values))
  exchange.ctx.grpc_gateway = { schema = api.schema, output = rule.method.output, flags = api.output_flags,
    most = conf.max_message_bytes, streaming = rule.method.server_streaming, format = format_of(conf, exchange),
    response_body = rule.response_body and (conf.field_names == "proto" and rule.response_body.name
      or rule.response_body.json) }
end

-- ---- Answers --------------------------------------------------------------------------------------------------------

function gateway.header_filter(_, exchange)
  local call = exchange.ctx.grpc_gateway
  if not call or exchange.response:get_source() ~= "service" then return end
  if call.streaming then
    call.open = true
    grpc.answer.head(exchange, call)
  else
    grpc.answer.whole(exchange, call)
  end
end

function gateway.body_filter(_, exchange, chunk, last)
  local call = exchange.ctx.grpc_gateway
  if not call or not call.open then return chunk end
  return (grpc.answer.chunk(exchange, call, chunk, last))
end

return gateway
