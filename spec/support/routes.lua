-- SPDX-License-Identifier: Apache-2.0
-- The rules of routing read plainly: every route, one after the other, no index. And random routes and requests that
-- come close to each other, from a seed.
local routes = {}

-- ---- A plain reading ----

local function is_regex(path)
  return path:sub(1, 1) == "~"
end

local function count(map)
  local n = 0
  for _ in pairs(map or {}) do n = n + 1 end
  return n
end

local function has(list, value)
  for _, one in ipairs(list) do
    if one == value then return true end
  end
  return false
end

local function attributes_asked(route)
  local asked = 0
  for _, attribute in ipairs { "methods", "hosts", "paths", "headers", "snis" } do
    if route[attribute] then asked = asked + 1 end
  end
  return asked
end

local function has_only_plain_hosts(route)
  return route.hosts ~= nil and not table.concat(route.hosts):find("*", 1, true)
end

-- The numbers by which Kong compares, from the most important to the least.
local function priority(route, number, path)
  local regex = path and is_regex(path)
  return {
    attributes_asked(route),
    has_only_plain_hosts(route) and 1 or 0,
    count(route.headers),
    regex and 1 or 0,
    regex and route.regex_priority or 0,
    path and not regex and #path or 0,
    -(route.created_at or 0),
    -number,
  }
end

local function beats(a, b)
  for i = 1, #a do
    if a[i] ~= b[i] then return a[i] > b[i] end
  end
  return false
end

local function host_fits(pattern, request)
  local name, port = pattern:match("^(.-):(%d+)$")
  if port and tonumber(port) ~= request.port then return false end
  name = (name or pattern):gsub("%.", "%%."):gsub("%*", ".+")
  return request.host:find("^" .. name .. "$") ~= nil
end

local function any(list, test)
  for _, value in ipairs(list) do
    if test(value) then return true end
  end
  return false
end

local function header_fits(request, name, values)
  local sent = request.headers[name]
  if not sent then return false end
  return any(type(sent) == "table" and sent or { sent }, function(text)
    return any(values, function(value) return value:lower() == text:lower() end)
  end)
end

local function headers_fit(route, request)
  for name, values in pairs(route.headers or {}) do
    if not header_fits(request, name, values) then return false end
  end
  return true
end

-- The regexes of random routes, as Lua patterns.
local regexes = {
  ["~/a/\\d+"] = "^/a/%d+",
  ["~/b/(\\w+)/c$"] = "^/b/[%w_]+/c$",
  ["~/[ab]/c"] = "^/[ab]/c",
  ["~/a/.*z"] = "^/a/.*z",
  ["~/c?/b"] = "^/c?/b",
}

local function path_fits(path, request)
  if is_regex(path) then return request.path:find(regexes[path]) ~= nil end
  return request.path:sub(1, #path) == path
end

local function rest_fits(route, request)
  return (not route.methods or has(route.methods, request.method))
    and (not route.hosts or any(route.hosts, function(host) return host_fits(host, request) end))
    and (not route.snis or request.scheme ~= "https" or has(route.snis, request.sni or ""))
    and headers_fit(route, request)
end

local function candidates(route, number)
  local list = {}
  for _, path in ipairs(route.paths or {}) do list[#list + 1] = { path = path, by = priority(route, number, path) } end
  if not route.paths then list[1] = { by = priority(route, number) } end
  return list
end

-- { outcome =, route =, path = } as the rules have it.
function routes.match(set, request)
  local best
  for number, route in ipairs(set) do
    for _, candidate in ipairs(candidates(route, number)) do
      local fits = rest_fits(route, request) and (not candidate.path or path_fits(candidate.path, request))
      if fits and (not best or beats(candidate.by, best.by)) then
        best = { by = candidate.by, route = number, path = candidate.path }
      end
    end
  end
  if not best then return { outcome = "nothing" } end
  local protocols = set[best.route].protocols
  local needs_tls = protocols and not has(protocols, "http") and request.scheme == "http"
  return { outcome = needs_tls and "needs_tls" or "found", route = best.route, path = best.path }
end

-- ---- Random routes and requests ----

-- random(n): 1 to n. Park and Miller's generator, the same on every machine.
function routes.randomiser(seed)
  local state = seed % 2147483646 + 1
  return function(n)
    state = state * 16807 % 2147483647
    return state % n + 1
  end
end

local hosts = { "a.test", "b.test", "a.b.test", "x.a.b.test", "test", "b.example", "a.example.org" }
local host_patterns = { "a.test", "b.test", "a.b.test", "*.test", "*.b.test", "a.*", "a.b.*", "b.example",
  "a.test:81", "*.test:81", "*" }
local methods = { "GET", "POST", "PUT", "PURGE" }
local prefixes = { "/", "/a", "/a/", "/a/b", "/a/b/c", "/b", "/ab", "/a/12", "/b/x/c", "/c/b/",
  "/a/" .. ("l"):rep(70), "/a/" .. ("l"):rep(140), "/a/" .. ("l"):rep(141) }
local tails = { "", "/", "b", "/b", "/b/c", "12", "/12/3", "z", "/xz", "lll" }
local names = { "x-a", "x-b", "x-c" }
local values = { "1", "Two", "three" }
local regex_names = {}
for name in pairs(regexes) do regex_names[#regex_names + 1] = name end
table.sort(regex_names)

local function pick(random, list)
  return list[random(#list)]
end

local function some(random, list, most)
  local chosen, seen = {}, {}
  for _ = 1, random(most) do
    local value = pick(random, list)
    if not seen[value] then chosen[#chosen + 1] = value end
    seen[value] = true
  end
  return chosen
end

local function random_paths(random)
  local paths = some(random, prefixes, 3)
  if random(4) == 1 then paths[#paths + 1] = pick(random, regex_names) end
  if random(12) == 1 then paths = { pick(random, regex_names) } end
  return paths
end

local function random_headers(random)
  local headers = {}
  for _, name in ipairs(some(random, names, 2)) do headers[name] = some(random, values, 2) end
  return headers
end

local function random_route(random)
  local route = { created_at = random(5), regex_priority = random(3) - 2 }
  if random(4) > 1 then route.paths = random_paths(random) end
  if random(2) == 1 then route.hosts = some(random, host_patterns, 3) end
  if random(3) == 1 then route.methods = some(random, methods, 2) end
  if random(5) == 1 then route.headers = random_headers(random) end
  if random(8) == 1 then route.snis = some(random, hosts, 2) end
  if random(4) == 1 then route.protocols = { pick(random, { "http", "https" }) } end
  return route
end

function routes.random_routes(random, size)
  local set = {}
  for i = 1, size do set[i] = random_route(random) end
  return set
end

function routes.random_request(random)
  local headers = {}
  for _, name in ipairs(names) do
    if random(2) == 1 then headers[name] = some(random, values, 2) end
  end
  return {
    method = pick(random, methods),
    scheme = pick(random, { "http", "https" }),
    host = pick(random, hosts),
    port = 79 + random(3),
    path = pick(random, prefixes) .. pick(random, tails),
    sni = random(2) == 1 and pick(random, hosts) or nil,
    headers = headers,
  }
end

return routes
