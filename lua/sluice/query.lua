-- SPDX-License-Identifier: Apache-2.0
-- Query strings and form bodies, as Kong's plugins see them: `a=1&b&c=` is { a = "1", b = true, c = "" }, a repeated
-- name gives an array in the order of the text.

local byte, char, find, format = string.byte, string.char, string.find, string.format
local gsub, sub = string.gsub, string.sub
local concat, sort = table.concat, table.sort
local type, tostring, tonumber, pairs = type, tostring, tonumber, pairs

local query = {}

local function from_hex(digits)
  return char(tonumber(digits, 16))
end

-- "%41+b" to "A b". A "%" without two hex digits stays as it is.
---@param text string
---@return string
function query.unescape(text)
  if find(text, "+", 1, true) then text = gsub(text, "%+", " ") end
  if find(text, "%", 1, true) then text = gsub(text, "%%(%x%x)", from_hex) end
  return text
end

local function to_hex(c)
  return format("%%%02X", byte(c))
end

-- Everything but the unreserved characters of RFC 3986 2.3.
---@param text string
---@return string
function query.escape(text)
  return (gsub(text, "[^%w%-%._~]", to_hex))
end

-- The next `name=value` from `from` on: where the one after it begins, the raw name, the raw value (nil: no "=").
local function next_pair(text, from)
  local stop = find(text, "&", from, true) or #text + 1
  local equals = find(text, "=", from, true)
  if equals and equals < stop then
    return stop + 1, sub(text, from, equals - 1), sub(text, equals + 1, stop - 1)
  end
  return stop + 1, sub(text, from, stop - 1), nil
end

local function collect(args, name, value)
  local present = args[name]
  if present == nil then
    args[name] = value
  elseif type(present) == "table" then
    present[#present + 1] = value
  else
    args[name] = { present, value }
  end
end

---@param text string without "?"
---@param max? integer how many arguments at most, 100 unless told; 0: all
---@return table<string, string|boolean|(string|boolean)[]>
---@return string|nil "truncated" when there were more
function query.decode(text, max)
  local args, count, from = {}, 0, 1
  max = max or 100
  while from <= #text do
    local after, name, value = next_pair(text, from)
    if name ~= "" then
      if count == max and max > 0 then return args, "truncated" end
      count = count + 1
      collect(args, query.unescape(name), value and query.unescape(value) or value == nil)
    end
    from = after
  end
  return args
end

-- The first value of one argument, without decoding the others.
---@param text string without "?"
---@param wanted string decoded name
---@return string|boolean|nil
function query.first(text, wanted)
  return (query.nth(text, wanted, 1))
end

-- The nth value of one argument, from 1.
---@param text string without "?"
---@param wanted string decoded name
---@param nth integer
---@return string|boolean|nil
function query.nth(text, wanted, nth)
  local from = 1
  while from <= #text do
    local after, name, value = next_pair(text, from)
    if name ~= "" and (name == wanted or query.unescape(name) == wanted) then
      if nth == 1 then return value and query.unescape(value) or value == nil end
      nth = nth - 1
    end
    from = after
  end
  return nil
end

-- The text without any argument of that name; order and spelling of the others stay.
---@param text string
---@param unwanted string decoded name
---@return string
function query.remove(text, unwanted)
  local kept, from = {}, 1
  while from <= #text do
    local after, name = next_pair(text, from)
    if query.unescape(name) ~= unwanted then kept[#kept + 1] = sub(text, from, after - 2) end
    from = after
  end
  return concat(kept, "&")
end

local function encode_one(list, name, value)
  local kind = type(value)
  if value == true then
    list[#list + 1] = name
  elseif kind == "string" or kind == "number" then
    list[#list + 1] = name .. "=" .. query.escape(tostring(value))
  elseif value ~= false then
    return "value of argument \"" .. name .. "\" must be a string, number or boolean, got " .. kind
  end
end

-- Names in alphabetical order; `true` gives a bare name, `false` leaves the argument out.
---@param args table<string, string|number|boolean|(string|number|boolean)[]>
---@return string|nil
---@return string|nil err
function query.encode(args)
  local names, list = {}, {}
  for name in pairs(args) do
    if type(name) ~= "string" then return nil, "argument names must be strings, got " .. type(name) end
    names[#names + 1] = name
  end
  sort(names)
  for _, name in ipairs(names) do
    local value = args[name]
    local values = type(value) == "table" and value or { value }
    for i = 1, #values do
      local err = encode_one(list, query.escape(name), values[i])
      if err then return nil, err end
    end
  end
  return concat(list, "&")
end

return query
