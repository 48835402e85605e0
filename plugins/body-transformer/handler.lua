-- SPDX-License-Identifier: Apache-2.0
-- Makes another body of a request's or a response's, by a template over what the body says.
local formats = require "body-transformer.formats"
local log = require "sluice.log"
local names = require "body-transformer.names"
local document = require "sluice.document"

local transformer = { version = "1.0.0", priority = 790 } -- behind the transformers, whose edits it sees

local compiled = setmetatable({}, { __mode = "k" }) -- by configuration: { request = , response = }

local function compile(side)
  return side and {
    render = assert(document.compile(side.template, side.output_format, names)),
    input = side.input_format, output = side.output_format, content_type = formats.type_of(side),
  } or nil
end

function transformer.needs(conf)
  return { access = conf.request ~= nil, response = conf.response ~= nil, identity = conf.response ~= nil }
end

function transformer.configure(confs)
  for _, conf in ipairs(confs or {}) do
    compiled[conf] = compiled[conf] or { request = compile(conf.request), response = compile(conf.response) }
  end
end

-- What a template sees of the request, whichever body it is for.
local function values_of(exchange, body, raw, headers)
  local request = exchange.request
  local found, captures = request:get_uri_captures(), {}
  for group, value in pairs(found.unnamed) do captures[group] = value end
  for name, value in pairs(found.named) do captures[name] = value end
  return {
    body = body, raw = raw, headers = headers, query = request:get_query(1000), method = request:get_method(),
    path = request:get_path(), shared = exchange.ctx, captures = captures,
  }
end

-- The new body; nil and what is wrong with the template.
local function transformed(work, values)
  local text, err = work.render(values)
  if not text then return nil, err end
  local fine
  fine, err = formats.check(work.output, text)
  if not fine then return nil, "the result is no " .. work.output .. ": " .. err end
  return text
end

local function fail(exchange, which, err)
  log.error("a body was not transformed", { body = which, error = err, request_id = exchange.id })
  exchange.response:error(500)
end

local function transform_request(work, exchange)
  local request = exchange.request
  local raw = request:get_raw_body() or ""
  local body, problem = formats.decode(work.input, raw, request:get_header("Content-Type"),
    request:get_header("Content-Encoding"))
  if problem then exchange.response:error(400, "The body of the request " .. problem) end
  local text, err = transformed(work, values_of(exchange, body, raw, request:get_headers(1000)))
  if not text then return fail(exchange, "request", err) end
  exchange.service.request:set_raw_body(text)
  exchange.service.request:set_header("Content-Type", work.content_type)
end

function transformer.access(conf, exchange)
  local work = compiled[conf].request
  if work then transform_request(work, exchange) end
end

-- What was said of other bytes.
local STALE = { "ETag", "Content-MD5", "Content-Digest", "Repr-Digest", "Digest", "Accept-Ranges" }

function transformer.response(conf, exchange)
  local work, response = compiled[conf].response, exchange.response
  local raw = response:get_raw_body() or ""
  local body, problem = formats.decode(work.input, raw, response:get_header("Content-Type"),
    response:get_header("Content-Encoding"))
  if problem then
    log.error("a body was not transformed", { body = "response", error = problem, request_id = exchange.id })
    response:error(502, "The body of the response " .. problem)
  end
  local values = values_of(exchange, body, raw, response:get_headers(1000))
  values.status = response:get_status()
  local text, err = transformed(work, values)
  if not text then return fail(exchange, "response", err) end
  for _, name in ipairs(STALE) do response:clear_header(name) end
  response:set_raw_body(text)
  response:set_header("Content-Type", work.content_type)
end

return transformer
