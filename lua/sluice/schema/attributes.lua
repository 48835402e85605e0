-- SPDX-License-Identifier: Apache-2.0
-- The constraints that a field may carry beside its type. Each entry takes the attribute's value and the field, and
-- gives a test: test(value) returns nil when the value passes, else what was expected or, second, a whole message.
local cjson = require "cjson"
local regex = require "sluice.config.regex"
local suggest = require "sluice.config.suggest"
local uuid = require "sluice.config.uuid"
local words = require "sluice.schema.words"

local attributes = {}

local function set_of(list)
  local set = {}
  for _, item in ipairs(list) do set[item] = true end
  return set
end

function attributes.one_of(list)
  local allowed = set_of(list)
  local expected = #list == 1 and words.value(list[1]) or "one of " .. words.alternatives(list)
  return function(value)
    if allowed[value] then return nil end
    local meant = type(value) == "string" and suggest.nearest(value, list)
    return meant and ("%s (did you mean %s?)"):format(expected, meant) or expected
  end
end

function attributes.not_one_of(list)
  local refused = set_of(list)
  local expected = "none of " .. words.alternatives(list)
  return function(value) return refused[value] and expected or nil end
end

function attributes.eq(wanted)
  if wanted == cjson.null then return function() return "nothing" end end
  return function(value) return value ~= wanted and words.value(wanted) or nil end
end

function attributes.ne(refused)
  if refused == cjson.null then return nil end
  return function(value) return value == refused and "anything but " .. words.value(refused) or nil end
end

function attributes.between(limits, field)
  local low, high = limits[1], limits[2]
  local expected = ("%s from %.14g to %.14g"):format(words.kinds[field.type] or "a number", low, high)
  return function(value) return not (value >= low and value <= high) and expected or nil end
end

function attributes.gt(limit, field)
  local expected = ("%s above %.14g"):format(words.kinds[field.type] or "a number", limit)
  return function(value) return value <= limit and expected or nil end
end

local function size(value)
  if type(value) == "string" or value[1] ~= nil then return #value end
  local count = 0
  for _ in pairs(value) do count = count + 1 end
  return count
end

local function counted(field, how, count)
  local unit = field.type == "string" and "character" or field.type == "map" and "entry" or "item"
  local plural = unit == "entry" and "entries" or unit .. "s"
  local kind = words.kinds[field.type] or "a value"
  return ("%s of %s %d %s"):format(kind, how, count, count == 1 and unit or plural)
end

function attributes.len_eq(count, field)
  local expected = counted(field, "exactly", count)
  return function(value) return size(value) ~= count and expected or nil end
end

function attributes.len_min(count, field)
  local expected = counted(field, "at least", count)
  return function(value) return size(value) < count and expected or nil end
end

function attributes.len_max(count, field)
  local expected = counted(field, "at most", count)
  return function(value) return size(value) > count and expected or nil end
end

-- Patterns that many schemas have, for those who read no Lua.
local SAID = {
  ["^[%w._-]+$"] = "letters, digits, '.', '_' and '-'",
  ["^[%w_-]+$"] = "letters, digits, '_' and '-'",
  ["^[%w!#$%%&'*+.^_`|~-]+$"] = "the name of a header field",
}

function attributes.match(pattern, field)
  local expected = field.err or SAID[pattern]
    or ("%s matching %s"):format(words.kinds[field.type] or "a string", pattern)
  return function(value) return not value:find(pattern) and expected or nil end
end

function attributes.not_match(pattern)
  local expected = "a string not matching " .. pattern
  return function(value) return value:find(pattern) and expected or nil end
end

-- Of match_all and its like: a pattern, or a list of patterns, each perhaps as { pattern = , err = }.
local function patterns_of(argument)
  if type(argument) ~= "table" then return { { pattern = argument } } end
  local list = argument.patterns or (argument.pattern and { argument }) or argument
  local entries = {}
  for i, entry in ipairs(list) do entries[i] = type(entry) == "table" and entry or { pattern = entry } end
  return entries
end

