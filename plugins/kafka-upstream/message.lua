-- SPDX-License-Identifier: Apache-2.0
-- A request as a JSON object in Kong's format, with the parts of it that the configuration wants.
local sluice = require "sluice"
local sources = require "kafka-upstream.sources"

local message = {}

-- Bodies that go into JSON as text, and those that are parsed beside it. All others are bytes: base64.
local PARSED = {
  ["application/json"] = true, ["application/x-www-form-urlencoded"] = true, ["multipart/form-data"] = true,
}
local TEXT = {
  ["text/plain"] = true, ["text/html"] = true, ["text/xml"] = true, ["application/xml"] = true,
  ["application/soap+xml"] = true,
}

local function media_type(exchange)
  local field = exchange.request:get_header("content-type")
  return field and field:match("^%s*([^;%s]*)"):lower() or ""
end

local function put_body(out, values)
  local exchange, text = values.exchange, values.text
  local kind = media_type(exchange)
  if values.request then -- an element of a batch, which is JSON whatever carries it
    out.body, out.body_args = text, values.body
  elseif PARSED[kind] then
    local args, err = exchange.request:get_body()
    if args == nil then sources.refuse(400, "the body is no " .. kind .. ": " .. tostring(err)) end
    out.body, out.body_args = text, args
  elseif TEXT[kind] or text == "" then
    out.body = text
  else
    out.body, out.body_base64 = sluice.crypto.base64_encode(text), true
  end
end

-- Raises a refusal when the request cannot be told in that form.
---@param conf table
---@param values table see sources.values
---@return table
function message.of(conf, values)
  local request, out = values.exchange.request, {}
  if conf.forward_method then out.method = request:get_method() end
  if conf.forward_headers then out.headers = request:get_headers() end
  if conf.forward_uri then out.uri, out.uri_args = request:get_path_with_query(), request:get_query() end
  if conf.forward_body then put_body(out, values) end
  return out
end

return message
