-- SPDX-License-Identifier: Apache-2.0
-- From method and path to a handler. A pattern has a word for each segment, or "*" for a name.
local routes = {}

local function node()
  return { words = {}, methods = {} }
end

local root = node()

local function split(path)
  local segments = {}
  for segment in path:gmatch("[^/]+") do segments[#segments + 1] = segment end
  return segments
end

local function child(at, segment)
  if segment == "*" then
    at.name = at.name or node()
    return at.name
  end
  at.words[segment] = at.words[segment] or node()
  return at.words[segment]
end

-- `class`: what the handler does, one of "read", "produce", "consume", "admin"; see the option `operations`.
---@param method string
---@param pattern string
---@param class string
---@param handler fun(call: table, ...: string)
function routes.add(method, pattern, class, handler)
  local at = root
  for _, segment in ipairs(split(pattern)) do at = child(at, segment) end
  at.methods[method] = { run = handler, class = class }
end

local function unescape(segment)
  if not segment:find("%", 1, true) then return segment end
  return (segment:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- Words before names: "-" in the place of an id has a meaning of its own.
local function walk(at, segments, index, names)
  local segment = segments[index]
  if not segment then return next(at.methods) and at or nil end
  local word = at.words[segment]
  local found = word and walk(word, segments, index + 1, names)
  if found or not at.name then return found end
  local count = #names
  names[count + 1] = unescape(segment)
  found = walk(at.name, segments, index + 1, names)
  if not found then names[count + 1] = nil end
  return found
end

---@param method string
---@param path string below the prefix
---@return { run: function, class: string }|nil
---@return string[]|"path"|string names in the path; "path": there is no such, else the methods that there are
function routes.find(method, path)
  local names = {}
  local at = walk(root, split(path), 1, names)
  if not at then return nil, "path" end
  local entry = at.methods[method] or method == "HEAD" and at.methods.GET
  if entry then return entry, names end
  local methods = {}
  for name in pairs(at.methods) do methods[#methods + 1] = name end
  table.sort(methods)
  return nil, table.concat(methods, ", ")
end

return routes
