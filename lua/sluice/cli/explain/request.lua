-- SPDX-License-Identifier: Apache-2.0
-- A request as the router sees it, from a method, a URL and fields: parsed and made canonical by the core's own code.
local ffi = require "ffi"

local request = {}

local DEFAULT_PORTS = { http = 80, https = 443 }
local MAX_TARGET_BYTES = 65536

local function slice(text)
  return ffi.new("struct slice", { text, #text })
end

local function text(view)
  return view.len > 0 and ffi.string(view.data, view.len) or ""
end

local function read_fields(lines)
  local fields = {}
  for _, line in ipairs(lines) do
    local name, value = line:match("^([^%s:]+):%s*(.-)%s*$")
    if not name then return nil, ("expected NAME: VALUE after -H, found %s"):format(line) end
    name = name:lower()
    fields[name] = fields[name] or {}
    table.insert(fields[name], value)
  end
  return fields
end

local function parse_target(C, method, url)
  local uri, err = ffi.new("struct uri"), ffi.new("struct error")
  if #url > MAX_TARGET_BYTES then return nil, "the URL is too long" end
  if C.uri_parse_target(slice(method), slice(url), uri, err) < 0 then
    return nil, ("%s: %s"):format(url, ffi.string(err.text))
  end
  return { scheme = text(uri.scheme):lower(), host = text(uri.host), path = text(uri.path), query = text(uri.query),
    has_query = uri.has_query }
end

local function parse_host(C, field)
  local host, err = ffi.new("struct uri_host"), ffi.new("struct error")
  if C.uri_parse_host(slice(field), host, err) < 0 then return nil, ("%s: %s"):format(field, ffi.string(err.text)) end
  return text(host.name):lower(), host.port
end

local function canonical(C, path)
  if path:sub(1, 1) ~= "/" then return path end
  local room = 3 * #path
  local out, len, err = ffi.new("char[?]", room), ffi.new("uint32_t[1]"), ffi.new("struct error")
  if C.uri_normalise(slice(path), out, room, len, err) < 0 then
    return nil, ("%s is refused with 400: %s"):format(path, ffi.string(err.text))
  end
  return ffi.string(out, len[0])
end

-- Host and port come from a Host field, as the gateway takes them, else from the URL; the server name of TLS always
-- from the URL.
local function place(C, target, fields)
  local authority = fields.host and fields.host[1] or target.host
  if authority == "" then return { host = "", port = DEFAULT_PORTS[target.scheme] } end
  local name, port = parse_host(C, authority)
  if not name then return nil, port end
  local sni = target.host ~= "" and parse_host(C, target.host) or name
  return { host = name, port = port > 0 and port or DEFAULT_PORTS[target.scheme], authority = authority:lower(),
    sni = target.scheme == "https" and sni or nil }
end

-- `url`: absolute, or a path; `lines`: fields as "NAME: VALUE". Gives what sluice.cli.router matches, with method, url,
-- raw_path, query and authority besides; or nil and why the gateway would refuse it.
---@param C table
---@param method string
---@param url string
---@param lines string[]
---@return table|nil
---@return string|nil why
function request.parse(C, method, url, lines)
  local fields, wrong = read_fields(lines)
  if not fields then return nil, wrong end
  local target, err = parse_target(C, method, url)
  if not target then return nil, err end
  if target.scheme == "" then target.scheme = "http" end
  if not DEFAULT_PORTS[target.scheme] then return nil, ("%s: expected http or https"):format(url) end
  local where, why = place(C, target, fields)
  if not where then return nil, why end
  local path, refusal = canonical(C, target.path)
  if not path then return nil, refusal end
  return { method = method, url = url, scheme = target.scheme, host = where.host, port = where.port, sni = where.sni,
    authority = where.authority, raw_path = target.path, path = path, query = target.has_query and target.query or nil,
    headers = fields }
end

return request
