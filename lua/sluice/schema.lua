-- SPDX-License-Identifier: Apache-2.0
-- Plugin schemas. Two forms say the same: Sluice's short one, a map of field names to descriptions, and Kong's, whose
-- `fields` is a list of single-entry maps. normalise() turns either into Kong's; process() checks a configuration.
local cjson = require "cjson"
local checks = require "sluice.schema.checks"
local compile = require "sluice.schema.compile"
local suggest = require "sluice.config.suggest"
local words = require "sluice.schema.words"

local schema = {}

-- Attributes that a field may have; those that only describe are kept for the tools that draw forms. Sluice's own is
-- `names = "kafka"`: the text names a cluster of gateway.kafka.
local known_attributes = {}
for name in ([[type required default elements keys values fields entity_checks shorthand_fields reference
  eq ne len_eq len_min len_max between gt one_of not_one_of starts_with match not_match match_none match_all match_any
  is_regex uuid timestamp contains mutually_exclusive_subsets custom_validator err expected
  description about referenceable encrypted deprecation auto unique indexed abstract immutable legacy nilable hostname
  json_schema transformations func translate_backwards translate_backwards_with on_delete cache_key
  unique_across_ws subschema_key tolerated id transient unevaluated_properties
  names]]):gmatch("%S+") do
  known_attributes[name] = true
end

