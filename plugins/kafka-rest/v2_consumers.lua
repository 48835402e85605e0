-- SPDX-License-Identifier: Apache-2.0
-- v2: consumer instances, what they read, and how far they have come.
local errors = require "kafka-rest.errors"
local formats = require "kafka-rest.formats"
local json = require "sluice.json"
local record_traces = require "sluice.record_traces"
local records = require "sluice.records"
local remote = require "kafka-rest.remote"
local routes = require "kafka-rest.routes"
local sluice = require "sluice"
local v2 = require "kafka-rest.v2"

local null = json.null
local encode = json.encode

local FORMATS = { binary = true, json = true, avro = true, jsonschema = true, protobuf = true }
local GRACE_S = 5 -- for another worker, beyond what it waits for Kafka

local STATUS = {
  none = { 404, errors.CONSUMER_NOT_FOUND }, exists = { 409, errors.CONSUMER_EXISTS },
  state = { 409, errors.ILLEGAL_STATE }, many = { 429, 429 }, busy = { 503, 503 },
  config = { 422, errors.INVALID_CONSUMER_CONFIG }, invalid = { 422, errors.INVALID_CONSUMER_CONFIG },
}

local function ask(call, operation, group, name, args, seconds)
  local key = remote.key(call.cluster, group, name)
  local answer = remote.run(operation, key, args or {}, (seconds or call.conf.timeout / 1000) + GRACE_S)
  if not answer.error then return answer end
  local status = STATUS[answer.error]
  if status then call:refuse(status[1], status[2], answer.text) end
  call:refuse_kafka(answer.text, answer.error)
end

local function add(method, pattern, handler)
  v2.add(method, "consumers/*/instances/*" .. pattern, "consume", handler)
end

-- ---- Create and delete ---------------------------------------------------------------------------------------------

local function refuse_config(call, text)
  call:refuse(422, errors.INVALID_CONSUMER_CONFIG, text)
end

-- Numbers and truths may come as texts, as in a file of properties.
local function integer(call, body, name, otherwise)
  local value = body[name]
  if value == nil or value == null then return otherwise end
  local number = tonumber(value)
  if not number or number % 1 ~= 0 or number < -1 then refuse_config(call, name .. " must be an integer") end
  return number
end

local function truth(call, body, name, otherwise)
  local value = body[name]
  if value == nil or value == null then return otherwise end
  if value == true or value == "true" then return true end
  if value == false or value == "false" then return false end
  return refuse_config(call, name .. " must be true or false")
end

local function one_of(call, body, name, known, otherwise)
  local value = body[name]
  if value == nil or value == null then return otherwise end
  if not known[value] then
    refuse_config(call, name .. ": " .. tostring(value) .. " is none of those that there are")
  end
  return value
end

local function format_of(call, body)
  local value = body.format
  if type(value) == "string" then body.format = value:lower() end
  return one_of(call, body, "format", FORMATS, "binary")
end

local KNOWN = { id = true, name = true, format = true, ["auto.offset.reset"] = true, ["auto.commit.enable"] = true,
  ["enable.auto.commit"] = true, ["fetch.min.bytes"] = true, ["consumer.request.timeout.ms"] = true,
  ["isolation.level"] = true }
-- The last two are v1's words.
local PLACES = { earliest = "earliest", latest = "latest", smallest = "earliest", largest = "latest" }
local ISOLATION = { read_committed = true, read_uncommitted = true }

local function options_of(call, body)
  for name in pairs(body) do
    if not KNOWN[name] then refuse_config(call, "there is no option " .. name .. " of a consumer instance") end
  end
  local conf = call.conf
  local isolation = one_of(call, body, "isolation.level", ISOLATION)
  local most_s = conf.consumer_request_timeout / 1000
  local wanted = integer(call, body, "consumer.request.timeout.ms", -1)
  return {
    cluster = call.cluster, most = conf.consumers_max, idle_s = conf.consumer_idle_timeout / 1000,
    timeout = conf.timeout / 1000, bytes_most = conf.consumer_bytes_max, request_most_s = most_s,
    request_s = wanted >= 0 and math.min(wanted / 1000, most_s) or math.min(1, most_s),
    format = format_of(call, body),
    from = PLACES[one_of(call, body, "auto.offset.reset", PLACES, "latest")],
    auto_commit = truth(call, body, "auto.commit.enable", truth(call, body, "enable.auto.commit", true)),
    min_bytes = integer(call, body, "fetch.min.bytes", -1),
    properties = isolation and { ["isolation.level"] = isolation } or nil,
  }
end

-- `id`, an older name of it, goes before.
local function name_of(call, body)
  local name = body.id
  if name == nil or name == null then name = body.name end
  if name == nil or name == null then return "rest-consumer-" .. sluice.uuid.v4() end
  if type(name) ~= "string" or name == "" or #name > 249 or name:find("[%c/]") then
    refuse_config(call, "name must be a text of up to 249 bytes without \"/\"")
  end
  return name
