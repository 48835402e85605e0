-- SPDX-License-Identifier: Apache-2.0
-- Schemas from JSON to a graph of nodes: names are resolved, so that a type that is named twice is one node, and may
-- hold itself.
--
--   { kind = "record", name = "bank.Account", fields = { { name =, node =, default =, aliases = } }, aliases = {} }
--   { kind = "array", items = node }   { kind = "map", values = node }   { kind = "union", branches = { node, ... } }
--   { kind = "enum", name =, symbols =, index = { symbol = place from 0 }, default = symbol }
--   { kind = "fixed", name =, size = }   { kind = "long", logical = "timestamp-millis" }

local json = require "sluice.json"

local null = json.null
local concat, error, find, format, ipairs, match, type = table.concat, error, string.find, string.format, ipairs,
  string.match, type

local schema = {}

local MOST_DEPTH, MOST_NODES = 64, 20000
local PRIMITIVE = { null = true, boolean = true, int = true, long = true, float = true, double = true, bytes = true,
  string = true }

-- ---- What is wrong with a schema ----

local mark = {}

local Parser = {}
Parser.__index = Parser

function Parser.refuse(_, where, what)
  error(setmetatable({ message = (where == "" and "" or where .. ": ") .. what }, mark), 0)
end

local function shown(value)
  if type(value) == "string" then return format("%q", #value > 60 and value:sub(1, 60) .. "..." or value) end
  if type(value) == "number" or type(value) == "boolean" then return tostring(value) end
  if value == nil or value == null then return value == nil and "nothing" or "null" end
  if type(value) ~= "table" then return "a " .. type(value) end
  return (value[1] ~= nil or json.is_array(value)) and "an array" or "an object"
end

function Parser:expect(where, expected, value)
  self:refuse(where, "expected " .. expected .. ", found " .. shown(value))
end

local function is_list(value)
  return type(value) == "table" and (value[1] ~= nil or json.is_array(value))
end

local function is_object(value)
  return type(value) == "table" and not is_list(value)
end

-- ---- Names ----

local NAME = "^[%a_][%w_]*$"

local function is_full_name(name)
  for part in (name .. "."):gmatch("([^.]*)%.") do
    if not find(part, NAME) then return false end
  end
  return true
end

local function is_fine(self, name)
  return type(name) == "string" and name ~= "" and (self.lenient or is_full_name(name))
end

local function qualify(name, namespace)
  if find(name, ".", 1, true) or namespace == "" then return name end
  return namespace .. "." .. name
end

-- The full name of what is defined here, and the namespace of what lies within.
function Parser:own_name(where, object, namespace)
  local name = object.name
  if not is_fine(self, name) then self:expect(where .. ".name", "a name", name) end
  if not find(name, ".", 1, true) and object.namespace ~= nil and object.namespace ~= null then
    if type(object.namespace) ~= "string" then self:expect(where .. ".namespace", "a string", object.namespace) end
    namespace = object.namespace
    if namespace ~= "" and not is_fine(self, namespace) then self:expect(where .. ".namespace", "a name", namespace) end
  end
  local full = qualify(name, namespace)
  return full, match(full, "^(.*)%.[^.]*$") or ""
end

function Parser:aliases(where, object, namespace)
  local aliases = object.aliases
  if aliases == nil or aliases == null then return {} end
  if not is_list(aliases) and next(aliases) ~= nil then self:expect(where .. ".aliases", "a list of names", aliases) end
  local list = {}
  for i, alias in ipairs(aliases) do
    if not is_fine(self, alias) then self:expect(format("%s.aliases[%d]", where, i), "a name", alias) end
    list[i] = namespace and qualify(alias, namespace) or alias
  end
  return list
end

function Parser:define(where, object, kind, namespace)
  local name, inner = self:own_name(where, object, namespace)
  if PRIMITIVE[name] then self:refuse(where .. ".name", name .. " is the name of a primitive type") end
  if self.named[name] then self:refuse(where .. ".name", "there is a type " .. name .. " already") end
  local node = { kind = kind, name = name, aliases = self:aliases(where, object, inner) }
  self.named[name] = node
  return node, inner
end

function Parser:lookup(where, name, namespace)
  if PRIMITIVE[name] then return { kind = name } end
  local node = self.named[qualify(name, namespace)] or self.named[name]
  if not node then self:refuse(where, "there is no type " .. shown(name)) end
  return node
end

-- ---- Logical types: those of a type that they cannot stand on are passed over, as the specification asks ----

local BASES = {
  date = { int = true }, ["time-millis"] = { int = true }, ["time-micros"] = { long = true },
  ["timestamp-millis"] = { long = true }, ["timestamp-micros"] = { long = true }, ["timestamp-nanos"] = { long = true },
  ["local-timestamp-millis"] = { long = true }, ["local-timestamp-micros"] = { long = true },
  ["local-timestamp-nanos"] = { long = true },
  decimal = { bytes = true, fixed = true }, uuid = { string = true, fixed = true }, duration = { fixed = true },
}
local SIZES = { uuid = 16, duration = 12 } -- of fixed

local function is_count(value, least)
  return type(value) == "number" and value % 1 == 0 and value >= least
end

-- Digits that a two's complement of so many bytes holds in any case.
local function digits_in(size)
  return math.floor((8 * size - 1) * math.log10(2))
end

local function put_decimal(node, object)
  local precision, scale = object.precision, object.scale
  if scale == nil then scale = 0 end
  if not is_count(precision, 1) or not is_count(scale, 0) or scale > precision then return end
  if node.kind == "fixed" and precision > digits_in(node.size) then return end
  node.logical, node.precision, node.scale = "decimal", precision, scale
end

local function put_logical(node, object)
  local logical = object.logicalType
  local bases = type(logical) == "string" and BASES[logical]
  if not bases or not bases[node.kind] then return node end
  if node.kind == "fixed" and SIZES[logical] and node.size ~= SIZES[logical] then return node end
  if logical == "decimal" then
    put_decimal(node, object)
  else
    node.logical = logical
  end
  return node
end

-- ---- Types ----

local build = {}

local function field_of(self, where, object, namespace, depth)
  if not is_object(object) then self:expect(where, "an object", object) end
  local name = object.name
  if type(name) ~= "string" or name == "" or not self.lenient and not find(name, NAME) then
    self:expect(where .. ".name", "a name", name)
  end
  if object.type == nil then self:expect(where .. ".type", "a type", nil) end
  local order = object.order
  if order ~= nil and order ~= "ascending" and order ~= "descending" and order ~= "ignore" and not self.lenient then
    self:expect(where .. ".order", "ascending, descending or ignore", order)
  end
  local node = self:node(where .. ".type", object.type, namespace, depth + 1)
  return { name = name, node = node, default = object.default, aliases = self:aliases(where, object) }
end

function build.record(self, where, object, namespace, depth)
  local node, inner = self:define(where, object, "record", namespace)
  if not is_list(object.fields) then self:expect(where .. ".fields", "a list of fields", object.fields) end
  node.fields, node.by_name = {}, {}
  for i, one in ipairs(object.fields) do
    local place = format("%s.fields[%d]", where, i)
    local field = field_of(self, place, one, inner, depth)
    if node.by_name[field.name] then self:refuse(place .. ".name", "there is a field " .. field.name .. " already") end
    node.fields[i], node.by_name[field.name] = field, field
    if field.default ~= nil then self.defaults[#self.defaults + 1] = { field = field, where = place .. ".default" } end
  end
  return node
end
build.error = build.record

function build.enum(self, where, object, namespace)
  local node = self:define(where, object, "enum", namespace)
  local symbols = object.symbols
  if not is_list(symbols) then self:expect(where .. ".symbols", "a list of names", symbols) end
  node.symbols, node.index = {}, {}
  for i, symbol in ipairs(symbols) do
    local place = format("%s.symbols[%d]", where, i)
    if type(symbol) ~= "string" or not self.lenient and not find(symbol, NAME) then
      self:expect(place, "a name", symbol)
    end
    if node.index[symbol] then self:refuse(place, "there is a symbol " .. symbol .. " already") end
    node.symbols[i], node.index[symbol] = symbol, i - 1
  end
  local default = object.default
  if default ~= nil and default ~= null then
    if node.index[default] then
      node.default = default
    elseif not self.lenient then
      self:expect(where .. ".default", "one of the symbols", default)
    end
  end
  return node
end

function build.fixed(self, where, object, namespace)
  local node = self:define(where, object, "fixed", namespace)
  if not is_count(object.size, 0) then self:expect(where .. ".size", "a number of bytes", object.size) end
  node.size = object.size
  return put_logical(node, object)
end

function build.array(self, where, object, namespace, depth)
  if object.items == nil then self:expect(where .. ".items", "a type", nil) end
  return { kind = "array", items = self:node(where .. ".items", object.items, namespace, depth + 1) }
end

function build.map(self, where, object, namespace, depth)
  if object.values == nil then self:expect(where .. ".values", "a type", nil) end
  return { kind = "map", values = self:node(where .. ".values", object.values, namespace, depth + 1) }
end

-- What a branch is called in JSON, and by what no two may be alike.
---@return string
function schema.tag(node)
  return node.name or node.kind
end

function Parser:union(where, list, namespace, depth)
  local node, seen = { kind = "union", branches = {} }, {}
  for i, one in ipairs(list) do
    local place = format("%s[%d]", where, i)
    local branch = self:node(place, one, namespace, depth + 1)
    if branch.kind == "union" then self:refuse(place, "a union may not hold a union") end
    local tag = schema.tag(branch)
    if seen[tag] then self:refuse(place, "there is a " .. tag .. " in this union already") end
    seen[tag], node.branches[i] = true, branch
  end
  return node
end

function Parser:node(where, value, namespace, depth)
  self.count = self.count + 1
  if depth > MOST_DEPTH then self:refuse(where, "nested too deeply") end
  if self.count > MOST_NODES then self:refuse(where, "too large a schema") end
  if type(value) == "string" then return self:lookup(where, value, namespace) end
  if is_list(value) then return self:union(where, value, namespace, depth) end
  if not is_object(value) then self:expect(where, "a type", value) end
  local kind = value.type
  if type(kind) == "string" then
    if PRIMITIVE[kind] then return put_logical({ kind = kind }, value) end
    if build[kind] then return build[kind](self, where, value, namespace, depth) end
    return self:lookup(where .. ".type", kind, namespace)
  end
  if kind == nil then self:expect(where .. ".type", "a type", nil) end
  return self:node(where .. ".type", kind, namespace, depth + 1)
end

local EXACT = { exact = true }

local function document(self, where, given)
  if type(given) ~= "string" then return given end
  local value, err = json.decode(given, EXACT)
  if err == nil then return value end
  if PRIMITIVE[given] then return given end -- the bare name of a type is told often enough
  return self:refuse(where, "no JSON: " .. err)
end

local function parse(self, given, references)
  for i, reference in ipairs(references or {}) do
    local where = format("references[%d]", i)
    self:node(where, document(self, where, reference), "", 0)
  end
  return self:node("", document(self, "", given), "", 0)
end

-- The root of a schema and the fields with defaults, each with its place; nil and what is wrong.
---@param given string|table JSON, or what it decodes to
---@param references? (string|table)[] schemas whose named types the schema may use, each behind those that it uses
---@param lenient? boolean names may be any
---@return table|nil root
---@return table[]|string defaults { field =, where = }; or what is wrong
function schema.parse(given, references, lenient)
  local self = setmetatable({ named = {}, defaults = {}, count = 0, lenient = lenient }, Parser)
  local ok, root = pcall(parse, self, given, references)
  if ok then return root, self.defaults end
  if type(root) == "table" and getmetatable(root) == mark then return nil, root.message end
  return error(root, 0)
end

-- ---- What can be told of a node ----

-- For people: "a long", "bank.Account".
local ARTICLES = { int = "an int", array = "an array", enum = "an enum", null = "null", bytes = "bytes" }

---@return string
function schema.describe(node)
  if node.kind == "union" then
    local names = {}
    for i, branch in ipairs(node.branches) do names[i] = schema.tag(branch) end
    return "one of " .. concat(names, ", ")
  end
  return node.name and node.kind .. " " .. node.name or ARTICLES[node.kind] or "a " .. node.kind
end

return schema
