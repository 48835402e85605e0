-- SPDX-License-Identifier: Apache-2.0
-- Which origins are allowed: texts and regular expressions, made ready once.
local regex = require "sluice.regex"

local origins = {}

local DEFAULT_PORTS = { http = "80", https = "443" }

-- Any other character makes a regular expression of an entry, as in Kong; but not the brackets of an IPv6 address.
local function is_literal(entry)
  return entry:find("^[%w.:/-]+$") ~= nil or entry:find("^%a+://%[[%x:.]+%]:?%d*/?$") ~= nil
end

-- "http://example.com:80/" to "http://example.com" and "example.com"; other texts stay, twice.
---@param text string
---@return string origin
---@return string host
function origins.normalise(text)
  text = text:lower()
  local scheme, authority = text:match("^([%w+.-]+)://([^/?#]*)")
  if not scheme then return text, text end
  local host, port = authority:match("^(.*):(%d+)$")
  if not host then host = authority end
  if not port or port == DEFAULT_PORTS[scheme] then return scheme .. "://" .. host, host end
  return scheme .. "://" .. host .. ":" .. port, host
end

-- The whole text must match, however the pattern is anchored itself: an alternative must not let prefixes pass.
local function compile(pattern)
  local compiled, err = regex.new("(?:" .. pattern .. ")\\z", { anchored = true })
  if not compiled then error(("config.origins: %q: %s"):format(pattern, err), 0) end
  return compiled
end

local function rule_of(entry)
  local rule = { by_host = not entry:find(":", 1, true) }
  if is_literal(entry) then rule.text = origins.normalise(entry) else rule.pattern = compile(entry) end
  return rule
end

-- What a list of origins means: { all = true }, { only = text } that is told to everybody, or { rules }.
---@param list string[]|nil
---@return table
function origins.compile(list)
  if not list or #list == 0 then return { all = true } end
  for _, entry in ipairs(list) do
    if entry == "*" then return { all = true } end
  end
  if #list == 1 and is_literal(list[1]) then return { only = list[1] } end
  local allowed = { rules = {} }
  for i, entry in ipairs(list) do allowed.rules[i] = rule_of(entry) end
  return allowed
end

-- What `Access-Control-Allow-Origin` says to a client from `origin`; nil: nothing.
---@param allowed table from origins.compile
---@param origin string|nil
---@return string|nil
function origins.answer(allowed, origin)
  if allowed.all then return "*" end
  if allowed.only then return allowed.only end
  if not origin then return nil end
  local whole, host = origins.normalise(origin)
  for _, rule in ipairs(allowed.rules) do
    local subject = rule.by_host and host or whole
    if rule.text == subject or rule.pattern and rule.pattern:test(subject) then return whole end
  end
  return nil
end

return origins
