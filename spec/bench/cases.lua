-- SPDX-License-Identifier: Apache-2.0
-- What is measured. A case: name, path, config (of Sluice) and nginx (of the proxy beside it), headers, tls, script,
-- streams (over HTTP/2, so many at once on each connection), grpc (they are calls, and the origin a gRPC service), and
-- what its figure must reach: `floor` times that of `against` ("nginx", or another case of Sluice's own).
local KEYS = 1000
local ROUTES = 10000
local KEY = "key-777"

local function configuration(origin, changes)
  local config = {
    _format_version = "3.0",
    services = { { name = "origin", url = "http://127.0.0.1:" .. origin.port,
      routes = { { name = "all", paths = { "/" }, strip_path = false } } } },
  }
  for key, value in pairs(changes or {}) do config[key] = value end
  return config
end

local function consumers()
  local list = {}
  for index = 1, KEYS do
    list[index] = { username = "user-" .. index, keyauth_credentials = { { key = "key-" .. index } } }
  end
  return list
end

local function key_map()
  local lines = { "map_hash_max_size 4096; map_hash_bucket_size 128; map $http_apikey $refused { default 1;" }
  for index = 1, KEYS do lines[#lines + 1] = "key-" .. index .. " 0;" end
  return table.concat(lines, "\n") .. "}"
end

local function many_routes(origin)
  local routes = {}
  for index = 1, ROUTES do
    routes[index] = { name = "r" .. index, paths = { "/r" .. index .. "/" }, strip_path = false }
  end
  return configuration(origin, { services = {
    { name = "origin", url = "http://127.0.0.1:" .. origin.port, routes = routes } } })
end

local function grpc_service(origin)
  return configuration(origin, { services = { { name = "origin", url = "grpc://127.0.0.1:" .. origin.grpc_port,
    routes = { { name = "all", paths = { "/" }, strip_path = false, protocols = { "grpc", "grpcs" } } } } } })
end

local chain = {
  { name = "key-auth" },
  { name = "rate-limiting", config = { second = 100000000, policy = "local" } },
  { name = "correlation-id", config = { header_name = "X-Correlation-ID", generator = "uuid#counter" } },
  { name = "response-transformer", config = { add = { headers = { "X-Added:yes" } } } },
}

local json_edit = { name = "response-transformer", config = {
  remove = { json = { "internal" } }, rename = { json = { "status:state" } }, add = { json = { "version:2" } },
} }

return {
  { name = "plain", against = "nginx", floor = 1.05, path = "/128", config = configuration, nginx = {},
    latency = 5000 },
  { name = "plain-1k", against = "nginx", floor = 1.05, path = "/1k", config = configuration, nginx = {} },
  { name = "body-1m", against = "nginx", floor = 1.0, path = "/1m", config = configuration, nginx = {},
    connections = 16 },
  { name = "tls", against = "nginx", floor = 1.0, path = "/128", config = configuration, nginx = {}, tls = true },
  { name = "key-auth", against = "nginx", floor = 1.0, path = "/128", headers = { "apikey: " .. KEY },
    config = function(origin)
      return configuration(origin, { consumers = consumers(), plugins = { { name = "key-auth" } } })
    end,
    nginx = { http = key_map(), location = "if ($refused) { return 401; }" } },
  { name = "chain", against = "plain", floor = 0.75, path = "/128", headers = { "apikey: " .. KEY }, latency = 5000,
    config = function(origin) return configuration(origin, { consumers = consumers(), plugins = chain }) end },
  { name = "json", against = "plain", floor = 0.45, path = "/json",
    config = function(origin) return configuration(origin, { plugins = { json_edit } }) end },
  { name = "routes-10000", against = "plain", floor = 0.97, path = "/r7777/x", config = many_routes },
  { name = "h2", against = "nginx", floor = 1.0, path = "/128", config = configuration, nginx = {}, streams = 100,
    connections = 4 },
  { name = "h2-tls", against = "nginx", floor = 1.0, path = "/128", config = configuration, nginx = {}, streams = 100,
    connections = 4, tls = true },
  { name = "grpc", against = "nginx", floor = 1.3, path = "/bench.Service/Unary", config = grpc_service, nginx = {},
    streams = 100, connections = 4, grpc = true, headers = { "content-type: application/grpc", "te: trailers" } },
}