-- How many of the texts match: of a list those in it, of a text itself. And of how many.
local function matching(value, pattern)
  if type(value) ~= "table" then return value:find(pattern) and 1 or 0, 1 end
  local count = 0
  for _, item in ipairs(value) do
    if type(item) == "string" and item:find(pattern) then count = count + 1 end
  end
  return count, #value
end

local function texts_that(field, rest)
  return (field.type == "array" or field.type == "set") and "a list of strings " .. rest or "a string " .. rest
end

function attributes.match_all(argument, field)
  local entries = patterns_of(argument)
  return function(value)
    for _, entry in ipairs(entries) do
      local count, all = matching(value, entry.pattern)
      if count < all then return texts_that(field, "matching " .. entry.pattern), entry.err end
    end
  end
end

function attributes.match_none(argument, field)
  local entries = patterns_of(argument)
  return function(value)
    for _, entry in ipairs(entries) do
      local count = matching(value, entry.pattern)
      if count > 0 then return texts_that(field, "not matching " .. entry.pattern), entry.err end
    end
  end
end

function attributes.match_any(argument, field)
  local entries = patterns_of(argument)
  local why = type(argument) == "table" and argument.patterns and argument.err or nil
  local expected = (field.type == "array" or field.type == "set") and "a list with a string" or "a string"
  return function(value)
    for _, entry in ipairs(entries) do
      if matching(value, entry.pattern) > 0 then return nil end
    end
    return expected .. " matching one of the patterns", why
  end
end

function attributes.starts_with(prefix)
  local expected = "a string that starts with " .. words.value(prefix)
  return function(value) return value:sub(1, #prefix) ~= prefix and expected or nil end
end

function attributes.is_regex(wanted)
  if not wanted then return nil end
  return function(value)
    local ok, why = regex.check(value)
    if not ok then return "a regular expression (" .. why .. ")" end
  end
end

function attributes.uuid(wanted)
  if not wanted then return nil end
  return function(value) return not uuid.is_valid(value) and "a UUID" or nil end
end

function attributes.timestamp(wanted)
  if not wanted then return nil end
  return function(value) return value < 0 and "a time, in seconds since 1970" or nil end
end

local function contains(list, wanted)
  for _, item in ipairs(list) do
    if item == wanted then return true end
  end
  return false
end

function attributes.contains(wanted)
  local expected = "a list with " .. words.value(wanted) .. " in it"
  return function(value) return not contains(value, wanted) and expected or nil end
end

local function any_of(list, subset)
  for _, item in ipairs(list) do
    if subset[item] then return item end
  end
end

-- Items of two different subsets may not stand in one list.
function attributes.mutually_exclusive_subsets(subsets)
  local sets = {}
  for i, subset in ipairs(subsets) do sets[i] = set_of(subset) end
  return function(value)
    local first
    for _, set in ipairs(sets) do
      local item = any_of(value, set)
      if item and first then
        return "a list without " .. words.value(first) .. " beside " .. words.value(item)
      end
      first = first or item
    end
  end
end

function attributes.custom_validator(validate)
  return function(value)
    local ran, ok, why = pcall(validate, value)
    if not ran then return nil, "the schema's own check failed: " .. tostring(ok) end
    if ok then return nil end
    if type(why) == "table" then why = why[1] or select(2, next(why)) end
    why = tostring(why or "refused by the schema's own check")
    local expected = why:match("^expected (.*)$") -- said like an attribute: the caller adds what was found
    if expected then return expected end
    return nil, why
  end
end

-- Applied in this order, so that the plainest fault is told first.
attributes.order = {
  "eq", "ne", "len_eq", "len_min", "len_max", "between", "gt", "one_of", "not_one_of", "starts_with", "match",
  "not_match", "match_none", "match_all", "match_any", "is_regex", "uuid", "timestamp", "contains",
  "mutually_exclusive_subsets", "custom_validator",
}

-- The tests of a field, in order.
function attributes.tests(field)
  local tests = {}
  for _, name in ipairs(attributes.order) do
    local argument = field[name]
    local test = argument ~= nil and attributes[name](argument, field)
    if test then tests[#tests + 1] = test end
  end
  return tests
end

return attributes
