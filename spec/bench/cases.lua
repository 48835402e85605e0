-- SPDX-License-Identifier: Apache-2.0
-- What is measured. A case: name, path, config (of Sluice) and nginx (of the proxy beside it), headers, tls, script,
-- streams (over HTTP/2, so many at once on each connection), grpc (they are calls, and the origin a gRPC service), and
-- what its figure must reach: `floor` times that of `against` ("nginx", or another case of Sluice's own).
local KEYS = 1000
local ROUTES = 10000
local KEY = "key-777"

-- A token of KEY that never ends, and the key that it was signed by.
local JWT = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJrZXktNzc3Iiwic3ViIjoidXNlci03NzciLCJhdWQiOiJiZW5jaCI"
  .. "sImV4cCI6MzI1MDM2ODAwMDAsImp0aSI6IjZmMGJkN2YwLTlkMzQtNGYwYy04ZDM4LTBmOWY5YjRlNWUyMSJ9.I-QgoiTVGYvPgs"
  .. "xyXJMj8fPgj1-22mJhE3e1Hbq9s6epzfAkouK2k2BySrdfzoi-i17ZDvpeFDyR60U3txTVLZ1USD9QOeNjS8WstVG7i7axAHk3j6"
  .. "p0ZLuK9bqDY6Xp26-TH-0Qo-Vp3vz2uL3oYsYjk3k071bf-btY_71wBLBjbE5p_Lh3VVodR_bi1B0oS_rjtJdKp1yodpzcWEYDlw"
  .. "-LyQeo69iZKj95Sj1SBUaOq60icw_ob6f1USIDJvi5iLfbhFAW3Sk-yfaeIDpserZ9ub1pGd-VNqM31a0VxiPKHksWFQ0ZgVs7H7"
  .. "xqgb2JO5OfulqnYGcOlYvK4JogOw"
local JWT_KEY = [[
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAsD3sPdVyaHyLWx7avvQ1
AiIngFvxJ8QO7bpiNMkaLFotWiK06mwrPWifCaObcPfSq9Pjsxkd3VJF+VSAZpq3
hnQtapIm2egCDHznNXYzAPZgGtEYoQt1TNZ6DP5pl94CNv6+SY92vWPkRbWeoMyG
9oM0VcHt0LiiyzaKUBud4ztB3s8h6F/8M83rJdXE33wdRGCe+1jfKC4vvzVzB1uz
dU1UGHqeFoXjPmYZSMak8QmqtaM9qNracXLhZAQF1cRKJkhSSs/vVBsLSwZNknP3
9FBDOA9E+Wv6Uo4KI0aqaMn0X6EDntvsjZ5A3rPB8+O4Eijv2dL6tWQfFJr3MZvc
hQIDAQAB
-----END PUBLIC KEY-----
]]

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

local function consumers_with_jwt()
  local list = {}
  for index = 1, KEYS do
    list[index] = { username = "user-" .. index, jwt_secrets = { { key = "key-" .. index, algorithm = "RS256",
      rsa_public_key = JWT_KEY } } }
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
  { name = "jwt", against = "plain", floor = 0.7, path = "/128", headers = { "authorization: Bearer " .. JWT },
    config = function(origin)
      return configuration(origin, { consumers = consumers_with_jwt(),
        plugins = { { name = "jwt", config = { claims_to_verify = { "exp" } } } } })
    end },
  { name = "chain", against = "plain", floor = 0.75, path = "/128", headers = { "apikey: " .. KEY }, latency = 5000,
    config = function(origin) return configuration(origin, { consumers = consumers(), plugins = chain }) end },
  { name = "json", against = "plain", floor = 0.45, path = "/json",
    config = function(origin) return configuration(origin, { plugins = { json_edit } }) end },
  { name = "circuit-breaker", against = "plain", floor = 0.85, path = "/128", config = function(origin)
    return configuration(origin, { plugins = { { name = "circuit-breaker", config = { consecutive_failures = 5,
      failure_rate_threshold = 50, slow_call_rate_threshold = 50, slow_call_duration_threshold = 1 } } } })
  end },
  { name = "least-connections", against = "plain", floor = 0.85, path = "/128", config = function(origin)
      return configuration(origin, { services = { { name = "origin", host = "up",
        routes = { { name = "all", paths = { "/" }, strip_path = false } } } },
        upstreams = { { name = "up", algorithm = "least-connections",
          targets = { { target = "127.0.0.1:" .. origin.port }, { target = "localhost:" .. origin.port } },
          healthchecks = { passive = { unhealthy = { tcp_failures = 3, timeouts = 3, http_failures = 5 } } } } } })
    end },
  -- Both gather lines: nginx 64 KB of them, for at most a second (its default, a write for each, is slower), and Sluice
  -- as it does by default. Its lines tell more.
  { name = "access-log", against = "nginx", floor = 1.05, path = "/128", config = function(origin)
      return configuration(origin, { gateway = { access_log = { path = "./access.log" } } })
    end,
    nginx = { location = "access_log DIRECTORY/access.log combined buffer=64k flush=1s;" } },
  { name = "otel", against = "plain", floor = 0.85, path = "/128", config = function(origin)
      return configuration(origin, { plugins = { { name = "opentelemetry", config = { sampling_rate = 0.01,
        traces_endpoint = "http://127.0.0.1:" .. origin.port .. "/128" } } } })
    end },
  { name = "routes-10000", against = "plain", floor = 0.97, path = "/r7777/x", config = many_routes },
  { name = "cache", against = "nginx", floor = 1.2, path = "/1k",
    config = function(origin)
      return configuration(origin, { plugins = { { name = "proxy-cache",
        config = { strategy = "memory", content_type = { "*/*" }, cache_ttl = 3600 } } } })
    end,
    nginx = { location = "proxy_cache cache; proxy_cache_valid 200 1h; open_file_cache max=1000;" } },
  { name = "h2", against = "nginx", floor = 1.0, path = "/128", config = configuration, nginx = {}, streams = 100,
    connections = 4 },
  { name = "h2-tls", against = "nginx", floor = 1.0, path = "/128", config = configuration, nginx = {}, streams = 100,
    connections = 4, tls = true },
  { name = "grpc", against = "nginx", floor = 1.3, path = "/bench.Service/Unary", config = grpc_service, nginx = {},
    streams = 100, connections = 4, grpc = true, headers = { "content-type: application/grpc", "te: trailers" } },
}
