-- SPDX-License-Identifier: Apache-2.0
-- Paths spelt so that a gateway and a server behind it may disagree about them, and servers that disagree.
local spellings = {}

-- Ways to /admin/ that have worked somewhere.
spellings.tricks = {
  "/admin/..;/admin/x", "/%61dmin/x", "//admin/x", "/admin%2fx", "/./admin/x", "/open/../admin/x",
  "/open/%2e%2e/admin/x", "/open/..%2fadmin/x", "/open/..;/admin/x", "/open/..%5cadmin/x", "/admin;/x", "/admin;a/x",
  "/;/admin/x", "/.;/admin/x", "/open/.%2e;x/admin/x", "/admin/./x", "/admin//x", "/x/..\\admin/x", "\\admin/x",
  "/%2fadmin/x", "/open%2f..%2fadmin/x",
}

local function decode(path)
  return (path:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function without_parameters(path)
  return (path:gsub(";[^/]*", ""))
end

local function resolve(path)
  local segments = {}
  for segment in path:gsub("\\", "/"):gmatch("[^/]+") do
    if segment == ".." then
      table.remove(segments)
    elseif segment ~= "." then
      segments[#segments + 1] = segment
    end
  end
  return "/" .. table.concat(segments, "/")
end

-- Servers, each lenient in its own way: from the path that is forwarded to the one they serve.
spellings.servers = {
  plain = function(path) return resolve(path) end,
  decodes = function(path) return resolve(decode(path)) end,
  cuts_then_decodes = function(path) return resolve(decode(without_parameters(path))) end,
  decodes_then_cuts = function(path) return resolve(without_parameters(decode(path))) end,
  cuts_only = function(path) return resolve(without_parameters(path)) end,
  turns_backslashes_then_cuts = function(path)
    return resolve(without_parameters((decode(path):gsub("\\", "/"))))
  end,
}

local pieces = { "/", "/", "/", "//", "admin", "admin", "%61dmin", "adm%69n", "keys", "open", "x", "..", "..", ".",
  "%2e", "%2E%2e", ".%2e", ";", ";x", ";x=1", "%3b", "%2f", "%2F", "%5c", "\\", "%25", "%252f", "..;", "a" }

-- `random`: of spec.support.routes.
function spellings.random_path(random)
  local parts = { "/" }
  for _ = 1, random(9) do parts[#parts + 1] = pieces[random(#pieces)] end
  return table.concat(parts)
end

return spellings
