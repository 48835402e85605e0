-- SPDX-License-Identifier: Apache-2.0
-- Confluent's REST Proxy API, v2 and v3, over a cluster. No service is called.
local calls = require "kafka-rest.call"
local kafka = require "sluice.kafka"
local remote = require "kafka-rest.remote"
local routes = require "kafka-rest.routes"
local serde = require "sluice.serde"

require "kafka-rest.v3"
require "kafka-rest.v3_configs"
require "kafka-rest.v3_groups"
require "kafka-rest.v3_acls"
require "kafka-rest.v3_records"
require "kafka-rest.v2"
require "kafka-rest.v2_produce"
require "kafka-rest.v2_consumers"

local rest = { version = "1.0.0", priority = 752 }

-- First segments of the API: a route to one of them has what stands before it as its prefix.
local ROOTS = { "/v3$", "/topics$", "/consumers$", "/brokers$" }

local states = setmetatable({}, { __mode = "k" }) -- by configuration: { cluster, allowed, codec }

-- Clusters of `bootstrap_servers` are kept while a configuration asks for them.
function rest.configure(confs)
  remote.serve()
  for _, conf in ipairs(confs or {}) do
    local cluster, err = kafka.cluster_of(conf)
    if not cluster then error(err, 0) end
    local allowed = {}
    for _, class in ipairs(conf.operations) do allowed[class] = true end
    states[conf] = { cluster = cluster, allowed = allowed, codec = serde.new(conf.schema_registry) }
  end
end

local function is_below(path, prefix)
  return path:sub(1, #prefix) == prefix and (#path == #prefix or path:byte(#prefix + 1) == 0x2f)
end

local known = setmetatable({}, { __mode = "k" }) -- prefixes, by the paths of a route

local function prefixes_of(paths)
  local list = known[paths]
  if list then return list end
  list = {}
  for i, text in ipairs(paths) do
    local prefix = text:gsub("/+$", "")
    for _, word in ipairs(ROOTS) do prefix = prefix:gsub(word, "") end
    list[i] = prefix
  end
  known[paths] = list
  return list
end

-- The longest path of the route that stands before what is asked for.
local function prefix_of(conf, exchange, path)
  if conf.prefix then return (conf.prefix:gsub("/+$", "")) end
  local route, longest = exchange.router:get_route(), ""
  if not route or not route.paths then return longest end
  for _, prefix in ipairs(prefixes_of(route.paths)) do
    if #prefix > #longest and is_below(path, prefix) then longest = prefix end
  end
  return longest
end

local function is_v2(path)
  return not path:find("^/v3/") and path ~= "/v3"
end

function rest.access(conf, exchange)
  local state, path = states[conf], exchange.request:get_path()
  local prefix = prefix_of(conf, exchange, path)
  local call = calls.new(conf, state.cluster, exchange, prefix)
  call.codec = state.codec
  path = is_below(path, prefix) and path:sub(#prefix + 1) or path
  if is_v2(path) then call.v2, call.type = true, "application/vnd.kafka.v2+json" end
  local entry, names = routes.find(exchange.request:get_method(), path)
  if not entry and names == "path" then call:refuse(404, 404, "there is nothing at this path") end
  if not entry then call:refuse(405, 405, "this path has no such method", { Allow = names }) end
  if not state.allowed[entry.class] then
    call:refuse(403, 403, "this gateway does not offer to " .. entry.class .. " here")
  end
  entry.run(call, unpack(names))
end

return rest
