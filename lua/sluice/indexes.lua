-- SPDX-License-Identifier: Apache-2.0
-- Look-ups among a generation's entities by the value of a field. An index is made at its first use; a generation that
-- follows gets those of its predecessor before it goes live, so that a reload never makes a request wait for one.
--
--   held.indexes[kind][field] = { one = { value -> entity }, all = { value -> entities } }

local indexes = {}

local NONE = {}

local function value_of(entity, field)
  local value = entity[field]
  if type(value) == "table" then return value.id end -- a reference
  return value
end

local function no_pace() end

local make = {}

function make.one(list, field, pace)
  local index = {}
  for i = 1, #list do
    local value = value_of(list[i], field)
    if value ~= nil then index[value] = list[i] end
    pace()
  end
  return index
end

function make.all(list, field, pace)
  local index = {}
  for i = 1, #list do
    local value = value_of(list[i], field)
    if value ~= nil then
      local group = index[value]
      if not group then
        group = {}
        index[value] = group
      end
      group[#group + 1] = list[i]
    end
    pace()
  end
  return index
end

local function child(parent, key)
  local found = parent[key]
  if not found then
    found = {}
    parent[key] = found
  end
  return found
end

-- The index, made when it is not there. Compiled code sees three table look-ups.
local function index_of(held, kind, field, shape)
  local of_kind = held.indexes[kind]
  local of_field = of_kind and of_kind[field]
  local index = of_field and of_field[shape]
  if index then return index end
  local list = held.entities[kind]
  if not list then return NONE end
  index = make[shape](list, field, no_pace)
  child(child(held.indexes, kind), field)[shape] = index
  return index
end

-- The entity of a kind whose field has that value (of several, the last).
---@param held sluice.generation
---@param kind string such as "consumers" or "keyauth_credentials"
---@param field string such as "id" or "key"
---@param value any
---@return table|nil
function indexes.find(held, kind, field, value)
  return index_of(held, kind, field, "one")[value]
end

-- All entities of a kind whose field has that value, in the configuration's order. Not to be changed.
---@return table[]
function indexes.all(held, kind, field, value)
  return index_of(held, kind, field, "all")[value] or NONE
end

local function same_list(a, b, pace)
  if not a or not b or #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
    if i % 1000 == 0 then pace() end
  end
  return true
end

-- What the old generation has been asked for so far: its requests go on asking while the new one is built.
local function wanted(old)
  local list = {}
  for kind, of_kind in pairs(old.indexes) do
    for field, of_field in pairs(of_kind) do
      for shape, index in pairs(of_field) do
        list[#list + 1] = { kind = kind, field = field, shape = shape, index = index }
      end
    end
  end
  return list
end

-- Gives `held` the indexes that `old` has: the same ones where the entities are, else new ones.
---@param old sluice.generation
---@param held sluice.generation
---@param pace fun() lets the loop run now and then
function indexes.carry(old, held, pace)
  for _, it in ipairs(wanted(old)) do
    local list = held.entities[it.kind]
    if list then
      local same = same_list(list, old.entities[it.kind], pace)
      local index = same and it.index or make[it.shape](list, it.field, pace)
      child(child(held.indexes, it.kind), it.field)[it.shape] = index
    end
  end
end

return indexes
