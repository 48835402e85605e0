-- SPDX-License-Identifier: Apache-2.0
-- HTTP client for plugins: keep-alive, TLS, whole or streamed bodies, everything bounded. Redirects are not followed:
-- where to send credentials is the caller's decision.

local buffer = require "string.buffer"
local crypto -- loaded when a URL carries a password
local Pool = require "sluice.pool"
local Reader = require "sluice.http.body"
local Socket = require "sluice.socket"
local head = require "sluice.http.head"
local query = require "sluice.query"
local time = require "sluice.time"

local format, lower = string.format, string.lower
local type, tostring, pairs = type, tostring, pairs

---@class sluice.http
local http = {}

local MAX_IDLE = 256
local MAX_HEAD, MAX_LINE, MAX_FIELDS, MAX_INTERIM = 65536, 16384, 200, 10
local DEFAULT_BODY = 8 * 1024 * 1024

-- A request of these methods may be sent again when a kept connection turns out to be closed (RFC 9110 9.2.2).
local REPEATABLE = { GET = true, HEAD = true, PUT = true, DELETE = true, OPTIONS = true, TRACE = true }

local pool = Pool.new(MAX_IDLE)

---@class sluice.http.options
---@field url string
---@field method? string GET unless told
---@field query? table<string, any> arguments, added to those of the URL
---@field headers? table<string, string|number|(string|number)[]>
---@field body? string|fun(): string|nil a function is called for pieces until it gives nil
---@field timeout? number seconds for the whole exchange until the body has come, 10 unless told
---@field connect_timeout? number seconds, as `timeout` unless told
---@field max_body? integer bytes of a response that is read whole, 8 MiB unless told
---@field stream? boolean the response's body is read by `response:read()`
---@field tls? sluice.socket.tls
---@field keepalive? boolean true unless told
---@field keepalive_timeout? number seconds idle, 60 unless told
---@field proxy? string URL such as http://proxy:3128 that is asked for http://, and for a tunnel (CONNECT) to https://
---@field proxy_authorization? string Proxy-Authorization; unless told that of the user and password in `proxy`
---@field pool_size? integer idle connections to one server, 32 unless told

---@class sluice.http.response
---@field status integer
---@field version number
---@field headers table<string, string|string[]> by lower-case name
---@field body? string
---@field read fun(self, limit?: integer): string|nil, string|nil
---@field read_all fun(self, max?: integer): string|nil, string|nil
---@field close fun(self)

-- ---- The request ----

local function put_field(out, name, value)
  if not head.is_token(name) then return format("invalid header name %q", tostring(name)) end
  local kind = type(value)
  if kind == "table" then
    for i = 1, #value do
      local err = put_field(out, name, value[i])
      if err then return err end
    end
    return nil
  end
  if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
    return format("value of header %q must be a string, got %s", name, kind)
  end
  value = tostring(value)
  if not head.is_value(value) then return format("line break in the value of header %q", name) end
  out:put(name, ": ", value, "\r\n")
end

local FRAMING = { ["content-length"] = true, ["transfer-encoding"] = true }

local function put_headers(out, headers, given)
  for name, value in pairs(headers) do
    local plain = type(name) == "string" and lower(name) or name
    given[plain] = true
    if not FRAMING[plain] then
      local err = put_field(out, name, value)
      if err then return err end
    end
  end
end

local NEEDS_LENGTH = { POST = true, PUT = true, PATCH = true }

