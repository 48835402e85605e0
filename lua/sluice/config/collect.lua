-- SPDX-License-Identifier: Apache-2.0
-- From the trees of the sources to flat lists of entries. An entry is one entity as written:
-- { record, definition, source, within = parent entry, list_key, index }; its record has its fields checked and
-- defaults filled in, while references are still as they were written (a nested one is the parent entry itself).
local cjson = require "cjson"
local compile = require "sluice.schema.compile"
local entities = require "sluice.config.entities"
local errors = require "sluice.config.errors"
local suggest = require "sluice.config.suggest"
local words = require "sluice.schema.words"

local null = cjson.null
local collect = {}

-- ---- Definitions, compiled ------------------------------------------------------------------------------------------

local function compiled_check(definition)
  local fields = {}
  for i, field in ipairs(definition.fields) do fields[i] = field end
  for name in pairs(definition.nested) do fields[#fields + 1] = { [name] = { type = "any", tolerated = true } } end
  return compile.field { type = "record", fields = fields, entity_checks = definition.entity_checks,
    shorthand_fields = definition.shorthand_fields }
end

local function prepare()
  for _, definition in pairs(entities.by_collection) do
    definition.check = compiled_check(definition)
    definition.nested_keys, definition.secret = {}, {}
    for _, entry in ipairs(definition.fields) do
      local name, field = next(entry)
      definition.secret[name] = field.encrypted
    end
    for name in pairs(definition.nested) do table.insert(definition.nested_keys, name) end
    table.sort(definition.nested_keys)
  end
end
prepare()

-- ---- Entries --------------------------------------------------------------------------------------------------------

local function note_fields(loader, entry, ctx)
  for i = 1, ctx.n do
    local err = ctx.errors[i]
    local keys = {}
    for k = #err.keys, 1, -1 do keys[#keys + 1] = err.keys[k] end
    errors.add(loader.errors, { entry = entry, keys = keys, expected = err.expected, found = err.found,
      message = err.message })
  end
end

-- A nested item may be written shorter: the name of a consumer's group, a certificate's SNI.
local function long_item(item, field)
  if not field then return item end
  if type(item) == "string" then return { [field] = item } end
  if field ~= "name" and type(item) == "table" and item[field] == nil then return { [field] = item } end
  return item
end

local collect_list

local function collect_nested(loader, entry, item)
  local definition = entry.definition
  for _, key in ipairs(definition.nested_keys) do
    local children = item[key]
    if children ~= nil and children ~= null then
      local nested = definition.nested[key]
      collect_list(loader, nested[1], children, { source = entry.source, within = entry, list_key = key,
        refer = nested[2], long = nested[3] })
    end
  end
end

local LEGACY_PLAIN_PATH = "^[%w.%-_~/%%]*$"

-- Before format 3.0 a path was a regular expression when it looked like one; since then "~" says so.
local function migrated_route(item)
  if type(item.paths) ~= "table" then return item end
  local paths = {}
  for i, path in ipairs(item.paths) do
    local is_regex = type(path) == "string" and not path:find(LEGACY_PLAIN_PATH) and path:sub(1, 1) ~= "~"
    paths[i] = is_regex and "~" .. path or path
  end
  local result = {}
  for key, value in pairs(item) do result[key] = value end
  result.paths = paths
  return result
end

local function with_defaults(item, defaults)
  local result = {}
  for key, value in pairs(defaults) do result[key] = value end
  for key, value in pairs(item) do result[key] = value end
  return result
end

-- What the file as a whole says about its items: its format's age, and defaults from `_info`.
local function prepared(item, definition, src)
  if src.legacy and definition.kind == "route" then item = migrated_route(item) end
  local defaults = src.defaults and src.defaults[definition.kind]
  if type(defaults) == "table" then item = with_defaults(item, defaults) end
  return item
end

local function collect_item(loader, definition, item, entry)
  local refer = entry.refer
  if type(item) ~= "table" or item[1] ~= nil then
    return errors.add(loader.errors, { entry = entry, expected = "a map", found = words.kind(item) })
  end
  item = prepared(item, definition, entry.source)
  if refer and item[refer] ~= nil and item[refer] ~= null then
    errors.add(loader.errors, { entry = entry, keys = { refer }, expected = "nothing (it is nested in that "
      .. entry.within.definition.kind .. ")", found = words.value(item[refer]) })
  end
  entry.item = item
  local ctx = loader.context
  ctx.provided = refer
  local record = definition.check(item, ctx)
  if refer and record then record[refer] = entry.within end
  entry.record = record
  if ctx.n > 0 then
    entry.failed = true
    note_fields(loader, entry, ctx)
    loader.context = compile.context()
  end
  local list = loader.entries[definition.collection]
  list[#list + 1] = entry
  collect_nested(loader, entry, item)
end

-- `list` of one collection, as found under place.list_key.
function collect_list(loader, collection, list, place)
  local definition = entities.by_collection[collection]
  if type(list) ~= "table" or (list[1] == nil and next(list) ~= nil) then
    local keys = place.within and { place.list_key } or { collection }
    return errors.add(loader.errors, { entry = place.within, source = not place.within and place.source or nil,
      keys = keys, expected = "a list", found = words.kind(list) })
  end
  for i = 1, #list do
    collect_item(loader, definition, long_item(list[i], place.long), { definition = definition,
      source = place.source, within = place.within, refer = place.refer, list_key = place.list_key, index = i })
  end
end

-- One item of a top-level list; `entry` says where it stands: { source, list_key, index }.
function collect.item(loader, collection, item, entry)
  entry.definition = entities.by_collection[collection]
  collect_item(loader, entry.definition, item, entry)
end

-- ---- The top of a file ----------------------------------------------------------------------------------------------

local FORMATS = { ["1.1"] = "legacy", ["2.1"] = "legacy", ["3.0"] = "now" }

-- What may stand at the top beside collections. What tools write there is passed over.
local TOP = { gateway = true, _format_version = true, _transform = true, _comment = true, _ignore = true, _info = true,
  _workspace = true, _konnect = true, _plugin_configs = true }

local COLLECTIONS = { "vaults" }
for _, collection in ipairs(entities.order) do table.insert(COLLECTIONS, collection) end

local function top_names()
  local names = { "gateway", "_format_version", "_transform", "_info" }
  for _, collection in ipairs(COLLECTIONS) do names[#names + 1] = collection end
  return names
end

local function read_format(loader, src)
  local version = src.tree._format_version
  if version == nil or version == null then return end
  if not FORMATS[version] then
    errors.add(loader.errors, { source = src, keys = { "_format_version" }, expected = 'one of "1.1", "2.1" or "3.0"',
      found = words.value(version) })
  end
  src.legacy = FORMATS[version] == "legacy"
end

local function read_flags(loader, src)
  local tree = src.tree
  if tree._transform ~= nil and type(tree._transform) ~= "boolean" then
    errors.add(loader.errors, { source = src, keys = { "_transform" }, expected = "a boolean",
      found = words.kind(tree._transform) })
  end
  src.transformed = tree._transform ~= false
  local info = type(tree._info) == "table" and tree._info or {}
  src.defaults = type(info.defaults) == "table" and info.defaults or nil
  src.plugin_configs = type(tree._plugin_configs) == "table" and tree._plugin_configs or nil
end

local function is_empty(list)
  return list == null or type(list) == "table" and next(list) == nil
end

local function note_unknown_top(loader, src, key)
  if entities.unsupported[key] then
    if is_empty(src.tree[key]) then return end -- tools write lists of what there is none of
    return errors.add(loader.errors, { source = src, keys = { key }, found = words.value(key),
      expected = "a collection that this version supports", message = key .. " are not supported by this version" })
  end
  local names = top_names()
  errors.add(loader.errors, { source = src, keys = { key }, expected = "one of " .. words.alternatives(names),
    found = words.value(key), message = "unknown field" .. suggest.phrase(key, names) })
end

local function collect_source(loader, src)
  local tree = src.tree
  if type(tree) ~= "table" or tree[1] ~= nil then
    return errors.add(loader.errors, { source = src, expected = "a map", found = words.kind(tree) })
  end
  read_format(loader, src)
  read_flags(loader, src)
  for _, collection in ipairs(COLLECTIONS) do -- never by pairs: the order of entities must not change from load to load
    local list = tree[collection]
    if list ~= nil and list ~= null then
      collect_list(loader, collection, list, { source = src, list_key = collection })
    end
  end
  for key in pairs(tree) do
    if not entities.by_collection[key] and not TOP[key] then note_unknown_top(loader, src, key) end
  end
end

-- Fills loader.entries (by collection) from loader.sources.
function collect.run(loader)
  loader.entries, loader.context = {}, compile.context()
  for collection in pairs(entities.by_collection) do loader.entries[collection] = {} end
  for _, src in ipairs(loader.sources) do
    if src.tree ~= nil then collect_source(loader, src) end
  end
end

return collect
