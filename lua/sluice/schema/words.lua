-- SPDX-License-Identifier: Apache-2.0
-- How values, kinds of value and places are said in error messages.
local cjson = require "cjson"

local words = {}

words.kinds = {
  string = "a string", number = "a number", integer = "an integer", boolean = "a boolean", array = "a list",
  set = "a list", map = "a map", record = "a map", foreign = "a reference", ["function"] = "a function",
  json = "a value", any = "a value",
}

local SHOWN_MAX = 60

-- What kind of value it is: "a string", "a list", "nothing".
function words.kind(value)
  if value == nil or value == cjson.null then return "nothing" end
  local kind = type(value)
  if kind ~= "table" then return words.kinds[kind] or "a " .. kind end
  if value[1] ~= nil then return "a list" end
  return next(value) == nil and "an empty map" or "a map"
end

-- The value itself when it is short and plain, else its kind.
function words.value(value)
  local kind = type(value)
  if kind == "string" then
    if #value > SHOWN_MAX then value = value:sub(1, SHOWN_MAX) .. "..." end
    return '"' .. value:gsub("[%c\"]", function(c) return ("\\x%02x"):format(c:byte()) end) .. '"'
  end
  if kind == "number" then return ("%.14g"):format(value) end
  if kind == "boolean" then return tostring(value) end
  return words.kind(value)
end

-- 'a, b or c' of a list of values.
function words.alternatives(list, last)
  local shown = {}
  for i, value in ipairs(list) do shown[i] = type(value) == "string" and value or words.value(value) end
  if #shown < 2 then return shown[1] or "nothing" end
  local tail = table.remove(shown)
  return table.concat(shown, ", ") .. " " .. (last or "or") .. " " .. tail
end

-- A path of keys as text: { "routes", 1, "paths", 2 } is routes[0].paths[1], counted from 0 as JSON tools do.
function words.path(keys)
  local parts = {}
  for i, key in ipairs(keys) do
    if type(key) == "number" then
      parts[i] = ("[%d]"):format(key - 1)
    else
      parts[i] = (i > 1 and "." or "") .. key
    end
  end
  return table.concat(parts)
end

-- One error as a line: the place, then what is wrong with it.
function words.sentence(err)
  if err.message then return err.message end
  return ("expected %s, found %s"):format(err.expected, err.found)
end

return words
