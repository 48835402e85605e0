-- SPDX-License-Identifier: Apache-2.0
-- Texts with Lua expressions in $(...), as Kong's transformers have them. Compiled once; an expression sees pure
-- libraries and the names that it is given, and cannot set globals.
--
--   local hello = template.compile("hello $(headers.x_name or 'you')", { "headers" })
--   hello { headers = exchange.request:get_headers() }

local concat = table.concat
local load, next, pairs, setmetatable, tostring, type = load, next, pairs, setmetatable, tostring, type

---@class sluice.template
local template = {}

local ENV = setmetatable({
  string = string, table = table, math = math, tostring = tostring, tonumber = tonumber, type = type, pairs = pairs,
  ipairs = ipairs, next = next, select = select, unpack = unpack, pcall = pcall, error = error,
  os = { time = os.time, date = os.date, clock = os.clock },
}, {
  __index = function(_, name) error("undefined global '" .. tostring(name) .. "' in a template", 2) end,
  __newindex = function(_, name) error("a template cannot set '" .. tostring(name) .. "'", 2) end,
})

-- What an expression gives, as text: several values in one line, nothing for nil.
local function as_text(value)
  if value == nil then return "" end
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  for i = 1, #value do parts[i] = tostring(value[i]) end
  return concat(parts, ", ")
end

-- Lua code of the pieces, and whether the text is one expression and nothing else; nil when there is none.
local function code_of(text)
  local pieces, from = {}, 1
  while true do
    local first, last, expression = text:find("%$(%b())", from)
    if not first then break end
    if first == 1 and last == #text then return expression, true end
    if first > from then pieces[#pieces + 1] = ("%q"):format(text:sub(from, first - 1)) end
    pieces[#pieces + 1] = "__text" .. expression
    from = last + 1
  end
  if from == 1 then return nil end
  if from <= #text then pieces[#pieces + 1] = ("%q"):format(text:sub(from)) end
  return concat(pieces, " .. "), false
end

-- A function of a table with the names in it; a text that is one expression keeps the kind of its value. The text
-- itself when there is no expression; nil and why when one is no Lua.
---@param text string
---@param names string[]
---@return string|(fun(values: table): any)|nil
---@return string|nil err
function template.compile(text, names)
  local code = code_of(text)
  if not code then return text end
  local head = {}
  for i, name in ipairs(names) do head[i] = ("local %s = __values.%s"):format(name, name) end
  local chunk, err = load("local __text, __values = ... " .. concat(head, " ") .. " return " .. code,
    "=template " .. text, "t", ENV)
  if not chunk then return nil, (err:gsub("^template .-:%d+: ", "")) end
  return function(values)
    local value = chunk(as_text, values)
    return value
  end
end

-- The same for all texts in a table of any depth: a function that gives a copy with the values in their places.
---@param value any
---@param names string[]
---@return (fun(values: table): any)|nil
---@return string|nil err
function template.deep(value, names)
  if type(value) == "string" then
    local compiled, err = template.compile(value, names)
    if type(compiled) ~= "string" then return compiled, err end
  end
  if type(value) ~= "table" then return function() return value end end
  local members = {}
  for key, member in pairs(value) do
    local compiled, err = template.deep(member, names)
    if not compiled then return nil, ("%s: %s"):format(tostring(key), err) end
    members[key] = compiled
  end
  return function(values)
    local copy = setmetatable({}, getmetatable(value))
    for key, compiled in pairs(members) do copy[key] = compiled(values) end
    return copy
  end
end

template.text = as_text

-- Whether all texts in a value are templates; a `custom_validator` for schemas.
---@param value any
---@return boolean|nil true
---@return string|nil err begins with "expected"
function template.check(value)
  local ok, err = template.deep(value, {})
  if ok then return true end
  return nil, "expected Lua expressions in $(...) (" .. err .. ")"
end

return template