local function put_framing(out, method, body)
  if type(body) == "function" then
    out:put("Transfer-Encoding: chunked\r\n")
  elseif body or NEEDS_LENGTH[method] then
    out:put("Content-Length: ", body and #body or 0, "\r\n")
  end
end

local function basic(url)
  crypto = crypto or require "sluice.crypto"
  local pair = query.unescape(url.user:gsub("%+", "%%2B")) .. ":" .. query.unescape(url.password:gsub("%+", "%%2B"))
  return "Basic " .. crypto.base64_encode(pair)
end

-- What the proxy is told of who asks, as a field with its end; "" for nothing.
local function proxy_authorization(options)
  local value = options.proxy_authorization
  if not value then
    local by = head.parse_url(options.proxy)
    value = by.user and basic(by)
  end
  if not value then return "" end
  if not head.is_value(value) then return nil, "line break in proxy_authorization" end
  return "Proxy-Authorization: " .. value .. "\r\n"
end

local function put_proxy_authorization(out, options, given)
  if given["proxy-authorization"] then return nil end
  local field, err = proxy_authorization(options)
  if not field then return err end
  out:put(field)
end

local function put_ours(out, url, given)
  if not given["host"] then out:put("Host: ", url.authority, "\r\n") end
  if not given["user-agent"] then out:put("User-Agent: sluice\r\n") end
  if url.user and not given["authorization"] then out:put("Authorization: ", basic(url), "\r\n") end
end

local function target_of(url, args)
  if not args then return url.target end
  local text, err = query.encode(args)
  if not text then return nil, err end
  if text == "" then return url.target end
  return url.target .. (url.target:find("?", 1, true) and "&" or "?") .. text
end

-- The text of the request up to its body.
---@param url sluice.http.url
---@param options sluice.http.options
---@return string|nil
---@return string|nil err
function http.head_of(url, options)
  local method = options.method or "GET"
  if not head.is_token(method) then return nil, format("invalid method %q", tostring(method)) end
  local target, wrong = target_of(url, options.query)
  if not target then return nil, wrong end
  local asks_proxy = options.proxy and url.scheme == "http"
  if asks_proxy then target = "http://" .. url.authority .. target end
  local out, given = buffer.new(), {}
  out:put(method, " ", target, " HTTP/1.1\r\n")
  local err = put_headers(out, options.headers or {}, given)
  if err then return nil, err end
  put_ours(out, url, given)
  if asks_proxy then err = put_proxy_authorization(out, options, given) end
  if err then return nil, err end
  if options.keepalive == false and not given["connection"] then out:put("Connection: close\r\n") end
  put_framing(out, method, options.body)
  out:put("\r\n")
  return out:get()
end

-- ---- One connection ----

local function key_of(url, options)
  local tls, proxy = options.tls, options.proxy
  if url.scheme == "http" then return proxy and "proxy|" .. proxy or format("%s:%d", url.host, url.port) end
  tls = tls or {}
  return table.concat({ "https", url.host, url.port, tls.name or "", tostring(tls.verify ~= false), tls.ca or "",
    tls.certificate or "", tls.key or "", proxy or "", proxy and options.proxy_authorization or "" }, "|")
end

local function send_pieces(socket, next_piece)
  while true do
    local piece = next_piece()
    if piece == nil then return socket:send("0\r\n\r\n") end
    if piece ~= "" then
      local ok, err = socket:send(format("%x\r\n", #piece) .. piece .. "\r\n")
      if not ok then return nil, err end
    end
  end
end

local SMALL_BODY = 16384

local function send(socket, text, body)
  if type(body) == "string" and #body <= SMALL_BODY then return socket:send(text .. body) end
  local ok, err = socket:send(text)
  if not ok or not body then return ok, err end
  if type(body) == "function" then return send_pieces(socket, body) end
  return socket:send(body)
end

-- One head, without interim responses being told apart.
local function receive_head(socket)
  local line, err = socket:receive_line(MAX_LINE)
  if not line then return nil, err end
  local status, version = head.status_line(line)
  if not status then return nil, version end
  local headers, bytes, count = {}, #line, 0
  while true do
    line, err = socket:receive_line(MAX_LINE)
    if not line then return nil, err == "closed" and "closed within the response's head" or err end
    if line == "" then return { status = status, version = version, headers = headers } end
    bytes, count = bytes + #line, count + 1
    if bytes > MAX_HEAD or count > MAX_FIELDS then return nil, "the response's head is too large" end
    local name, value = head.field(line)
    if not name then return nil, value end
    local present = headers[name]
    if present == nil then
      headers[name] = value
    elseif type(present) == "table" then
      present[#present + 1] = value
    else
      headers[name] = { present, value }
    end
  end
end

local function receive_final_head(socket)
  for _ = 1, MAX_INTERIM do
    local response, err = receive_head(socket)
    if not response then return nil, err end
    if response.status == 101 then return nil, "the server switched protocols" end
    if response.status >= 200 then return response end
  end
  return nil, "too many interim responses"
end

-- ---- Connecting ----

-- Has the proxy at the other end of `socket` carry bytes to the server from now on (RFC 9110 9.3.6).
local function tunnel(socket, url, options)
  local host = url.host:find(":", 1, true) and "[" .. url.host .. "]" or url.host
  local server = format("%s:%d", host, url.port)
  local field, err = proxy_authorization(options)
  if not field then return nil, err end
  local ok
  ok, err = socket:send("CONNECT " .. server .. " HTTP/1.1\r\nHost: " .. server .. "\r\n" .. field .. "\r\n")
  if not ok then return nil, err end
  local response
  response, err = receive_final_head(socket)
  if not response then return nil, "the proxy: " .. err end
  if response.status > 299 then return nil, "the proxy answered " .. response.status end
  return true
end

local function tunnelled(socket, url, options, deadline)
  local ok, err = tunnel(socket, url, options)
  if ok then
    ok, err = socket:start_tls(url.host, options.tls or true, math.max(deadline - time.monotonic(), 0.001))
  end
  if ok then return socket end
  socket:close()
  return nil, err
end

local function connect(url, options, deadline)
  local timeout = deadline - time.monotonic()
  local secure, by = url.scheme == "https", options.proxy and head.parse_url(options.proxy)
  local at = by or url
  local socket, err = Socket.connect(at.host, at.port, {
    connect_timeout = math.min(options.connect_timeout or timeout, timeout), timeout = timeout,
    tls = secure and not by and (options.tls or true) or nil,
  })
  if not socket or not (secure and by) then return socket, err end
  return tunnelled(socket, url, options, deadline)
end

-- ---- The response ----

local Response = {}
local response_mt = { __index = Response, __metatable = false }

-- Gives the connection back for others once the body has been read, or closes it.
local function let_go(self)
  local socket = self.socket
  if not socket then return end
  self.socket = nil
  if self.reusable and self.reader.over then
    pool:put(self.key, socket, self.pool_size, self.keepalive_timeout)
  else
    socket:close()
  end
end

---@return string|nil the next bytes, nil at the end
---@return string|nil err
function Response:read(limit)
  if not self.socket then return nil, not self.reader.over and "closed" or nil end
  if self.stream_timeout then self.socket:set_timeout(self.stream_timeout) end
  local piece, err = self.reader:read(limit)
  if err or self.reader.over then let_go(self) end
  return piece, err
end

---@param max? integer bytes
---@return string|nil
---@return string|nil err
function Response:read_all(max)
  if not self.socket then return self.reader.over and "" or nil, not self.reader.over and "closed" or nil end
  local body, err = self.reader:read_all(max or DEFAULT_BODY)
  let_go(self)
  return body, err
end

-- Gives up what has not been read.
function Response:close()
  let_go(self)
end

local function adopt(response, socket, url, options, deadline)
  local method = options.method or "GET"
  local framing, length = head.framing(method, response.status, response.headers)
  if not framing then return nil, length end
  response.socket, response.deadline = socket, deadline
  response.reader = Reader.new(socket, framing, length)
  response.reusable = options.keepalive ~= false and framing ~= "close"
    and head.keeps_alive(response.version, response.headers)
  response.key = key_of(url, options)
  response.pool_size, response.keepalive_timeout = options.pool_size or 32, options.keepalive_timeout or 60
  setmetatable(response, response_mt)
  if response.reader.over then let_go(response) end
  return response
end

-- ---- Requests ----

-- Sends the request on one connection and reads the response's head. `unanswered`: not a byte had come back.
local function try(socket, text, body)
  local ok, err = send(socket, text, body)
  if not ok then return nil, err, true end
  local response
  response, err = receive_final_head(socket)
  if not response then return nil, err, err == "closed" end
  return response
end

local function may_repeat(options, unanswered)
  return unanswered and REPEATABLE[options.method or "GET"] and type(options.body) ~= "function"
end

local function exchange(url, options, text, deadline)
  local key = key_of(url, options)
  local socket = options.keepalive ~= false and pool:take(key)
  if socket then
    socket:set_timeout(deadline - time.monotonic())
    local response, err, unanswered = try(socket, text, options.body)
    if response then return response, socket end
    socket:close()
    if not may_repeat(options, unanswered) then return nil, err end
  end
  if deadline - time.monotonic() <= 0 then return nil, "timeout" end
  local fresh, why = connect(url, options, deadline)
  if not fresh then return nil, "cannot connect to " .. url.authority .. ": " .. why end
  fresh:set_timeout(math.max(deadline - time.monotonic(), 0.001))
  local response, err = try(fresh, text, options.body)
  if response then return response, fresh end
  fresh:close()
  return nil, err
end

-- Reads the whole body within the deadline: each piece may take what is left of the time.
local function finish(response, max)
  local pieces, size = {}, 0
  while response.socket do
    local left = response.deadline - time.monotonic()
    response.stream_timeout = math.max(left, 0.001)
    local piece, err = response:read()
    size = size + (piece and #piece or 0)
    if left <= 0 then err = "timeout" end
    if size > max then err = "the body is larger than " .. max .. " bytes" end
    if err then
      response:close()
      return nil, err
    end
    pieces[#pieces + 1] = piece
  end
  response.body = table.concat(pieces)
  return response
end

-- What is wrong with asking by a proxy; nil: nothing.
local function check_proxy(proxy)
  local by, err = head.parse_url(proxy)
  if not by then return "proxy: " .. err end
  if by.scheme ~= "http" then return "proxy: expected a URL of http" end
end

-- Sends a request and waits for the response.
---@param options sluice.http.options
---@return sluice.http.response|nil
---@return string|nil err
function http.request(options)
  if type(options) ~= "table" or type(options.url) ~= "string" then
    error("sluice.http.request: expected a table with url", 2)
  end
  local url, err = head.parse_url(options.url)
  if not url then return nil, err end
  err = options.proxy and check_proxy(options.proxy)
  if err then return nil, err end
  local text
  text, err = http.head_of(url, options)
  if not text then return nil, err end
  local timeout = options.timeout or 10
  local deadline = time.monotonic() + timeout
  local response, socket = exchange(url, options, text, deadline)
  if not response then return nil, socket end
  local adopted
  adopted, err = adopt(response, socket, url, options, deadline)
  if not adopted then
    socket:close()
    return nil, err
  end
  if options.stream then
    response.stream_timeout = timeout
    return response
  end
  return finish(response, options.max_body or DEFAULT_BODY)
end

local function with_method(method)
  return function(url, options)
    local all = { url = url, method = method }
    for name, value in pairs(options or {}) do all[name] = value end
    return http.request(all)
  end
end

---@type fun(url: string, options?: sluice.http.options): sluice.http.response|nil, string|nil
http.get = with_method("GET")
---@type fun(url: string, options?: sluice.http.options): sluice.http.response|nil, string|nil
http.post = with_method("POST")
---@type fun(url: string, options?: sluice.http.options): sluice.http.response|nil, string|nil
http.put = with_method("PUT")
---@type fun(url: string, options?: sluice.http.options): sluice.http.response|nil, string|nil
http.delete = with_method("DELETE")

return http
