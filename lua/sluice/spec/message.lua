-- SPDX-License-Identifier: Apache-2.0
-- HTTP/1.1 messages as the kit's clients and services write and read them: from bytes that come in pieces to tables.
--
--   local reader = message.reader("response")
--   reader:feed(bytes)
--   local response, why = reader:next()   -- nil while it is not whole; `why` when it never will be
local json = require "sluice.json"

local message = {}

-- ---- Fields ----

-- Fields as { ["lower-case-name"] = "joined, values" } and, in order, as a list of { name, value }.
local function parse_fields(text)
  local list, joined = {}, {}
  for name, value in text:gmatch("([^:\r\n]+):[ \t]*([^\r\n]-)[ \t]*\r?\n") do
    list[#list + 1] = { name, value }
    local key = name:lower()
    joined[key] = joined[key] and joined[key] .. ", " .. value or value
  end
  return joined, list
end

-- Lines of name -> value, name -> list of values, or a list of { name, value }, in an order that does not vary.
local function put_fields(lines, headers)
  local names, seen = {}, {}
  for name, value in pairs(headers or {}) do
    if type(name) == "number" then
      lines[#lines + 1] = value[1] .. ": " .. tostring(value[2])
      seen[value[1]:lower()] = true
    else
      names[#names + 1] = name
      seen[name:lower()] = true
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local values = headers[name]
    for _, value in ipairs(type(values) == "table" and values or { values }) do
      lines[#lines + 1] = name .. ": " .. tostring(value)
    end
  end
  return seen
end

-- Every value of a field, in order.
---@param fields table[] list of { name, value }
---@param name string
---@return string[]
function message.values(fields, name)
  local values = {}
  for _, field in ipairs(fields) do
    if field[1]:lower() == name:lower() then values[#values + 1] = field[2] end
  end
  return values
end

-- ---- Writing ----

local function put_content(lines, seen, it)
  if it.chunks then
    if not seen["transfer-encoding"] then lines[#lines + 1] = "Transfer-Encoding: chunked" end
    if it.trailers and not seen.trailer then
      local names = {}
      for name in pairs(it.trailers) do names[#names + 1] = name end
      table.sort(names)
      lines[#lines + 1] = "Trailer: " .. table.concat(names, ", ")
    end
  elseif it.body and not seen["content-length"] and not seen["transfer-encoding"] then
    lines[#lines + 1] = "Content-Length: " .. #it.body
  end
end

local function content_of(it)
  if not it.chunks then return it.body or "" end
  local parts = {}
  for _, chunk in ipairs(it.chunks) do parts[#parts + 1] = ("%x\r\n%s\r\n"):format(#chunk, chunk) end
  local lines = {}
  put_fields(lines, it.trailers)
  parts[#parts + 1] = "0\r\n" .. (lines[1] and table.concat(lines, "\r\n") .. "\r\n" or "") .. "\r\n"
  return table.concat(parts)
end

-- A table as body, or `json`, is written as JSON.
local function with_body(it)
  local value = it.json
  if value == nil and type(it.body) == "table" then value = it.body end
  if value == nil then return it, it.body end
  return it, json.encode(value), true
end

-- The bytes of a request: method, path, version, host (false: none), headers, body (text, or a table that becomes
-- JSON), json, chunks (list of texts), trailers.
function message.request(it, default_host)
  local _, body, is_json = with_body(it)
  local content = { body = body, chunks = it.chunks, trailers = it.trailers }
  local method = it.method or ((body or it.chunks) and "POST" or "GET")
  local lines = {}
  local seen = put_fields(lines, it.headers)
  if is_json and not seen["content-type"] then lines[#lines + 1] = "Content-Type: application/json" end
  if it.host ~= false and not seen.host then table.insert(lines, 1, "Host: " .. (it.host or default_host)) end
  put_content(lines, seen, content)
  table.insert(lines, 1, ("%s %s HTTP/%s"):format(method, it.path or "/", it.version or "1.1"))
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. content_of(content), method
end

-- The bytes of a response: status, reason, headers, body or json or chunks, trailers, informational (list of
-- { status, headers }).
function message.response(it, method)
  local _, body, is_json = with_body(it)
  local status = it.status or 200
  local bare = status == 204 or status == 304 or status < 200
  local content = { body = not bare and (body or "") or nil, chunks = it.chunks, trailers = it.trailers }
  local lines = {}
  local seen = put_fields(lines, it.headers)
  if is_json and not seen["content-type"] then lines[#lines + 1] = "Content-Type: application/json" end
  put_content(lines, seen, content)
  table.insert(lines, 1, ("HTTP/1.1 %d %s"):format(status, it.reason or "Spec"))
  local text = table.concat(lines, "\r\n") .. "\r\n\r\n"
  for i = #(it.informational or {}), 1, -1 do text = message.response(it.informational[i], "HEAD") .. text end
  return method == "HEAD" and text or text .. content_of(content)
end

-- ---- Reading ----

local Reader = {}
Reader.__index = Reader

---@param role "request"|"response"
function message.reader(role)
  return setmetatable({ role = role, buffer = "" }, Reader)
end

function Reader:feed(bytes)
  if self.buffer == "" then
    self.buffer = bytes
  else
    self.more = self.more or {}
    self.more[#self.more + 1] = bytes
  end
end

local function gather(self)
  if not self.more then return end
  self.buffer = self.buffer .. table.concat(self.more)
  self.more = nil
end

-- All that has come and was not read yet.
function Reader:rest()
  gather(self)
  local rest = self.buffer
  self.buffer = ""
  return rest
end

local function read_start(role, line)
  if role == "request" then
    local method, target, version = line:match("^(%S+) (%S+) HTTP/(%d%.%d)$")
    if not method then return nil, "not a request line: " .. line end
    return { method = method, target = target, path = target:match("^[^?]*"), query = target:match("%?(.*)$"),
      version = version }
  end
  local version, status, reason = line:match("^HTTP/(%d%.%d) (%d%d%d) ?(.*)$")
  if not version then return nil, "not a status line: " .. line end
  return { version = version, status = tonumber(status), reason = reason }
end

-- How the content of a message is framed: "none", "length" and how long, "chunked", "close".
local function framing(role, it, method)
  local status = it.status
  if status and (method == "HEAD" or status < 200 or status == 204 or status == 304) then return "none" end
  if (it.headers["transfer-encoding"] or ""):lower():find("chunked", 1, true) then return "chunked" end
  local length = tonumber(it.headers["content-length"])
  if length then return "length", length end
  return role == "response" and "close" or "none"
end

local function read_head(self, method)
  local first, last = self.buffer:find("\r\n\r\n", 1, true)
  if not first then return nil end
  local head = self.buffer:sub(1, first + 1)
  local line, fields = head:match("^(.-)\r\n(.*)$")
  local it, why = read_start(self.role, line)
  if not it then return nil, why end
  it.headers, it.fields = parse_fields(fields)
  it.head = head
  self.buffer = self.buffer:sub(last + 1)
  self.framing, self.length = framing(self.role, it, method)
  self.parts = {}
  return it
end

local function read_trailers(self, it)
  if self.buffer:sub(1, 2) == "\r\n" then
    self.buffer = self.buffer:sub(3)
    return true
  end
  local first, last = self.buffer:find("\r\n\r\n", 1, true)
  if not first then return nil end
  it.trailers = parse_fields(self.buffer:sub(1, first + 1))
  self.buffer = self.buffer:sub(last + 1)
  return true
end

local function read_chunks(self, it)
  while not self.last_chunk do
    local size, start = self.buffer:match("^(%x+)[^\r\n]*\r\n()")
    if not size then return nil, self.buffer:find("\n", 1, true) and "not a chunk: " .. self.buffer or nil end
    local length = tonumber(size, 16)
    if length == 0 then
      self.last_chunk = true
      self.buffer = self.buffer:sub(start)
    else
      if #self.buffer < start + length + 1 then return nil end
      self.parts[#self.parts + 1] = self.buffer:sub(start, start + length - 1)
      self.buffer = self.buffer:sub(start + length + 2)
    end
  end
  if not read_trailers(self, it) then return nil end
  it.chunks = self.parts
  self.last_chunk = nil
  return true
end

local function read_content(self, it, ended)
  if self.framing == "chunked" then return read_chunks(self, it) end
  if self.framing == "close" then
    if not ended then return nil end
    self.parts[1], self.buffer = self.buffer, ""
  elseif self.framing == "length" then
    if #self.buffer < self.length then return nil end
    self.parts[1], self.buffer = self.buffer:sub(1, self.length), self.buffer:sub(self.length + 1)
  end
  return true
end

local with_json = { __index = function(self, key)
  if key ~= "json" then return nil end
  local value = json.decode(self.body)
  rawset(self, "json", value)
  return value
end }

-- The next message whole, or nil; with a reason when it cannot come any more. `method`: of the request that a response
-- answers. `ended`: no more bytes will come.
---@return table|nil
---@return string|nil
function Reader:next(method, ended)
  gather(self)
  local why
  if not self.current then
    self.current, why = read_head(self, method)
    if not self.current then return nil, why or ended and "closed" or nil end
  end
  local it, done = self.current
  done, why = read_content(self, it, ended)
  if not done then return nil, why or ended and "closed in the middle of a message" or nil end
  self.current = nil
  it.body = table.concat(self.parts)
  it.trailers = it.trailers or {}
  return setmetatable(it, with_json)
end

-- The head that has come of a message that is not whole yet, and what has come of its content.
function Reader:partial(method)
  gather(self)
  if not self.current then self.current = read_head(self, method) end
  local it = self.current
  if not it then return nil end
  read_content(self, it, false)
  return it, table.concat(self.parts) .. (self.framing ~= "chunked" and self.buffer or "")
end

return message
