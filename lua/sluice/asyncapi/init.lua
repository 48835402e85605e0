-- SPDX-License-Identifier: Apache-2.0
-- The event routes of a configuration as an AsyncAPI 3 document: what clients may post and what they may read, by which
-- paths, with which messages, and how they show who they are.
--
--   entities -> routes with plugins that carry events -> for each of them channels, operations, messages, schemes
local operations = require "sluice.asyncapi.operations"
local routes = require "sluice.asyncapi.routes"
local security = require "sluice.asyncapi.security"
local text = require "sluice.asyncapi.text"

local asyncapi = { text = text.of }

local VERSION = "3.0.0"
asyncapi.media_type = "application/vnd.aai.asyncapi+json;version=" .. VERSION

---@class sluice.asyncapi.options
---@field info { title: string, version: string } with any other member of AsyncAPI's info
---@field id? string
---@field servers string[] URLs under which clients reach the gateway
---@field tags? string[] only routes that have one of them
---@field topics? boolean whether topics and clusters are shown
---@field clusters? table<string, table> properties of librdkafka, by name
---@field messages? table[] what is known of topics: topic, name, title, summary, description, content_type, schema (a
--- text of JSON Schema), examples (texts)

local function server_of(url)
  local protocol, host, path = url:match("^(%a[%a%d+.-]*)://([^/?#]+)([^?#]*)")
  return { host = host, protocol = protocol, pathname = path ~= "" and path ~= "/" and path or nil }
end

local function host_key(host)
  return (host:gsub("[^%w._-]", "-"))
end

-- Servers of routes: the gateway's, or where a route is for certain hosts these.
local function servers_of(document, options)
  local usual = {}
  for i, url in ipairs(options.servers) do
    local name = "gateway" .. (i > 1 and "-" .. i or "")
    document.servers[name], usual[i] = server_of(url), name
  end
  local first = document.servers[usual[1]]
  return function(route)
    local names = {}
    for _, host in ipairs(type(route.hosts) == "table" and route.hosts or {}) do
      if not host:find("*", 1, true) then
        local name = "host-" .. host_key(host)
        document.servers[name] = { host = host, protocol = first.protocol }
        names[#names + 1] = name
      end
    end
    return names[1] and names or usual
  end
end

-- A cluster's server, by the properties that its clients need; a plugin's own cluster is named by its first broker.
local function cluster_server(document, options)
  return function(name)
    local key = "kafka-" .. host_key(name)
    if not document.servers[key] then
      local properties = options.clusters and options.clusters[name] or {}
      local brokers = properties["bootstrap.servers"] or properties["metadata.broker.list"] or name
      local secure = tostring(properties["security.protocol"] or ""):lower():find("ssl", 1, true)
      document.servers[key] = { host = brokers, protocol = secure and "kafka-secure" or "kafka",
        description = properties.embedded and "a cluster inside the gateway" or "the cluster " .. name }
    end
    return key
  end
end

local function without_empty(document)
  for _, name in ipairs { "channels", "operations", "servers" } do
    if next(document[name]) == nil then document[name] = nil end
  end
  for name, content in pairs(document.components) do
    if next(content) == nil then document.components[name] = nil end
  end
  if next(document.components) == nil then document.components = nil end
  return document
end

---@param entities table<string, table[]> routes, services, plugins
---@param options sluice.asyncapi.options
---@return table
function asyncapi.document(entities, options)
  local document = { asyncapi = VERSION, id = options.id, info = options.info, defaultContentType = "application/json",
    servers = {}, channels = {}, operations = {}, components = { messages = {} } }
  local context = { options = options, channels = document.channels, operations = document.operations,
    components = document.components, servers_of = servers_of(document, options),
    cluster_server = cluster_server(document, options),
    security_of = function(plugins) return security.of(plugins, document.components) end }
  for _, one in ipairs(routes.of(entities, operations.describers, options.tags)) do operations.put(context, one) end
  return without_empty(document)
end

-- The same of the running generation.
---@param options sluice.asyncapi.options
---@return table
function asyncapi.current(options)
  local held = require("sluice.generation").current()
  options.clusters = held.meta.gateway and held.meta.gateway.kafka
  return (asyncapi.document(held.entities, options))
end

---@return number revision of the running configuration
function asyncapi.revision()
  return require("sluice.generation").current().revision
end

return asyncapi
