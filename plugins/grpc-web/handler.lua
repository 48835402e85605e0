-- SPDX-License-Identifier: Apache-2.0
-- gRPC-Web (PROTOCOL-WEB of the gRPC project): gRPC for browsers, which see no trailers and may send no binary. Frames
-- are gRPC's own, perhaps in base64; the trailers are the last frame of the body. With a schema, messages may be JSON.
local base64 = require "grpc-web.base64"
local grpc = require "sluice.grpc"
local json = require "sluice.json"
local protobuf = require "sluice.protobuf"

local web = { version = "1.0.0", priority = 3 }

local TRAILERS = 128 -- flag of the frame that holds them
local FLAGS = protobuf.flags { defaults = true, proto_names = true }
local JSON = { ["Content-Type"] = "application/json" }

-- ---- What a client speaks -------------------------------------------------------------------------------------------

-- By media type: text: base64; json: messages are JSON; bare: without frames.
local FORMS = { ["application/json"] = { json = true, bare = true } }
for _, text in ipairs { "", "-text" } do
  for _, message in ipairs { "", "+proto", "+json" } do
    local kind = "application/grpc-web" .. text .. message
    FORMS[kind] = { kind = kind, text = text ~= "", json = message == "+json" }
  end
end

local function mime(value)
  return value and value:match("^%s*([^;%s]*)"):lower()
end

local function is_grpc(kind)
  return kind == "application/grpc" or kind ~= nil and kind:sub(1, 17) == "application/grpc+"
end

-- ---- Configurations -------------------------------------------------------------------------------------------------

local apis = setmetatable({}, { __mode = "k" }) -- by configuration: { schema, methods by path }

local function make(conf)
  local api = { schema = grpc.schema(conf), methods = {} }
  for _, method in ipairs(api.schema and api.schema:methods() or {}) do api.methods[method.path] = method end
  return api
end

local function api_of(conf)
  local api = apis[conf]
  if not api then
    api = make(conf)
    apis[conf] = api
  end
  return api
end

function web.configure(confs)
  for _, conf in ipairs(confs or {}) do api_of(conf) end
end

-- ---- Requests -------------------------------------------------------------------------------------------------------

local function refuse(exchange, status, code, text)
  return exchange.response:exit(status, grpc.error_json(code, text), JSON)
end

local function preflight(conf, exchange)
  return exchange.response:exit(200, "OK", {
    ["Content-Type"] = "application/grpc-web-text+proto", ["Access-Control-Allow-Origin"] = conf.allow_origin_header,
    ["Access-Control-Allow-Methods"] = "POST",
    ["Access-Control-Allow-Headers"] = "content-type,x-grpc-web,x-user-agent,grpc-timeout,authorization",
  })
end

-- The path as the client sent it, or what the route has left of it.
local function path_of(conf, exchange)
  if conf.pass_stripped_path then return (exchange.service.request:get_path()) end
  local path = exchange.request:get_path()
  exchange.service.request:set_path(path)
  return path
end

local function read_body(conf, exchange, call)
  local body, err = exchange.request:get_raw_body()
  if not body then return refuse(exchange, 413, grpc.RESOURCE_EXHAUSTED, err) end
  if #body > conf.max_message_bytes * 2 then
    return refuse(exchange, 413, grpc.RESOURCE_EXHAUSTED, "the body is too large")
  end
  if not call.form.text then return body end
  local bytes = base64.decode(body)
  if not bytes then return refuse(exchange, 400, grpc.INVALID_ARGUMENT, "the body is not base64") end
  return bytes
end

local function encode(exchange, call, text)
  local bytes, err = call.schema:to_binary(call.input, text)
  if not bytes then return refuse(exchange, 400, grpc.INVALID_ARGUMENT, err) end
  return grpc.frame(bytes)
end

