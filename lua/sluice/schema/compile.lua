-- SPDX-License-Identifier: Apache-2.0
-- Turns a field's description into a closure check(value, ctx) that returns the value with defaults filled in, in new
-- tables. A fault is noted in ctx, and the callers on the way out add their key to its path; so a good value costs no
-- path at all. ctx = { n = number of errors, errors = { { keys = {innermost first}, expected, found, message } },
-- provided = a required field that the caller will fill in itself }.
local cjson = require "cjson"
local attributes = require "sluice.schema.attributes"
local checks = require "sluice.schema.checks"
local suggest = require "sluice.config.suggest"
local words = require "sluice.schema.words"

local null = cjson.null
local new_table = require "table.new"
local compile = {}
local builders = {} -- by type

function compile.context()
  return { n = 0, errors = {}, warnings = {} }
end

local function note(ctx, err)
  err.keys = err.keys or {}
  ctx.n = ctx.n + 1
  ctx.errors[ctx.n] = err
end

-- Errors from number `first` on stand within `key`.
local function within(ctx, before, key)
  for i = before + 1, ctx.n do
    local keys = ctx.errors[i].keys
    keys[#keys + 1] = key
  end
end

local function wrong_kind(ctx, field, value)
  note(ctx, { expected = words.kinds[field.type], found = words.kind(value) })
end

-- What was found; a secret is not shown.
local function shown(field, value)
  local is_list = (field.type == "array" or field.type == "set") and type(value) == "table"
  if is_list and next(value) == nil then return "an empty list" end
  if field.encrypted or field.referenceable then return words.kind(value) end
  return words.value(value)
end

local function run_tests(tests, value, ctx, field)
  for i = 1, #tests do
    local expected, message = tests[i](value)
    if expected or message then
      local found = shown(field, value)
      return note(ctx, { expected = expected, found = found, message = message and message .. ", found " .. found })
    end
  end
end

local function strict_type(wanted)
  return function(field)
    local tests = attributes.tests(field)
    local count = #tests
    return function(value, ctx)
      if type(value) ~= wanted then return wrong_kind(ctx, field, value) end
      if count > 0 then run_tests(tests, value, ctx, field) end
      return value
    end
  end
end

builders.number = strict_type "number"
builders.boolean = strict_type "boolean"

function builders.string(field)
  local tests = attributes.tests(field)
  local count = #tests
  local may_be_empty = field.len_min == 0
  return function(value, ctx)
    if type(value) ~= "string" then return wrong_kind(ctx, field, value) end
    if value == "" and not may_be_empty then
      return note(ctx, { expected = words.kinds.string, found = "an empty one" })
    end
    if count > 0 then run_tests(tests, value, ctx, field) end
    return value
  end
end

function builders.integer(field)
  local tests = attributes.tests(field)
  return function(value, ctx)
    if type(value) ~= "number" then return wrong_kind(ctx, field, value) end
    if value % 1 ~= 0 then return note(ctx, { expected = words.kinds.integer, found = words.value(value) }) end
    run_tests(tests, value, ctx, field)
    return value
  end
end

builders["function"] = function(field)
  return function(value, ctx)
    if type(value) ~= "function" and type(value) ~= "string" then return wrong_kind(ctx, field, value) end
    return value
  end
end

function builders.foreign(field)
  return function(value, ctx)
    if type(value) ~= "string" and type(value) ~= "table" then return wrong_kind(ctx, field, value) end
    return value
  end
end

local function copy(value)
  if type(value) ~= "table" then return value end
  local result = {}
  for key, item in pairs(value) do result[key] = copy(item) end
  return result
end
compile.copy = copy

function builders.any(field)
  local tests = attributes.tests(field)
  return function(value, ctx)
    run_tests(tests, value, ctx, field)
    return copy(value)
  end
end

builders.json = builders.any

local function no_list(value)
  return type(value) ~= "table" or (value[1] == nil and next(value) ~= nil)
end

function builders.array(field)
  local tests = attributes.tests(field)
  local count = #tests
  local check = compile.field(field.elements)
  return function(value, ctx)
    if no_list(value) then return wrong_kind(ctx, field, value) end
    local result = {}
    for i = 1, #value do
      local before = ctx.n
      result[i] = check(value[i], ctx)
      if ctx.n ~= before then within(ctx, before, i) end
    end
    if count > 0 then run_tests(tests, result, ctx, field) end
    return result
  end
end

-- A list in which each plain value stands once: the first stays.
function builders.set(field)
  local tests = attributes.tests(field)
  local count = #tests
  local check = compile.field(field.elements)
  return function(value, ctx)
    if no_list(value) then return wrong_kind(ctx, field, value) end
    local result, seen, length = {}, {}, 0
    for i = 1, #value do
      local before = ctx.n
      local item = check(value[i], ctx)
      if ctx.n ~= before then within(ctx, before, i) end
      if item ~= nil and not seen[item] then
        length = length + 1
        result[length], seen[item] = item, true
      end
    end
    if count > 0 then run_tests(tests, result, ctx, field) end
    return result
  end
end

function builders.map(field)
  local tests = attributes.tests(field)
  local check_key = field.keys and compile.field(field.keys)
  local check_value = field.values and compile.field(field.values) or copy
  local numeric = field.keys and (field.keys.type == "number" or field.keys.type == "integer")
  return function(value, ctx)
    if type(value) ~= "table" or value[1] ~= nil then return wrong_kind(ctx, field, value) end
    local result = {}
    for key, item in pairs(value) do
      local before = ctx.n
      local name = numeric and tonumber(key) or key
      if check_key then check_key(name, ctx) end
      if item ~= null then result[name] = check_value(item, ctx) end
      if ctx.n ~= before then within(ctx, before, key) end
    end
    run_tests(tests, result, ctx, field)
    return result
  end
end

-- ---- Records ------------------------------------------------------------------------------------------------------

-- How the field comes by a value when none is given: a function, or nil.
local function filler(field, check)
  local default = field.default
  if field.type == "record" and (default ~= nil or field.required) then
    return function(ctx) return check(default or {}, ctx) end
  end
  if type(default) == "table" then return function() return copy(default) end end
  if default ~= nil then return function() return default end end
end

local function compile_member(name, field)
  local member = { name = name, field = field, check = compile.field(field) }
  member.fill = filler(field, member.check)
  member.tolerated = field.tolerated
  if field.eq == null then
    member.check = function(value, ctx)
      note(ctx, { expected = "nothing", found = shown(field, value) })
    end
  end
  return member
end

local function members_of(field)
  local by_name, names, to_fill = {}, {}, {}
  for _, entry in ipairs(field.fields) do
    local name, description = next(entry)
    local member = compile_member(name, description)
    by_name[name] = member
    if not member.tolerated then names[#names + 1] = name end
    if member.fill or description.required then to_fill[#to_fill + 1] = member end
  end
  return by_name, names, to_fill
end

local function note_unknown(ctx, key, names)
  key = tostring(key)
  note(ctx, { keys = { key }, message = "unknown field" .. suggest.phrase(key, names),
    expected = "one of " .. words.alternatives(names), found = words.value(key) })
end

local function note_missing(ctx, member)
  note(ctx, { keys = { member.name }, expected = member.field.expected or words.kinds[member.field.type],
    found = "nothing" })
end

local function fill_in(members, given, result, ctx, unexpanded)
  for i = 1, #members do
    local member = members[i]
    local name = member.name
    if result[name] == nil then
      local value = given[name]
      if value == nil and member.fill then
        local before = ctx.n
        result[name] = member.fill(ctx)
        if ctx.n ~= before then within(ctx, before, name) end
      elseif member.field.required and (value == nil or value == null) and name ~= ctx.provided and not unexpanded then
        note_missing(ctx, member)
      end
    end
  end
end

local function run_checks(list, result, ctx)
  for i = 1, #list do
    local err = list[i](result)
    if err then
      local keys = {}
      for key in (err.field or ""):gmatch("[^.]+") do table.insert(keys, 1, key) end
      note(ctx, { keys = keys, expected = err.expected, found = err.found, message = err.message })
    end
  end
end

local function merge(target, source)
  for key, value in pairs(source) do
    if type(value) == "table" and type(target[key]) == "table" and value[1] == nil then
      merge(target[key], value)
    elseif target[key] == nil or target[key] == null then
      target[key] = value
    end
  end
end

-- Replaces shorthands (older or shorter spellings of fields) by what they stand for; a field given beside one wins.
local function expand(shorthands, value, ctx)
  local result
  for name, shorthand in pairs(shorthands) do
    local given = value[name]
    if given ~= nil then
      result = result or copy(value)
      result[name] = nil
      local before = ctx.n
      local checked = given ~= null and shorthand.check(given, ctx) or given
      if ctx.n ~= before then
        within(ctx, before, name)
      elseif shorthand.func then
        local ran, long = pcall(shorthand.func, checked)
        if ran and type(long) == "table" then merge(result, long) end
      end
      if shorthand.deprecation then
        table.insert(ctx.warnings, { keys = { name }, message = shorthand.deprecation.message or "deprecated" })
      end
    end
  end
  return result or value
end

local function shorthands_of(field)
  if not field.shorthand_fields then return nil end
  local result = {}
  for _, entry in ipairs(field.shorthand_fields) do
    local name, description = next(entry)
    result[name] = { check = compile.field(description), func = description.func,
      deprecation = description.deprecation }
  end
  return result
end

local function check_members(by_name, names, value, ctx)
  local result = new_table(0, #names)
  for key, item in pairs(value) do
    local member = by_name[key]
    if not member then
      note_unknown(ctx, key, names)
    elseif item ~= null and not member.tolerated then
      local before = ctx.n
      result[key] = member.check(item, ctx)
      if ctx.n ~= before then within(ctx, before, key) end
    end
  end
  return result
end

function builders.record(field)
  local by_name, names, to_fill = members_of(field)
  local shorthands = shorthands_of(field)
  for name in pairs(shorthands or {}) do
    if not by_name[name] then names[#names + 1] = name end
  end
  local entity_checks = assert(checks.compile(field.entity_checks))
  return function(value, ctx)
    if type(value) ~= "table" or value[1] ~= nil then return wrong_kind(ctx, field, value) end
    local before = ctx.n
    if shorthands then value = expand(shorthands, value, ctx) end
    local unexpanded = ctx.n ~= before -- then what it would have stood for is not missed
    local result = check_members(by_name, names, value, ctx)
    fill_in(to_fill, value, result, ctx, unexpanded)
    if ctx.n == before then run_checks(entity_checks, result, ctx) end
    return result
  end
end

-- The check of one field.
function compile.field(field)
  return builders[field.type](field)
end

function compile.has_type(name)
  return builders[name] ~= nil
end

return compile
