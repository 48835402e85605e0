-- SPDX-License-Identifier: Apache-2.0
-- Keywords that apply schemas: to the same value, or to parts of it. As keywords.lua, with `ev` as the third argument
-- of a check: what has been evaluated of this value, where somebody wants to know (see run.evaluated), else nil.
local keywords = require "sluice.json_schema.keywords"
local run = require "sluice.json_schema.run"

local fail, wrong, forget, merge, evaluated = run.fail, run.wrong, run.forget, run.merge, run.evaluated
local format, ipairs, pairs, sort = string.format, ipairs, pairs, table.sort

local applicators = { any = {}, array = {}, object = {} }

-- A part of the value.
local function child(check, part, name, ctx)
  local n = ctx.n + 1
  ctx.n, ctx.path[n] = n, name
  local ok = check(part, ctx, nil)
  ctx.n = n - 1
  return ok
end

local function list_of(at, keyword)
  local list, checks = at:expect(keyword, "array"), {}
  if not list then return nil end
  if #list == 0 then at:refuse(keyword, "expected at least one schema") end
  for i, node in ipairs(list) do checks[i] = at:schema(node, keyword .. "/" .. i - 1) end
  return checks
end

local function one(at, keyword)
  local node = at.node[keyword]
  if node == nil then return nil end
  return at:schema(node, keyword)
end