local attribute_names = {}
for name in pairs(known_attributes) do attribute_names[#attribute_names + 1] = name end

local normalise_field

-- A list of { name = field } from either form; special keys of the short form are left out.
local function normalise_fields(fields, path, result)
  if type(fields) ~= "table" then error(path .. ": expected a map of fields, found " .. words.kind(fields), 0) end
  if fields[1] ~= nil then
    for i, entry in ipairs(fields) do
      local name, field = next(entry)
      result[i] = { [name] = normalise_field(field, path == "" and name or path .. "." .. name) }
    end
    return result
  end
  local names = {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    result[#result + 1] = { [name] = normalise_field(fields[name], path == "" and name or path .. "." .. name) }
  end
  return result
end

local function check_attributes(field, path)
  for name in pairs(field) do
    if not known_attributes[name] then
      error(("%s: unknown attribute %q%s"):format(path, tostring(name),
        suggest.phrase(tostring(name), attribute_names)), 0)
    end
  end
  if not compile.has_type(field.type) then
    error(("%s: expected a known type, found %s"):format(path, words.value(field.type)), 0)
  end
end

local function normalise_shorthands(list, path)
  local result = {}
  for i, entry in ipairs(list) do
    local name, field = next(entry)
    result[i] = { [name] = normalise_field(field, path .. "." .. name) }
  end
  return result
end

function normalise_field(field, path)
  if type(field) ~= "table" then
    error(("%s: expected a field's description (a map), found %s"):format(path, words.kind(field)), 0)
  end
  check_attributes(field, path)
  local result = {}
  for name, value in pairs(field) do result[name] = value end
  result.description, result.about = field.description or field.about, nil
  if field.type == "array" or field.type == "set" then
    result.elements = normalise_field(field.elements or { type = "any" }, path .. "[]")
  elseif field.type == "map" then
    result.keys = field.keys and normalise_field(field.keys, path .. "{key}")
    result.values = field.values and normalise_field(field.values, path .. "{}")
  elseif field.type == "record" then
    result.fields = normalise_fields(field.fields or {}, path, {})
    result.shorthand_fields = field.shorthand_fields and normalise_shorthands(field.shorthand_fields, path)
  end
  assert(checks.compile(result.entity_checks))
  return result
end

local function short_form(given)
  local fields, config = {}, { type = "record", required = true }
  local prepare = type(given.prepare) == "function" and given.prepare or nil
  for name, value in pairs(given) do
    if (name == "entity_checks" or name == "shorthand_fields") and type(value) == "table" and not value.type then
      config[name] = value
    elseif value ~= prepare then
      fields[name] = value
    end
  end
  config.fields = fields
  return { fields = { { config = normalise_field(config, "config") } }, prepare = prepare }
end

local function is_kong_form(given)
  return type(given.fields) == "table" and type(given.fields[1]) == "table" and given.fields.type == nil
end

local function config_of(normal)
  for _, entry in ipairs(normal.fields) do
    if entry.config then return entry.config end
  end
end

local function kong_form(given)
  local result = { name = given.name, fields = {}, entity_checks = given.entity_checks, prepare = given.prepare }
  for i, entry in ipairs(given.fields) do
    local name, field = next(entry)
    result.fields[i] = { [name] = normalise_field(field, name) }
  end
  local config = config_of(result)
  if not config then
    table.insert(result.fields, { config = { type = "record", required = true, fields = {} } })
  elseif config.type ~= "record" then
    error("config: expected a field of type record, found " .. words.value(config.type), 0)
  end
  assert(checks.compile(given.entity_checks))
  return result
end

-- Defaults must pass their own fields' checks. (A record's own default may leave out required fields.)
local function check_defaults(field, path)
  if field.default ~= nil and field.type ~= "record" then
    local ctx = compile.context()
    compile.field(field)(field.default, ctx)
    if ctx.n > 0 then error(("%s: its default: %s"):format(path, words.sentence(ctx.errors[1])), 0) end
  end
  for _, entry in ipairs(field.fields or {}) do
    local name, member = next(entry)
    check_defaults(member, path .. "." .. name)
  end
end

-- The schema in Kong's form from either form; or nil and what is wrong with it, beginning with the field's name.
function schema.normalise(given)
  if type(given) ~= "table" then return nil, "expected a table, found " .. words.kind(given) end
  local ok, result = pcall(function()
    local normal = (is_kong_form(given) and kong_form or short_form)(given)
    check_defaults(config_of(normal), "config")
    return normal
  end)
  if not ok then return nil, tostring(result) end
  return result
end

local compiled = setmetatable({}, { __mode = "k" })

local function compiled_of(normal)
  local entry = compiled[normal]
  if not entry then
    entry = { config = compile.field(config_of(normal)), checks = assert(checks.compile(normal.entity_checks)) }
    compiled[normal] = entry
  end
  return entry
end

local function reversed(keys)
  local result = {}
  for i = #keys, 1, -1 do result[#result + 1] = keys[i] end
  return result
end

local function field_errors(ctx)
  for i = 1, ctx.n do
    local err = ctx.errors[i]
    err.keys = reversed(err.keys)
    err.field = words.path(err.keys)
    err.text = (err.field ~= "" and err.field .. ": " or "") .. words.sentence(err)
  end
  table.sort(ctx.errors, function(a, b) return a.text < b.text end)
  return ctx.errors
end
schema.field_errors = field_errors

local function entity_errors(entry, config, ctx)
  for _, check in ipairs(entry.checks) do
    local err = check({ config = config })
    if err then
      local keys = {}
      for key in (err.field or "config"):gmatch("[^.]+") do table.insert(keys, 1, key) end
      ctx.n = ctx.n + 1
      ctx.errors[ctx.n] = { keys = keys, expected = err.expected, found = err.found, message = err.message }
    end
  end
end

-- Checks a plugin's configuration against a normalised schema. Returns a new table with all defaults; or nil and a list
-- of errors { field = "config.x.y", keys = {...}, expected, found, message, text = "config.x.y: expected ..." }.
function schema.process(normal, config)
  local entry = compiled_of(normal)
  local ctx = compile.context()
  local result = entry.config(config == nil and {} or config, ctx)
  for i = 1, ctx.n do table.insert(ctx.errors[i].keys, "config") end
  if ctx.n == 0 then entity_errors(entry, result, ctx) end
  if ctx.n > 0 then return nil, field_errors(ctx) end
  return result, nil, ctx.warnings
end

-- Has the schema's own `prepare` put into a valid configuration what it refers to outside of it, such as the content of
-- files: workers get the configuration, and read no files. `files`: path(name) gives the absolute path of a name in the
-- configuration; read(path) notes a file that was read, a change to which is a change of the configuration;
-- text(path) reads and notes one, folder(path, ending) gives the texts of all files below a folder whose names end so;
-- tree(text, name) parses YAML or JSON; has(collection, name) says whether there is an entity ("services") of that name
-- or id. Members that are added are named `__something`. Returns nil, or an error { field, expected, found } or
-- { field, message }.
---@param normal table
---@param config table
---@param files { path: (fun(name: string): string), read: fun(path: string),
---  text: fun(path: string): string|nil, string|nil; folder: fun(path: string, ending: string): table|nil, string|nil;
---  tree: fun(text: string, name: string): table|nil, string|nil;
---  has: fun(collection: string, name: string): boolean }
function schema.prepare(normal, config, files)
  if not normal.prepare then return nil end
  local ok, fault = pcall(normal.prepare, config, files)
  if not ok then return { message = "the schema's own preparation failed: " .. tostring(fault) } end
  return fault
end

-- Another field of a plugin that its schema speaks of (protocols, consumer, route, service), or nil.
function schema.plugin_field(normal, name)
  for _, entry in ipairs(normal.fields) do
    if entry[name] then return entry[name] end
  end
end

-- The name of the configuration's field that names a cluster of gateway.kafka, or nil.
function schema.cluster_field(normal)
  for _, entry in ipairs(config_of(normal).fields) do
    local name, field = next(entry)
    if field.names == "kafka" then return name end
  end
end

schema.null = cjson.null

return schema
