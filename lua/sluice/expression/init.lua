-- SPDX-License-Identifier: Apache-2.0
-- Expressions on an exchange: a condition as text, compiled once to a function. The language is that of Kong's
-- expressions router (fields, operators, transformations), with a few fields and lists of values besides.
--
--   local is_beta = expression.compile [[http.headers.x_beta == "yes" && http.method in ["GET", "HEAD"]]]
--   is_beta(exchange)      -- true or false
--
-- A test of something that is not there is false, whatever its operator; of several values (a header that was sent
-- twice) all have to pass it, or with any() one of them. Evaluating makes no closures and cannot fail.

local fields = require "sluice.expression.fields"
local ip = require "sluice.ip"
local parser = require "sluice.expression.parser"
local phases = require "sluice.phases"
local regex = require "sluice.regex"
local suggest = require "sluice.config.suggest"

local find, format, lower, sub = string.find, string.format, string.lower, string.sub

---@class sluice.expression
local expression = {}

-- ---- Tests of one value ---------------------------------------------------------------------------------------------

local tests = { string = {}, int = {}, ip = {} }

tests.string["=="] = function(wanted) return function(value) return value == wanted end end
tests.string["!="] = function(wanted) return function(value) return value ~= wanted end end
tests.string["contains"] = function(part)
  return function(value) return find(value, part, 1, true) ~= nil end
end
tests.string["^="] = function(prefix)
  local length = #prefix
  return function(value) return sub(value, 1, length) == prefix end
end
tests.string["=^"] = function(suffix)
  local length = #suffix
  return function(value) return length == 0 or sub(value, -length) == suffix end
end
tests.string["~"] = function(pattern)
  local compiled, why = regex.new(pattern)
  if not compiled then return nil, "a regular expression (" .. why .. ")" end
  return function(value)
    local matched = compiled:test(value)
    return matched
  end
end

tests.int["=="], tests.int["!="] = tests.string["=="], tests.string["!="]
tests.int[">"] = function(bound) return function(value) return value > bound end end
tests.int[">="] = function(bound) return function(value) return value >= bound end end
tests.int["<"] = function(bound) return function(value) return value < bound end end
tests.int["<="] = function(bound) return function(value) return value <= bound end end

local MOST_ADDRESSES = 4096

local function is_among(values)
  local set = {}
  for _, value in ipairs(values) do set[value] = true end
  return function(value) return set[value] == true end
end

local function is_not_among(values)
  local set = {}
  for _, value in ipairs(values) do set[value] = true end
  return function(value) return set[value] == nil end
end

local function is_within(ranges)
  local matcher, why = ip.matcher(ranges)
  if not matcher then return nil, "an address or a range (" .. why .. ")" end
  -- Reading an address costs more than all the rest of a test: what was found is kept for a while.
  local known, count = {}, 0
  return function(value)
    local matched = known[value]
    if matched ~= nil then return matched end
    if count == MOST_ADDRESSES then known, count = {}, 0 end
    matched = matcher:matches(value)
    known[value], count = matched, count + 1
    return matched
  end
end

local function is_without(ranges)
  local within, why = is_within(ranges)
  if not within then return nil, why end
  return function(value) return not within(value) end
end

local list_tests = {
  string = { ["in"] = is_among, ["not in"] = is_not_among },
  int = { ["in"] = is_among, ["not in"] = is_not_among },
  ip = { ["in"] = is_within, ["not in"] = is_without },
}
tests.ip["=="] = function(address)
  if find(address, "/", 1, true) then return nil, "an address (a range goes with in and not in)" end
  return is_within { address }
end
tests.ip["!="] = function(address)
  if find(address, "/", 1, true) then return nil, "an address (a range goes with in and not in)" end
  return is_without { address }
end

-- ---- Compiling a test -----------------------------------------------------------------------------------------------

local KINDS = { string = "a text", int = "an integer", ip = "an address" }