local function sorted_names(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  sort(names)
  return names
end

-- ---- The same value ----

function applicators.any.allOf(at)
  local checks = list_of(at, "allOf")
  return checks and function(value, ctx, ev)
    local ok = true
    for i = 1, #checks do
      if not checks[i](value, ctx, ev) then
        ok = false
        if not ctx.all then break end
      end
    end
    return ok
  end
end

-- How many fit; all are tried where somebody wants to know what they evaluate.
local function how_many(checks, value, ctx, ev, enough)
  local before, count = ctx.count, 0
  for i = 1, #checks do
    local sub = ev and evaluated()
    if checks[i](value, ctx, sub) then
      count = count + 1
      if ev then merge(ev, sub) end
      if count == enough and not ev then break end
    end
  end
  if not ctx.given_up then forget(ctx, before) end
  return count
end

function applicators.any.anyOf(at)
  local checks, where = list_of(at, "anyOf"), at.where .. "/anyOf"
  return checks and function(value, ctx, ev)
    if how_many(checks, value, ctx, ev, 1) > 0 then return true end
    wrong(ctx, where, format("a value that fits one of %d schemas", #checks), value)
    return false
  end
end

function applicators.any.oneOf(at)
  local checks, where = list_of(at, "oneOf"), at.where .. "/oneOf"
  return checks and function(value, ctx, ev)
    local sub = ev and evaluated()
    local count = how_many(checks, value, ctx, sub, 2)
    if count == 1 then
      if ev then merge(ev, sub) end
      return true
    end
    fail(ctx, where, format("a value that fits just one of %d schemas", #checks),
      count == 0 and "one that fits none" or "one that fits several")
    return false
  end
end

applicators.any["not"] = function(at)
  local check, where = one(at, "not"), at.where .. "/not"
  return check and function(value, ctx)
    local before = ctx.count
    local fits = check(value, ctx, nil)
    if ctx.given_up then return false end
    forget(ctx, before)
    if not fits then return true end
    wrong(ctx, where, "a value that does not fit the schema", value)
    return false
  end
end

applicators.any["if"] = function(at)
  if at.resource.draft.number < 7 then return nil end
  local condition, yes, no = one(at, "if"), one(at, "then"), one(at, "else")
  return condition and function(value, ctx, ev)
    local before, sub = ctx.count, ev and evaluated()
    local fits = condition(value, ctx, sub)
    if ctx.given_up then return false end
    forget(ctx, before)
    if fits and ev then merge(ev, sub) end
    local check = no
    if fits then check = yes end
    if not check then return true end
    local ok = check(value, ctx, ev)
    return ok
  end
end

-- ---- Items ----

local function each(check, value, from, ctx)
  local ok = true
  for i = from, #value do
    if not child(check, value[i], i - 1, ctx) then
      ok = false
      if not ctx.all then break end
    end
  end
  return ok
end

local function first_ones(checks, value, ctx)
  local ok = true
  for i = 1, math.min(#checks, #value) do
    if not child(checks[i], value[i], i - 1, ctx) then
      ok = false
      if not ctx.all then break end
    end
  end
  return ok
end

-- The schemas of the first items, and that of the rest, under the names that the draft has for them.
local function item_schemas(at)
  local node, draft = at.node, at.resource.draft.number
  if draft >= 2020 then return list_of(at, "prefixItems"), one(at, "items") end
  if type(node.items) == "table" and at.is_array(node.items) then
    local checks = {}
    for i, schema in ipairs(node.items) do checks[i] = at:schema(schema, "items/" .. i - 1) end
    return checks, one(at, "additionalItems")
  end
  return nil, one(at, "items")
end

function applicators.array.items(at)
  local first, rest = item_schemas(at)
  if not first and not rest then return nil end
  local count = first and #first or 0
  return function(value, ctx, ev)
    local ok = not first or first_ones(first, value, ctx)
    if rest and (ok or ctx.all) then ok = each(rest, value, count + 1, ctx) and ok end
    if ev and ok then
      if rest then ev.all_items = true elseif count > ev.items then ev.items = count end
    end
    return ok
  end
end

local function matching(check, value, ctx, set)
  local before, count = ctx.count, 0
  for i = 1, #value do
    if child(check, value[i], i - 1, ctx) then
      count = count + 1
      if set then set[i] = true end
    end
  end
  if not ctx.given_up then forget(ctx, before) end
  return count
end

function applicators.array.contains(at)
  local number = at.resource.draft.number
  local check = number >= 6 and one(at, "contains") or nil
  if not check then return nil end
  local least = number >= 2019 and keywords.count_of(at, "minContains") or 1
  local most = number >= 2019 and keywords.count_of(at, "maxContains") or math.huge
  local where = at.where .. "/contains"
  local expected = format("an array with at least %d%s of a kind", least,
    most < math.huge and format(" and at most %d", most) or "")
  return function(value, ctx, ev)
    local count = matching(check, value, ctx, ev and number >= 2020 and ev.set or nil)
    if ctx.given_up then return false end
    if count >= least and count <= most then return true end
    fail(ctx, where, expected, format("%d", count))
    return false
  end
end

-- ---- Members ----

local function properties_of(at)
  local map, checks = at:expect("properties", "object"), {}
  if not map then return nil, nil end
  local names = sorted_names(map)
  for _, name in ipairs(names) do checks[name] = at:schema(map[name], "properties/" .. name) end
  return checks, names
end

local function patterns_of(at)
  local map, list = at:expect("patternProperties", "object"), {}
  if not map then return nil end
  for i, text in ipairs(sorted_names(map)) do
    list[i] = { expression = keywords.expression(at, "patternProperties", text),
      check = at:schema(map[text], "patternProperties/" .. text) }
  end
  return list
end

-- Only named members: no need to look at the others.
local function check_named(checks, names)
  return function(value, ctx, ev)
    local ok = true
    for i = 1, #names do
      local name = names[i]
      local part = value[name]
      if part ~= nil then
        if ev then ev.props[name] = true end
        if not child(checks[name], part, name, ctx) then
          ok = false
          if not ctx.all then return false end
        end
      end
    end
    return ok
  end
end

-- Whether any schema of one member failed, and whether any was there.
local function check_member(checks, patterns, rest, name, part, ctx)
  local ok, known = true, false
  local check = checks and checks[name]
  if check then ok, known = child(check, part, name, ctx), true end
  for i = 1, patterns and #patterns or 0 do
    if patterns[i].expression:test(name) then
      known = true
      if (ok or ctx.all) and not child(patterns[i].check, part, name, ctx) then ok = false end
    end
  end
  if not known and rest then ok, known = child(rest, part, name, ctx), true end
  return ok, known
end

function applicators.object.properties(at)
  local checks, names = properties_of(at)
  local patterns, rest = patterns_of(at), one(at, "additionalProperties")
  if not patterns and not rest then return checks and check_named(checks, names) end
  return function(value, ctx, ev)
    local all_ok = true
    for name, part in pairs(value) do
      local ok, known = check_member(checks, patterns, rest, name, part, ctx)
      if known and ev then ev.props[name] = true end
      if not ok then
        all_ok = false
        if not ctx.all then return false end
      end
    end
    return all_ok
  end
end

function applicators.object.propertyNames(at)
  if at.resource.draft.number < 6 then return nil end
  local check = one(at, "propertyNames")
  return check and function(value, ctx)
    local ok = true
    for name in pairs(value) do
      if not child(check, name, name, ctx) then
        ok = false
        if not ctx.all then break end
      end
    end
    return ok
  end
end

-- ---- Members that ask for more ----

-- A check (of keywords.has_all, or a schema's) for each name that asks for it.
local function when_present(checks)
  local names = sorted_names(checks)
  return function(value, ctx, ev)
    local ok = true
    for i = 1, #names do
      if value[names[i]] ~= nil and not checks[names[i]](value, ctx, ev) then
        ok = false
        if not ctx.all then break end
      end
    end
    return ok
  end
end

local function dependents(at, keyword, takes)
  local map, checks = at:expect(keyword, "object"), {}
  if not map then return nil end
  for name, wanted in pairs(map) do
    local place = keyword .. "/" .. name
    if type(wanted) == "table" and at.is_array(wanted) and takes.names then
      checks[name] = keywords.has_all(keywords.names_of(at, keyword, wanted), at.where .. "/" .. place)
    elseif takes.schemas then
      checks[name] = at:schema(wanted, place)
    else
      at:refuse(keyword, "expected lists of names")
    end
  end
  return when_present(checks)
end

-- Later drafts have split it; their meta-schemas still let it stand.
function applicators.object.dependencies(at)
  return dependents(at, "dependencies", { names = true, schemas = true })
end

function applicators.object.dependentRequired(at)
  if at.resource.draft.number < 2019 then return nil end
  return dependents(at, "dependentRequired", { names = true })
end

function applicators.object.dependentSchemas(at)
  if at.resource.draft.number < 2019 then return nil end
  return dependents(at, "dependentSchemas", { schemas = true })
end

-- ---- What no other keyword has looked at ----

applicators.last = {}

function applicators.last.unevaluatedItems(at)
  local check = one(at, "unevaluatedItems")
  return check and "array", check and function(value, ctx, ev)
    if ev.all_items then return true end
    local ok = true
    for i = ev.items + 1, #value do
      if not ev.set[i] and not child(check, value[i], i - 1, ctx) then
        ok = false
        if not ctx.all then break end
      end
    end
    if ok then ev.all_items = true end
    return ok
  end
end

function applicators.last.unevaluatedProperties(at)
  local check = one(at, "unevaluatedProperties")
  return check and "object", check and function(value, ctx, ev)
    if ev.all_props then return true end
    local ok = true
    for name, part in pairs(value) do
      if not ev.props[name] and not child(check, part, name, ctx) then
        ok = false
        if not ctx.all then break end
      end
    end
    if ok then ev.all_props = true end
    return ok
  end
end

return applicators
