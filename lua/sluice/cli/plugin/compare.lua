-- SPDX-License-Identifier: Apache-2.0
-- `sluice plugin compare FILE...`: where a configuration that is valid by a schema which Kong publishes (JSON Schema, a
-- file a plugin) is refused by the plugin of that name here, or has another default. What is only here is no
-- difference, nor are conditions between fields, which those schemas do not tell.

local described = require "sluice.cli.plugin.described"
local folders = require "sluice.cli.plugin.folders"
local json = require "sluice.json"
local options = require "sluice.cli.options"
local plugins = require "sluice.plugins"
local tables = require "sluice.tables"
local words = require "sluice.schema.words"

local compare = {}

-- JSON Schema's types, and ours that take all of their values.
local TAKEN_BY = {
  string = { string = true }, boolean = { boolean = true }, number = { number = true },
  integer = { integer = true, number = true }, array = { array = true, set = true },
  object = { record = true, map = true, foreign = true, json = true },
}

-- ---- Two descriptions of a field -----------------------------------------------------------------------------------

local compare_field

local function note(found, path, message, ...)
  found[#found + 1] = { path = path, message = message:format(...) }
end

local function is_set(value)
  return value ~= nil and value ~= json.null
end

local function counts(list)
  local result = {}
  for _, value in ipairs(list) do result[value] = (result[value] or 0) + 1 end
  return result
end

-- Published lists of texts are in the order of the alphabet.
local function same_default(here, there)
  if not is_set(here) or not is_set(there) then return is_set(here) == is_set(there) end
  if type(here) ~= "table" or type(there) ~= "table" then return here == there end
  return tables.equal(here, there) or type(here[1]) == "string" and tables.equal(counts(here), counts(there))
end

-- What a record says in place of its fields' own defaults is not published.
local function compare_default(found, path, ours, theirs)
  if ours.type == "record" then return end
  local here, there = ours.default, theirs.default
  if same_default(here, there) then return end
  note(found, path, "its default is %s, published is %s", is_set(here) and json.encode(here) or "none",
    is_set(there) and json.encode(there) or "none")
end

local function compare_choice(found, path, ours, theirs)
  if not ours.one_of then return end
  if not theirs.enum then
    return note(found, path, "takes only %s, published is any", words.alternatives(ours.one_of))
  end
  local taken = {}
  for _, value in ipairs(ours.one_of) do taken[value] = true end
  for _, value in ipairs(theirs.enum) do
    if not taken[value] then note(found, path, "does not take %s", json.encode(value)) end
  end
end

local function compare_least(found, path, here, there, what)
  if here and here > (there or -math.huge) then
    note(found, path, "%s from %.14g on, published is %s", what, here, there and ("%.14g"):format(there) or "any")
  end
end

local function compare_most(found, path, here, there, what)
  if here and here < (there or math.huge) then
    note(found, path, "%s up to %.14g, published is %s", what, here, there and ("%.14g"):format(there) or "any")
  end
end

-- In Kong a text has a character at least, where its schema says nothing else.
local function compare_bounds(found, path, ours, theirs)
  local between = ours.between or {}
  if not theirs.enum then
    compare_least(found, path, between[1], theirs.minimum, "values")
    compare_most(found, path, between[2], theirs.maximum, "values")
  end
  local least = ours.type == "string" and 1 or 0
  compare_least(found, path, ours.len_min, math.max(theirs.minLength or least, least), "a length")
  compare_most(found, path, ours.len_max, theirs.maxLength, "a length")
end

local function by_name(fields)
  local result = {}
  for _, entry in ipairs(fields or {}) do
    local name, field = next(entry)
    result[name] = field
  end
  return result
end

local function sorted_names(map)
  local names = {}
  for name in pairs(map or {}) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function needs_value(field)
  return field.required and not is_set(field.default) and field.type ~= "record" and field.type ~= "map"
end

local function compare_shorthands(found, path, ours, theirs)
  local here, fields = by_name(ours.shorthand_fields), by_name(ours.fields)
  for _, name in ipairs(sorted_names(theirs.shorthand_fields)) do
    if not here[name] and not fields[name] then
      note(found, path .. "." .. name, "is not there, published is a shorthand")
    end
  end
end

local function compare_fields(found, path, ours, theirs)
  local here, required = by_name(ours.fields), {}
  for _, name in ipairs(theirs.required or {}) do required[name] = true end
  for _, name in ipairs(sorted_names(theirs.properties)) do
    if here[name] then
      compare_field(found, path .. "." .. name, here[name], theirs.properties[name])
    else
      note(found, path .. "." .. name, "is not there")
    end
  end
  for _, name in ipairs(sorted_names(here)) do
    if needs_value(here[name]) and not required[name] then note(found, path .. "." .. name, "is required") end
  end
  compare_shorthands(found, path, ours, theirs)
end

function compare_field(found, path, ours, theirs)
  found.options = found.options + 1
  local takers = TAKEN_BY[theirs.type]
  if takers and not takers[ours.type] and ours.type ~= "any" then
    return note(found, path, "is of type %s, published is %s", ours.type, theirs.type)
  end
  compare_default(found, path, ours, theirs)
  compare_choice(found, path, ours, theirs)
  compare_bounds(found, path, ours, theirs)
  if ours.type == "record" then
    compare_fields(found, path, ours, theirs)
  elseif ours.elements and theirs.items then
    compare_field(found, path .. "[]", ours.elements, theirs.items)
  elseif ours.values and type(theirs.additionalProperties) == "table" then
    compare_field(found, path .. "{}", ours.values, theirs.additionalProperties)
  end
end

-- Where a published configuration is not taken as it is, in the order of the fields' names; `options` counts those.
---@param normal table a schema in Kong's form
---@param published table the JSON Schema
---@return { options: integer, [integer]: { path: string, message: string } }
function compare.schemas(normal, published)
  local found = { options = 0 }
  local theirs = type(published.properties) == "table" and published.properties.config
  if theirs then compare_fields(found, "config", by_name(normal.fields).config, theirs) end
  return found
end

-- ---- The command ---------------------------------------------------------------------------------------------------

-- RateLimitingAdvanced.json and KafkaLog-3.15.json are of rate-limiting-advanced and kafka-log.
---@param path string
---@return string
function compare.plugin_of(path)
  local name = path:match("[^/]+$"):gsub("%.json$", ""):gsub("%-%d[%d.]*$", "")
  return (name:gsub("(%l)(%u)", "%1-%2"):lower())
end

local function read_schema(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local text, unread = file:read("*a")
  file:close()
  if not text then return nil, ("%s: %s"):format(path, unread) end
  local published, err = json.decode(text)
  if type(published) ~= "table" or type(published.properties) ~= "table" then
    return nil, ("%s: expected a JSON Schema with properties, found %s"):format(path, err or words.kind(published))
  end
  return published
end

local function compare_file(path, there, total)
  local published, why = read_schema(path)
  if not published then return why end
  local name = compare.plugin_of(path)
  if not there[name] then
    total.absent = total.absent + 1
    return nil
  end
  local normal, problem = described.schema(there[name])
  if not normal then return problem end
  local found = compare.schemas(normal, published)
  for _, difference in ipairs(found) do print(("%s: %s %s"):format(name, difference.path, difference.message)) end
  total.plugins, total.options = total.plugins + 1, total.options + found.options
  total.differences = total.differences + #found
end

function compare.run(args, host)
  local parsed = options.parse(args, { folders.option }, math.huge)
  if not parsed[1] then options.fail("expected files of JSON Schema, such as Acl.json") end
  local there = plugins.discover(folders.list(parsed, host))
  local total = { plugins = 0, options = 0, differences = 0, absent = 0 }
  for _, path in ipairs(parsed) do
    local problem = compare_file(path, there, total)
    if problem then
      io.stderr:write("sluice: ", problem, "\n")
      return 1
    end
  end
  print(("plugins: %d, options: %d, differences: %d; plugins that are not here: %d"):format(total.plugins,
    total.options, total.differences, total.absent))
  return total.differences == 0 and 0 or 1
end

return compare
