-- SPDX-License-Identifier: Apache-2.0
-- What libprotobuf says of JSON that is no message, as a JSON pointer and words of ours:
--
--   O: (lines[0].price): invalid value "x" for type TYPE_INT32    --> /lines/0/price: expected int32, found "x"

local find, gmatch, gsub, match = string.find, string.gmatch, string.gsub, string.match
local concat = table.concat

local protobuf_errors = {}

local OBJECT_ON_SCALAR = "^invalid value Starting an object on a scalar field for type (.*)$"
local LIST_ON_MAP = "^invalid value Cannot bind a list to map for field '([^']*)'"

-- Where the library says "(lines[0]) colour: ...": the steps, the name of one more, and the rest.
local function parts_of(text)
  local place, rest = match(text, "^%(([^)]*)%):? ?(.*)$")
  rest = rest or text
  local name, said = match(rest, "^([%w_]*): (.*)$")
  if name then rest = said end
  return place or "", name ~= "" and name or nil, rest
end

-- The steps as the client wrote them. Entries of a map are counted by the library, and their keys are not told: the
-- path ends at the map.
local function pointer(schema, message, place, name)
  local parts, kind = {}, message
  for step in gmatch(place, "[^.]+") do
    local field_name, index = match(step, "^([%w_]+)%[?(%d*)%]?$")
    parts[#parts + 1] = field_name or step
    local field = kind and field_name and schema:field(kind, field_name)
    if field and field.map then return "/" .. concat(parts, "/") end
    if index and index ~= "" then parts[#parts + 1] = index end
    kind = field and field.message
  end
  if name and kind then parts[#parts + 1] = name end
  return #parts > 0 and "/" .. concat(parts, "/") or ""
end

local function reason_of(text)
  if find(text, "^Cannot find field") then return "there is no such field" end
  if find(text, "is not repeating, cannot start list") then return "expected a single value, found an array" end
  if find(text, "^Root element must be a message") then return "expected an object" end
  local oneof = match(text, "^invalid value (oneof field .*) for type oneof$")
  if oneof then return (gsub(oneof, "%. Cannot set", ", which excludes")) end
  local said = match(text, "^invalid value Field '.-', (.*) for type .-$")
  if said then return (gsub(said, "^Invalid", "invalid")) end
  local found, kind = match(text, "^invalid value (.*) for type ([^ ]*)$")
  if not found then return text end
  kind = gsub(gsub(kind, "^type%.googleapis%.com/", ""), "^TYPE_(.*)$", string.lower)
  return "expected " .. kind .. ", found " .. found
end

-- The path and the whole message.
---@param schema sluice.protobuf.schema
---@param message string name of the type
---@param err string
---@return string path
---@return string text
function protobuf_errors.of(schema, message, err)
  local text = err
  if err:sub(1, #message + 2) == message .. ": " then text = err:sub(#message + 3) end
  local place, name, rest = parts_of(text)
  local scalar = match(rest, OBJECT_ON_SCALAR)
  if scalar then name, rest = scalar, "expected a single value, found an object" end
  local map = match(rest, LIST_ON_MAP)
  if map then name, rest = map, "expected an object, found an array" end
  local path, reason = pointer(schema, message, place, name), reason_of(rest)
  return path, path == "" and reason or path .. ": " .. reason
end

return protobuf_errors
