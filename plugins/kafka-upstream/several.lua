-- SPDX-License-Identifier: Apache-2.0
-- A request that becomes several records: the elements of a JSON array, the lines of a stream, or one record for each
-- topic that it names.
local answers = require "kafka-upstream.answers"
local elements = require "sluice.json_elements"
local lines = require "kafka-upstream.lines"
local many = require "kafka-upstream.many"
local record = require "kafka-upstream.record"
local sources = require "kafka-upstream.sources"

local several = {}

-- ---- Which parts a body has ----------------------------------------------------------------------------------------

local function path_of(conf)
  if not conf.batch_at then return nil end
  local path = {}
  for name in conf.batch_at:gmatch("[^.]+") do path[#path + 1] = name end
  return path
end

local function is_json(exchange)
  local kind = (exchange.request:get_header("content-type") or ""):match("^%s*([^;%s]*)"):lower()
  return kind == "application/json" or kind:sub(-5) == "+json"
end

local CANNOT = { syntax = "the body is no JSON", path = "the body holds no array of records" }

-- Values of the elements; nil: the body is one record. Raises a refusal.
local function splitter(conf)
  local path, auto = path_of(conf), conf.batch == "auto"
  return function(values)
    if auto and not (is_json(values.exchange) and (path or values.text:find("^%s*%["))) then return nil end
    local texts, decoded, code = elements.of(values.text, path)
    if not texts then
      if auto and code == "path" then return nil end
      sources.refuse(code == "syntax" and 400 or 422, CANNOT[code], { error = decoded, field = "batch" })
    end
    if #texts > conf.batch_most then
      sources.refuse(413, "a batch has at most " .. conf.batch_most .. " records", { field = "batch" })
    end
    local list = {}
    for i = 1, #texts do list[i] = sources.element(values, texts[i], decoded[i]) end
    return list
  end
end

-- ---- The function of a configuration -------------------------------------------------------------------------------

local function copy_to(made, topic)
  local copy = {}
  for name, value in pairs(made) do copy[name] = value end
  copy.topic = topic
  return copy
end

local function add(out, make, values, topics)
  local made, refusal = sources.try(make, values)
  if refusal then
    out:put(answers.refused_entry(refusal))
  elseif not made then
    out:put { dropped = true }
  elseif topics then
    for _, topic in ipairs(topics) do out:add(copy_to(made, topic)) end
  else
    out:add(made)
  end
end

-- What a request asks for: values of its records (nil: it is one), and topics (nil: the configured one).
local function reader(conf)
  local split = conf.batch ~= "none" and splitter(conf)
  local topics_of = conf.topics_query_arg and record.topics_of(conf)
  return function(values)
    local topics = topics_of and topics_of(values.exchange) or nil
    return { list = split and split(values) or nil, topics = topics }
  end
end

local function answer_one(exchange, make, values, topics, wait)
  local made, refusal = sources.try(make, values)
  if refusal then answers.refuse_request(exchange, refusal) end
  if not made then answers.dropped(exchange) end
  if topics then made.topic = topics[1] end
  answers.produce(exchange, made, wait)
end

-- A stream goes to one topic, which the query may name.
local function stream_maker(conf, make)
  local topics_of = conf.topics_query_arg and record.topics_of(conf)
  if not topics_of then return make end
  return function(values)
    local made, dropped = make(values)
    local topics = made and topics_of(values.exchange)
    if topics and topics[2] then sources.refuse(422, "a stream goes to one topic", { field = "topics_query_arg" }) end
    if topics then made.topic = topics[1] end
    return made, dropped
  end
end

local function stream_of(conf, cluster, make)
  if conf.batch ~= "lines" and conf.batch ~= "auto" then return nil end
  return lines.compile { make = stream_maker(conf, make), cluster = cluster, topic = conf.topic, wait = conf.wait,
    timeout = conf.timeout / 1000, line_most = conf.batch_line_most }
end

---@param conf table
---@param cluster string
---@return fun(exchange: sluice.exchange)
function several.compile(conf, cluster)
  local make, timeout, wait = record.compile(conf, cluster), conf.timeout / 1000, conf.wait
  local stream, auto = stream_of(conf, cluster, make), conf.batch == "auto"
  if stream and not auto then return stream end
  local read = reader(conf)
  return function(exchange)
    if auto and lines.are_in(exchange) then return stream(exchange) end
    local values = sources.values(exchange, sources.body_of(conf, exchange))
    local asked, refusal = sources.try(read, values)
    if refusal then answers.refuse_request(exchange, refusal) end
    local list, topics = asked.list, asked.topics
    if not list and not (topics and topics[2]) then answer_one(exchange, make, values, topics, wait) end
    local out, err = many.new(cluster, timeout, wait)
    if not out then answers.refuse(exchange, conf.topic, err, "full") end
    for i = 1, list and #list or 1 do add(out, make, list and list[i] or values, topics) end
    out:finish()
    out:answer(exchange)
  end
end

return several
