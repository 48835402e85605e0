-- SPDX-License-Identifier: Apache-2.0
-- What a request, or an element of a batch, becomes: a function for each configuration that makes the record, with
-- nothing in it that the configuration does not use.
local cloudevents = require "sluice.cloudevents"
local events = require "kafka-upstream.events"
local json = require "sluice.json"
local message = require "kafka-upstream.message"
local sluice = require "sluice"
local sources = require "kafka-upstream.sources"

local type, ipairs, pairs, tostring = type, ipairs, pairs, tostring

local record = {}

local NAME_MOST = 249 -- of a topic, Kafka's limit

-- ---- Values --------------------------------------------------------------------------------------------------------

local function run_functions(functions, value, exchange)
  for i = 1, #functions do
    value = functions[i](value, exchange)
    if value == nil then return nil end
  end
  return value
end

-- Kong's message; `functions` may change it, or drop it by nil.
local function message_maker(conf, functions)
  return function(values)
    local made = message.of(conf, values)
    if functions then made = run_functions(functions, made, values.exchange) end
    if made == nil then return nil, "dropped" end
    if type(made) == "string" then return made end
    local text, err = json.encode(made)
    if not text then error("message_by_lua_functions: what came of them is no JSON: " .. err, 0) end
    return text
  end
end

-- Nothing where a value is expected is refused: Kafka's null would delete a key of a compacted topic. JSON's null asks
-- for it.
local function source_maker(text)
  local source = sources.compile(text, "value")
  return function(values)
    local value = source(values)
    if value == nil then sources.refuse(422, "config.value finds no value in this request", { field = "value" }) end
    return (sources.text(value))
  end
end

local function value_maker(conf, functions)
  if conf.value == "message" then return message_maker(conf, functions) end
  if conf.value == "body" then return function(values) return values.text end end
  return source_maker(conf.value)
end

-- ---- Topic, key, partition, timestamp, headers ---------------------------------------------------------------------

local function allowed_topics(conf)
  if not conf.allowed_topics then return nil end
  local allowed = {}
  for _, name in ipairs(conf.allowed_topics) do allowed[name] = true end
  if not sources.is_template(conf.topic) then allowed[conf.topic] = true end
  return allowed
end

local function check_topic(topic, allowed)
  if type(topic) ~= "string" or #topic == 0 or #topic > NAME_MOST or topic:find("[^%w._-]") or topic == "."
    or topic == ".." then
    sources.refuse(422, "config.topic gives no name of a topic",
      { field = "topic", error = tostring(topic):sub(1, 64) })
  end
  if allowed and not allowed[topic] then
    sources.refuse(403, "topic " .. topic .. " is none that this route may write to", { field = "topic" })
  end
  return topic
end

local function topic_maker(conf)
  if not sources.is_template(conf.topic) then return nil end
  local source, allowed = sources.compile(conf.topic, "topic"), allowed_topics(conf)
  return function(values) return check_topic(sources.text(source(values)), allowed) end
end

