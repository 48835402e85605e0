-- SPDX-License-Identifier: Apache-2.0
-- Channels: the paths of routes, for clients of HTTP, and topics, for those of Kafka.
local messages = require "sluice.asyncapi.messages"

local channels = {}

-- "~/orders/(?<id>\d+)$" as "/orders/{id}": named groups are parameters. The rest of an expression is left as it is.
local function address_of(path)
  if path:sub(1, 1) ~= "~" then return path end
  local parameters = {}
  local address = path:sub(2):gsub("%$$", ""):gsub("%(%?P?<([%w_]+)>([^()]*)%)", function(name, pattern)
    parameters[name] = { description = "matches the regular expression " .. pattern }
    return "{" .. name .. "}"
  end)
  return address, next(parameters) and parameters or nil
end

local function refs_of(names, prefix)
  local list = {}
  for i, name in ipairs(names) do list[i] = { ["$ref"] = prefix .. name } end
  return list
end

local function title_of(route)
  return route.name or route.id
end

-- Channel names of a route, one for each of its paths.
---@param context table
---@param route table
---@return string[]
function channels.of_route(context, route)
  local names = {}
  local paths = type(route.paths) == "table" and route.paths[1] and route.paths or { "/" }
  for i, path in ipairs(paths) do
    local name = messages.key_of(title_of(route)) .. (i > 1 and "." .. i or "")
    if not context.channels[name] then
      local address, parameters = address_of(path)
      context.channels[name] = { address = address, title = title_of(route), parameters = parameters, messages = {},
        servers = refs_of(context.servers_of(route), "#/servers/") }
    end
    names[i] = name
  end
  return names
end

-- The channel of a place below a route.
---@param context table
---@param route table
---@param place { key: string, address: string, parameters: table }
---@return string name
function channels.of_place(context, route, place)
  local name = messages.key_of(title_of(route)) .. "." .. place.key
  context.channels[name] = { address = place.address, title = title_of(route), parameters = place.parameters,
    messages = {}, servers = refs_of(context.servers_of(route), "#/servers/") }
  return name
end

-- The channel of a topic.
function channels.of_topic(context, cluster, topic)
  local name = "kafka." .. messages.key_of(cluster) .. "." .. messages.key_of(topic)
  if not context.channels[name] then
    context.channels[name] = { address = topic, title = "topic " .. topic, messages = {},
      servers = refs_of({ context.cluster_server(cluster) }, "#/servers/"),
      bindings = { kafka = { topic = topic, bindingVersion = "0.5.0" } } }
  end
  return name
end

-- Has the channel carry a message of the components; gives the reference for operations.
function channels.carry(context, channel, message)
  context.channels[channel].messages[message] = { ["$ref"] = "#/components/messages/" .. message }
  return { ["$ref"] = "#/channels/" .. channel .. "/messages/" .. message }
end

return channels
