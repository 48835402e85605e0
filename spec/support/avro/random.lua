-- SPDX-License-Identifier: Apache-2.0
-- Random Avro schemas, and values of them in Avro's JSON encoding; the same for the same seed.
local json = require "sluice.json"

local Maker = {}
Maker.__index = Maker

local PRIMITIVES = { "null", "boolean", "int", "long", "float", "double", "bytes", "string" }
local CONTAINERS = { "record", "array", "map", "union", "enum", "fixed" }

function Maker:below(count)
  self.state = (self.state * 16807) % 2147483647
  return self.state % count
end

function Maker:pick(list)
  return list[1 + self:below(#list)]
end

function Maker:name()
  self.names = self.names + 1
  local name = self:pick { "Order", "line", "_x", "A9" } .. self.names
  if self:below(3) == 0 then return "a.b" .. self:below(3) .. "." .. name end
  return name
end

local make = {}

-- Within a record its own name may come back, behind a union with null.
function make.record(self, depth)
  local record = { type = "record", name = self:name(), fields = json.array() }
  if self:below(3) == 0 and not record.name:find(".", 1, true) then record.namespace = "some.where" end
  for i = 1, 1 + self:below(5) do
    record.fields[i] = { name = "f" .. i, type = self:schema(depth + 1), doc = "field " .. i }
  end
  if self.recursive and self:below(4) == 0 then
    record.fields[#record.fields + 1] = { name = "next", type = json.array { "null", record.name } }
  end
  return record
end

function make.array(self, depth)
  return { type = "array", items = self:schema(depth + 1) }
end

function make.map(self, depth)
  return { type = "map", values = self:schema(depth + 1) }
end

function make.enum(self)
  local symbols = json.array()
  for i = 1, 1 + self:below(4) do symbols[i] = "S" .. i end
  return { type = "enum", name = self:name(), symbols = symbols }
end

function make.fixed(self)
  return { type = "fixed", name = self:name(), size = 1 + self:below(20) }
end

local function tag_of(schema)
  if type(schema) == "string" then return schema end
  return schema.name or schema.type
end

function make.union(self, depth)
  if self.recursive then return json.array { "null", self:pick { "int", "string", "bytes", "double" } } end
  local branches, seen = json.array(), {}
  for _ = 1, 1 + self:below(4) do
    local branch = self:schema(depth + 1)
    if not json.is_array(branch) and not seen[tag_of(branch)] then
      seen[tag_of(branch)] = true
      branches[#branches + 1] = branch
    end
  end
  if #branches == 0 then branches[1] = "int" end
  return branches
end

function Maker:schema(depth)
  depth = depth or 0
  if depth > 3 or depth > 0 and self:below(2) == 0 then return self:pick(PRIMITIVES) end
  return make[self:pick(CONTAINERS)](self, depth)
end

-- ---- Values ----

local function named_in(names, schema, namespace)
  if type(schema) ~= "table" then return end
  if json.is_array(schema) then
    for _, branch in ipairs(schema) do named_in(names, branch, namespace) end
    return
  end
  if schema.name then
    local full = schema.name
    if not full:find(".", 1, true) and (schema.namespace or namespace) ~= "" then
      full = (schema.namespace or namespace) .. "." .. full
    end
    namespace = full:match("^(.*)%.[^.]*$") or ""
    names[schema] = full
    for _, field in ipairs(schema.fields or {}) do named_in(names, field.type, namespace) end
  end
  named_in(names, schema.items, namespace)
  named_in(names, schema.values, namespace)
end

local LONGS = { 0, -1, 1, 63, 64, -64, -65, 8191, 8192, -8193, 2147483647, -2147483648, 4294967296, -1099511627776,
  9007199254740991, 9007199254740993LL, -9223372036854775807LL - 1, 9223372036854775807LL }
local TEXTS = { "", "a", "tab\tnew\nline", "\"quoted\\\"", "zwölf", "日本", "😀", ("long"):rep(100) }

local value = {}

function Maker:value(schema, names, record, depth)
  if json.is_array(schema) then return value.union(self, schema, names, record, depth) end
  if type(schema) == "table" then return value[schema.type](self, schema, names, schema, depth + 1) end
  if value[schema] then return value[schema](self) end
  return self:value(record, names, record, depth) -- a record within itself
end

value.null = function() return json.null end
value.boolean = function(self) return self:below(2) == 0 end
value.int = function(self) return LONGS[1 + self:below(12)] end
value.long = function(self) return self:pick(LONGS) end
value.float = function(self) return self:pick { 0, 1.5, -0.25, 1e10, 3.140625 } end
value.double = function(self) return self:pick { 0, 0.1, -1e300, 3.141592653589793, 5e-324, 1 / 3 } end
value.string = function(self) return self:pick(TEXTS) end

local function characters(self, count)
  local out = {}
  for i = 1, count do
    local c = self:below(256)
    out[i] = c < 128 and string.char(c) or string.char(0xC0 + math.floor(c / 64), 0x80 + c % 64)
  end
  return table.concat(out)
end

value.bytes = function(self) return characters(self, self:below(30)) end
value.fixed = function(self, schema) return characters(self, schema.size) end
value.enum = function(self, schema) return self:pick(schema.symbols) end

function value.array(self, schema, names, record, depth)
  local list = json.array()
  for i = 1, self:below(4) do list[i] = self:value(schema.items, names, record, depth) end
  return list
end

function value.map(self, schema, names, record, depth)
  local object = {}
  for _ = 1, self:below(4) do
    object[self:pick(TEXTS) .. self:below(9)] = self:value(schema.values, names, record, depth)
  end
  return object
end

function value.record(self, schema, names, _, depth)
  local object = {}
  for _, field in ipairs(schema.fields) do
    if field.name == "next" then
      object.next = json.null
      if depth < 6 and self:below(2) == 0 then
        object.next = { [names[schema]] = self:value(schema, names, schema, depth) }
      end
    else
      object[field.name] = self:value(field.type, names, schema, depth)
    end
  end
  return object
end

function value.union(self, schema, names, record, depth)
  local branch = self:pick(schema)
  if branch == "null" then return json.null end
  local tag = type(branch) == "string" and branch or names[branch] or branch.type
  return { [tag] = self:value(branch, names, record, depth) }
end

-- A value of a schema that this maker made.
function Maker:value_of(schema)
  local names = {}
  named_in(names, schema, "")
  return self:value(schema, names, schema, 0)
end

---@param seed integer
---@param recursive? boolean records may hold themselves; unions are then of null and one other
return function(seed, recursive)
  return setmetatable({ state = seed, names = 0, recursive = recursive }, Maker)
end
