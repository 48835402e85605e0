-- SPDX-License-Identifier: Apache-2.0
-- What each keyword asserts of values of one kind. A maker takes (at), which says where in which schema it stands, and
-- gives a check (value, ctx) that fails by run.fail; nil: nothing is to be checked. Those that apply other schemas are
-- in applicators.lua.
local equal = require "sluice.json_schema.equal"
local formats = require "sluice.json_schema.formats"
local pattern = require "sluice.json_schema.pattern"
local run = require "sluice.json_schema.run"
local values = require "sluice.json_schema.values"

local fail, wrong = run.fail, run.wrong
local kind_of, length, is_multiple = values.kind, values.length, values.is_multiple
local format, ipairs, pairs, type = string.format, ipairs, pairs, type

---@class sluice.json_schema.at
---@field node table the schema
---@field resource table that it belongs to
---@field where string
---@field compiler table
---@field expect fun(self, keyword: string, kind: string): any the keyword's value, of that kind; nil: it is not there

local keywords = { any = {}, number = {}, string = {}, array = {}, object = {} }

-- ---- Any value ----

local KINDS = { null = true, boolean = true, object = true, array = true, number = true, string = true, integer = true }

local function types_of(at)
  local wanted, list, names = at.node.type, {}, {}
  for i, name in ipairs(type(wanted) == "table" and wanted or { wanted }) do
    if not KINDS[name] then at:refuse("type", "expected the name of a type, or a list of them") end
    list[name], names[i] = true, values.name(name)
  end
  if #names == 0 then at:refuse("type", "expected the name of a type, or a list of them") end
  return list, table.concat(names, " or ")
end

function keywords.any.type(at)
  if at.node.type == nil then return nil end
  local list, names = types_of(at)
  local where, integer = at.where .. "/type", list.integer and not list.number
  return function(value, ctx)
    local kind = kind_of(value)
    if list[kind] or (integer and kind == "number" and value % 1 == 0) then return true end
    wrong(ctx, where, names, value)
    return false
  end
end

local function listed(allowed)
  local shown = {}
  for i, value in ipairs(allowed) do shown[i] = values.shown(value) end
  if #shown == 1 then return shown[1] end
  return "one of " .. table.concat(shown, ", ")
end

local function one_of(allowed, where)
  local keys, expected = {}, listed(allowed)
  for _, value in ipairs(allowed) do keys[equal.key(value)] = true end
  return function(value, ctx)
    if keys[equal.key(value)] then return true end
    wrong(ctx, where, expected, value)
    return false
  end
end

function keywords.any.enum(at)
  local allowed = at:expect("enum", "array")
  return allowed and one_of(allowed, at.where .. "/enum")
end

function keywords.any.const(at)
  local value = at.node.const
  if value == nil or at.resource.draft.number < 6 then return nil end
  return one_of({ value }, at.where .. "/const")
end

-- ---- Numbers ----

local function compare(at, keyword, text, holds)
  local bound = at:expect(keyword, "number")
  if not bound then return nil end
  local where, expected = at.where .. "/" .. keyword, format("a number %s %.14g", text, bound)
  return function(value, ctx)
    if holds(value, bound) then return true end
    wrong(ctx, where, expected, value)
    return false
  end
end

local function least(value, bound) return value >= bound end
local function most(value, bound) return value <= bound end
local function above(value, bound) return value > bound end
local function below(value, bound) return value < bound end

-- Draft 4 says with a boolean beside it whether the bound itself is excluded.
function keywords.number.minimum(at)
  if at.resource.draft.number == 4 and at.node.exclusiveMinimum == true then
    return compare(at, "minimum", "above", above)
  end
  return compare(at, "minimum", "of at least", least)
end

function keywords.number.maximum(at)
  if at.resource.draft.number == 4 and at.node.exclusiveMaximum == true then
    return compare(at, "maximum", "below", below)
  end
  return compare(at, "maximum", "of at most", most)
end

function keywords.number.exclusiveMinimum(at)
  if at.resource.draft.number == 4 then return nil end
  return compare(at, "exclusiveMinimum", "above", above)
end

