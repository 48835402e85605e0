-- SPDX-License-Identifier: Apache-2.0
-- References of schemas: RFC 3986 5.2, as far as names need it. Nothing is fetched.

local match, sub, gsub, find = string.match, string.sub, string.gsub, string.find

local uri = {}

local function split(text)
  local scheme, rest = match(text, "^(%a[%w+.-]*):(.*)$")
  rest = rest or text
  local authority
  if sub(rest, 1, 2) == "//" then
    authority, rest = match(rest, "^//([^/?]*)(.*)$")
  end
  local path, query = match(rest, "^([^?]*)(.*)$")
  return { scheme = scheme, authority = authority, path = path, query = query }
end

local function without_dots(path)
  local out, absolute = {}, sub(path, 1, 1) == "/"
  local last
  for segment in path:gmatch("[^/]+") do
    last = segment
    if segment == ".." then
      out[#out] = nil
    elseif segment ~= "." then
      out[#out + 1] = segment
    end
  end
  local is_folder = sub(path, -1) == "/" or last == "." or last == ".."
  return (absolute and "/" or "") .. table.concat(out, "/") .. (is_folder and #out > 0 and "/" or "")
end

local function join(parts)
  return (parts.scheme and parts.scheme .. ":" or "") .. (parts.authority and "//" .. parts.authority or "")
    .. parts.path .. parts.query
end

local function merged(base, path)
  if base.authority and base.path == "" then return "/" .. path end
  return (match(base.path, "^(.*/)") or "") .. path
end

-- What is before the fragment, and the fragment ("" where there is none).
---@return string
---@return string
function uri.split(text)
  local at = find(text, "#", 1, true)
  if not at then return text, "" end
  return sub(text, 1, at - 1), sub(text, at + 1)
end

-- A reference without a fragment, as seen from a base.
---@param base string
---@param reference string
---@return string
function uri.resolve(base, reference)
  if reference == "" then return base end
  local to, from = split(reference), split(base)
  if to.scheme then return join(to) end
  to.scheme = from.scheme
  if to.authority then return join(to) end
  to.authority = from.authority
  if to.path == "" then
    to.path = from.path
    if to.query == "" then to.query = from.query end
  elseif sub(to.path, 1, 1) == "/" then
    to.path = without_dots(to.path)
  else
    to.path = without_dots(merged(from, to.path))
  end
  return join(to)
end

---@return string|nil nil: an escape that is none
function uri.unescaped(text)
  if find(gsub(text, "%%%x%x", ""), "%", 1, true) then return nil end
  return (gsub(text, "%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

return uri