-- Kong's query argument: names of topics with commas between; nil: the configured one.
---@return fun(exchange: table): string[]|nil
function record.topics_of(conf)
  local name, allowed = conf.topics_query_arg, allowed_topics(conf) or { [conf.topic] = true }
  return function(exchange)
    local given = exchange.request:get_query_arg(name)
    if type(given) ~= "string" or given == "" then return nil end
    local list, seen = {}, {}
    for topic in given:gmatch("[^,%s]+") do
      if not seen[topic] then
        seen[topic] = true
        list[#list + 1] = check_topic(topic, allowed)
      end
    end
    return list[1] and list or nil
  end
end

local function key_maker(conf)
  local header, argument = conf.key_header, conf.key_query_arg
  if header then return function(values) return values.exchange.request:get_header(header) end end
  if argument then
    return function(values)
      local key = values.exchange.request:get_query_arg(argument)
      return type(key) == "string" and key or nil
    end
  end
  if not conf.key then return nil end
  local source = sources.compile(conf.key, "key")
  return function(values) return (sources.text(source(values))) end
end

local function partition_maker(conf)
  if not conf.partition then return nil end
  local source = sources.compile(tostring(conf.partition), "partition")
  return function(values)
    local value = source(values)
    if value == nil or value == "" then return nil end
    local partition = sources.whole(value)
    if not partition or partition >= 2 ^ 31 then
      sources.refuse(422, "config.partition gives no number of a partition",
        { field = "partition", error = sources.text(value) })
    end
    return partition
  end
end

-- Milliseconds since 1970, or a time as RFC 3339 writes it.
local function timestamp_maker(conf)
  if not conf.timestamp then return nil end
  local source = sources.compile(conf.timestamp, "timestamp")
  return function(values)
    local value = source(values)
    if value == nil or value == "" or value == json.null then return nil end
    local seconds = type(value) == "string" and sluice.time.parse_iso8601(value)
    local ms = seconds and math.floor(seconds * 1000 + 0.5) or sources.whole(value)
    if not ms or ms <= 0 then
      sources.refuse(422, "config.timestamp gives no time: expected milliseconds since 1970, or RFC 3339",
        { field = "timestamp", error = sources.text(value) })
    end
    return ms
  end
end

local function header_sources(conf)
  local names, list = {}, {}
  for name in pairs(conf.headers or {}) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    list[i] = { name = name, source = sources.compile(conf.headers[name], "headers." .. name) }
  end
  return list
end

-- Puts them behind those in a list of { name, value }, which may be nil; nil without any.
local function headers_maker(conf)
  local list = header_sources(conf)
  if #list == 0 then return nil end
  return function(values, headers)
    for i = 1, #list do
      local value = sources.text(list[i].source(values))
      if value then
        headers = headers or {}
        headers[#headers + 1] = { list[i].name, value }
      end
    end
    return headers
  end
end

-- ---- The whole ------------------------------------------------------------------------------------------------------

local function compile_functions(compiler, conf, field)
  local list = conf[field]
  if not list or not list[1] then return nil end
  local functions = {}
  for i, code in ipairs(list) do
    local name = field .. "[" .. i .. "]"
    local chunk, err = compiler(code, name)
    local fn = chunk and chunk()
    if type(fn) ~= "function" then
      error("config." .. name .. ": " .. (err or "the code must return a function"), 0)
    end
    functions[i] = fn
  end
  return functions
end

-- What a function or another plugin has made of the record; raises when that is none. `who` made it.
---@return sluice.kafka.message
function record.check(made, who)
  if type(made) ~= "table" then error(who .. ": expected a record or nil, got " .. type(made), 0) end
  check_topic(made.topic)
  made.key, made.value = sources.text(made.key), sources.text(made.value)
  for _, name in ipairs { "partition", "timestamp" } do
    if made[name] ~= nil and not sources.whole(made[name]) then
      error(who .. ": " .. name .. " must be a whole number, got " .. tostring(made[name]), 0)
    end
  end
  return made
end

-- Value, key and headers of an event, as far as there is one.
local function event_maker(conf)
  if not conf.cloudevents then return nil end
  local event_of, mode = events.maker(conf.cloudevents), conf.cloudevents.mode
  return function(values)
    local event = event_of(values)
    if not event then return nil end
    local made, err = cloudevents.to_record(event, mode)
    if not made then sources.refuse(400, "the request is no CloudEvent", { error = err, field = "data" }) end
    return made
  end
end

local function makers_of(conf, compiler)
  return {
    topic = topic_maker(conf), key = key_maker(conf), partition = partition_maker(conf),
    timestamp = timestamp_maker(conf), headers = headers_maker(conf), event = event_maker(conf),
    value = value_maker(conf, compile_functions(compiler, conf, "message_by_lua_functions")),
  }
end

-- A function of the values that makes the record; nil and "dropped" when a function wants none.
---@param conf table
---@param cluster string
---@return fun(values: table): table|nil, string|nil
function record.compile(conf, cluster)
  local compiler = require("sluice.code").compiler()
  local makers, topic, timeout = makers_of(conf, compiler), conf.topic, math.max(conf.timeout, 0) / 1000
  local topic_of, value_of, key_of, event_of = makers.topic, makers.value, makers.key, makers.event
  local partition_of, timestamp_of, headers_of = makers.partition, makers.timestamp, makers.headers
  local functions = compile_functions(compiler, conf, "record_by_lua_functions")
  return function(values)
    local event = event_of and event_of(values)
    local made = event or {}
    if not event then
      local value, dropped = value_of(values)
      if dropped then return nil, dropped end
      made.value = value
    end
    made.cluster, made.timeout, made.topic = cluster, timeout, topic_of and topic_of(values) or topic
    if key_of then made.key = key_of(values) end
    if partition_of then made.partition = partition_of(values) end
    if timestamp_of then made.timestamp = timestamp_of(values) end
    if headers_of then made.headers = headers_of(values, made.headers) end
    if not functions then return made end
    made.headers = made.headers or {}
    made = run_functions(functions, made, values.exchange)
    if made == nil then return nil, "dropped" end
    return record.check(made, "record_by_lua_functions")
  end
end

-- Whether a record is made of nothing but the body and a field of the head: the way that has to be short.
---@param conf table
---@return boolean
function record.is_plain(conf)
  return conf.value == "body" and not conf.cloudevents and not sources.is_template(conf.topic)
    and not conf.key_query_arg and not conf.key and not conf.partition and not conf.timestamp
    and not (conf.headers and next(conf.headers)) and not (conf.record_by_lua_functions or {})[1]
end

return record
