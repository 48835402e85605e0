-- SPDX-License-Identifier: Apache-2.0
-- Kong's other global, `ngx`, for code that was written for Kong: what such code uses of OpenResty, over the exchange
-- at hand. What has no counterpart is an error at the line of the code.
local pdk_vars = require "sluice.pdk_vars"
local phases = require "sluice.phases"

local error, ipairs, pairs, rawset, select, setmetatable, tostring, type =
  error, ipairs, pairs, rawset, select, setmetatable, tostring, type
local concat, floor, format, gsub = table.concat, math.floor, string.format, string.gsub

local pdk_ngx = {}

-- Levels of ngx.log, from 0.
local LEVELS = { [0] = "emerg", "emerg", "alert", "crit", "err", "warn", "notice", "info", "debug" }

local CONSTANTS = {
  STDERR = 0, EMERG = 1, ALERT = 2, CRIT = 3, ERR = 4, WARN = 5, NOTICE = 6, INFO = 7, DEBUG = 8,
  OK = 0, ERROR = -1, AGAIN = -2, DONE = -4, DECLINED = -5,
  HTTP_CONTINUE = 100, HTTP_SWITCHING_PROTOCOLS = 101, HTTP_OK = 200, HTTP_CREATED = 201, HTTP_ACCEPTED = 202,
  HTTP_NO_CONTENT = 204, HTTP_PARTIAL_CONTENT = 206, HTTP_SPECIAL_RESPONSE = 300, HTTP_MOVED_PERMANENTLY = 301,
  HTTP_MOVED_TEMPORARILY = 302, HTTP_SEE_OTHER = 303, HTTP_NOT_MODIFIED = 304, HTTP_TEMPORARY_REDIRECT = 307,
  HTTP_PERMANENT_REDIRECT = 308, HTTP_BAD_REQUEST = 400, HTTP_UNAUTHORIZED = 401, HTTP_PAYMENT_REQUIRED = 402,
  HTTP_FORBIDDEN = 403, HTTP_NOT_FOUND = 404, HTTP_NOT_ALLOWED = 405, HTTP_NOT_ACCEPTABLE = 406,
  HTTP_REQUEST_TIMEOUT = 408, HTTP_CONFLICT = 409, HTTP_GONE = 410, HTTP_UPGRADE_REQUIRED = 426,
  HTTP_TOO_MANY_REQUESTS = 429, HTTP_CLOSE = 444, HTTP_ILLEGAL = 451, HTTP_INTERNAL_SERVER_ERROR = 500,
  HTTP_METHOD_NOT_IMPLEMENTED = 501, HTTP_BAD_GATEWAY = 502, HTTP_SERVICE_UNAVAILABLE = 503,
  HTTP_GATEWAY_TIMEOUT = 504, HTTP_VERSION_NOT_SUPPORTED = 505, HTTP_INSUFFICIENT_STORAGE = 507,
}

-- ---- What does not concern a request ----

local function texts(sluice)
  local crypto, query, time = sluice.crypto, sluice.query, sluice.time
  local function plain_date() return time.iso8601(floor(time.now())):gsub("T", " "):gsub("Z", "") end
  return {
    now = time.now, update_time = function() end,
    time = function() return floor(time.now()) end,
    today = function() return plain_date():sub(1, 10) end,
    utctime = function() return (plain_date()) end, localtime = function() return (plain_date()) end,
    http_time = function(seconds) return time.http_date(seconds) end,
    parse_http_time = function(text) return time.parse_http_date(text) end,
    encode_base64 = function(text, no_padding)
      local encoded = crypto.base64_encode(text)
      return no_padding and gsub(encoded, "=+$", "") or encoded
    end,
    decode_base64 = crypto.base64_decode,
    escape_uri = query.escape, unescape_uri = query.unescape,
    encode_args = query.encode, decode_args = query.decode,
    md5 = function(text) return crypto.hex(crypto.digest("md5", text)) end,
    md5_bin = function(text) return crypto.digest("md5", text) end,
    sha1_bin = function(text) return crypto.digest("sha1", text) end,
    hmac_sha1 = function(key, text) return crypto.hmac("sha1", key, text) end,
    log = function(level, ...)
      local name = LEVELS[level] or error("ngx.log: level must be one such as ngx.ERR", 2)
      sluice.log[name](...)
    end,
    sleep = sluice.sleep,
    worker = { id = sluice.node.get_worker_id, pid = sluice.node.get_pid },
    timer = {
      at = function(seconds, fn, ...) return sluice.timer.at(seconds, fn, false, ...) end,
      every = function(seconds, fn, ...) return sluice.timer.every(seconds, fn, false, ...) end,
    },
  }
