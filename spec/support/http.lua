-- SPDX-License-Identifier: Apache-2.0
-- A small HTTP/1.1 client that hides nothing: a spec may send any bytes, and reads one message at a time.
local net = require "spec.support.net"

local http = {}

local client = {}
client.__index = client

-- Fields as a list of { name, value } that also answers by lower-case name (the first of that name).
local function parse_fields(head)
  local fields = {}
  for name, value in head:gmatch("\r?\n([^:\r\n]+):[ \t]*([^\r\n]*)") do
    fields[#fields + 1] = { name, value }
    local key = name:lower()
    if fields[key] == nil then fields[key] = value end
  end
  return fields
end

-- Every value of a field, in order.
function http.values(fields, name)
  local values = {}
  for _, field in ipairs(fields) do
    if field[1]:lower() == name:lower() then values[#values + 1] = field[2] end
  end
  return values
end

local function read_chunked(socket)
  local parts, chunks = {}, 0
  while true do
    local line, why = socket:receive_line()
    if not line then return nil, why end
    local size = tonumber(line:match("^%x+"), 16)
    if not size then return nil, "bad chunk size: " .. line end
    if size == 0 then break end
    local data
    data, why = socket:receive_exact(size + 2)
    if not data then return nil, why end
    if data:sub(-2) ~= "\r\n" then return nil, "no CR LF behind a chunk" end
    parts[#parts + 1] = data:sub(1, -3)
    chunks = chunks + 1
  end
  local trailers = ""
  repeat
    local line, why = socket:receive_line()
    if not line then return nil, why end
    trailers = trailers .. "\n" .. line
  until line == ""
  return table.concat(parts), parse_fields(trailers), chunks
end

-- Reads the body that `message` announces into it. `until_close` says whether one without length runs to the end.
function http.read_body(socket, message, until_close)
  local fields = message.headers
  if (fields["transfer-encoding"] or ""):lower():find("chunked", 1, true) then
    local body, trailers, chunks = read_chunked(socket)
    if not body then return nil, trailers end
    message.body, message.trailers, message.chunks = body, trailers, chunks
  elseif fields["content-length"] then
    local body, why, partial = socket:receive_exact(tonumber(fields["content-length"]))
    if not body then return nil, why, partial end
    message.body = body
  elseif until_close then
    local why
    message.body, why = socket:receive_all()
    if why then return nil, why, message.body end
  else
    message.body = ""
  end
  return message
end

-- Reads a head: up to the empty line. Gives { line, head, headers }.
function http.read_head(socket, seconds)
  local head, why, partial = socket:receive_until("\r\n\r\n", seconds)
  if not head then return nil, why, partial end
  return { line = head:match("^[^\r\n]*"), head = head, headers = parse_fields(head) }
end

-- ---- Client ----

-- options: address (127.0.0.1), timeout, tls (see spec.support.tls). Returns nil and why when it cannot connect.
function http.connect(port, options)
  options = options or {}
  local socket, why = net.connect(options.address or "127.0.0.1", port, options)
  if not socket then return nil, why end
  return setmetatable({ socket = socket, port = port, tls = options.tls }, client)
end

function client:send(bytes)
  return self.socket:send(bytes)
end

-- Reads one response's head: { status, reason, version, headers, head }.
function client:read_head(seconds)
  local message, why, partial = http.read_head(self.socket, seconds)
  if not message then return nil, why, partial end
  local version, status, reason = message.line:match("^HTTP/(%d%.%d) (%d%d%d) ?(.*)$")
  if not version then return nil, "not a status line: " .. message.line end
  message.version, message.status, message.reason = version, tonumber(status), reason
  return message
end

-- Reads one response whole, interim ones (1xx) as well. `method` is that of the request: HEAD has no body.
function client:read_response(method, seconds)
  local message, why, partial = self:read_head(seconds)
  if not message then return nil, why, partial end
  if method == "HEAD" or message.status < 200 or message.status == 204 or message.status == 304 then
    message.body = ""
    return message
  end
  return http.read_body(self.socket, message, true)
end

local function add_field(lines, name, value)
  if type(value) == "table" then
    for _, one in ipairs(value) do add_field(lines, name, one) end
  elseif value then
    lines[#lines + 1] = name .. ": " .. tostring(value)
  end
end

local function format_fields(headers)
  local lines, seen = {}, {}
  for name, value in pairs(headers or {}) do
    if type(name) == "number" then name, value = value[1], value[2] end
    seen[name:lower()] = true
    add_field(lines, name, value)
  end
  return lines, seen
end

-- The bytes of a request. request: method, path, version, host (false: none), headers (name -> value or values, or a
-- list of { name, value }), body (Content-Length is added unless headers say how it is framed).
function http.format(request, default_host)
  local method = request.method or (request.body and "POST" or "GET")
  local lines, seen = format_fields(request.headers)
  if request.host ~= false and not seen.host then
    table.insert(lines, 1, "Host: " .. (request.host or default_host))
  end
  if request.body and not seen["content-length"] and not seen["transfer-encoding"] then
    add_field(lines, "Content-Length", #request.body)
  end
  table.insert(lines, 1, method .. " " .. (request.path or "/") .. " HTTP/" .. (request.version or "1.1"))
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (request.body or ""), method
end

-- One request and its final response on this connection; interim responses are listed in `informational`.
function client:request(request)
  local bytes, method = http.format(request, "127.0.0.1:" .. self.port)
  local sent, why = self:send(bytes)
  -- An answer may have been given before the whole request was read.
  if not sent and why ~= "reset" then return nil, why end
  local informational = {}
  while true do
    local response, partial
    response, why, partial = self:read_response(method)
    if not response then return nil, why, partial end
    if response.status >= 200 or response.status == 101 then
      response.informational = informational
      return response
    end
    informational[#informational + 1] = response
  end
end

-- Whether the gateway closes this connection within `seconds`.
function client:closes_within(seconds)
  return self.socket:closes_within(seconds)
end

function client:close()
  self.socket:close()
end

-- One request on a connection of its own: raises when that fails, so that a spec can go straight to the response.
function http.request(port, request)
  if type(request) == "string" then request = { path = request } end
  local one = assert(http.connect(port, request))
  local response, why, partial = one:request(request)
  one:close()
  if not response then
    error(("no response from port %d: %s%s"):format(port, why, partial and " after " .. partial or ""), 2)
  end
  return response
end

function http.get(port, path, headers)
  return http.request(port, { path = path, headers = headers })
end

return http
