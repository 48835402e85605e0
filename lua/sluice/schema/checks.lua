-- SPDX-License-Identifier: Apache-2.0
-- Entity checks: constraints between the fields of one record. Each entry takes its arguments and gives
-- check(record), which returns nil when all is well, else an error { field, expected, found } or { field, message };
-- `field` is a dotted name within the record, or nil for the record as a whole.
local cjson = require "cjson"
local attributes = require "sluice.schema.attributes"
local tables = require "sluice.tables"
local words = require "sluice.schema.words"

local null = cjson.null
local kinds = {} -- name -> function(argument) -> check
local checks = {}

local function get(record, name)
  local value = record[name]
  if value ~= nil then return value end
  for key in name:gmatch("[^.]+") do
    if type(record) ~= "table" then return nil end
    record = record[key]
  end
  return record
end

-- As Kong counts: an empty list, map or text is none.
local function is_set(record, name)
  local value = get(record, name)
  if type(value) == "table" then return next(value) ~= nil end
  return value ~= nil and value ~= null and value ~= ""
end

local function given(record, names)
  local list = {}
  for _, name in ipairs(names) do
    if is_set(record, name) then list[#list + 1] = name end
  end
  return list
end

local function names_of(argument)
  return argument.fields or argument
end

function kinds.at_least_one_of(argument)
  local names = names_of(argument)
  return function(record)
    if #given(record, names) > 0 then return nil end
    return { expected = "at least one of " .. words.alternatives(names), found = "none of them" }
  end
end

function kinds.only_one_of(argument)
  local names = names_of(argument)
  return function(record)
    local list = given(record, names)
    if #list == 1 then return nil end
    return { expected = "exactly one of " .. words.alternatives(names),
      found = #list == 0 and "none of them" or words.alternatives(list, "and") }
  end
end

function kinds.mutually_exclusive(argument)
  local names = names_of(argument)
  return function(record)
    local list = given(record, names)
    if #list < 2 then return nil end
    return { expected = "at most one of " .. words.alternatives(names), found = words.alternatives(list, "and") }
  end
end

function kinds.mutually_required(argument)
  local names = names_of(argument)
  return function(record)
    local list = given(record, names)
    if #list == 0 or #list == #names then return nil end
    return { expected = "all of " .. words.alternatives(names, "and") .. " or none", found = words.alternatives(list,
      "and") }
  end
end

function kinds.mutually_exclusive_sets(argument)
  return function(record)
    local one, other = given(record, argument.set1), given(record, argument.set2)
    if #one == 0 or #other == 0 then return nil end
    return { expected = words.alternatives(argument.set1) .. ", or else " .. words.alternatives(argument.set2),
      found = words.alternatives(one, "and") .. " beside " .. words.alternatives(other, "and") }
  end
end

function kinds.distinct(argument)
  local names = names_of(argument)
  return function(record)
    local seen = {}
    for _, name in ipairs(given(record, names)) do
      for _, other in ipairs(seen) do
        if tables.equal(get(record, name), get(record, other)) then
          return { field = name, expected = "a value different from " .. other, found = "the same" }
        end
      end
      seen[#seen + 1] = name
    end
  end
end

-- A matcher of a value that may be missing against attributes such as { one_of = {...} }, { eq = null }.
-- Like Kong's, it passes a missing value unless it is required or compared.
local function matcher(match)
  local tests = attributes.tests(match)
  return function(value)
    if value == nil or value == null then
      if match.required or match.ne == null then return "a value" end
      if match.eq ~= nil and match.eq ~= null then return words.value(match.eq) end
      return nil
    end
    for _, test in ipairs(tests) do
      local expected, message = test(value)
      if expected or message then return expected or message end
    end
  end
end

function kinds.conditional(argument)
  local condition, consequence = matcher(argument.if_match), matcher(argument.then_match)
  return function(record)
    if condition(get(record, argument.if_field)) then return nil end
    local value = get(record, argument.then_field)
    local expected = consequence(value)
    if not expected then return nil end
    return { field = argument.then_field, message = argument.then_err, found = words.value(value),
      expected = ("%s (because of %s)"):format(expected, argument.if_field) }
  end
end

local function one_of_names(record, names, message)
  if not names or #given(record, names) > 0 then return nil end
  return { message = message and message:format(words.alternatives(names)) or nil,
    expected = "at least one of " .. words.alternatives(names), found = "none of them" }
end

function kinds.conditional_at_least_one_of(argument)
  local first = matcher(argument.if_match)
  local second = argument.else_match and matcher(argument.else_match)
  return function(record)
    local value = get(record, argument.if_field)
    if value == nil or value == null then return nil end
    if not first(value) then return one_of_names(record, argument.then_at_least_one_of, argument.then_err) end
    if second and not second(value) then
      return one_of_names(record, argument.else_then_at_least_one_of, argument.else_then_err)
    end
  end
end

local function put(record, name, value)
  local parent, last = record, name
  for key, rest in name:gmatch("([^.]+)(%.?)") do
    if rest == "" then
      last = key
    else
      parent[key] = parent[key] or {}
      parent = parent[key]
    end
  end
  parent[last] = value
end

local function sources_of(record, names)
  local view = {}
  for _, name in ipairs(names) do put(view, name, get(record, name)) end
  return view
end

local function has_any(record, names)
  for _, name in ipairs(names) do
    local value = get(record, name)
    if value ~= nil and value ~= null then return true end
  end
  return false
end

function kinds.custom_entity_check(argument)
  local names = argument.field_sources or {}
  return function(record)
    if not argument.run_with_missing_fields and #names > 0 and not has_any(record, names) then return nil end
    local ran, ok, why, field = pcall(argument.fn, sources_of(record, names))
    if not ran then return { message = "the schema's own check failed: " .. tostring(ok) } end
    if ok then return nil end
    if type(why) == "table" then why = select(2, next(why)) end
    return { field = field or names[1], message = tostring(why or "refused by the schema's own check") }
  end
end

-- The checks of a list such as { { at_least_one_of = { "a", "b" } } }; nil, reason when one is unknown.
function checks.compile(list)
  local compiled = {}
  for _, entry in ipairs(list or {}) do
    local name, argument = next(entry)
    if not kinds[name] then
      return nil, ("unknown entity check %q"):format(tostring(name))
    end
    compiled[#compiled + 1] = kinds[name](argument)
  end
  return compiled
end

return checks