end

-- ---- ngx.re, over sluice.regex ----

local MOST_PATTERNS = 500 -- compiled ones that are kept

-- Options of ngx.re that say what an expression means, as PCRE's own: (?i). Others say how to compile it.
local function flagged(pattern, options)
  local flags = (options or ""):gsub("[^imsx]", "")
  if (options or ""):find("a", 1, true) then pattern = "\\G(?:" .. pattern .. ")" end
  return flags ~= "" and "(?" .. flags .. ")" .. pattern or pattern
end

local function compiler(sluice)
  local kept, count = {}, 0
  return function(pattern, options)
    local text = flagged(pattern, options)
    local made = kept[text]
    if made then return made end
    local why
    made, why = sluice.regex.new(text)
    if not made then return nil, why end
    if count >= MOST_PATTERNS then kept, count = {}, 0 end
    kept[text], count = made, count + 1
    return made
  end
end

-- $1, ${1}, $0 and $$ of a replacement.
local function filled(replacement, found)
  if type(replacement) == "function" then return tostring(replacement(found)) end
  local function group(number) return found[tonumber(number)] or "" end
  return (replacement:gsub("%$(%$?)({?)(%d*)(}?)", function(dollar, open, digits, close)
    if dollar ~= "" then return "$" .. open .. digits .. close end
    if digits == "" then return nil end
    return group(digits) .. (open == "" and close or "")
  end))
end

