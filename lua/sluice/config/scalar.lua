-- SPDX-License-Identifier: Apache-2.0
-- What a plain YAML scalar means: YAML 1.1 as Kong reads it (yes/no/on/off are booleans, 010 is eight, 1:30 is ninety).
local cjson = require "cjson"

local scalar = { null = cjson.null }

local words = {
  [""] = cjson.null, ["~"] = cjson.null, null = cjson.null, Null = cjson.null, NULL = cjson.null,
  [".nan"] = 0 / 0, [".NaN"] = 0 / 0, [".NAN"] = 0 / 0,
}
for _, word in ipairs { "true", "yes", "on" } do
  words[word], words[word:upper()], words[word:sub(1, 1):upper() .. word:sub(2)] = true, true, true
end
for _, word in ipairs { "false", "no", "off" } do
  words[word], words[word:upper()], words[word:sub(1, 1):upper() .. word:sub(2)] = false, false, false
end
for _, word in ipairs { "inf", "Inf", "INF" } do
  words["." .. word], words["+." .. word], words["-." .. word] = math.huge, math.huge, -math.huge
end

local function sexagesimal(digits, fraction)
  local sum = 0
  for part in digits:gmatch("%d+") do sum = sum * 60 + tonumber(part) end
  return sum + (tonumber(fraction) or 0)
end

-- The number that `text` (without sign and underscores) stands for, or nil.
local function magnitude(text)
  if text:find("^0[0-7]*$") then return tonumber(text, 8) end
  if text:find("^%d+$") then return text:byte(1) ~= 48 and tonumber(text) or nil end
  if text:find("^0x%x+$") then return tonumber(text:sub(3), 16) end
  if text:find("^0b[01]+$") then return tonumber(text:sub(3), 2) end
  if text:find("^%d*%.?%d*[eE]?[+-]?%d*$") and text:find("[.eE]") and text:find("%d") then return tonumber(text) end
  local digits, fraction = text:match("^(%d+:[0-5]?%d[:%d]*)(%.?%d*)$")
  return digits and sexagesimal(digits, fraction)
end

local function number(text)
  local sign, rest = text:match("^([+-]?)(.*)$")
  if not rest:find("^[%d.]") then return nil end
  local value = magnitude((rest:gsub("_", "")))
  return value and (sign == "-" and -value or value)
end

-- The value of a plain scalar: a boolean, number, scalar.null, or the text itself.
function scalar.plain(text)
  local word = words[text]
  if word ~= nil then return word end
  local first = text:byte(1)
  if first > 57 or first == 47 then return text end -- a letter or "/": nothing below starts so
  local value = number(text)
  if value == nil then return text end
  return value
end

local by_tag = {}

by_tag["tag:yaml.org,2002:str"] = function(text) return text end
by_tag["!"] = by_tag["tag:yaml.org,2002:str"]
by_tag["tag:yaml.org,2002:null"] = function() return cjson.null end
by_tag["tag:yaml.org,2002:bool"] = function(text)
  local word = words[text]
  if type(word) == "boolean" then return word end
end
by_tag["tag:yaml.org,2002:float"] = function(text)
  local word = words[text]
  return type(word) == "number" and word or number(text)
end
by_tag["tag:yaml.org,2002:int"] = function(text)
  local value = number(text)
  return value and value % 1 == 0 and value or nil
end

-- The value of a scalar with an explicit tag; nil, reason when the tag is unknown or the text does not fit it.
function scalar.tagged(tag, text)
  local read = by_tag[tag]
  if not read then return nil, "unknown tag " .. tag end
  local value = read(text)
  if value == nil then return nil, ("%q is no value of tag %s"):format(text, tag) end
  return value
end

return scalar
