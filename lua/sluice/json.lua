-- SPDX-License-Identifier: Apache-2.0
-- JSON (RFC 8259) that gives back what it read: an empty array stays an array, null is a value, numbers keep their
-- digits. Failures are returned, never raised.
--
-- cjson decodes where it is faithful, which is nearly always. It cannot tell `[]` from `{}`, and reads every number
-- as a double, so a text with an empty array, or one to be read exactly, goes through the decoder below. Encoding is
-- done here: cjson writes 14 digits, too few for a time in microseconds, and knows no empty array.

local ffi = require "ffi"
local buffer = require "string.buffer"
local cjson = require("cjson.safe").new()

local byte, char, find, format = string.byte, string.char, string.find, string.format
local gsub, match, sub = string.gsub, string.match, string.sub
local type, tonumber, tostring, pairs, next, rawequal = type, tonumber, tostring, pairs, next, rawequal
local getmetatable, setmetatable = getmetatable, setmetatable
local istype, cast = ffi.istype, ffi.cast

local json = {}

local MAX_DEPTH = 512 -- of nesting, both ways
local MAX_EXACT = 2 ^ 53

cjson.decode_max_depth(MAX_DEPTH)
cjson.decode_invalid_numbers(false)

local null = require("cjson").null
local ARRAY = "json.array" -- what getmetatable gives: the mark cannot be changed from outside
local array_mt = { __metatable = ARRAY }

-- What JSON's null decodes to, and nothing else is.
json.null = null

-- Marks a table as an array, so that it encodes as `[]` when it is empty.
---@param list? table
---@return table the same table
function json.array(list)
  list = list or {}
  if getmetatable(list) == ARRAY then return list end
  return setmetatable(list, array_mt)
end

---@param value any
---@return boolean whether it was marked as an array
function json.is_array(value)
  return type(value) == "table" and getmetatable(value) == ARRAY
end

-- ---- Encoding ----

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r",
  ["\t"] = "\\t" }
for i = 0, 31 do
  local c = char(i)
  ESCAPES[c] = ESCAPES[c] or format("\\u%04x", i)
end
ESCAPES["\127"] = "\\u007f"

local special = ffi.new("uint8_t[256]")
for c in pairs(ESCAPES) do special[byte(c)] = 1 end

-- A loop over the bytes compiles, a pattern does not: most strings hold nothing to escape.
local function put_string(out, text)
  local data, len = cast("const uint8_t *", text), #text
  for i = 0, len - 1 do
    if special[data[i]] ~= 0 then
      text = gsub(text, '[%c"\\\127]', ESCAPES)
      break
    end
  end
  out:put('"', text, '"')
end

-- Shortest of the forms that reads back as the same number.
local function put_number(out, value)
  if value % 1 == 0 and value < MAX_EXACT and value > -MAX_EXACT then
    out:putf("%d", value)
    return
  end
  if value ~= value or value == math.huge or value == -math.huge then return "cannot encode " .. tostring(value) end
  local text = format("%.15g", value)
  if tonumber(text) ~= value then text = format("%.17g", value) end
  out:put(text)
end

local encode_value

local function put_array(out, list, count, depth)
  out:put("[")
  for i = 1, count do
    if i > 1 then out:put(",") end
    local err = encode_value(out, list[i], depth)
    if err then return err end
  end
  out:put("]")
end

local function put_object(out, object, depth)
  out:put("{")
  local first = true
  for key, value in pairs(object) do
    local kind = type(key)
    if kind == "number" then
      key = format("%.14g", key)
    elseif kind ~= "string" then
      return "cannot encode a member named by a " .. kind
    end
    if not first then out:put(",") end
    first = false
    put_string(out, key)
    out:put(":")
    local err = encode_value(out, value, depth)
    if err then return err end
  end
  out:put("}")
end

-- The length of an array; nil when some key is no index or too many are missing (then it is an object).
local function array_length(list)
  local count, highest = 0, 0
  for key in pairs(list) do
    if type(key) ~= "number" or key < 1 or key % 1 ~= 0 then return nil end
    count = count + 1
    if key > highest then highest = key end
  end
  if highest > 10 and highest > count * 2 then return nil end
  return highest
end

