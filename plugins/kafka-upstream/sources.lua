-- SPDX-License-Identifier: Apache-2.0
-- Where the parts of a record come from: texts with Lua expressions in $(...) over a request, compiled once. What an
-- expression looks at is made when it looks, once a request; what it does not name costs nothing.
--
--   local key = sources.compile("$(headers.x_order)", "key")
--   key(sources.values(exchange, body))    --> "17"; nil when there is nothing; raises a refusal
local elements = require "sluice.json_elements"
local json = require "sluice.json"
local template = require "sluice.template"

local find, match, gsub, concat = string.find, string.match, string.gsub, table.concat
local type, tostring, tonumber, error, setmetatable, rawset = type, tostring, tonumber, error, setmetatable, rawset

local sources = {}

local NAMES = { "headers", "query_params", "uri_captures", "body", "consumer", "method", "path", "host", "id", "shared",
  "event", "null" }

-- What a client is answered when its request cannot become a record. Raised: it may come about deep in an expression.
---@param status integer
---@param message string
---@param details? { error?: string, field?: string }
function sources.refuse(status, message, details)
  error({ refusal = true, status = status, message = message, error = details and details.error,
    field = details and details.field }, 0)
end

-- The body, where the configuration lets it go on; waits for it.
---@return string
function sources.body_of(conf, exchange)
  if not conf.forward_body then return "" end
  local body, err, status = exchange.request:get_raw_body()
  if not body then
    exchange.response:exit(status, { message = "the body cannot be read: " .. tostring(err), request_id = exchange.id })
  end
  return body
end

-- ---- What expressions see ------------------------------------------------------------------------------------------

local MAKE = {}

function MAKE.body(self)
  local value, err = elements.decode(self.text)
  if err then sources.refuse(400, "the body is no JSON", { error = err }) end
  return value
end

function MAKE.headers(self) return (self.exchange.request:get_headers(1000)) end
function MAKE.query_params(self) return (self.exchange.request:get_query(1000)) end
function MAKE.method(self) return self.exchange.request:get_method() end
function MAKE.path(self) return self.exchange.request:get_path() end
function MAKE.host(self) return self.exchange.request:get_host() end
function MAKE.id(self) return self.exchange.id end
function MAKE.shared(self) return self.exchange.ctx end
function MAKE.consumer(self) return self.exchange.client:get_consumer() or {} end
function MAKE.event() return false end
function MAKE.null() return json.null end

function MAKE.uri_captures(self)
  local found, all = self.exchange.request:get_uri_captures(), {}
  for group, value in pairs(found.unnamed) do all[group] = value end
  for name, value in pairs(found.named) do all[name] = value end
  return all
end

local values_mt = { __index = function(self, name)
  local request = self.request -- of an element of a batch: the values of the whole request
  local make = MAKE[name]
  if not make then return nil end
  local value
  if request and name ~= "body" and name ~= "event" then value = request[name] else value = make(self) end
  rawset(self, name, value)
  return value
end }

-- What expressions see of a request. `text`: its body.
---@param exchange sluice.exchange
---@param text string
---@return table
function sources.values(exchange, text)
  return setmetatable({ exchange = exchange, text = text, request = false, field = false }, values_mt)
end

-- The same for one element of a batch, whose text is the body.
---@param values table of the request
---@param text string
---@param body? any what it decodes to; decoded when it is looked at unless told
---@return table
function sources.element(values, text, body)
  return setmetatable({ exchange = values.exchange, text = text, request = values, field = false, body = body },
    values_mt)
end

-- ---- Compiling -----------------------------------------------------------------------------------------------------

local function names_in(text)
  local used = {}
  for code in text:gmatch("%$(%b())") do
    for _, name in ipairs(NAMES) do
      if find(code, "%f[%w_]" .. name .. "%f[^%w_]") and not used[name] then
        used[name] = true
        used[#used + 1] = name
      end
    end
  end
  return used
end

-- $(headers.x_order) alone: one field is looked for, and no table is made.
local function header_of(text)
  local name = match(text, "^%$%(%s*headers%.([%a_][%w_]*)%s*%)$")
    or match(text, "^%$%(%s*headers%[%s*[\"']([%w_-]+)[\"']%s*%]%s*%)$")
  if not name then return nil end
  return function(values)
    local value, several = values.exchange.request:get_only_header(name)
    if several then return values.headers[name] end
    return value
  end
end

-- A function of the values that gives what the text says: the expression's own value where the text is nothing else.
---@param text string
---@param field string that errors name
---@return fun(values: table): any
function sources.compile(text, field)
  local compiled = assert(template.compile(text, names_in(text)))
  if type(compiled) == "string" then return function() return compiled end end
  local look = header_of(text) or compiled
  return function(values)
    values.field = field
    local value = look(values)
    values.field = false
    return value
  end
end

-- Whether there is an expression in it at all.
---@param text any
---@return boolean
function sources.is_template(text)
  return type(text) == "string" and find(text, "%$%b()") ~= nil
end

-- Whether it looks at the body.
---@param text any
---@return boolean
function sources.looks_at_body(text)
  return sources.is_template(text) and names_in(text).body == true
end

local KINDS = { userdata = "null", ["nil"] = "nothing" }

-- What Lua says of an expression, without what only Lua knows.
local function plain_error(text)
  text = gsub(gsub(text, "\nstack traceback:.*$", ""), "^template [^\n]-:%d+: ", "")
  local name, kind = match(text, "^attempt to index %w+ '([%w_]+)' %(a (%w+) value%)$")
  if not name then return text end
  return name .. " is " .. (KINDS[kind] or "a " .. kind)
end

-- Calls `fn(values)`; nil and a refusal when the request cannot be told in the way the configuration wants it.
---@return any
---@return table|nil refusal
function sources.try(fn, values)
  local ok, result = pcall(fn, values)
  if ok then return result end
  if type(result) == "table" and result.refusal then return nil, result end
  if type(result) ~= "string" or not values.field then error(result, 0) end
  return nil, { status = 422, field = values.field,
    message = "config." .. values.field .. " finds no value in this request",
    error = plain_error(result) }
end

-- ---- Values as what a record wants ---------------------------------------------------------------------------------

-- As text; nil for nothing. Several values of one field stand in one line, other tables are JSON.
---@param value any
---@return string|nil
function sources.text(value)
  local kind = type(value)
  if kind == "string" then return value end
  if value == nil or value == json.null then return nil end
  if kind == "boolean" then return tostring(value) end
  if kind == "table" and type(value[1]) == "string" and not json.is_array(value) then return concat(value, ", ") end
  local text, err = json.encode(value)
  if not text then sources.refuse(422, "a value cannot be written as text", { error = err }) end
  return text
end

-- A whole number from 0, or nil.
---@param value any
---@return integer|nil
function sources.whole(value)
  if type(value) == "string" then value = match(value, "^%d+$") and tonumber(value) end
  if type(value) ~= "number" or value < 0 or value % 1 ~= 0 or value >= 2 ^ 53 then return nil end
  return value
end

return sources
