-- SPDX-License-Identifier: Apache-2.0
-- Messages of topics: what the configuration says of them, and what the gateway itself says and asks for.
local json = require "sluice.json"

local messages = {}

local DRAFTS = { draft4 = "http://json-schema.org/draft-04/schema#", draft6 = "http://json-schema.org/draft-06/schema#",
  draft7 = "http://json-schema.org/draft-07/schema#" }

-- AsyncAPI's own schema language is a superset of draft 7: what is written in another draft says so.
local FORMATS = { ["http://json-schema.org/draft-04/schema#"] = "application/schema+json;version=draft-04",
  ["http://json-schema.org/draft-06/schema#"] = "application/schema+json;version=draft-06",
  ["https://json-schema.org/draft/2019-09/schema"] = "application/schema+json;version=draft-2019-09",
  ["https://json-schema.org/draft/2020-12/schema"] = "application/schema+json;version=draft-2020-12" }
local NEWER = { draft201909 = "https://json-schema.org/draft/2019-09/schema",
  draft202012 = "https://json-schema.org/draft/2020-12/schema" }

-- A schema as a payload may have it.
---@param schema table
---@param dialect? string URI of the draft it is in, where it does not say
local function payload_of(schema, dialect)
  local format = FORMATS[schema["$schema"] or dialect]
  if format then return { schemaFormat = format, schema = schema } end
  return schema
end

-- What request-validator demands of bodies; nil: nothing, or in Kong's own language.
local function validated(conf)
  if not conf or not conf.body_schema then return nil end
  local dialect = DRAFTS[conf.version] or NEWER[conf.version]
  local schema = dialect and json.decode(conf.body_schema)
  if type(schema) ~= "table" then return nil end
  return payload_of(schema, dialect)
end

local function examples_of(texts)
  local list = {}
  for i, example in ipairs(texts or {}) do
    local value = json.decode(example)
    list[i] = { payload = value == nil and example or value }
  end
  return list[1] and list or nil
end

-- What the configuration says of a topic's messages.
local function described(said, topic)
  for _, one in ipairs(said or {}) do
    if one.topic == topic then return one end
  end
  return nil
end

local function key_of(topic)
  return (topic:gsub("[^%w._-]", "-"))
end
messages.key_of = key_of

local function name_of(topic)
  return key_of(topic) .. ".message"
end

-- Puts a topic's message into `components` and gives its name there.
---@param context table
---@param topic string
---@param plugins? table<string, table> of the route that takes it: they may know its schema
function messages.of_topic(context, topic, plugins)
  local list = context.components.messages
  local said, name = described(context.options.messages, topic), name_of(topic)
  local message = list[name] or { name = said and said.name or topic, title = said and said.title,
    summary = said and said.summary, description = said and said.description,
    contentType = said and said.content_type, examples = examples_of(said and said.examples) }
  if said and said.schema then message.payload = payload_of(json.decode(said.schema)) end
  message.payload = message.payload or validated(plugins and plugins["request-validator"])
  list[name] = message
  return name
end

local STRING, INTEGER = { type = "string" }, { type = "integer" }
local PLACE = { type = "object", properties = { topic = STRING, partition = INTEGER, offset = INTEGER } }

-- Messages of the gateway's own, by name.
local OWN = {
  acknowledgement = { name = "acknowledgement", title = "Where the record is", contentType = "application/json",
    payload = PLACE, bindings = { http = { statusCode = 200, bindingVersion = "0.3.0" } } },
  accepted = { name = "accepted", title = "The record is queued", contentType = "application/json",
    payload = { type = "object" }, bindings = { http = { statusCode = 202, bindingVersion = "0.3.0" } } },
  failure = { name = "failure", title = "Why the gateway could not", contentType = "application/json",
    payload = { type = "object", properties = { message = STRING, request_id = STRING } } },
}

function messages.own(context, name)
  context.components.messages[name] = OWN[name]
  return name
end

-- The schema of a topic's values, where it can stand within another.
local function value_schema(context, name)
  local value = context.components.messages[name].payload
  return value and not value.schemaFormat and value or {}
end

-- A record as a CloudEvent.
function messages.cloudevent_of(context, topic, name)
  local own = name .. ".cloudevent"
  context.components.messages[own] = { name = topic .. " event", title = "A record of the topic as a CloudEvent 1.0",
    contentType = "application/cloudevents+json", payload = { type = "object",
      required = { "specversion", "id", "source", "type" }, properties = { specversion = { const = "1.0" }, id = STRING,
        source = STRING, type = STRING, time = { type = "string", format = "date-time" }, datacontenttype = STRING,
        data = value_schema(context, name) } } }
  return own
end

-- A record as an object around its value.
function messages.record_of(context, topic, name)
  local own = name .. ".record"
  context.components.messages[own] = { name = topic .. " record", title = "A record of the topic " .. topic,
    contentType = "application/json", payload = { type = "object", properties = {
      topic = { const = topic }, partition = INTEGER, offset = INTEGER,
      timestamp = { type = "integer", description = "milliseconds since 1970" }, key = { type = { "string", "null" } },
      value = value_schema(context, name),
      headers = { type = "array", items = { type = "object", properties = { name = STRING, value = STRING } } },
    } } }
  return own
end

return messages
