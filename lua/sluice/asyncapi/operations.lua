-- SPDX-License-Identifier: Apache-2.0
-- What plugins that carry events do, in AsyncAPI's words. The document is the gateway's own: it `receive`s what clients
-- post and what lies in topics, and it `send`s what clients read and what goes into topics.
local channels = require "sluice.asyncapi.channels"
local messages = require "sluice.asyncapi.messages"
local rest = require "sluice.asyncapi.rest"

local operations = {}

local BINDING = "0.3.0" -- of HTTP
local MAIN = "main"

local function cluster_of(conf)
  if conf.cluster then return conf.cluster end
  local first = conf.bootstrap_servers and conf.bootstrap_servers[1]
  return first and ("%s:%s"):format(first.host, first.port) or MAIN
end

-- The names that a topic may have: one that is made of the request is known by the list that it must be in.
local function topics_of(conf)
  local list = {}
  if conf.topic and not conf.topic:find("%$%b()") then list[1] = conf.topic end
  for _, topic in ipairs(conf.allowed_topics or {}) do list[#list + 1] = topic end
  if not list[1] and conf.topic then list[1] = conf.topic end
  return list
end

local function tags_of(route)
  local list = {}
  for i, tag in ipairs(type(route.tags) == "table" and route.tags or {}) do list[i] = { name = tag } end
  return list[1] and list or nil
end

local function methods_of(route, default)
  return type(route.methods) == "table" and route.methods[1] and route.methods or { default }
end

-- One operation a method; `it`: action, summary, messages, replies.
local function put_at(context, one, it, channel, methods)
  local refs, replies = {}, {}
  for i, message in ipairs(it.messages) do refs[i] = channels.carry(context, channel, message) end
  for i, message in ipairs(it.replies or {}) do replies[i] = channels.carry(context, channel, message) end
  for _, method in ipairs(methods) do
    context.operations[channel .. "." .. method:lower()] = {
      action = it.action, channel = { ["$ref"] = "#/channels/" .. channel }, messages = refs, summary = it.summary,
      description = it.description, tags = tags_of(one.route), security = context.security_of(one.plugins),
      bindings = { http = { method = method, query = it.query, bindingVersion = BINDING } },
      reply = replies[1] and { channel = { ["$ref"] = "#/channels/" .. channel }, messages = replies } or nil,
    }
  end
end

-- The same for each of the route's paths; `it.method`: unless the route says.
local function put_http(context, one, it)
  for _, channel in ipairs(channels.of_route(context, one.route)) do
    put_at(context, one, it, channel, methods_of(one.route, it.method))
  end
end

-- The same thing as the clusters see it, where topics are shown.
local function put_topic(context, one, action, conf, topic, message, group)
  if not context.options.topics then return end
  local channel = channels.of_topic(context, cluster_of(conf), topic)
  local name = ("%s.%s.%s"):format(messages.key_of(one.route.name or one.route.id), action, messages.key_of(topic))
  local binding
  if group then binding = { kafka = { groupId = { type = "string", enum = { group } }, bindingVersion = "0.5.0" } } end
  context.operations[name] = {
    action = action, channel = { ["$ref"] = "#/channels/" .. channel }, bindings = binding,
    messages = { channels.carry(context, channel, message) }, tags = tags_of(one.route),
  }
end

-- ---- Plugins ------------------------------------------------------------------------------------------------------

---@type table<string, fun(context: table, one: { route: table, plugins: table }, conf: table)>
local describers = {}

describers["kafka-upstream"] = function(context, one, conf)
  local topics, taken = topics_of(conf), {}
  for i, topic in ipairs(topics) do
    taken[i] = messages.of_topic(context, topic, one.plugins)
    put_topic(context, one, "send", conf, topic, taken[i])
  end
  local answer = conf.wait == false and "accepted" or "acknowledgement"
  put_http(context, one, { action = "receive", method = "POST", messages = taken,
    summary = "A request becomes a record of " .. table.concat(topics, ", "),
    description = conf.batch and conf.batch ~= "none" and "An array is a batch: each element becomes a record." or nil,
    replies = { messages.own(context, answer), messages.own(context, "failure") } })
end

local function topic_names(conf)
  local names = {}
  for i, topic in ipairs(conf.topics or {}) do names[i] = type(topic) == "table" and topic.name or topic end
  return names
end

local READS = {
  ["server-sent-events"] = "Server-sent events: `Last-Event-ID` goes on behind the event of that id",
  ndjson = "A line of JSON for each record",
  websocket = "A WebSocket message for each record",
  newest = "The newest value of a key, with an ETag; `Prefer: wait` waits for another",
  ["http-get"] = "What there is from a place on; streams where `Accept` asks for server-sent events or lines of JSON",
}

describers["kafka-consume"] = function(context, one, conf)
  local topics, given = topic_names(conf), {}
  for i, topic in ipairs(topics) do
    local message = messages.of_topic(context, topic)
    put_topic(context, one, "receive", conf, topic, message)
    if conf.event == "record" then message = messages.record_of(context, topic, message) end
    if conf.event == "cloudevent" then message = messages.cloudevent_of(context, topic, message) end
    given[i] = message
  end
  put_http(context, one, { action = "send", method = "GET", messages = given,
    summary = "Records of " .. table.concat(topics, ", "), description = READS[conf.mode] })
  if conf.mode ~= "websocket" then return end
  for _, channel in ipairs(channels.of_route(context, one.route)) do
    context.channels[channel].bindings = { ws = { method = "GET", bindingVersion = "0.1.0" } }
  end
end

describers["kafka-request-reply"] = function(context, one, conf)
  local request = messages.of_topic(context, conf.topic, one.plugins)
  local reply = messages.of_topic(context, conf.reply_topic)
  put_topic(context, one, "send", conf, conf.topic, request)
  put_topic(context, one, "receive", conf, conf.reply_topic, reply)
  put_http(context, one, { action = "receive", method = "POST", messages = { request },
    summary = ("A request becomes a record of %s, and its reply in %s the response"):format(conf.topic,
      conf.reply_topic),
    replies = { reply, messages.own(context, "failure") } })
end

-- No client has to do with it: it is told where topics are.
describers["kafka-sink"] = function(context, one, conf)
  local topics = topic_names(conf)
  if not topics[1] and conf.topic then topics[1] = conf.topic end
  for _, topic in ipairs(topics) do
    if not context.options.topics then return end
    local message = messages.of_topic(context, topic)
    put_topic(context, one, "receive", conf, topic, message, type(conf.group) == "string" and conf.group or nil)
  end
end

describers["confluent"], describers["confluent-consume"] = describers["kafka-upstream"], describers["kafka-consume"]

describers["kafka-rest"] = function(context, one, conf)
  for _, offer in ipairs(rest.offers(one.route, conf)) do
    put_at(context, one, {
      action = offer.action, summary = offer.summary, messages = { rest.message(context, offer.message) },
      replies = offer.reply and { rest.message(context, offer.reply) },
    }, channels.of_place(context, one.route, offer), { offer.method })
  end
end

operations.describers = describers

-- Puts channels, operations and messages of one route into the document.
---@param context table
---@param one { route: table, plugins: table<string, table> }
function operations.put(context, one)
  for name, describe in pairs(describers) do
    local conf = one.plugins[name]
    if conf then describe(context, one, conf) end
  end
end

return operations
