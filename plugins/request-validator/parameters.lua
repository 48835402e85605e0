-- SPDX-License-Identifier: Apache-2.0
-- Parameters of a request as values: OpenAPI's styles say how a value stands in a path, a query or a header, the schema
-- what it is to become.
local find, gsub, match, sub, lower = string.find, string.gsub, string.match, string.sub, string.lower

local parameters = {}

-- The styles that each place has.
parameters.styles = {
  path = { simple = true, label = true, matrix = true },
  query = { form = true, spaceDelimited = true, pipeDelimited = true, deepObject = true },
  header = { simple = true },
}

local MOST_ARGS = 1000

-- ---- Texts to values ----

local function to_set(types)
  local set = {}
  for _, name in ipairs(type(types) == "table" and types or { types }) do set[name] = true end
  return set
end

local function is_number(text)
  return find(text, "^-?%d+%.?%d*$") ~= nil or find(text, "^-?%d+%.?%d*[eE][+-]?%d+$") ~= nil
end

local coerce

local function coerce_items(list, schema, array)
  local result = array {}
  for i = 1, #list do result[i] = coerce(list[i], schema.items, array) end
  return result
end

local function coerce_members(object, schema, array)
  local result, known = {}, type(schema.properties) == "table" and schema.properties or {}
  for name, value in pairs(object) do
    result[name] = coerce(value, known[name] or schema.additionalProperties, array)
  end
  return result
end

-- What a text stands for where the schema wants something else than a text; one that fits nothing stays.
function coerce(value, schema, array)
  if type(schema) ~= "table" then return value end
  local types = to_set(schema.type)
  if type(value) == "table" then
    if types.array then return coerce_items(value, schema, array) end
    return coerce_members(value, schema, array)
  end
  if (types.number or types.integer) and is_number(value) then return tonumber(value) end
  if types.boolean and (value == "true" or value == "false") then return value == "true" end
  return value
end
parameters.coerce = coerce

-- ---- Lists and pairs ----

local function split(text, separator)
  local list = {}
  if text == "" then return list end
  for part in (text .. separator):gmatch("(.-)" .. gsub(separator, "%p", "%%%0")) do list[#list + 1] = part end
  return list
end

-- Name, value, name, value; nil: one is missing.
local function members_of(list)
  if #list % 2 ~= 0 then return nil end
  local object = {}
  for i = 1, #list, 2 do object[list[i]] = list[i + 1] end
  return object
end

-- "name=value" each; nil: one is none.
local function pairs_of(list)
  local object = {}
  for _, part in ipairs(list) do
    local name, value = match(part, "^([^=]*)=(.*)$")
    if not name then return nil end
    object[name] = value
  end
  return object
end

local function value_of(text, kind, separator, explode)
  if kind == "array" then return split(text, separator) end
  if kind ~= "object" then return text end
  if explode then return pairs_of(split(text, separator)) end
  return members_of(split(text, separator))
end

-- ---- Styles of paths and headers: one text ----

local texts = {}

function texts.simple(text, it)
  return value_of(text, it.kind, ",", it.explode)
end

function texts.label(text, it)
  if sub(text, 1, 1) ~= "." then return nil end
  return value_of(sub(text, 2), it.kind, it.explode and "." or ",", it.explode)
end

-- ";name=1;name=2", ";name=1,2", ";a=1;b=2"
function texts.matrix(text, it)
  if sub(text, 1, 1) ~= ";" then return nil end
  local parts = split(sub(text, 2), ";")
  if it.kind == "object" and it.explode then return pairs_of(parts) end
  local list = {}
  for i, part in ipairs(parts) do
    local name, value = match(part, "^([^=]*)=?(.*)$")
    if name ~= it.name then return nil end
    list[i] = value
  end
  if it.kind == "array" and it.explode then return list end
  if #list ~= 1 then return nil end
  return value_of(list[1], it.kind, ",", false)
end

-- ---- Styles of queries: arguments ----

local function as_text(value)
  if value == true then return "" end
  return value
end

local function as_list(value)
  if value == nil then return nil end
  if type(value) ~= "table" then return { as_text(value) } end
  local list = {}
  for i = 1, #value do list[i] = as_text(value[i]) end
  return list
end

local function first_of(value)
  if type(value) == "table" then return nil end -- one was asked for
  return as_text(value)
end

local queries = {}

-- Arguments that are members of the object; nil: there are none.
local function exploded_object(args, it)
  local object
  for name in pairs(it.properties) do
    if args[name] ~= nil then
      object = object or {}
      object[name] = first_of(args[name])
    end
  end
  return object, object ~= nil
end

-- Gives the value, and whether it is there.
local function delimited(separator)
  return function(args, it)
    if it.kind == "object" and it.explode then
      local object, is_there = exploded_object(args, it)
      return object, is_there
    end
    local given = args[it.name]
    if given == nil then return nil, false end
    if it.kind == "array" and it.explode then return as_list(given), true end
    local text = first_of(given)
    return text and value_of(text, it.kind, separator, false), true
  end
end

queries.form = delimited ","
queries.spaceDelimited = delimited " "
queries.pipeDelimited = delimited "|"

-- name[member]=value
function queries.deepObject(args, it)
  local object
  for name, value in pairs(args) do
    local member = match(name, "^" .. it.pattern .. "%[([^%]]*)%]$")
    if member then
      object = object or {}
      object[member] = first_of(value)
    end
  end
  return object, object ~= nil
end

-- ---- Places ----

-- Fields of that name in one text, as a list would stand in one field.
local function header_text(request, name)
  local text, nth = request:get_header(name), 2
  if not text then return nil end
  local more = request:get_header(name, nth)
  while more do
    text = text .. "," .. more
    nth = nth + 1
    more = request:get_header(name, nth)
  end
  return text
end

local function from_text(text, it)
  if text == nil then return nil, false end
  if not it.style then return text, true end
  return texts[it.style](text, it), true
end

local places = {}

function places.header(it, source)
  local text = header_text(source.request, it.name)
  if text and it.kind == "array" or it.kind == "object" then text = text and gsub(text, "%s*,%s*", ",") end
  local value, is_there = from_text(text, it)
  return value, is_there
end

function places.path(it, source)
  source.captures = source.captures or source.request:get_uri_captures().named
  local value, is_there = from_text(source.captures[it.name] or nil, it)
  return value, is_there
end

function places.query(it, source)
  source.args = source.args or source.request:get_query(MOST_ARGS)
  if not it.style then return source.args[it.name], source.args[it.name] ~= nil end
  local value, is_there = queries[it.style](source.args, it)
  return value, is_there
end

-- What is needed to read a parameter, once.
---@param conf table one of `parameter_schema`
---@param schema table|nil as decoded
function parameters.plan(conf, schema)
  local kind = schema and to_set(schema.type)
  kind = kind and (kind.array and "array" or kind.object and "object") or "text"
  return {
    name = conf.name, place = conf["in"], style = schema and conf.style, explode = conf.explode == true, kind = kind,
    pattern = gsub(conf.name, "%p", "%%%0"), required = conf.required, schema = schema,
    properties = schema and type(schema.properties) == "table" and schema.properties or {},
    title = lower(conf["in"]) .. " '" .. conf.name .. "'",
  }
end

-- The value as it stands in the request (texts, and tables of texts), and whether it is there at all; nil and true: it
-- stands there in another way than its style has it.
---@return any
---@return boolean
function parameters.read(plan, source)
  local value, is_there = places[plan.place](plan, source)
  return value, is_there
end

return parameters