local function put_table(out, value, depth)
  if depth > MAX_DEPTH then return "more than " .. MAX_DEPTH .. " levels" end
  local marked = getmetatable(value) == ARRAY
  if next(value) == nil then
    out:put(marked and "[]" or "{}")
    return
  end
  local count = (marked or value[1] ~= nil) and array_length(value)
  if marked then count = count or #value end
  if count then return put_array(out, value, count, depth) end
  return put_object(out, value, depth)
end

function encode_value(out, value, depth)
  local kind = type(value)
  if kind == "string" then
    put_string(out, value)
  elseif kind == "number" then
    return put_number(out, value)
  elseif kind == "table" then
    return put_table(out, value, depth + 1)
  elseif kind == "boolean" then
    out:put(value and "true" or "false")
  elseif value == nil or rawequal(value, null) then
    out:put("null")
  elseif istype("int64_t", value) or istype("uint64_t", value) then
    out:put((gsub(tostring(value), "U?LL$", "")))
  else
    return "cannot encode a " .. kind
  end
end

local scratch = buffer.new()

---@param value any tables, strings, numbers, booleans, json.null, int64_t and uint64_t
---@return string|nil text
---@return string|nil err
function json.encode(value)
  local out = scratch:reset()
  local err = encode_value(out, value, 0)
  if err then return nil, err end
  return out:get()
end

-- ---- Decoding ----

local function fail(at, what)
  return nil, at, what .. " at byte " .. at
end

