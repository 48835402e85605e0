-- SPDX-License-Identifier: Apache-2.0
-- The schemas that a validator is made from: which names (`$id`, anchors) stand for which of them. A resource is a
-- schema with a name of its own, and all in it that has none.
local drafts = require "sluice.json_schema.drafts"
local equal = require "sluice.json_schema.equal"
local uri = require "sluice.json_schema.uri"

local gsub, type, tonumber, pairs, ipairs = string.gsub, type, tonumber, pairs, ipairs

local Documents = {}
Documents.__index = Documents

local function refuse(where, what)
  error({ where = where, what = what }, 0)
end
Documents.refuse = refuse

---@param given table<string, table> schemas by URI that references may name
---@param draft string of schemas that do not say which is theirs
function Documents.new(given, draft)
  local self = setmetatable({ given = {}, resources = {}, homes = {}, draft = drafts[draft], dynamic = false },
    Documents)
  for name, schema in pairs(given or {}) do self.given[(uri.split(name))] = schema end
  return self
end

local function is_object(value)
  return type(value) == "table" and not equal.is_array(value)
end

-- ---- Resources ----

local function add_anchor(resource, name, node)
  if type(name) == "string" then resource.anchors[name] = node end
end

local NOTHING_SPECIAL = { bare = false, asserts = false }

-- What a meta-schema that was given has instead of all vocabularies of its draft: `bare`, it leaves out the keywords
-- that validate; `asserts`, formats do.
local function special(meta)
  local vocabulary = meta["$vocabulary"]
  if not is_object(vocabulary) then return NOTHING_SPECIAL end
  local found = { bare = true, asserts = false }
  for name in pairs(vocabulary) do
    if name:find("/vocab/validation$") then found.bare = false end
    if name:find("/vocab/format%-assertion$") then found.asserts = true end
  end
  return found
end

-- The draft of a schema that says which; a meta-schema that was given follows its own.
local function draft_of(self, name, where, depth)
  if type(name) ~= "string" then refuse(where .. "/$schema", "expected the URI of a draft") end
  local known = drafts.named(name)
  if known then return known, NOTHING_SPECIAL end
  if name:find("^https?://json%-schema%.org/schema#?$") then return self.draft, NOTHING_SPECIAL end
  local meta = self.given[(uri.split(name))]
  if not is_object(meta) or depth > 8 then
    refuse(where .. "/$schema", "expected the URI of draft 4, 6, 7, 2019-09 or 2020-12, found " .. name)
  end
  local draft = meta["$schema"] and draft_of(self, meta["$schema"], where, depth + 1) or self.draft
  return draft, special(meta)
end

local function new_resource(self, node, name, parent, where)
  local draft, has = parent and parent.draft or self.draft, parent or NOTHING_SPECIAL
  if is_object(node) and node["$schema"] ~= nil then draft, has = draft_of(self, node["$schema"], where, 0) end
  local resource = { root = node, uri = name, draft = draft, bare = has.bare, asserts = has.asserts, anchors = {},
    dynamic = {}, where = where }
  self.resources[name] = self.resources[name] or resource
  return resource
end

-- ---- Walking through a schema ----

local walk

local function walk_map(self, map, resource, where)
  if not is_object(map) then return end
  for name, node in pairs(map) do walk(self, node, resource, where .. "/" .. name) end
end

local function walk_list(self, list, resource, where)
  for i, node in ipairs(list) do walk(self, node, resource, where .. "/" .. i - 1) end
end

local function walk_children(self, node, resource, where)
  local draft = resource.draft
  for keyword, value in pairs(node) do
    if type(value) == "table" then
      local place = where .. "/" .. keyword
      if draft.map[keyword] then
        walk_map(self, value, resource, place)
      elseif draft.list[keyword] and equal.is_array(value) then
        walk_list(self, value, resource, place)
      elseif draft.one[keyword] then
        walk(self, value, resource, place)
      end
    end
  end
end

