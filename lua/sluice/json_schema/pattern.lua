-- SPDX-License-Identifier: Apache-2.0
-- Regular expressions of schemas, which are ECMA-262's, as PCRE2 reads them. What differs: \d and \w know ASCII only,
-- \s knows Unicode's spaces, a dot stops at four characters, [] matches nothing and [^] anything, \u has code points,
-- and categories have long names.
local regex = require "sluice.regex"

local byte, char, find, format = string.byte, string.char, string.find, string.format
local match, sub = string.match, string.sub

local pattern = {}

local SPACES = [[\s\x{FEFF}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}]]
local SAME = "dDwWbBtnfr" -- mean the same in both
local PUNCTUATION = "[%p ]"

local CATEGORIES = {
  Letter = "L", Cased_Letter = "L&", Uppercase_Letter = "Lu", Lowercase_Letter = "Ll", Titlecase_Letter = "Lt",
  Modifier_Letter = "Lm", Other_Letter = "Lo", Mark = "M", Nonspacing_Mark = "Mn", Spacing_Mark = "Mc",
  Enclosing_Mark = "Me", Number = "N", Decimal_Number = "Nd", digit = "Nd", Letter_Number = "Nl", Other_Number = "No",
  Punctuation = "P", punct = "P", Connector_Punctuation = "Pc", Dash_Punctuation = "Pd", Open_Punctuation = "Ps",
  Close_Punctuation = "Pe", Initial_Punctuation = "Pi", Final_Punctuation = "Pf", Other_Punctuation = "Po",
  Symbol = "S", Math_Symbol = "Sm", Currency_Symbol = "Sc", Modifier_Symbol = "Sk", Other_Symbol = "So",
  Separator = "Z", Space_Separator = "Zs", Line_Separator = "Zl", Paragraph_Separator = "Zp", Other = "C",
  Control = "Cc", cntrl = "Cc", Format = "Cf", Surrogate = "Cs", Private_Use = "Co", Unassigned = "Cn",
}

local function refuse(what)
  error({ refused = what }, 0)
end

local SEQUENCES = { [2] = "^[\194-\223][\128-\191]", [3] = "^[\224-\239][\128-\191][\128-\191]",
  [4] = "^[\240-\244][\128-\191][\128-\191][\128-\191]" }
local LEADS = { [2] = 32, [3] = 16, [4] = 8 } -- the first byte's own bits are what is below

-- The code point at `at`, and where the next begins; a byte that begins none stands for itself.
local function code_at(text, at)
  local lead = byte(text, at)
  for length = 2, 4 do
    if find(text, SEQUENCES[length], at) then
      local code = lead % LEADS[length]
      for i = 1, length - 1 do code = code * 64 + byte(text, at + i) % 64 end
      return code, at + length
    end
  end
  return lead, at + 1
end

-- \uHHHH, a pair of them, or \u{H...}; `at` is that of the u.
local function unicode(text, at)
  local braced, past = match(text, "^u{(%x+)}()", at)
  if braced then return format("\\x{%s}", braced), past end
  local high = match(text, "^u(%x%x%x%x)", at) or refuse("\\u without four digits")
  local code = tonumber(high, 16)
  local low = code >= 0xD800 and code <= 0xDBFF and match(text, "^\\u([dD][c-fC-F]%x%x)", at + 5)
  if low then
    code = 0x10000 + (code - 0xD800) * 1024 + tonumber(low, 16) - 0xDC00
    return format("\\x{%X}", code), at + 11
  end
  if code >= 0xD800 and code <= 0xDFFF then refuse("half of a surrogate pair") end
  return format("\\x{%X}", code), at + 5
end

local function property(text, at)
  local kind, name, past = match(text, "^([pP]){([%w_=]+)}()", at)
  if not kind then refuse("\\p without a property") end
  name = match(name, "^%w+=(.+)$") or name
  return format("\\%s{%s}", kind, CATEGORIES[name] or name), past
