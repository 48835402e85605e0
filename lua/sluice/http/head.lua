-- SPDX-License-Identifier: Apache-2.0
-- The text of HTTP/1.1 as a client meets it: URLs, response heads, framing. Pure functions, strict on purpose: what is
-- ambiguous is an error, never a guess.

local find, gsub, lower, match, sub = string.find, string.gsub, string.lower, string.match, string.sub
local tonumber, type = tonumber, type

local head = {}

local TOKEN = "^[%w!#$%%&'*+%-.^_`|~]+$"

---@class sluice.http.url
---@field scheme "http"|"https"
---@field host string
---@field port integer
---@field target string path and query, at least "/"
---@field authority string for the Host field
---@field user? string
---@field password? string

local function host_and_port(authority)
  local host, port = match(authority, "^(%[[%x:.]+%]):?(%d*)$")
  if not host then host, port = match(authority, "^([^:%[%]]+):?(%d*)$") end
  if not host then return nil end
  return gsub(host, "[%[%]]", ""), port
end

local PORTS = { http = 80, https = 443 }

---@param url string
---@return sluice.http.url|nil
---@return string|nil err
function head.parse_url(url)
  if find(url, "[%z\1-\32\127]") then return nil, "the URL holds spaces or control characters" end
  local scheme, authority, target = match(url, "^(%a[%w+.-]*)://([^/?#]*)([^#]*)")
  scheme = scheme and lower(scheme)
  if not PORTS[scheme] then return nil, "the URL must begin with http:// or https://" end
  local userinfo, rest = match(authority, "^(.*)@([^@]*)$")
  if userinfo then authority = rest end
  local host, port = host_and_port(authority)
  if not host then return nil, "the URL has no valid host" end
  local number = tonumber(port) or PORTS[scheme]
  if number < 1 or number > 65535 then return nil, "the URL's port is out of range" end
  if sub(target, 1, 1) ~= "/" then target = "/" .. target end
  local parsed = {
    scheme = scheme, host = host, port = number, target = target, authority = (gsub(authority, ":$", "")),
  }
  if userinfo then parsed.user, parsed.password = match(userinfo, "^([^:]*):?(.*)$") end
  return parsed
end

---@param name string
---@return boolean
function head.is_token(name)
  return type(name) == "string" and find(name, TOKEN) ~= nil
end

-- A field value cannot end the line or the text.
---@param value string
---@return boolean
function head.is_value(value)
  return find(value, "[%z\r\n]") == nil
end

---@param line string
---@return integer|nil status
---@return number|string version 1.0 or 1.1; the error when there is no status
function head.status_line(line)
  local minor, status = match(line, "^HTTP/1%.([01]) (%d%d%d)")
  if not minor or not find(line, "^HTTP/1%.[01] %d%d%d%f[ %z]") then return nil, "an invalid status line" end
  status = tonumber(status)
  if status < 100 or status > 599 then return nil, "an invalid status" end
  return status, minor == "1" and 1.1 or 1.0
end

---@param line string
---@return string|nil name in lower case
---@return string value; the error when there is no name
function head.field(line)
  local name, value = match(line, "^([^:]+):[ \t]*(.-)[ \t]*$")
  if not name or not find(name, TOKEN) then return nil, "an invalid header field" end
  if find(value, "[%z\r]") then return nil, "a control character in a header field" end
  return lower(name), value
end

-- One length out of "5", or of { "5", "5" }, or "5, 5".
local function content_length(value)
  local values = type(value) == "table" and value or { value }
  local length
  for i = 1, #values do
    for text in (values[i] .. ","):gmatch("[ \t]*(.-)[ \t]*,") do
      if not find(text, "^%d+$") or #text > 15 then return nil, "an invalid Content-Length" end
      local number = tonumber(text)
      if length and length ~= number then return nil, "several Content-Length fields that differ" end
      length = number
    end
  end
  return length
end

-- How the body of a response ends (RFC 9112 6.3).
---@param method string of the request
---@param status integer
---@param headers table<string, string|string[]> by lower-case name
---@return "none"|"chunked"|"length"|"close"|nil
---@return integer|string|nil length, or the error
function head.framing(method, status, headers)
  if method == "HEAD" or status == 204 or status == 304 or status < 200 then return "none" end
  local coding = headers["transfer-encoding"]
  if coding then
    if type(coding) == "table" then return nil, "several Transfer-Encoding fields" end
    if lower(coding) ~= "chunked" then return nil, "a transfer coding that is not chunked" end
    if headers["content-length"] then return nil, "both Transfer-Encoding and Content-Length" end
    return "chunked"
  end
  local length = headers["content-length"]
  if not length then return "close" end
  local number, err = content_length(length)
  if not number then return nil, err end
  return "length", number
end

---@param line string
---@return integer|nil size
function head.chunk_size(line)
  local digits, rest = match(line, "^(%x+)[ \t]*(.*)$")
  if not digits or #digits > 8 or (rest ~= "" and sub(rest, 1, 1) ~= ";") then return nil end
  return tonumber(digits, 16)
end

local function has_option(value, wanted)
  local values = type(value) == "table" and value or { value }
  for i = 1, #values do
    for option in (lower(values[i]) .. ","):gmatch("[ \t]*(.-)[ \t]*,") do
      if option == wanted then return true end
    end
  end
  return false
end

-- Whether the connection may serve another request after this response.
---@param version number
---@param headers table<string, string|string[]>
---@return boolean
function head.keeps_alive(version, headers)
  local connection = headers["connection"]
  if connection and has_option(connection, "close") then return false end
  return version >= 1.1 or (connection ~= nil and has_option(connection, "keep-alive"))
end

return head