local function operators_of(kind)
  local names = {}
  for _, set in ipairs { tests[kind], list_tests[kind] } do
    for name in pairs(set) do names[#names + 1] = name end
  end
  table.sort(names)
  return table.concat(names, ", ")
end

local function values_of(self, test, kind)
  local values = {}
  for i, value in ipairs(test.values) do
    if value.kind ~= kind then
      self:fail(format("expected %s, as %s is one, found %s", KINDS[kind], test.field, KINDS[value.kind]), value.at)
    end
    values[i] = test.lower and lower(value.value) or value.value
  end
  return values
end

-- The function that tests one value.
local function value_test(self, test, kind)
  local of_list = list_tests[kind][test.operator]
  local of_one = tests[kind][test.operator]
  if not of_list and not of_one then
    self:fail(format("expected an operator for %s (%s), found %s", KINDS[kind], operators_of(kind), test.operator),
      test.operator_at)
  end
  if of_list and not test.is_list and kind ~= "ip" then
    self:fail(format("expected a list in [ ] behind %s", test.operator), test.values[1].at)
  end
  if of_one and test.is_list then
    self:fail(format("expected one value behind %s, found a list", test.operator), test.values[1].at)
  end
  local values = values_of(self, test, kind)
  -- What is to be lowered need not be so in a pattern, where \S is not \s.
  if test.operator == "~" then values[1] = test.values[1].value end
  local passes, expected = (of_list or of_one)(of_list and values or values[1])
  if not passes then self:fail("expected " .. expected, test.values[1].at) end
  if not test.lower then return passes end
  return function(value)
    local passed = passes(lower(value))
    return passed
  end
end

local function every(get, passes)
  return function(exchange)
    local value, nth = get(exchange, 1), 1
    if value == nil then return false end
    while value ~= nil do
      if not passes(value) then return false end
      nth = nth + 1
      value = get(exchange, nth)
    end
    return true
  end
end

local function any(get, passes)
  return function(exchange)
    local value, nth = get(exchange, 1), 1
    while value ~= nil do
      if passes(value) then return true end
      nth = nth + 1
      value = get(exchange, nth)
    end
    return false
  end
end

local function compile_test(self, test)
  local field = fields.find(test.field)
  if not field then
    self:fail(format("there is no field %s%s", test.field, suggest.phrase(test.field, fields.names)), test.at)
  end
  if test.lower and field.kind ~= "string" then
    self:fail(format("lower() is for texts, and %s is %s", test.field, KINDS[field.kind]), test.at)
  end
  local since = field.since and phases.numbers[field.since] or 0
  if since > self.since then self.since, self.since_field = since, test.field end
  return (test.any and any or every)(field.get, value_test(self, test, field.kind))
end

-- ---- Compiling a tree -----------------------------------------------------------------------------------------------

local compile_tree

local function both(one, other)
  return function(exchange)
    if not one(exchange) then return false end
    local holds = other(exchange)
    return holds
  end
end

local function either(one, other)
  return function(exchange)
    if one(exchange) then return true end
    local holds = other(exchange)
    return holds
  end
end

local function opposite(one)
  return function(exchange) return not one(exchange) end
end

function compile_tree(self, tree)
  if tree.kind == "test" then return compile_test(self, tree) end
  if tree.kind == "not" then return opposite(compile_tree(self, tree[1])) end
  local join = tree.kind == "and" and both or either
  local compiled = compile_tree(self, tree[#tree])
  for i = #tree - 1, 1, -1 do compiled = join(compile_tree(self, tree[i]), compiled) end
  return compiled
end

local function compile(self)
  self.since = 0
  local holds = compile_tree(self, self:whole())
  return { holds = holds, since = self.since_field and phases.names[self.since], field = self.since_field }
end

-- ---- What the others call -------------------------------------------------------------------------------------------

-- A function that says whether the expression holds for an exchange, as it is at that moment.
---@param text string
---@return (fun(exchange: sluice.exchange): boolean)|nil
---@return string|nil err begins with the place: "column 7: expected ..., found ..."
function expression.compile(text)
  if type(text) ~= "string" then error("sluice.expression.compile: text must be a string, got " .. type(text), 2) end
  local compiled, err = parser.run(text, compile)
  if not compiled then return nil, err end
  return compiled.holds
end

-- Whether a text is an expression; a `custom_validator` for schemas.
---@param text string
---@return boolean|nil true
---@return string|nil err begins with "expected"
function expression.check(text)
  local compiled, err = parser.run(text, compile)
  if compiled then return true end
  return nil, "expected an expression (" .. err .. ")"
end

-- The first phase in which all that an expression looks at is known; nil: every phase.
---@param text string an expression
---@return string|nil phase
---@return string|nil field that is known from there on
function expression.since(text)
  local compiled = parser.run(text, compile)
  if not compiled then return nil end
  return compiled.since, compiled.field
end

return expression
