-- SPDX-License-Identifier: Apache-2.0
-- What a load found out, kept for the next one. Most reloads change one item of thousands: the items whose text is as
-- it was keep their encoded records, and only their names and references are looked at again. Any doubt, and any
-- error, means that everything is read anew, so the messages are always those of a whole load.
--
-- Kept for each item (a top-level list entry with all that is nested in it): its text, and for each record in it the
-- bytes, id, names, key, the ids that it refers to and the plugin that it uses. All in flat lists, which decode fast.
local buffer = require "string.buffer"
local collect = require "sluice.config.collect"
local entities = require "sluice.config.entities"
local lfs = require "lfs"
local snapshot = require "sluice.snapshot"
local source = require "sluice.config.source"
local split = require "sluice.config.split"
local uuid = require "sluice.config.uuid"
local yaml = require "sluice.config.yaml"

local cache = {}

local COLLECTIONS = {}
for _, collection in ipairs(entities.order) do COLLECTIONS[collection] = true end

-- ---- Whose cache is it ----------------------------------------------------------------------------------------------

local function read_file(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("*a")
  file:close()
  return text
end

-- Tells one version of this code from another: names, times and sizes of the files that make records.
local function fingerprint(home)
  local parts = { "2" }
  for _, folder in ipairs { "/lua/sluice/config", "/lua/sluice/schema", "/lua/sluice/expression", "/lua/sluice" } do
    local names = {}
    if lfs.attributes(home .. folder, "mode") ~= "directory" then return nil end
    for name in lfs.dir(home .. folder) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
      local found = lfs.attributes(home .. folder .. "/" .. name)
      if found and found.mode == "file" then
        parts[#parts + 1] = ("%s:%d:%d"):format(name, found.modification, found.size)
      end
    end
  end
  return uuid.sha1_hex(table.concat(parts, "\n"))
end

-- ---- Reading --------------------------------------------------------------------------------------------------------

local function load_cache(path, print)
  local bytes = read_file(path)
  local ok, kept = pcall(buffer.decode, bytes or "")
  if not ok or type(kept) ~= "table" or kept.fingerprint ~= print then return nil end
  return kept
end

-- The code in use must be what it was for a record that uses it, and the record hold nothing of other files.
local function same_plugins(loader, kept)
  local same = {}
  for name, was in pairs(kept.plugins) do
    local code = loader.registry.codes[name]
    local trusted = loader.registry.trusted[name] or false
    local is_same = code and code.hash == was.hash and code.dir == was.dir and trusted == was.trusted
      and not was.prepares
    same[name] = is_same and { code = code, trusted = trusted } or nil
  end
  return same
end

-- One record of the cache as an entry that needs no more than to be known by its names.
local function known_entry(file, at, src)
  local definition = entities.by_collection[file.collections[at]]
  local record = { id = file.ids[at] }
  for i, field in ipairs(definition.names) do record[field] = file.names[i][at] or nil end
  local known = { key = file.keys[at], refs_of = file.refs_of[at], refs = file.refs[at], plugin = file.plugins[at] }
  return { known = known, record = record, bytes = file.bytes[at], definition = definition, source = src,
    list_key = file.collections[at], index = 0 }
end

local function uses_changed(file, first, last, same)
  for at = first, last do
    local plugin = file.plugins[at]
    if plugin and not same[plugin] then return true end
  end
  return false
end

-- Where each item's records are: by collection and text, first and last.
local function locate(file)
  local places, at = {}, 1
  for i, text in ipairs(file.texts) do
    local collection = file.texts_of[i]
    places[collection] = places[collection] or {}
    places[collection][text] = { first = at, last = at + file.counts[i] - 1 }
    at = at + file.counts[i]
  end
  return places
end

local function add_known(loader, file, place, src, item, same)
  for at = place.first, place.last do
    local plugin = file.plugins[at]
    if plugin then loader.used[plugin] = loader.used[plugin] or same[plugin] end
    local entry = known_entry(file, at, src)
    entry.cut = item
    table.insert(loader.entries[file.collections[at]], entry)
  end
end

local function parse_item(text)
  local list, references, err = yaml.decode(text)
  if err or references or type(list) ~= "table" or #list ~= 1 then return nil end
  return list
end

-- Takes over or reads anew each item of one source. False: in doubt.
local function take_items(loader, file, src, same)
  local places = locate(file)
  for _, collection in ipairs(entities.order) do
    for i, text in ipairs(src.cut.sections[collection] or {}) do
      local place = places[collection] and places[collection][text]
      local item = { collection = collection, text = text }
      if place and not uses_changed(file, place.first, place.last, same) then
        add_known(loader, file, place, src, item, same)
      else
        local list = parse_item(text)
        if not list then return false end
        collect.item(loader, collection, list[1], { source = src, list_key = collection, index = i, cut = item })
      end
    end
  end
  return true
end

local function holds_items(tree)
  for collection in pairs(COLLECTIONS) do
    local value = tree[collection]
    if type(value) == "table" and next(value) ~= nil then return true end
  end
  return false
end

-- The sources of the heads alone, with their items cut off; nil when a text cannot be cut.
local function heads_of(loader)
  local sources = {}
  for i, given in ipairs(loader.texts) do
    local cut = split.cut(given.text, COLLECTIONS)
    local src, err
    if cut then src, err = source.parse(given.file, cut.head) end
    if not src or err or src.references or type(src.tree) ~= "table" or holds_items(src.tree) then return nil end
    src.cut, src.base = cut, given.base
    sources[i] = src
  end
  return sources
end

local function same_heads(sources, kept)
  if #sources ~= #kept.files then return false end
  for i, src in ipairs(sources) do
    if src.file ~= kept.files[i].path or src.cut.head ~= kept.files[i].head then return false end
  end
  return true
end

local function refs_hold(loader, known)
  local targets, ids = known.refs_of, known.refs
  if type(ids) == "string" then return loader.index[targets].by_id[ids] ~= nil end
  for i = 1, #ids do
    if not loader.index[targets[i]].by_id[ids[i]] then return false end
  end
  return true
end

-- References of what was taken over must still lead somewhere.
local function references_hold(loader)
  for _, collection in ipairs(entities.order) do
    for _, entry in ipairs(loader.entries[collection]) do
      local known = entry.known
      if known and known.refs and not refs_hold(loader, known) then return false end
    end
  end
  return true
end

-- Prepares `loader` (with `texts`, the files read): its sources are heads, and loader.take_items fills in the entries
-- with the help of what is kept in the file that `path_of(loader)` names. False: read everything.
function cache.begin(loader, home, path_of)
  loader.fingerprint = fingerprint(home)
  loader.sources = loader.fingerprint and heads_of(loader)
  if not loader.sources then return false end
  loader.cache_path = path_of(loader)
  local kept = load_cache(loader.cache_path, loader.fingerprint)
  if not kept or not same_heads(loader.sources, kept) then return false end
  loader.used = {}
  function loader.take_items()
    local same = same_plugins(loader, kept)
    for i, src in ipairs(loader.sources) do
      if not take_items(loader, kept.files[i], src, same) then return false end
    end
    return true
  end
  return true
end

-- ---- Writing --------------------------------------------------------------------------------------------------------

-- The collections and ids that a record refers to: false for none, plain texts for one, lists for more.
local function refs_of(entry)
  if entry.known then return entry.known.refs_of, entry.known.refs end
  local targets, ids, record = {}, {}, entry.record
  for field, target in pairs(entry.definition.refs) do
    if record[field] then
      targets[#targets + 1], ids[#ids + 1] = target, record[field]
    end
  end
  for _, id in ipairs(record.ca_certificates or {}) do
    targets[#targets + 1], ids[#ids + 1] = "ca_certificates", id
  end
  if #ids == 0 then return false, false end
  if #ids == 1 then return targets[1], ids[1] end
  return targets, ids
end

local function root_of(entry)
  while entry.within do entry = entry.within end
  return entry
end

-- The cut item that an entry came from; after a whole load by counting, whose number must agree with the parser's.
local function item_of(entry)
  local root = root_of(entry)
  if root.cut then return root.cut end
  local items = root.source.items and root.source.items[root.list_key]
  return items and items[root.index]
end

-- After a whole load: cuts the text, and checks that the parser found as many items.
local function cut_source(src)
  local cut = src.text and src.decoder == yaml and not src.references and split.cut(src.text, COLLECTIONS)
  if not cut then return false end
  src.cut, src.items = cut, {}
  for collection in pairs(COLLECTIONS) do
    local list = src.tree[collection]
    local texts = cut.sections[collection] or {}
    if #(type(list) == "table" and list or {}) ~= #texts then return false end
    src.items[collection] = {}
    for i, text in ipairs(texts) do src.items[collection][i] = { collection = collection, text = text } end
  end
  return true
end

local function group_by_item(loader)
  for _, collection in ipairs(entities.order) do
    for _, entry in ipairs(loader.entries[collection]) do
      local item = item_of(entry)
      if not item then return false end
      item.entries = item.entries or {}
      table.insert(item.entries, entry)
    end
  end
  return true
end

local function put_record(file, entry)
  local n = #file.ids + 1
  local record, names = entry.record, entry.definition.names
  file.collections[n], file.ids[n], file.bytes[n] = entry.definition.collection, record.id, entry.bytes
  file.names[1][n], file.names[2][n] = names[1] and record[names[1]] or false, names[2] and record[names[2]] or false
  file.keys[n] = entry.key or false
  file.refs_of[n], file.refs[n] = refs_of(entry)
  file.plugins[n] = entry.known and entry.known.plugin or entry.definition.kind == "plugin" and record.name or false
end

-- Items in the order of the file, whose records are in the order of collections.
local function file_of(src, items)
  local file = { path = src.file, head = src.cut.head, texts = {}, texts_of = {}, counts = {}, collections = {},
    ids = {}, bytes = {}, names = { {}, {} }, keys = {}, refs_of = {}, refs = {}, plugins = {} }
  for _, item in ipairs(items) do
    local n = #file.texts + 1
    file.texts[n], file.texts_of[n], file.counts[n] = item.text, item.collection, #(item.entries or {})
    for _, entry in ipairs(item.entries or {}) do put_record(file, entry) end
  end
  return file
end

-- The items of a source in order: of a whole load as cut, of a partial one as taken.
local function items_of(loader, src)
  local items, seen = {}, {}
  for _, collection in ipairs(entities.order) do
    for _, item in ipairs(src.items and src.items[collection] or {}) do items[#items + 1] = item end
  end
  if src.items then return items end
  for _, collection in ipairs(entities.order) do
    for _, entry in ipairs(loader.entries[collection]) do
      local item = entry.source == src and item_of(entry)
      if item and not seen[item] then
        seen[item] = true
        items[#items + 1] = item
      end
    end
  end
  return items
end

local function plugins_of(loader)
  local plugins = {}
  for name, used in pairs(loader.used) do
    plugins[name] = { hash = used.code.hash, dir = used.code.dir, trusted = used.trusted,
      prepares = used.schema ~= nil and used.schema.prepare ~= nil }
  end
  return plugins
end

-- Keeps what a good load found, for the next. Does nothing when a later load could not tell what is the same.
function cache.keep(loader)
  if not loader.fingerprint or loader.twins or #loader.errors.warnings > 0 then return end
  for _, src in ipairs(loader.sources) do
    if not src.cut and not cut_source(src) then return end
  end
  if not group_by_item(loader) then return end
  local files = {}
  for i, src in ipairs(loader.sources) do files[i] = file_of(src, items_of(loader, src)) end
  local bytes = buffer.encode { fingerprint = loader.fingerprint, plugins = plugins_of(loader), files = files }
  local temporary = loader.cache_path .. ".tmp"
  local file = snapshot.private_file(temporary)
  if not file then return end
  local ok = snapshot.finish(file, bytes)
  if ok then os.rename(temporary, loader.cache_path) else os.remove(temporary) end
end

-- Whether a partial load came upon anything that a whole one should tell.
function cache.in_doubt(loader)
  return #loader.errors.list > 0 or #loader.errors.warnings > 0 or loader.twins or not references_hold(loader)
end

return cache