local function substitute(compile, most)
  return function(subject, pattern, replacement, options)
    local regex, why = compile(pattern, options)
    if not regex then return nil, nil, why end
    local parts, at, from, count = {}, 1, 1, 0
    while count < most and from <= #subject + 1 do
      local found, first, last = regex:match(subject, from)
      if not found then break end
      count = count + 1
      parts[#parts + 1] = subject:sub(at, first - 1)
      parts[#parts + 1] = filled(replacement, found)
      at = last + 1
      from = last >= first and last + 1 or first + 1 -- an empty match: go on behind the next byte
    end
    parts[#parts + 1] = subject:sub(at)
    return concat(parts), count
  end
end

local function expressions(sluice)
  local compile = compiler(sluice)
  local re = { sub = substitute(compile, 1), gsub = substitute(compile, math.huge) }
  function re.match(subject, pattern, options, ctx)
    local regex, why = compile(pattern, options)
    if not regex then return nil, why end
    local found, _, last = regex:match(subject, ctx and ctx.pos)
    if found and ctx then ctx.pos = last + 1 end
    return found
  end
  function re.find(subject, pattern, options, ctx, nth)
    local regex, why = compile(pattern, options)
    if not regex then return nil, nil, why end
    if nth and nth ~= 0 then error("ngx.re.find: nth is not offered", 2) end
    local first, last = regex:find(subject, ctx and ctx.pos)
    if first and ctx then ctx.pos = last + 1 end
    return first, last
  end
  function re.gmatch(subject, pattern, options)
    local regex, why = compile(pattern, options)
    if not regex then return nil, why end
    local from = 1
    return function()
      if from > #subject + 1 then return nil end
      local found, first, last = regex:match(subject, from)
      from = not found and #subject + 2 or last >= first and last + 1 or first + 1
      return found
    end
  end
  return re
end

-- ---- The request and the response ----

local function request_of(exchange_of)
  local req = {
    get_method = function() return exchange_of().request:get_method() end,
    get_headers = function(most) return exchange_of().request:get_headers(most ~= 0 and most or nil) end,
    get_uri_args = function(most) return exchange_of().request:get_query(most ~= 0 and most or nil) end,
    get_body_data = function() return exchange_of().request:get_raw_body() end,
    get_post_args = function(most)
      return exchange_of().request:get_body("application/x-www-form-urlencoded", most ~= 0 and most or nil)
    end,
    read_body = function() exchange_of().request:get_raw_body() end,
    http_version = function() return exchange_of().request:get_http_version() end,
    start_time = function() return exchange_of().request:get_start_time() / 1000 end,
    set_header = function(name, value)
      local request = exchange_of().service.request
      if value == nil then request:clear_header(name) else request:set_header(name, value) end
    end,
    clear_header = function(name) exchange_of().service.request:clear_header(name) end,
    set_body_data = function(text) exchange_of().service.request:set_raw_body(text) end,
    set_uri = function(path) exchange_of().service.request:set_path(path) end,
    set_uri_args = function(args)
      local request = exchange_of().service.request
      if type(args) == "table" then request:set_query(args) else request:set_raw_query(tostring(args)) end
    end,
    is_internal = function() return false end,
  }
  return req
end

local function field_name(name)
  return (gsub(tostring(name), "_", "-"))
end

local function header_of(exchange_of)
  return setmetatable({}, {
    __metatable = false,
    __index = function(_, name) return exchange_of().response:get_header(field_name(name)) end,
    __newindex = function(_, name, value)
      local response = exchange_of().response
      if value == nil then response:clear_header(field_name(name)) else response:set_header(field_name(name), value) end
    end,
  })
end

-- ngx.arg of body_filter: the chunk, which what is set takes the place of, and whether it is the last.
local function argument_of(exchange_of)
  local function filtered()
    local exchange = exchange_of()
    if phases.names[exchange.phase] ~= "body_filter" then error("there is no ngx.arg in this phase", 3) end
    return exchange
  end
  return setmetatable({}, {
    __metatable = false,
    __index = function(_, index)
      local exchange = filtered()
      if index == 2 then return exchange.last end
      return index == 1 and (exchange.taken or exchange.chunk) or nil
    end,
    __newindex = function(_, index, value)
      local exchange = filtered()
      if index ~= 1 then error(format("ngx.arg[%s] cannot be set here", tostring(index)), 2) end
      exchange.taken = value == nil and "" or tostring(value)
    end,
  })
end

-- What ngx.say and ngx.print have said, and the status that was set before: an answer once ngx.exit is called.
local function answer_of(exchange, own)
  local answer = exchange[own]
  if not answer then
    answer = { n = 0 }
    rawset(exchange, own, answer)
  end
  return answer
end

local function put(answer, value)
  if type(value) == "table" then
    for _, item in ipairs(value) do put(answer, item) end
    return
  end
  answer.n = answer.n + 1
  answer[answer.n] = tostring(value)
end

local function speaker(exchange_of, own, ending)
  return function(...)
    local answer = answer_of(exchange_of(), own)
    for i = 1, select("#", ...) do put(answer, (select(i, ...))) end
    put(answer, ending)
    return 1
  end
end

local function leave(exchange, answer, code)
  if code == CONSTANTS.ERROR then return exchange.response:exit(500) end
  if code < 100 and answer.n == 0 then return end -- the rest of the request goes on
  local status = answer.status or code >= 100 and code or 200
  if answer.n == 0 and status >= 400 then return exchange.response:error(status) end
  exchange.response:exit(status, answer.n > 0 and concat(answer, "", 1, answer.n) or nil)
end

-- ---- ngx.ctx: what plugins share, and what Kong keeps there ----

local TIMEOUTS = { connect_timeout = 1, send_timeout = 2, read_timeout = 3 }

local function balancer_data(exchange_of)
  return setmetatable({}, {
    __metatable = false,
    __index = function(_, name)
      local service = exchange_of().service
      if TIMEOUTS[name] then return (select(TIMEOUTS[name], service:get_timeouts())) end
      if name == "tries" then return service:get_tries() end
      if name == "try_count" then return service:count_tries() end
      error(format("there is no ngx.ctx.balancer_data.%s here", tostring(name)), 2)
    end,
    __newindex = function(_, name, value)
      local service = exchange_of().service
      if TIMEOUTS[name] then
        local times = { service:get_timeouts() }
        times[TIMEOUTS[name]] = value
        return service:set_timeouts(times[1], times[2], times[3])
      end
      if name == "retries" then return service:set_retries(value) end
      if name == "scheme" then return service.request:set_scheme(value) end
      error(format("ngx.ctx.balancer_data.%s cannot be set here", tostring(name)), 2)
    end,
  })
end

local function whole_ms(ms)
  return ms and floor(ms)
end

local KEPT = {
  route = function(exchange) return exchange.router:get_route() end,
  service = function(exchange) return exchange.router:get_service() end,
  authenticated_consumer = function(exchange) return exchange.client:get_consumer() end,
  authenticated_credential = function(exchange) return exchange.client:get_credential() end,
  KONG_PROXY_LATENCY = function(exchange) return whole_ms((select(2, exchange:get_latencies()))) end,
  KONG_RESPONSE_LATENCY = function(exchange) return whole_ms((exchange:get_latencies())) end,
  KONG_WAITING_TIME = function(exchange) return whole_ms((select(3, exchange:get_latencies()))) end,
}

local function context_of(exchange_of)
  local data = balancer_data(exchange_of)
  return setmetatable({}, {
    __metatable = false,
    __index = function(_, name)
      local exchange = exchange_of()
      local value = exchange.ctx[name]
      if value ~= nil then return value end
      if name == "balancer_data" then return data end
      local kept = KEPT[name]
      return kept and kept(exchange)
    end,
    __newindex = function(_, name, value) exchange_of().ctx[name] = value end,
  })
end

-- ---- Altogether ----

-- What is known only of the exchange at hand.
local function looks(exchange_of, own)
  return {
    get_phase = function() return phases.names[exchange_of().phase] end,
    exit = function(code)
      if type(code) ~= "number" then error("ngx.exit: expected a status", 2) end
      local exchange = exchange_of()
      return leave(exchange, answer_of(exchange, own), code)
    end,
    redirect = function(uri, status)
      exchange_of().response:exit(status or CONSTANTS.HTTP_MOVED_TEMPORARILY, nil, { Location = uri })
    end,
    say = speaker(exchange_of, own, "\n"), print = speaker(exchange_of, own),
  }
end

local function set_status(exchange, own, status)
  answer_of(exchange, own).status = status
  local phase = phases.names[exchange.phase]
  if phase == "header_filter" or phase == "response" then exchange.response:set_status(status) end
end

---@param sluice table
---@param exchange_of fun(): sluice.exchange raises where there is none
---@return table
function pdk_ngx.new(sluice, exchange_of)
  local own = {} -- names what an exchange keeps of this code
  local ngx = looks(exchange_of, own)
  for name, value in pairs(texts(sluice)) do ngx[name] = value end
  for name, value in pairs(CONSTANTS) do ngx[name] = value end
  ngx.null = require("cjson").null
  ngx.req, ngx.header, ngx.re = request_of(exchange_of), header_of(exchange_of), expressions(sluice)
  ngx.var, ngx.ctx, ngx.arg = pdk_vars.new(sluice, exchange_of), context_of(exchange_of), argument_of(exchange_of)
  return setmetatable(ngx, {
    __metatable = false,
    __index = function(_, name)
      if name == "status" then
        local exchange = exchange_of()
        return answer_of(exchange, own).status or exchange.response:get_status() or 0
      end
      if name == "headers_sent" then return exchange_of().response:get_size() > 0 end
      error(format("there is no ngx.%s here", tostring(name)), 2)
    end,
    __newindex = function(self, name, value)
      if name == "status" then return set_status(exchange_of(), own, value) end
      rawset(self, name, value)
    end,
  })
end

return pdk_ngx
