-- SPDX-License-Identifier: Apache-2.0
-- The text of an expression to a tree. The syntax is that of Kong's expressions router, with lists besides:
--
--   expression = conjunction { "||" conjunction }
--   conjunction = term { "&&" term }
--   term = "(" expression ")" | "!" "(" expression ")" | predicate
--   predicate = side operator value
--   side = field | "lower(" side ")" | "any(" side ")"
--   value = "text" | r#"text"# | integer | address | range | "[" value { "," value } "]"
--
-- A tree is { kind = "or"|"and"|"not", ... } or { kind = "test", field, lower, any, operator, values, at }.

local find, format, match, sub, gsub = string.find, string.format, string.match, string.sub, string.gsub
local tonumber, error, pcall, type = tonumber, error, pcall, type

local parser = {}

local MOST_BYTES, MOST_NESTED = 16384, 64

---@class sluice.expression.parser
local Parser = {}
Parser.__index = Parser

-- "column 7", or with the line where there are several.
function Parser:place(at)
  local before = sub(self.text, 1, at - 1)
  local _, lines = gsub(before, "\n", "")
  local column = at - #(match(before, "^(.*\n)") or "")
  if not find(self.text, "\n", 1, true) then return format("column %d", column) end
  return format("line %d, column %d", lines + 1, column)
end

-- Parsing ends with what is wrong and where.
function Parser:fail(what, at)
  error({ expression = true, message = self:place(at or self.at) .. ": " .. what }, 0)
end

function Parser:skip()
  self.at = find(self.text, "%S", self.at) or #self.text + 1
end

-- What stands here, for messages.
function Parser:found()
  local word = match(self.text, "^[%w_.]+", self.at) or match(self.text, "^[&|=!~<>^]+", self.at)
    or match(self.text, "^.", self.at)
  return word and format("%q", word) or "the end"
end

function Parser:expect(what)
  self:fail("expected " .. what .. ", found " .. self:found())
end