function keywords.number.exclusiveMaximum(at)
  if at.resource.draft.number == 4 then return nil end
  return compare(at, "exclusiveMaximum", "below", below)
end

function keywords.number.multipleOf(at)
  local divisor = at:expect("multipleOf", "number")
  if divisor and divisor <= 0 then at:refuse("multipleOf", "expected a number above 0") end
  return compare(at, "multipleOf", "that is a multiple of", is_multiple)
end

-- ---- Counts ----

local function count_of(at, keyword)
  local count = at:expect(keyword, "number")
  if count and (count < 0 or count % 1 ~= 0) then at:refuse(keyword, "expected a whole number of at least 0") end
  return count
end
keywords.count_of = count_of

local function counted(at, keyword, what, measure, holds, text)
  local bound = count_of(at, keyword)
  if not bound then return nil end
  local where, expected = at.where .. "/" .. keyword, format("%s %s %d", what, text, bound)
  return function(value, ctx)
    local count = measure(value)
    if holds(count, bound) then return true end
    fail(ctx, where, expected, format("%d", count))
    return false
  end
end

local function members(value)
  local count = 0
  for _ in pairs(value) do count = count + 1 end
  return count
end

local function items(value) return #value end

function keywords.string.minLength(at)
  return counted(at, "minLength", "a string whose length is", length, least, "at least")
end

function keywords.string.maxLength(at)
  return counted(at, "maxLength", "a string whose length is", length, most, "at most")
end

function keywords.array.minItems(at)
  return counted(at, "minItems", "an array whose length is", items, least, "at least")
end

function keywords.array.maxItems(at)
  return counted(at, "maxItems", "an array whose length is", items, most, "at most")
end

function keywords.object.minProperties(at)
  return counted(at, "minProperties", "an object whose number of members is", members, least, "at least")
end

function keywords.object.maxProperties(at)
  return counted(at, "maxProperties", "an object whose number of members is", members, most, "at most")
end

-- ---- Strings ----

-- The compiled expression of a pattern in a schema.
function keywords.expression(at, keyword, text)
  local compiled, why = pattern.new(text)
  if not compiled then at:refuse(keyword, "expected a regular expression: " .. why) end
  return compiled
end

function keywords.string.pattern(at)
  local text = at:expect("pattern", "string")
  if not text then return nil end
  local compiled, where = keywords.expression(at, "pattern", text), at.where .. "/pattern"
  return function(value, ctx)
    if compiled:test(value) then return true end
    wrong(ctx, where, "a string that matches " .. text, value)
    return false
  end
end

function keywords.string.format(at)
  local name = at:expect("format", "string")
  local test = name and (at.compiler.formats or at.resource.asserts) and formats[name]
  if not test then return nil end
  local where, expected = at.where .. "/format", "a string of format " .. name
  return function(value, ctx)
    if test(value) then return true end
    wrong(ctx, where, expected, value)
    return false
  end
end

-- ---- Arrays and objects ----

function keywords.array.uniqueItems(at)
  if at:expect("uniqueItems", "boolean") ~= true then return nil end
  local where = at.where .. "/uniqueItems"
  return function(value, ctx)
    local seen = {}
    for i = 1, #value do
      local key = equal.key(value[i])
      if seen[key] then
        fail(ctx, where, "items that differ", format("the same at %d and %d", seen[key] - 1, i - 1))
        return false
      end
      seen[key] = i
    end
    ctx.work = ctx.work - #value
    return true
  end
end

local function names_of(at, keyword, list)
  for _, name in ipairs(list) do
    if type(name) ~= "string" then at:refuse(keyword, "expected a list of names") end
  end
  return list
end
keywords.names_of = names_of

-- A check that an object has members of these names.
function keywords.has_all(list, where)
  local count = #list
  return function(value, ctx)
    local ok = true
    for i = 1, count do
      if value[list[i]] == nil then
        ok = fail(ctx, where, format("a member named %q", list[i]))
        if not ctx.all then return false end
      end
    end
    return ok
  end
end

function keywords.object.required(at)
  local list = at:expect("required", "array")
  return list and keywords.has_all(names_of(at, "required", list), at.where .. "/required")
end

return keywords
