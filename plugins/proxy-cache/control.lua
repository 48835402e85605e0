-- SPDX-License-Identifier: Apache-2.0
-- Directives of Cache-Control (RFC 9111 5.2), and lists of names.
local control = {}

local MOST_SECONDS = 2147483648 -- RFC 9111 1.2.2: what is larger counts as this

local NONE = {}

-- The directives of a field, or of several joined by commas: { ["max-age"] = "60", ["no-store"] = true }. One that
-- comes twice with different values is in `broken`.
---@param text string|nil
---@return table<string, string|true>
function control.parse(text)
  if not text then return NONE end
  local found, at, length = { broken = nil }, 1, #text
  while at <= length do
    local _, stop, name = text:find("^[%s,]*([^%s,=;\"]+)%s*", at)
    if not name then
      at = (text:find(",", at, true) or length) + 1
    else
      name, at = name:lower(), stop + 1
      local value = true
      if text:sub(at, at) == "=" then
        local _, quoted_stop, quoted = text:find('^=%s*"([^"]*)"', at)
        local _, token_stop, token = text:find("^=%s*([^%s,]*)", at)
        value, at = quoted or token, (quoted_stop or token_stop) + 1
      end
      if found[name] ~= nil and found[name] ~= value then
        found.broken = found.broken or {}
        found.broken[name] = true
      end
      found[name] = value
      at = (text:find(",", at, true) or length) + 1
    end
  end
  return found
end

-- Seconds of a directive; nil: it is not there. What is no number, or said twice in different ways, is 0: stale (RFC
-- 9111 4.2.1).
---@return number|nil
function control.seconds(directives, name)
  local value = directives[name]
  if value == nil then return nil end
  if directives.broken and directives.broken[name] then return 0 end
  local digits = value ~= true and value:match("^%d+$")
  return digits and math.min(tonumber(digits), MOST_SECONDS) or 0
end

-- Names in a list, in lower case.
---@param text string
---@return string[]
function control.names(text)
  local list = {}
  for name in text:gmatch("[^%s,]+") do list[#list + 1] = name:lower() end
  return list
end

return control
