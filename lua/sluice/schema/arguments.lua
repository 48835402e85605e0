-- SPDX-License-Identifier: Apache-2.0
-- Whether the constraints of fields can be asked: each stands at a type that it is for, with an argument of its kind.
-- For schemas that come from a configuration; those of plugins are code, and their specs tell.
local words = require "sluice.schema.words"

local arguments = {}

local FOR = {
  string = "eq ne one_of not_one_of len_eq len_min len_max match not_match match_all match_none match_any starts_with "
    .. "is_regex uuid",
  number = "eq ne one_of not_one_of between gt timestamp",
  integer = "eq ne one_of not_one_of between gt timestamp",
  boolean = "eq ne",
  array = "len_eq len_min len_max match_all match_none match_any contains mutually_exclusive_subsets",
  set = "len_eq len_min len_max match_all match_none match_any contains mutually_exclusive_subsets",
  map = "len_eq len_min len_max",
  record = "",
}

local function pattern_fault(value)
  if type(value) ~= "string" then return "a Lua pattern" end
  local ok, why = pcall(string.find, "", value)
  return not ok and ("a Lua pattern (%s)"):format(tostring(why):gsub("^.-:%d+: ", "")) or nil
end

-- A pattern, or a list of patterns, each perhaps as { pattern = }.
local function patterns_fault(value)
  if type(value) ~= "table" then return pattern_fault(value) end
  local list = value.patterns or (value.pattern and { value }) or value
  if type(list) ~= "table" or list[1] == nil then return "a list of Lua patterns" end
  for _, entry in ipairs(list) do
    local wrong = pattern_fault(type(entry) == "table" and entry.pattern or entry)
    if wrong then return wrong end
  end
end

local function list_fault(value)
  return (type(value) ~= "table" or value[1] == nil) and "a list" or nil
end

local function of_type(wanted, said)
  return function(value) return type(value) ~= wanted and said or nil end
end

local function between_fault(value)
  local is_pair = type(value) == "table" and type(value[1]) == "number" and type(value[2]) == "number"
  return not is_pair and "a list of two numbers" or nil
end

local function lists_fault(value)
  local wrong = list_fault(value)
  for i = 1, wrong and 0 or #value do wrong = wrong or list_fault(value[i]) end
  return wrong and "a list of lists" or nil
end

local number, text = of_type("number", "a number"), of_type("string", "a string")
local truth = of_type("boolean", "a boolean")
local function anything() end

local FAULTS = {
  eq = anything, ne = anything, contains = anything, one_of = list_fault, not_one_of = list_fault, len_eq = number,
  len_min = number, len_max = number, gt = number, between = between_fault, match = pattern_fault,
  not_match = pattern_fault, match_all = patterns_fault, match_none = patterns_fault, match_any = patterns_fault,
  starts_with = text, is_regex = truth, uuid = truth, timestamp = truth, mutually_exclusive_subsets = lists_fault,
}

local function field_fault(field, path)
  for name, fault in pairs(FAULTS) do
    local value = field[name]
    if value ~= nil then
      if not (" " .. (FOR[field.type] or "") .. " "):find(" " .. name .. " ", 1, true) then
        return ("%s.%s: expected nothing at type %s, found %s"):format(path, name, tostring(field.type),
          words.value(value))
      end
      local expected = fault(value)
      if expected then return ("%s.%s: expected %s, found %s"):format(path, name, expected, words.value(value)) end
    end
  end
end

local function check(field, path)
  if type(field) ~= "table" then return nil end -- which the schema's own rules tell
  local wrong = field_fault(field, path)
  for _, inside in ipairs { "elements", "keys", "values" } do
    wrong = wrong or check(field[inside], path .. "." .. inside)
  end
  return wrong or arguments.fault(field.fields, path .. ".")
end

-- What is wrong in a list of { name = field }, or nil.
---@param fields any
---@param prefix? string of the fields' names
---@return string|nil
function arguments.fault(fields, prefix)
  if type(fields) ~= "table" then return nil end
  for _, entry in ipairs(fields) do
    local name, field = next(type(entry) == "table" and entry or {})
    local wrong = name ~= nil and check(field, (prefix or "") .. tostring(name))
    if wrong then return wrong end
  end
end

return arguments
