-- SPDX-License-Identifier: Apache-2.0
-- The elements of an array in a JSON text, as they are written: what passes them on keeps their bytes, and so their
-- order of members, their digits and their spelling.
--
--   json_elements.of('{"list":[{"b":1, "a":2.0}, 7]}', { "list" })   --> { '{"b":1, "a":2.0}', "7" }, { { ... }, 7 }

local ffi = require "ffi"
local json = require "sluice.json"

local cast, type, sub, find = ffi.cast, type, string.sub, string.find

local elements = {}

local QUOTE, COMMA, BACKSLASH = 34, 44, 92
local OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT = 91, 93, 123, 125

local TURN = 4096    -- elements between pauses
local LONG = 1048576 -- bytes behind whose decoding there is one

local LONG_NUMBER = "%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d"
local EXACT = { exact = true }

-- The text has been decoded before anything here looks at it, so it is JSON: only ends have to be found. Offsets count
-- from 0.

local function skip_space(data, at)
  while data[at] <= 32 do at = at + 1 end
  return at
end

-- Behind the string that begins at `at`.
local function string_end(data, at)
  at = at + 1
  while data[at] ~= QUOTE do
    if data[at] == BACKSLASH then at = at + 1 end
    at = at + 1
  end
  return at + 1
end

local function container_end(data, at)
  local depth = 0
  while true do
    local c = data[at]
    if c == QUOTE then
      at = string_end(data, at)
    else
      if c == OPEN_ARRAY or c == OPEN_OBJECT then depth = depth + 1 end
      if c == CLOSE_ARRAY or c == CLOSE_OBJECT then depth = depth - 1 end
      at = at + 1
      if depth == 0 then return at end
    end
  end
end

local function scalar_end(data, at, len)
  while at < len do
    local c = data[at]
    if c <= 32 or c == COMMA or c == CLOSE_ARRAY or c == CLOSE_OBJECT then return at end
    at = at + 1
  end
  return at
end

-- Behind the value that begins at `at`.
local function value_end(data, at, len)
  local c = data[at]
  if c == QUOTE then return string_end(data, at) end
  if c == OPEN_ARRAY or c == OPEN_OBJECT then return container_end(data, at) end
  return scalar_end(data, at, len)
end

-- Where the value of a member begins, of the last one of that name, as decoders take it.
local function member_at(text, data, at, len, name)
  local found
  at = skip_space(data, at + 1)
  while data[at] ~= CLOSE_OBJECT do
    local stop = string_end(data, at)
    local is_it = json.decode(sub(text, at + 1, stop)) == name
    at = skip_space(data, skip_space(data, stop) + 1) -- the colon stands between
    if is_it then found = at end
    at = skip_space(data, value_end(data, at, len))
    if data[at] == COMMA then at = skip_space(data, at + 1) end
  end
  return found
end

local function split(text, data, at, len, pause)
  local list, count = {}, 0
  at = skip_space(data, at + 1)
  while data[at] ~= CLOSE_ARRAY do
    local stop = value_end(data, at, len)
    count = count + 1
    list[count] = sub(text, at + 1, stop)
    if pause and count % TURN == 0 then pause() end
    at = skip_space(data, stop)
    if data[at] == COMMA then at = skip_space(data, at + 1) end
  end
  return list
end

-- Whether a text that may be JSON begins an array of more elements: seen without decoding it, which would take longer.
local function is_longer(text, most)
  local data, len = cast("const uint8_t *", text), #text
  local at, depth, commas = 0, 0, 0
  while at < len and commas < most do
    local c = data[at]
    if c == QUOTE then
      at = at + 1
      while at < len and data[at] ~= QUOTE do at = at + (data[at] == BACKSLASH and 2 or 1) end
    elseif c == OPEN_ARRAY or c == OPEN_OBJECT then
      depth = depth + 1
    elseif c == CLOSE_ARRAY or c == CLOSE_OBJECT then
      depth = depth - 1
    elseif c == COMMA and depth == 1 then
      commas = commas + 1
    end
    at = at + 1
  end
  return commas >= most
end

-- As json.decode, but integers that a double does not hold keep their digits, as int64_t or uint64_t.
---@param text string
---@return any value
---@return string|nil err
function elements.decode(text)
  local value, err = json.decode(text, find(text, LONG_NUMBER) and EXACT or nil)
  return value, err
end

-- The value of a member as it is written.
---@param text string a JSON object, which has been decoded
---@param name string
---@return string|nil
function elements.member(text, name)
  local data, len = cast("const uint8_t *", text), #text
  local at = member_at(text, data, skip_space(data, 0), len, name)
  return at and sub(text, at + 1, value_end(data, at, len))
end

-- What stands at the end of the path, and where it begins; nil and why there is none.
local function follow(text, data, value, path)
  local at = skip_space(data, 0)
  for i = 1, path and #path or 0 do
    local name = path[i]
    if type(value) ~= "table" or data[at] ~= OPEN_OBJECT or value[name] == nil then
      return nil, "there is no member " .. name
    end
    value, at = value[name], member_at(text, data, at, #text, name)
  end
  if data[at] ~= OPEN_ARRAY then return nil, "expected an array" end
  return value, at
end

local function many(most)
  return nil, "more than " .. most .. " elements", "many"
end

local NO_LIMITS = {}

-- The texts of the elements, and their values.
---@param text string
---@param path? string[] names of the members that lead to the array; the text is the array unless told
---@param limits? { most?: integer, pause?: fun() } elements that there may be; called between pieces of a long work
---@return string[]|nil texts
---@return any[]|string values or why there are none
---@return "syntax"|"path"|"many"|nil code syntax: the text is no JSON; path: there is no array
function elements.of(text, path, limits)
  limits = limits or NO_LIMITS
  local most, pause = limits.most or #text, limits.pause
  -- An element and its comma have two bytes.
  if not path and #text > 2 * most and find(text, "^%s*%[") and is_longer(text, most) then return many(most) end
  local value, err = elements.decode(text)
  if err then return nil, err, "syntax" end
  if pause and #text > LONG then pause() end
  local data = cast("const uint8_t *", text)
  local array, at = follow(text, data, value, path)
  if not array then return nil, at, "path" end
  if #array > most then return many(most) end
  return split(text, data, at, #text, pause), array
end

return elements