local function utf8(code)
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xC0 + math.floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then
    return char(0xE0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
  end
  return char(0xF0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64,
    0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

local UNESCAPES = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

-- One escape at the backslash `at`: its text and where it ends.
local function read_escape(text, at)
  local c = sub(text, at + 1, at + 1)
  if UNESCAPES[c] then return UNESCAPES[c], at + 1 end
  local digits = c == "u" and match(text, "^%x%x%x%x", at + 2)
  if not digits then return nil end
  local code = tonumber(digits, 16)
  if code < 0xD800 or code > 0xDFFF then return utf8(code), at + 5 end
  local low = match(text, "^\\u([dD][c-fC-F]%x%x)", at + 6)
  if code > 0xDBFF or not low then return nil end -- half of a pair
  return utf8(0x10000 + (code - 0xD800) * 1024 + tonumber(low, 16) - 0xDC00), at + 11
end

local function read_string(text, at)
  local from, parts = at + 1, nil
  while true do
    local stop = find(text, '[%c"\\]', from)
    -- %c holds DEL too, which JSON allows.
    while stop and byte(text, stop) == 127 do stop = find(text, '[%c"\\]', stop + 1) end
    if not stop then return fail(at, "a string without an end") end
    local c = byte(text, stop)
    if c == 34 then
      local rest = sub(text, from, stop - 1)
      return parts and parts .. rest or rest, stop + 1
    end
    if c ~= 92 then return fail(stop, "a control character in a string") end
    local piece, last = read_escape(text, stop)
    if not piece then return fail(stop, "an invalid escape") end
    parts = (parts or "") .. sub(text, from, stop - 1) .. piece
    from = last + 1
  end
end

-- An integer beyond 2^53 as int64_t or uint64_t, when it fits one.
local function exact(digits)
  local value = tonumber(digits)
  if find(digits, "[.eE]") or (value < MAX_EXACT and value > -MAX_EXACT) then return value end
  local negative = byte(digits) == 45
  local magnitude = gsub(digits, "^-", "")
  if #magnitude > 20 then return value end
  local whole = 0ULL
  for i = 1, #magnitude do
    local shifted = whole * 10ULL + (byte(magnitude, i) - 48)
    if i == 20 and shifted / 10ULL ~= whole then return value end
    whole = shifted
  end
  if not negative then return whole <= 0x7fffffffffffffffULL and cast("int64_t", whole) or whole end
  return whole <= 0x8000000000000000ULL and -cast("int64_t", whole) or value
end

local function read_number(text, at, options)
  local digits = match(text, "^-?%d+", at)
  if not digits or find(digits, "^-?0%d") then return fail(at, "an invalid number") end
  local after = at + #digits
  local c = byte(text, after)
  if c == 46 or c == 101 or c == 69 then -- . e E
    local fraction = c == 46 and (match(text, "^%.%d+", after) or "?") or ""
    local exponent = match(text, "^[eE][+-]?%d+", after + #fraction) or ""
    if fraction == "?" or fraction .. exponent == "" then return fail(at, "an invalid number") end
    digits = digits .. fraction .. exponent
    after = at + #digits
  end
  return options.exact and exact(digits) or tonumber(digits), after
end

local read_value

local function skip(text, at)
  local c = byte(text, at)
  if c and c > 32 then return at end
  return find(text, "[^ \t\r\n]", at) or #text + 1
end

local function read_array(text, at, options, depth)
  local list, count = setmetatable({}, array_mt), 0
  at = skip(text, at + 1)
  if byte(text, at) == 93 then return list, at + 1 end
  while true do
    local value, after, err = read_value(text, at, options, depth)
    if err then return nil, after, err end
    count = count + 1
    list[count] = value
    at = skip(text, after)
    local c = byte(text, at)
    if c == 93 then return list, at + 1 end
    if c ~= 44 then return fail(at, "expected , or ]") end
    at = skip(text, at + 1)
  end
end

local function read_object(text, at, options, depth)
  local object = {}
  at = skip(text, at + 1)
  if byte(text, at) == 125 then return object, at + 1 end
  while true do
    if byte(text, at) ~= 34 then return fail(at, "expected a name") end
    local name, past, bad = read_string(text, at)
    if bad then return nil, past, bad end
    at = skip(text, past)
    if byte(text, at) ~= 58 then return fail(at, "expected :") end
    if options.unique and object[name] ~= nil then return fail(past, "a second member of that name") end
    local value, after, err = read_value(text, skip(text, at + 1), options, depth)
    if err then return nil, after, err end
    object[name] = value
    at = skip(text, after)
    local c = byte(text, at)
    if c == 125 then return object, at + 1 end
    if c ~= 44 then return fail(at, "expected , or }") end
    at = skip(text, at + 1)
  end
end

local function read_word(text, at)
  local word = match(text, "^%a+", at)
  if word == "true" then return true, at + 4 end
  if word == "false" then return false, at + 5 end
  if word == "null" then return null, at + 4 end
  return fail(at, "expected a value")
end

-- The value at `at`, where the text goes on behind it, and an error.
function read_value(text, at, options, depth)
  if depth >= MAX_DEPTH then return fail(at, "more than " .. MAX_DEPTH .. " levels") end
  local c = byte(text, at)
  if c == 34 then return read_string(text, at) end
  if c == 123 then return read_object(text, at, options, depth + 1) end
  if c == 91 then return read_array(text, at, options, depth + 1) end
  if c == 45 or (c and c >= 48 and c <= 57) then return read_number(text, at, options) end
  return read_word(text, at)
end

local NO_OPTIONS = {}

local function decode_here(text, options)
  local value, after, err = read_value(text, skip(text, 1), options, 0)
  if err then return nil, err end
  after = skip(text, after)
  if after <= #text then return nil, "something follows the value at byte " .. after end
  return value
end

-- Whether an empty array may stand in the text. Plain searches cost a tenth of a pattern.
local function may_hold_empty_array(text)
  if find(text, "[]", 1, true) then return true end
  local spaced = find(text, "[ ", 1, true) or find(text, "[\n", 1, true) or find(text, "[\r", 1, true)
    or find(text, "[\t", 1, true)
  return spaced and find(text, "%[%s+%]", spaced) ~= nil
end

---@param text string
---@param options? { exact: boolean, unique: boolean } exact: integers beyond 2^53 become int64_t or uint64_t; unique:
---  an object with two members of one name is refused, for others may read the one that is not read here
---@return any value json.null for null
---@return string|nil err
function json.decode(text, options)
  if type(text) ~= "string" then return nil, "expected a string, got " .. type(text) end
  if options or may_hold_empty_array(text) then return decode_here(text, options or NO_OPTIONS) end
  local value, err = cjson.decode(text)
  if err then return nil, err end
  return value
end

local SHORT = 64 -- bytes that Lua looks through as fast as C does

-- Whether JSON can say it as it is: whether it is UTF-8.
---@param text string
---@return boolean
function json.is_text(text)
  if #text <= SHORT and not find(text, "[\128-\255]") then return true end
  return require("sluice.ffi").C.bridge_websocket_is_text(text, #text) ~= 0
end

return json