-- Frames with JSON to frames with messages.
local function encode_frames(exchange, call, body)
  local reader, frames = grpc.reader(call.most), {}
  reader:put(body)
  local text, err = reader:next()
  while text do
    frames[#frames + 1] = encode(exchange, call, text)
    text, err = reader:next()
  end
  if err or not reader:is_empty() then
    return refuse(exchange, 400, grpc.INVALID_ARGUMENT, err or "the last frame is cut short")
  end
  return table.concat(frames)
end

local function content_of(conf, exchange, call)
  local body = read_body(conf, exchange, call)
  if not call.form.json then return body end
  if call.form.bare then return encode(exchange, call, body == "" and "{}" or body) end
  return encode_frames(exchange, call, body)
end

-- What messages are, where they have to be understood.
local function note_types(conf, exchange, call, path)
  local api = api_of(conf)
  if not api.schema then
    return refuse(exchange, 400, grpc.INVALID_ARGUMENT,
      "transcoding requests require a .proto file defining the service")
  end
  local method = api.methods[path]
  if not method then return refuse(exchange, 404, grpc.UNIMPLEMENTED, ("Unknown path %q"):format(path)) end
  call.schema, call.input, call.output = api.schema, method.input, method.output
  call.streaming, call.flags, call.format = method.server_streaming, FLAGS, "json"
end

local function send_call(conf, exchange, call)
  local request = exchange.service.request
  -- A body that only passes through is not waited for.
  if call.form.text or call.form.json then request:set_raw_body(content_of(conf, exchange, call)) end
  if call.form.json then
    request:set_header("grpc-accept-encoding", "identity")
    if call.form.bare and not call.streaming then request:enable_buffering() end
  end
  request:set_header("Content-Type", "application/grpc")
  request:set_header("TE", "trailers")
  request:clear_header("Accept-Encoding")
end

function web.access(conf, exchange)
  local request = exchange.request
  local kind = mime(request:get_header("content-type"))
  exchange.response:set_header("Access-Control-Allow-Origin", conf.allow_origin_header)
  if request:get_method() == "OPTIONS" then return preflight(conf, exchange) end
  if is_grpc(kind) then return end
  local form = FORMS[kind]
  if not form then return refuse(exchange, 415, grpc.INVALID_ARGUMENT, "not a content type of gRPC-Web") end
  if request:get_method() ~= "POST" then
    exchange.response:set_header("Allow", "POST, OPTIONS")
    return refuse(exchange, 405, grpc.UNIMPLEMENTED, "Method Not Allowed")
  end
  local call = { form = form, most = conf.max_message_bytes }
  local path = path_of(conf, exchange)
  if form.json then note_types(conf, exchange, call, path) end
  send_call(conf, exchange, call)
  exchange.ctx.grpc_web = call
end

-- ---- Answers --------------------------------------------------------------------------------------------------------

-- An answer of the gateway's own reaches a client of gRPC-Web as what it understands, whoever gave it.
local function own_answer(exchange)
  local call = exchange.ctx.grpc_web
  local form = call and call.form or FORMS[mime(exchange.request:get_header("content-type"))]
  local status = exchange.response:get_status()
  if not form or form.bare or status < 400 then return end
  exchange.ctx.grpc_web = { form = form, status = grpc.code_of(status) }
  exchange.response:set_status(200)
  exchange.response:set_header("Content-Type", form.kind)
end

function web.header_filter(_, exchange)
  local response, call = exchange.response, exchange.ctx.grpc_web
  if response:get_source() ~= "service" then return own_answer(exchange) end
  if not call then return end
  call.open = true
  if call.form.bare then
    if call.streaming then return grpc.answer.head(exchange, call) end
    return grpc.answer.whole(exchange, call)
  end
  call.is_grpc = exchange.service.response:get_status() == 200
  if call.form.json then call.reader = grpc.reader(call.most) end
  response:set_status(200)
  response:set_header("Content-Type", call.form.kind)
  if not response:get_header("access-control-expose-headers") then
    response:set_header("Access-Control-Expose-Headers", "grpc-status,grpc-message,grpc-status-details-bin")
  end
end

local function trailer_lines(code, message, others)
  local names, lines = {}, { ("grpc-status:%d\r\n"):format(code), ("grpc-message:%s\r\n"):format(message) }
  for name in pairs(others) do
    if name ~= "grpc-status" and name ~= "grpc-message" then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local values = others[name]
    for _, value in ipairs(type(values) == "table" and values or { values }) do
      lines[#lines + 1] = ("%s:%s\r\n"):format(name, value)
    end
  end
  return grpc.frame(table.concat(lines), TRAILERS)
end

local function to_hex(c)
  return ("%%%02X"):format(c:byte())
end

-- As grpc-message holds it.
local function escape(text)
  return (text:gsub("[^ -$&-~]", to_hex))
end

-- The trailers as a frame: the client sees no others.
local function trailer_frame(exchange, call)
  local response = exchange.response
  local trailers = response:get_trailers(1000)
  for name in pairs(trailers) do response:clear_trailer(name) end
  if call.failed then return trailer_lines(grpc.INTERNAL, escape(call.failed), {}) end
  local code, message = grpc.final_status(exchange)
  local details = exchange.service.response:get_header("grpc-status-details-bin")
  if details and not trailers["grpc-status"] then trailers["grpc-status-details-bin"] = details end
  return trailer_lines(code, escape(message), trailers)
end

-- Frames with messages to frames with JSON.
local function to_json(call, chunk)
  if call.failed then return "" end
  local frames = {}
  call.reader:put(chunk)
  while true do
    local message, err = call.reader:next()
    local text, why
    if message then text, why = call.schema:to_json(call.output, message, FLAGS) end
    call.failed = err or why
    if not text then break end
    frames[#frames + 1] = grpc.frame(text)
  end
  return table.concat(frames)
end

local function own_body(call, body)
  local value = json.decode(body)
  local message = type(value) == "table" and type(value.message) == "string" and value.message or ""
  return trailer_lines(call.status, escape(message), {})
end

local function pass_on(exchange, call, chunk, last)
  if not call.is_grpc then chunk = "" end -- some page that tells of an error
  if call.form.json then chunk = to_json(call, chunk) end
  if not last then return chunk end
  local is_cut = call.reader and not call.failed and not call.reader:is_empty()
  if is_cut then call.failed = "the last message is cut short" end
  return chunk .. trailer_frame(exchange, call)
end

function web.body_filter(_, exchange, chunk, last)
  local call = exchange.ctx.grpc_web
  if not call or not (call.open or call.status) then return chunk end
  if call.form.bare then return call.streaming and grpc.answer.chunk(exchange, call, chunk, last) or chunk end
  local out = call.status and own_body(call, chunk) or pass_on(exchange, call, chunk, last)
  return call.form.text and base64.encode(out) or out
end

return web