end

local function space(c, in_class)
  if c == "S" then return in_class and "\\S" or "[^" .. SPACES .. "]" end
  return in_class and SPACES or "[" .. SPACES .. "]"
end

local FIXED = { v = "\\x0B" } -- escapes of one letter, as PCRE2 writes them
for letter in SAME:gmatch(".") do FIXED[letter] = "\\" .. letter end

-- Escapes with something behind their letter.
local LONG = { u = unicode, p = property, P = property }

function LONG.x(text, at)
  return "\\x" .. (match(text, "^%x%x", at + 1) or refuse("\\x without two digits")), at + 3
end

function LONG.c(text, at)
  return "\\c" .. (match(text, "^%a", at + 1) or refuse("\\c without a letter")), at + 2
end

LONG["0"] = function(text, at)
  if find(text, "^%d", at + 1) then refuse("an octal escape") end
  return "\\x00", at + 1
end

-- References to groups.
local function group(text, at)
  local digits = match(text, "^[1-9]%d*", at)
  if digits then return "\\g{" .. digits .. "}", at + #digits end
  local name = match(text, "^k(<%w+>)", at)
  if name then return "\\k" .. name, at + 1 + #name end
end

-- The escape whose letter stands at `at`.
local function escape(text, at, in_class)
  local c = sub(text, at, at)
  if c == "" then refuse("a backslash at the end") end
  if c == "b" and in_class then return "\\x08", at + 1 end
  if FIXED[c] then return FIXED[c], at + 1 end
  if c == "s" or c == "S" then return space(c, in_class), at + 1 end
  if LONG[c] then
    local piece, past = LONG[c](text, at)
    return piece, past
  end
  if find(c, PUNCTUATION) then return "\\" .. c, at + 1 end
  local piece, past
  if not in_class then piece, past = group(text, at) end
  if piece then return piece, past end
  return refuse("\\" .. c .. " is no escape")
end

local function literal(text, at)
  local code, past = code_at(text, at)
  if code < 128 then return char(code), past end
  return format("\\x{%X}", code), past
end

local function class(text, at)
  local out, negated = {}, sub(text, at + 1, at + 1) == "^"
  local from = at + (negated and 2 or 1)
  at = from
  while true do
    local c = sub(text, at, at)
    local piece
    if c == "" then refuse("a class without its end") end
    if c == "]" then break end
    if c == "\\" then
      piece, at = escape(text, at + 1, true)
    elseif c == "[" then
      out[#out + 1], at = "\\", at -- in PCRE2 it would begin a named class
      piece, at = "[", at + 1
    else
      piece, at = literal(text, at)
    end
    out[#out + 1] = piece
  end
  if at == from then return negated and "(?s:.)" or "(?!)", at + 1 end
  return (negated and "[^" or "[") .. table.concat(out) .. "]", at + 1
end

local function piece_at(text, at)
  local c = sub(text, at, at)
  if c == "\\" then return escape(text, at + 1, false) end
  if c == "[" then return class(text, at) end
  if c == "." then return "[^\\n\\r\\x{2028}\\x{2029}]", at + 1 end
  if c == "(" and sub(text, at + 1, at + 1) == "*" then refuse("nothing that * repeats") end
  return literal(text, at)
end

local function translate(text)
  local out, at = { "(*UTF)" }, 1
  while at <= #text do
    local piece
    piece, at = piece_at(text, at)
    out[#out + 1] = piece
  end
  return table.concat(out)
end

-- A compiled expression with the method `test`.
---@param text string of ECMA-262
---@return sluice.regex.object|nil
---@return string|nil err
function pattern.new(text)
  local ok, translated = pcall(translate, text)
  if not ok then
    if type(translated) == "table" and translated.refused then return nil, translated.refused end
    error(translated, 0)
  end
  return regex.new(translated)
end

return pattern
