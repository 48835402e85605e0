-- SPDX-License-Identifier: Apache-2.0
-- A value that a JSON Schema describes: its example, its default, or the plainest one of its type.
local json = require "sluice.json"

local sample = {}

local MOST_DEEP, MOST_ITEMS, MOST_MADE = 8, 10, 2000

local FORMATS = {
  ["date-time"] = "2020-01-01T00:00:00Z", date = "2020-01-01", time = "00:00:00Z", email = "user@example.com",
  uuid = "00000000-0000-4000-8000-000000000000", uri = "https://example.com/", url = "https://example.com/",
  hostname = "example.com", ipv4 = "192.0.2.1", ipv6 = "2001:db8::1", byte = "ZXhhbXBsZQ==", binary = "example",
  password = "secret",
}

local of

local function text_of(schema)
  local text = FORMATS[schema.format] or "string"
  local least, most = tonumber(schema.minLength) or 0, tonumber(schema.maxLength) or math.huge
  if #text < least and least <= 1000 then text = text .. ("x"):rep(least - #text) end
  return #text > most and text:sub(1, most) or text
end

local function number_of(schema, step)
  local least, most = tonumber(schema.minimum), tonumber(schema.maximum)
  local above = tonumber(schema.exclusiveMinimum) or schema.exclusiveMinimum == true and least
  if above then return above + step end
  if least then return least end
  if most and most < 0 then return most end
  return 0
end

local function members_of(document, schema, depth, into)
  for name, member in pairs(type(schema.properties) == "table" and schema.properties or {}) do
    member = document:resolve(member)
    if type(member) == "table" and member.writeOnly ~= true then
      local value = of(document, member, depth + 1)
      if value ~= nil then into[name] = value end
    end
  end
  return into
end

local function list_of(document, schema, depth)
  local items = document:resolve(schema.items)
  local list = json.array {}
  local value = type(items) == "table" and of(document, items, depth + 1)
  if value == nil or value == false and type(items) ~= "table" then return list end
  for i = 1, math.min(math.max(tonumber(schema.minItems) or 1, 1), MOST_ITEMS) do list[i] = value end
  return list
end

local function merged(document, schema, depth)
  local whole = members_of(document, schema, depth, {})
  for _, part in ipairs(schema.allOf) do
    local value = of(document, document:resolve(part), depth + 1)
    if type(value) ~= "table" then
      if next(whole) == nil then return value end
    else
      for name, member in pairs(value) do whole[name] = member end
    end
  end
  return whole
end

local function kind_of(schema)
  local kind = schema.type
  if type(kind) == "table" then -- version 3.1 has lists of them
    for _, one in ipairs(kind) do
      if one ~= "null" then return one end
    end
    return "null"
  end
  return kind or schema.properties and "object" or schema.items and "array" or nil
end

-- A value that the schema names itself.
local function named(schema)
  if schema.example ~= nil then return schema.example end
  if type(schema.examples) == "table" and schema.examples[1] ~= nil then return schema.examples[1] end
  if schema.default ~= nil then return schema.default end
  if schema.const ~= nil then return schema.const end
  if type(schema.enum) == "table" then return schema.enum[1] end
end

local KINDS = {
  object = function(document, schema, depth) return members_of(document, schema, depth, {}) end,
  array = list_of,
  string = function(_, schema) return text_of(schema) end,
  integer = function(_, schema) return number_of(schema, 1) end,
  number = function(_, schema) return number_of(schema, 0.5) end,
  boolean = function() return true end,
  null = function() return json.null end,
}

function of(document, schema, depth)
  document.made = (document.made or 0) + 1 -- schemas that refer to each other can make a great many
  if depth > MOST_DEEP or document.made > MOST_MADE or type(schema) ~= "table" then return nil end
  local value = named(schema)
  if value ~= nil then return sample.with_arrays(document, value, schema) end
  if type(schema.allOf) == "table" then return merged(document, schema, depth) end
  local choice = schema.oneOf or schema.anyOf
  if type(choice) == "table" then return of(document, document:resolve(choice[1]), depth + 1) end
  local make = KINDS[kind_of(schema) or "none"]
  return make and make(document, schema, depth)
end

---@param document table with `resolve`
---@param schema table
---@return any nil: there is nothing to say
function sample.of(document, schema)
  document.made = 0
  return of(document, schema, 0)
end

local function member_schema(schema, name)
  return type(schema.properties) == "table" and schema.properties[name] or nil
end

-- An empty list and an empty map are the same in YAML once it is read: the schema tells them apart.
function sample.with_arrays(document, value, schema, depth)
  schema = document:resolve(schema)
  depth = depth or 0
  if type(value) ~= "table" or type(schema) ~= "table" or depth > MOST_DEEP then return value end
  if next(value) == nil then return kind_of(schema) == "array" and json.array {} or value end
  local copy = value[1] ~= nil and json.array {} or {}
  for key, member in pairs(value) do
    local its_schema = value[1] ~= nil and schema.items or member_schema(schema, key)
    copy[key] = sample.with_arrays(document, member, its_schema, depth + 1)
  end
  return copy
end

return sample