-- Passes over `symbol` where it stands here.
function Parser:take(symbol)
  self:skip()
  if sub(self.text, self.at, self.at + #symbol - 1) ~= symbol then return false end
  self.at = self.at + #symbol
  return true
end

-- The same for a word, which ends where it ends.
function Parser:take_word(word)
  self:skip()
  if match(self.text, "^[%w_]+", self.at) ~= word then return false end
  self.at = self.at + #word
  return true
end

-- ---- Values ---------------------------------------------------------------------------------------------------------

local ESCAPES = { n = "\n", r = "\r", t = "\t", ["\\"] = "\\", ['"'] = '"' }

-- Behind the opening quote.
function Parser:quoted()
  local pieces, began = {}, self.at - 1
  while true do
    local stop = find(self.text, '["\\]', self.at)
    if not stop then self:fail("this text has no end", began) end
    pieces[#pieces + 1] = sub(self.text, self.at, stop - 1)
    self.at = stop + 1
    if sub(self.text, stop, stop) == '"' then return table.concat(pieces) end
    local escaped = ESCAPES[sub(self.text, self.at, self.at)]
    if not escaped then self:fail([[expected \n, \r, \t, \\ or \" in a text]], stop) end
    pieces[#pieces + 1] = escaped
    self.at = self.at + 1
  end
end

-- Behind r#".
function Parser:raw()
  local began = self.at - 3
  local stop = find(self.text, '"#', self.at, true)
  if not stop then self:fail("this text has no end", began) end
  local text = sub(self.text, self.at, stop - 1)
  self.at = stop + 2
  return text
end

local ADDRESSES = { "^%d+%.%d+%.%d+%.%d+/?%d*", "^%x*:[%x:.]*/?%d*" }

function Parser:scalar()
  self:skip()
  local at = self.at
  if self:take('"') then return { kind = "string", value = self:quoted(), at = at } end
  if self:take('r#"') then return { kind = "string", value = self:raw(), at = at } end
  for _, pattern in ipairs(ADDRESSES) do
    local address = match(self.text, pattern, at)
    if address then
      self.at = at + #address
      return { kind = "ip", value = address, at = at }
    end
  end
  local digits = match(self.text, "^%-?0[xX]%x+", at) or match(self.text, "^%-?%d+", at)
  if not digits then self:expect("a text in quotes, an integer or an address") end
  self.at = at + #digits
  if find(self.text, "^[%w_.]", self.at) then self:fail("expected an integer", at) end
  return { kind = "int", value = tonumber(digits), at = at }
end

function Parser:values()
  if not self:take("[") then return { self:scalar() }, false end
  local list = {}
  repeat list[#list + 1] = self:scalar() until not self:take(",")
  if not self:take("]") then self:expect("] or ,") end
  return list, true
end

-- ---- Predicates -----------------------------------------------------------------------------------------------------

local OPERATORS = { "==", "!=", "=^", "^=", "~", ">=", "<=", ">", "<" } -- longer ones first
local WORDS = { "in", "contains" }

function Parser:operator()
  for _, operator in ipairs(OPERATORS) do
    if self:take(operator) then return operator end
  end
  for _, word in ipairs(WORDS) do
    if self:take_word(word) then return word end
  end
  if self:take_word("not") then
    if not self:take_word("in") then self:expect("in behind not") end
    return "not in"
  end
  self:expect("an operator (==, !=, ~, ^=, =^, >, >=, <, <=, in, not in or contains)")
end

-- A name in which each part behind a dot may stand in quotes: http.headers."x.y".
function Parser:field_name()
  self:skip()
  local name = match(self.text, "^%a[%w_]*", self.at)
  if not name then self:expect("a field") end
  self.at = self.at + #name
  while sub(self.text, self.at, self.at) == "." do
    self.at = self.at + 1
    local part = match(self.text, "^[%w_-]+", self.at)
    if part then
      self.at = self.at + #part
    elseif sub(self.text, self.at, self.at) == '"' then
      self.at = self.at + 1
      part = self:quoted()
    else
      self:expect("a name behind the dot")
    end
    name = name .. "." .. part
  end
  return name
end

function Parser:side(test)
  self:skip()
  for _, name in ipairs { "lower", "any" } do
    if find(self.text, "^" .. name .. "%s*%(", self.at) then
      self:take(name)
      self:take("(")
      test[name] = true
      self:side(test)
      if not self:take(")") then self:expect(") behind " .. name .. "(") end
      return
    end
  end
  test.at = self.at
  test.field = self:field_name()
end

function Parser:predicate()
  local test = { kind = "test" }
  self:side(test)
  self:skip()
  test.operator_at = self.at
  test.operator = self:operator()
  test.values, test.is_list = self:values()
  return test
end

-- ---- Logic ----------------------------------------------------------------------------------------------------------

function Parser:nested()
  self.depth = self.depth + 1
  if self.depth > MOST_NESTED then self:fail(format("more than %d parentheses within each other", MOST_NESTED)) end
  local tree = self:expression()
  if not self:take(")") then self:expect(")") end
  self.depth = self.depth - 1
  return tree
end

function Parser:term()
  if self:take("(") then return self:nested() end
  self:skip()
  if sub(self.text, self.at, self.at) == "!" then
    self.at = self.at + 1
    if not self:take("(") then self:expect("( behind !") end
    return { kind = "not", self:nested() }
  end
  return self:predicate()
end

function Parser:chain(kind, symbol, part)
  local first = part(self)
  if not self:take(symbol) then return first end
  local tree = { kind = kind, first }
  repeat tree[#tree + 1] = part(self) until not self:take(symbol)
  return tree
end

function Parser:conjunction()
  return self:chain("and", "&&", Parser.term)
end

function Parser:expression()
  return self:chain("or", "||", Parser.conjunction)
end

function Parser:whole()
  local tree = self:expression()
  self:skip()
  if self.at <= #self.text then self:expect("&&, || or the end") end
  return tree
end

-- Runs `fn(parser)`, which may fail at a place.
---@return any
---@return string|nil err such as "column 7: expected a field, found the end"
function parser.run(text, fn)
  local self = setmetatable({ text = text, at = 1, depth = 0 }, Parser)
  if #text > MOST_BYTES then return nil, format("it is longer than %d bytes", MOST_BYTES) end
  local ok, result = pcall(fn, self)
  if ok then return result end
  if type(result) == "table" and result.expression then return nil, result.message end
  error(result, 0)
end

return parser