end

local function escape(text)
  return (text:gsub("[^%w%-._~]", function(char) return ("%%%02X"):format(char:byte()) end))
end

v2.add("POST", "consumers/*", "consume", function(call, group)
  local body = call:body()
  local name, options = name_of(call, body), options_of(call, body)
  options.group = group
  ask(call, "create", group, name, options)
  call:answer(200, { instance_id = name,
    base_uri = call:base_url() .. "/consumers/" .. escape(group) .. "/instances/" .. escape(name) })
end)

add("DELETE", "", function(call, group, name)
  ask(call, "delete", group, name)
  call:answer(204)
end)

-- ---- What an instance reads ----------------------------------------------------------------------------------------

local function unprocessable(call, text)
  call:refuse(422, 422, text)
end

local function is_topic(name)
  return type(name) == "string" and name:find("^[%w._-]+$") ~= nil
end

add("POST", "/subscription", function(call, group, name)
  local body = call:body()
  local topics, pattern = body.topics, body.topic_pattern
  if topics == null then topics = nil end
  if pattern == null then pattern = nil end
  if (topics == nil) == (pattern == nil) then
    call:refuse(409, errors.ILLEGAL_STATE, "a subscription is to topics or to a topic_pattern")
  end
  if pattern ~= nil and (type(pattern) ~= "string" or pattern == "") then
    unprocessable(call, "topic_pattern must be a regular expression")
  end
  if topics ~= nil and (type(topics) ~= "table" or #topics == 0) then
    unprocessable(call, "topics must be a list of names")
  end
  for _, topic in ipairs(topics or {}) do
    if not is_topic(topic) then unprocessable(call, "topics must be names") end
  end
  ask(call, "subscribe", group, name, { topics = topics, pattern = pattern })
  call:answer(204)
end)

add("GET", "/subscription", function(call, group, name)
  call:answer(200, { topics = json.array(ask(call, "subscription", group, name).topics) })
end)

add("DELETE", "/subscription", function(call, group, name)
  ask(call, "unsubscribe", group, name)
  call:answer(204)
end)

-- [{ topic, partition }], and what else belongs to each.
local function places_of(call, list, what, with)
  if type(list) ~= "table" or #list == 0 then unprocessable(call, what .. " must be a list of partitions") end
  local places = {}
  for i, entry in ipairs(list) do
    local topic, partition = type(entry) == "table" and entry.topic, type(entry) == "table" and entry.partition
    if type(topic) ~= "string" or type(partition) ~= "number" or partition % 1 ~= 0 or partition < 0 then
      unprocessable(call, what .. " must have topics and partitions")
    end
    places[i] = { topic = topic, partition = partition }
    if with then with(places[i], entry) end
  end
  return places
end

add("POST", "/assignments", function(call, group, name)
  ask(call, "assign", group, name, { places = places_of(call, call:body().partitions, "partitions") })
  call:answer(204)
end)

add("GET", "/assignments", function(call, group, name)
  call:answer(200, { partitions = json.array(ask(call, "assignment", group, name).places) })
end)

-- ---- Positions and offsets -----------------------------------------------------------------------------------------

local function offset_into(call)
  return function(place, entry)
    if type(entry.offset) ~= "number" or entry.offset % 1 ~= 0 or entry.offset < 0 then
      unprocessable(call, "offsets must have an offset each")
    end
    place.offset = entry.offset
    if type(entry.metadata) == "string" then place.metadata = entry.metadata end
  end
end

add("POST", "/positions", function(call, group, name)
  ask(call, "seek", group, name, { places = places_of(call, call:body().offsets, "offsets", offset_into(call)) })
  call:answer(204)
end)

local function add_ends(word, at)
  local function put(place) place.offset = at end
  add("POST", "/positions/" .. word, function(call, group, name)
    ask(call, "seek", group, name, { places = places_of(call, call:body().partitions, "partitions", put) })
    call:answer(204)
  end)
end

add_ends("beginning", "earliest")
add_ends("end", "latest")

-- Clients commit the offsets of the records that they have dealt with: the group goes on behind them.
local function commit_into(call)
  local put = offset_into(call)
  return function(place, entry)
    put(place, entry)
    place.offset = place.offset + 1
  end
end

-- Without a body: all that the instance has given.
add("POST", "/offsets", function(call, group, name)
  local offsets = call:body().offsets
  local places = offsets ~= nil and offsets ~= null and places_of(call, offsets, "offsets", commit_into(call)) or nil
  ask(call, "commit", group, name, { places = places })
  call:answer(200, json.array {})
end)

-- What the group has committed, this instance or another member.
add("GET", "/offsets", function(call, group, name)
  local body, text = call:body()
  if text == "{}" then call:refuse(404, errors.PARTITION_NOT_FOUND, "the body must tell which partitions") end
  local places = places_of(call, body.partitions, "partitions")
  local offsets = json.array {}
  for _, place in ipairs(ask(call, "committed", group, name, { places = places }).places) do
    if place.offset then
      offsets[#offsets + 1] = { topic = place.topic, partition = place.partition, offset = place.offset,
        metadata = place.metadata or "" }
    end
  end
  call:answer(200, { offsets = offsets })
end)

-- ---- Records -------------------------------------------------------------------------------------------------------

local function number_of(call, name)
  local value = call.exchange.request:get_query_arg(name)
  if value == nil then return nil end
  local number = type(value) == "string" and tonumber(value)
  if not number or number % 1 ~= 0 then unprocessable(call, name .. " must be an integer") end
  return number >= 0 and number or nil
end

-- The instance's format is what the answer has: a client that wants another asks the wrong instance. `version`: v1, v2.
local function check_accept(call, format, version)
  local own = "application/vnd.kafka." .. format .. "." .. version .. "+json"
  local accept = call.exchange.request:get_header("accept") or ""
  local other = accept:match("application/vnd%.kafka%.(%a+)%." .. version .. "%+json")
  if other and other ~= format and FORMATS[other] and not accept:find(own, 1, true) then
    call:refuse(406, errors.FORMAT_MISMATCH, "the instance has records in format " .. format)
  end
  call:negotiate { own, "application/vnd.kafka." .. version .. "+json", "application/vnd.kafka+json",
    "application/json" }
  if call.type ~= "application/json" then call.type = own end
end

local function text_of(call, format, record)
  local key, err = formats.decode(call.codec, format, record.key)
  local value
  if key then value, err = formats.decode(call.codec, format, record.value) end
  if not value then return nil, ("%s/%d at %.0f: %s"):format(record.topic, record.partition, record.offset, err) end
  return ('{"topic":%s,"key":%s,"value":%s,"partition":%d,"offset":%.0f}'):format(encode(record.topic), key, value,
    record.partition, record.offset)
end

-- Up to the first that cannot be told: its place in the list, the error's code and why.
local function texts_of(call, format, list, span)
  local texts = {}
  for i, record in ipairs(list) do
    local one, err = records.run(call.exchange, "consume", record)
    if err then return texts, i, 500, err end
    local text
    if one then text, err = text_of(call, format, one) end
    if err then return texts, i, errors.KAFKA, err end
    if one then span:add(one) end
    texts[#texts + 1] = text
  end
  return texts
end

-- What was fetched and not told comes again: the instance reads on from there.
local function give_back(call, group, name, list, from)
  local places, seen = {}, {}
  for i = from, #list do
    local record = list[i]
    local place = record.topic .. "/" .. record.partition
    if not seen[place] then
      places[#places + 1] = { topic = record.topic, partition = record.partition, offset = record.offset }
    end
    seen[place] = true
  end
  if not places[1] then return end
  -- Partitions that went to another member meanwhile are read there.
  remote.run("seek", remote.key(call.cluster, group, name), { places = places }, call.conf.timeout / 1000 + GRACE_S)
end

local function answer_records(call, group, name, version)
  local format = ask(call, "format", group, name).format
  check_accept(call, format, version)
  local milliseconds = number_of(call, "timeout")
  local bytes = number_of(call, "max_bytes")
  local args = { seconds = milliseconds and milliseconds / 1000, bytes = bytes ~= 0 and bytes or nil }
  local list = ask(call, "fetch", group, name, args, call.conf.consumer_request_timeout / 1000).records
  local span = record_traces.poll(call.exchange, { topic = list[1] and list[1].topic or "", cluster = call.cluster,
    group = group })
  local texts, failed, code, err = texts_of(call, format, list, span)
  span:done()
  -- A record that cannot be told is passed over with an answer of its own, which tells where it is.
  if failed then give_back(call, group, name, list, texts[1] and failed or failed + 1) end
  if failed and not texts[1] then call:refuse(500, code, err) end
  call:answer(200, "[" .. table.concat(texts, ",") .. "]")
end

routes.add("GET", "consumers/*/instances/*/records", "consume", function(call, group, name)
  call.v2, call.type = true, "application/vnd.kafka.v2+json"
  answer_records(call, group, name, "v2")
end)

-- v1 has no subscriptions: an instance is subscribed to the topic that it is first read for.
routes.add("GET", "consumers/*/instances/*/topics/*", "consume", function(call, group, name, topic)
  call.v2, call.type = true, "application/vnd.kafka.v1+json"
  if not is_topic(topic) then call:refuse(404, errors.TOPIC_NOT_FOUND, "there is no such topic") end
  local topics = ask(call, "subscription", group, name).topics
  if not topics[1] then
    ask(call, "subscribe", group, name, { topics = { topic } })
  elseif topics[2] or topics[1] ~= topic then
    call:refuse(409, errors.ALREADY_SUBSCRIBED, "the instance is subscribed to " .. table.concat(topics, ", "))
  end
  answer_records(call, group, name, "v1")
end)
