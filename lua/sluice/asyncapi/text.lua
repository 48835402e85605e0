-- SPDX-License-Identifier: Apache-2.0
-- A document as JSON for people to read: indented, and with its members in an order that does not depend on chance.
local json = require "sluice.json"

local text = {}

-- Members that a reader looks for first; the others follow by name.
local FIRST = { "asyncapi", "id", "info", "title", "name", "version", "summary", "description", "host", "pathname",
  "protocol", "address", "action", "channel", "method", "type", "contentType", "defaultContentType", "servers",
  "channels", "operations", "messages", "reply", "headers", "payload", "components" }
local RANK = {}
for i, name in ipairs(FIRST) do RANK[name] = i end

local function before(a, b)
  local first, second = RANK[a] or math.huge, RANK[b] or math.huge
  if first ~= second then return first < second end
  return a < b
end

local put

local function put_list(out, list, indent)
  out[#out + 1] = "["
  for i, value in ipairs(list) do
    out[#out + 1] = (i == 1 and "\n" or ",\n") .. indent .. "  "
    put(out, value, indent .. "  ")
  end
  out[#out + 1] = "\n" .. indent .. "]"
end

local function put_object(out, object, indent)
  local names = {}
  for name in pairs(object) do names[#names + 1] = tostring(name) end
  table.sort(names, before)
  out[#out + 1] = "{"
  for i, name in ipairs(names) do
    out[#out + 1] = (i == 1 and "\n" or ",\n") .. indent .. "  " .. json.encode(name) .. ": "
    put(out, object[name], indent .. "  ")
  end
  out[#out + 1] = "\n" .. indent .. "}"
end

function put(out, value, indent)
  if type(value) ~= "table" then
    out[#out + 1] = assert(json.encode(value))
  elseif next(value) == nil then
    out[#out + 1] = json.is_array(value) and "[]" or "{}"
  elseif value[1] ~= nil then
    put_list(out, value, indent)
  else
    put_object(out, value, indent)
  end
end

---@param document table lists and objects without gaps
---@return string
function text.of(document)
  local out = {}
  put(out, document, "")
  return table.concat(out) .. "\n"
end

return text
