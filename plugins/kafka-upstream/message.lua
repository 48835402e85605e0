-- SPDX-License-Identifier: Apache-2.0
-- The record's value: the body as it is, or a JSON object in Kong's format with the parts of the request.
local json = require "sluice.json"
local sluice = require "sluice"

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

local function put_body(out, exchange, body)
  local kind = media_type(exchange)
  if PARSED[kind] then
    local args, err = exchange.request:get_body()
    if args == nil then return nil, "the body is no " .. kind .. ": " .. tostring(err) end
    out.body, out.body_args = body, args
  elseif TEXT[kind] or body == "" then
    out.body = body
  else
    out.body, out.body_base64 = sluice.crypto.base64_encode(body), true
  end
  return true
end

-- nil and why, when the request cannot be told in that form.
function message.value(conf, exchange)
  local request = exchange.request
  local body, err
  if conf.forward_body then
    body, err = request:get_raw_body()
    if not body then return nil, "the body cannot be read: " .. tostring(err) end
  end
  if conf.value == "body" then return body or "" end
  local out = {}
  if conf.forward_method then out.method = request:get_method() end
  if conf.forward_headers then out.headers = request:get_headers() end
  if conf.forward_uri then out.uri, out.uri_args = request:get_path_with_query(), request:get_query() end
  if body then
    local ok, why = put_body(out, exchange, body)
    if not ok then return nil, why end
  end
  return json.encode(out)
end

return message
