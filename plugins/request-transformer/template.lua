-- SPDX-License-Identifier: Apache-2.0
-- Templates: text with Lua expressions in $(...), over the request's headers, query_params, uri_captures and what
-- plugins share. Compiled once; expressions see pure libraries only, and cannot set globals.
local query = require "sluice.query"

local template = {}

local ROOTS = { "headers", "query_params", "uri_captures", "shared" }

local ENV = setmetatable({
  string = string, table = table, math = math, os = os, tostring = tostring, tonumber = tonumber, type = type,
  pairs = pairs, ipairs = ipairs, next = next, select = select, unpack = unpack, pcall = pcall, error = error,
}, {
  __index = function(_, name) error("undefined global '" .. tostring(name) .. "' in a template", 2) end,
  __newindex = function(_, name) error("a template cannot set '" .. tostring(name) .. "'", 2) end,
})

-- What an expression gives, as text: several values of one field or argument in one line, nothing for nil.
local function as_text(value)
  if value == nil then return "" end
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  for i, one in ipairs(value) do parts[i] = tostring(one) end
  return table.concat(parts, ", ")
end

-- Lua code of the pieces; nil when there is no expression.
local function code_of(text)
  local pieces, from = {}, 1
  while true do
    local first, last, expression = text:find("%$(%b())", from)
    if not first then break end
    if first > from then pieces[#pieces + 1] = ("%q"):format(text:sub(from, first - 1)) end
    pieces[#pieces + 1] = "__text" .. expression
    from = last + 1
  end
  if from == 1 then return nil end
  if from <= #text then pieces[#pieces + 1] = ("%q"):format(text:sub(from)) end
  return table.concat(pieces, " .. ")
end

local function note_uses(code, uses)
  for _, name in ipairs(ROOTS) do
    if code:find("%f[%w_]" .. name .. "%f[^%w_]") then uses[name] = true end
  end
end

-- Compiles a text: itself when it has no expression, else a function; nil and why when one is no Lua.
---@param text string
---@param uses table set of the roots that templates of one configuration look at, added to
---@return string|function|nil
---@return string|nil err
function template.compile(text, uses)
  local code = code_of(text)
  if not code then return text end
  note_uses(code, uses)
  local chunk, err = load("local headers, query_params, uri_captures, shared, __text = ... return " .. code,
    "=template " .. text, "t", ENV)
  if not chunk then return nil, (err:gsub("^template .-:%d+: ", "")) end
  return chunk
end

-- The same for a text that the schema has let through.
function template.value(text, uses)
  return assert(template.compile(text, uses))
end

-- A text without its expressions, which may have several lines.
---@param text string
---@return string
function template.constant(text)
  return (text:gsub("%$%b()", ""))
end

local function captures_of(exchange)
  local captures = exchange.request:get_uri_captures()
  local all = {}
  for group, value in pairs(captures.unnamed) do all[group] = value end
  for name, value in pairs(captures.named) do all[name] = value end
  return all
end

local MAKE = {
  headers = function(exchange) return (exchange.request:get_headers(1000)) end,
  query_params = function(exchange) return (query.decode(exchange.service.request:get_raw_query(), 0)) end,
  uri_captures = captures_of,
  shared = function(exchange) return exchange.ctx end,
}

-- What templates look at, as it is now; nil when they look at nothing.
---@param exchange sluice.exchange
---@param uses table
---@return table|nil
function template.roots(exchange, uses)
  if not next(uses) then return nil end
  local roots = {}
  for name in pairs(uses) do roots[name] = MAKE[name](exchange) end
  return roots
end

local NONE = {}

---@param value string|function from `compile`
---@param roots table|nil from `roots`
---@return string
function template.text(value, roots)
  if type(value) == "string" then return value end
  roots = roots or NONE
  return value(roots.headers, roots.query_params, roots.uri_captures, roots.shared, as_text)
end

return template
