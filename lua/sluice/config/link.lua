-- SPDX-License-Identifier: Apache-2.0
-- Gives every entry its id and turns references into ids. Ids that are not given are made from what names the entity,
-- so they stay from load to load and between the processes that load the same file.
local cjson = require "cjson"
local entities = require "sluice.config.entities"
local errors = require "sluice.config.errors"
local snapshot = require "sluice.snapshot"
local suggest = require "sluice.config.suggest"
local uuid = require "sluice.config.uuid"
local words = require "sluice.schema.words"

local null = cjson.null
local link = {}

-- ---- References -----------------------------------------------------------------------------------------------------

-- A reference as a text: an id, a name, { id = } or { name = }.
local function reference_text(definition, value)
  if type(value) ~= "table" then return value end
  if value.id ~= nil and value.id ~= null then return value.id end
  for _, field in ipairs(definition.names) do
    if value[field] ~= nil and value[field] ~= null then return value[field] end
  end
end

local function known_names(index)
  local names = {}
  for _, entries in pairs(index.by_field) do
    for name in pairs(entries) do names[#names + 1] = name end
  end
  return names
end

local function find(definition, index, text)
  local found = index.by_id[text]
  for _, field in ipairs(definition.names) do found = found or index.by_field[field][text] end
  return found
end

local function article(kind)
  return (kind:find("^[aeiou]") and "an " or "a ") .. kind:gsub("_", " ")
end

local function resolve(loader, entry, field, collection)
  local value = entry.record[field]
  if value == nil then return end
  if value.definition and value.record then -- the entry that it is nested in
    entry.record[field] = value.record.id
    return
  end
  local definition, index = entities.by_collection[collection], loader.index[collection]
  local text = reference_text(definition, value)
  local target = type(text) == "string" and find(definition, index, text)
  if target then
    entry.record[field] = target.record.id
    return
  end
  entry.failed, entry.record[field] = true, nil
  local meant = type(text) == "string" and suggest.phrase(text, known_names(index)) or ""
  errors.add(loader.errors, { entry = entry, keys = { field }, found = words.value(text or value),
    expected = "the id or name of " .. article(definition.kind) .. " in the configuration" .. meant })
end

-- ---- Identity -------------------------------------------------------------------------------------------------------

local function made_id(loader, entry)
  local definition = entry.definition
  local key = definition.key and definition.key(entry.record)
  local name = definition.kind .. ":" .. (key or snapshot.encode(entry.record))
  if key then return uuid.from_name(name) end
  -- Nothing names it, so its content does; the second of two equal ones counts on.
  local count = (loader.unnamed[name] or 0) + 1
  loader.unnamed[name] = count
  if count > 1 then loader.twins = true end
  return uuid.from_name(count == 1 and name or name .. ":" .. count)
end

local function collides(loader, entry, other, field)
  local kind, found = errors.kind(entry), "another"
  if field then found = (entry.definition.secret[field] and words.kind or words.value)(entry.record[field]) end
  errors.add(loader.errors, { entry = entry, other = other, keys = field and { field } or {}, found = found,
    expected = field and ("a value that no other %s has"):format(kind) or ("one such %s"):format(kind) })
end

local function index_entry(loader, index, entry)
  local record, definition = entry.record, entry.definition
  local other = index.by_id[record.id]
  if other and not entry.failed then
    local by_name = definition.names[1] and other.record[definition.names[1]] == record[definition.names[1]]
      and record[definition.names[1]] ~= nil and definition.names[1]
    return collides(loader, entry, other, by_name or (entry.item and entry.item.id and "id") or nil)
  end
  index.by_id[record.id] = entry
  for _, field in ipairs(definition.names) do
    local name, by_name = record[field], index.by_field[field]
    if name ~= nil and by_name[name] then collides(loader, entry, by_name[name], field) end
    if name ~= nil and not by_name[name] then by_name[name] = entry end
  end
end

-- One of a kind on one subject (a plugin on a route, a target of an upstream), whatever their ids.
local function check_key(loader, seen, entry)
  local definition = entry.definition
  if entry.failed or #definition.names > 0 and definition.kind ~= "plugin" or not definition.key then return end
  local key = entry.known and entry.known.key or (definition.subject or definition.key)(entry.record)
  entry.key = key
  if seen[key] then
    entry.failed = true
    collides(loader, entry, seen[key])
  else
    seen[key] = entry
  end
end

local function link_entry(loader, entry)
  for field, target in pairs(entry.definition.refs) do resolve(loader, entry, field, target) end
  local record = entry.record
  if record.target and not entry.failed then record.target = entities.full_target(record.target) end
end

local function identify(loader, entry)
  local record = entry.record
  record.id = record.id or (entry.failed and "failed:" .. tostring(entry) or made_id(loader, entry))
end

local function link_collection(loader, collection)
  local definition = entities.by_collection[collection]
  local index, seen = { by_id = {}, by_field = {} }, {}
  for _, field in ipairs(definition.names) do index.by_field[field] = {} end
  loader.index[collection] = index
  for _, entry in ipairs(loader.entries[collection]) do
    if entry.record then
      if not entry.known then link_entry(loader, entry) end
      check_key(loader, seen, entry)
      if not entry.known then identify(loader, entry) end
      index_entry(loader, index, entry)
    end
  end
end

-- Works on loader.entries, makes loader.index[collection] = { by_id, by_field = { name = {} } } of entries.
function link.run(loader)
  loader.index, loader.unnamed = {}, {}
  for _, collection in ipairs(entities.order) do link_collection(loader, collection) end
end

return link
