-- SPDX-License-Identifier: Apache-2.0
-- Paths with names in braces, as OpenAPI has them: /users/{id} matches /users/7.
local query = require "sluice.query"

local paths = {}

local Path = {}
Path.__index = Path

local function escaped(text)
  return (text:gsub("[%p]", "%%%0"))
end

---@param text string
function paths.compile(text)
  local names, pattern, from = {}, "^", 1
  while true do
    local first, last, name = text:find("{([^{}]*)}", from)
    if not first then break end
    pattern = pattern .. escaped(text:sub(from, first - 1)) .. "([^/]+)"
    names[#names + 1] = name
    from = last + 1
  end
  return setmetatable({ text = text, names = names, pattern = pattern .. escaped(text:sub(from)) .. "$" }, Path)
end

-- The values of its names, decoded; nil: it does not match.
---@param path string
---@return table<string, string>|nil
function Path:match(path)
  local found = { path:match(self.pattern) }
  if not found[1] then return nil end
  local params = {}
  for i, name in ipairs(self.names) do params[name] = query.unescape((found[i]:gsub("%+", "%%2B"))) end
  return params
end

-- Which of two paths is to be tried first: the one with fewer names, then the longer one.
function paths.is_before(a, b)
  if #a.names ~= #b.names then return #a.names < #b.names end
  if #a.text ~= #b.text then return #a.text > #b.text end
  return a.text < b.text
end

return paths