-- The resource that a schema begins, or the one that it stands in.
local function resource_of(self, node, resource, where)
  local draft = resource.draft
  -- A draft that begins here has a say in which keyword names it.
  if type(node["$schema"]) == "string" and node ~= resource.root then
    draft = drafts.named(node["$schema"]) or draft
  end
  local id = node[draft.id]
  if type(id) ~= "string" or (draft.alone and node["$ref"] ~= nil) then return resource end
  local name, fragment = uri.split(id)
  if fragment ~= "" and draft.alone then
    if name == "" then
      add_anchor(resource, fragment, node)
      return resource
    end
  end
  name = uri.resolve(resource.uri, name)
  if name == resource.uri and node == resource.root then return resource end
  local own = new_resource(self, node, name, resource, where)
  if fragment ~= "" then add_anchor(own, fragment, node) end
  return own
end

local function note_anchors(self, node, resource)
  if resource.draft.number < 2019 then return end
  add_anchor(resource, node["$anchor"], node)
  if resource.draft.number == 2019 then
    if node["$recursiveAnchor"] == true and node == resource.root then
      resource.recursive, self.dynamic = true, true
    end
    return
  end
  local name = node["$dynamicAnchor"]
  if type(name) == "string" then
    add_anchor(resource, name, node)
    resource.dynamic[name] = node
    self.dynamic = true
  end
end

function walk(self, node, resource, where)
  if not is_object(node) or self.homes[node] then return end
  local own = resource_of(self, node, resource, where)
  self.homes[node] = { resource = own, where = where }
  note_anchors(self, node, own)
  if own.draft.alone and node["$ref"] ~= nil then
    -- What stands beside the reference counts for nothing, but may be referred to.
    walk_map(self, node.definitions, own, where .. "/definitions")
    return
  end
  walk_children(self, node, own, where)
end

-- Takes in a whole document.
---@return table resource
function Documents:add(node, name)
  local resource = new_resource(self, node, name, nil, name == "" and "#" or name .. "#")
  walk(self, node, resource, resource.where)
  local home = self.homes[node]
  return home and home.resource or resource
end

-- Where a schema stands: { resource, where }. One in a place that the draft does not know is taken in now.
function Documents:home(node, resource, where)
  if not self.homes[node] then walk(self, node, resource, where) end
  return self.homes[node]
end

-- ---- References ----

local function find_resource(self, name)
  local resource = self.resources[name]
  if resource then return resource end
  local given = self.given[name]
  if given == nil then return nil end
  self:add(given, name)
  return self.resources[name]
end

local function step(node, token)
  if type(node) ~= "table" then return nil end
  if not equal.is_array(node) then return node[token] end
  local index = token:match("^%d+$") and tonumber(token)
  return index and node[index + 1]
end

-- Follows a pointer from the root of a resource, and into other resources on the way.
local function follow(self, resource, pointer)
  local node, where = resource.root, resource.where
  for token in pointer:gmatch("/([^/]*)") do
    node = step(node, (gsub(gsub(token, "~1", "/"), "~0", "~")))
    if node == nil then return nil end
    where = where .. "/" .. token
    local home = type(node) == "table" and self.homes[node]
    if home then resource = home.resource end
  end
  return node, resource, where
end

-- What a reference names: a schema, its resource, where it stands, and the name of the anchor, if it was one.
---@return any node nil: nothing
---@return table resource
---@return string where
---@return string|nil anchor
function Documents:resolve(reference, from)
  local name, fragment = uri.split(reference)
  local resource = find_resource(self, uri.resolve(from.uri, name))
  fragment = uri.unescaped(fragment)
  if not resource or not fragment then return nil end
  if fragment == "" then return resource.root, resource, resource.where end
  if fragment:sub(1, 1) == "/" then return follow(self, resource, fragment) end
  local node = resource.anchors[fragment]
  if node == nil then return nil end
  return node, resource, self.homes[node].where, fragment
end

return Documents
