-- SPDX-License-Identifier: Apache-2.0
-- v3: records into a topic. A request has one record, or any number of them one behind the other, and the answer an
-- entry for each in their order: where the record is, or what was wrong with it. A bad record does not stop the others.
-- Of a body without end the entries come while it is still being sent.
local errors = require "kafka-rest.errors"
local formats = require "kafka-rest.formats"
local json = require "sluice.json"
local kafka = require "sluice.kafka"
local record_traces = require "sluice.record_traces"
local records = require "sluice.records"
local slices = require "kafka-rest.slices"
local sluice = require "sluice"
local v3 = require "kafka-rest.v3"

local null, encode = json.null, json.encode
local concat = table.concat

local BUFFERED_BYTES_MAX = 1024 * 1024 -- a body that says to have no more is read as a whole
local WAITING_MAX = 512                -- records on their way, in a stream

local TYPES = { BINARY = true, JSON = true, STRING = true, AVRO = true, JSONSCHEMA = true, PROTOBUF = true }

-- ---- What a record says --------------------------------------------------------------------------------------------

-- What is wrong with a record goes up to where its entry is made.
local function refuse(code, message)
  error({ refusal = true, error_code = code, message = message }, 0)
end

local KINDS = { string = "a text", number = "a number", table = "an object or a list" }

local function at_most(object, name, kind)
  local value = object[name]
  if value == nil or value == null then return nil end
  if type(value) ~= kind then refuse(400, name .. " must be " .. KINDS[kind]) end
  return value
end

local function integer(object, name)
  local value = at_most(object, name, "number")
  if value and (value % 1 ~= 0 or value < 0 or value >= 2 ^ 31) then refuse(400, name .. " must be an integer") end
  return value
end

-- What other strategies than TOPIC_NAME have subjects of. Only a schema that comes along, or its id, says it.
local function record_name(call, part, datum)
  if not datum.schema and not datum.schema_id then
    refuse(400, part .. ": this subject_name_strategy needs schema or schema_id")
  end
  local name, code, message = formats.record_name(call.codec, datum)
  if not name then refuse(code, part .. ": " .. message) end
  return name
end

local function subject_of(call, topic, part, object, datum)
  local subject = at_most(object, "subject", "string")
  if subject then return subject end
  local strategy = at_most(object, "subject_name_strategy", "string") or "TOPIC_NAME"
  if strategy == "TOPIC_NAME" then return topic .. "-" .. part end
  if strategy == "RECORD_NAME" then return record_name(call, part, datum) end
  if strategy == "TOPIC_RECORD_NAME" then return topic .. "-" .. record_name(call, part, datum) end
  return refuse(400, "subject_name_strategy " .. strategy .. " is none of those that there are")
end

-- A key or value; nil: it has none.
local function datum_of(call, topic, part, object, text)
  object = at_most(object, part, "table")
  if not object then return nil end
  local kind = at_most(object, "type", "string")
  if kind and not TYPES[kind] then refuse(400, part .. ".type " .. kind .. " is none of those that there are") end
  local datum = {
    type = kind, data = object.data, raw = slices.members(text).data, schema = at_most(object, "schema", "string"),
    schema_id = integer(object, "schema_id"), schema_version = integer(object, "schema_version"),
  }
  if datum.schema and not formats.SCHEMA_TYPES[kind] then refuse(400, part .. ": a schema needs the type it is of") end
  local plain = kind and not formats.SCHEMA_TYPES[kind]
  if not plain then datum.subject = subject_of(call, topic, part, object, datum) end
  return datum
end

local function headers_of(object)
  local headers = {}
  for i, header in ipairs(at_most(object, "headers", "table") or headers) do
    if type(header) ~= "table" or type(header.name) ~= "string" then refuse(400, "a header needs a name") end
    local value = at_most(header, "value", "string")
    local bytes = value and sluice.crypto.base64_decode(value)
    if value and not bytes then refuse(400, "header " .. header.name .. ": the value must be in base64") end
    headers[i] = { header.name, bytes }
  end
  return headers
end

-- Milliseconds; now unless told, so that the answer can say it.
local function timestamp_of(object)
  local value = object.timestamp
  if value == nil or value == null then return math.floor(sluice.time.now() * 1000) end
  local seconds = type(value) == "number" and value / 1000 or sluice.time.parse_iso8601(value)
  if not seconds or seconds < 0 then refuse(400, "timestamp must be a time as of RFC 3339") end
  return math.floor(seconds * 1000 + 0.5)
end

-- ---- Entries -------------------------------------------------------------------------------------------------------

local function failed(code, message)
  return { error_code = code, message = message }
end

local function described(job, part)
  local datum, bytes = job[part], job.record[part]
  if not datum or bytes == nil then return nil end
  return formats.described(job.codec, datum, bytes, job[part .. "_schema"])
end

local function succeeded(call, job, at)
  return {
    error_code = 200, cluster_id = call.cluster_id, topic_name = job.record.topic,
    partition_id = at and at.partition or null, offset = at and at.offset or null,
    timestamp = sluice.time.iso8601(job.record.timestamp / 1000, 3),
    key = described(job, "key"), value = described(job, "value"),
  }
end

local function put_bytes(job, part)
  local datum = job[part]
  if not datum then return end
  local bytes, code, message, schema = formats.encode(job.codec, datum)
  if code then refuse(code, part .. ": " .. message) end
  job.record[part], job[part .. "_schema"] = bytes, schema
end

local function job_of(call, topic, text)
  local object, err = json.decode(text)
  if err then refuse(400, "the record is no JSON: " .. err) end
  if type(object) ~= "table" or json.is_array(object) then refuse(400, "a record must be a JSON object") end
  local parts = slices.members(text)
  local job = { codec = call.codec, key = datum_of(call, topic, "key", object, parts.key),
    value = datum_of(call, topic, "value", object, parts.value) }
  job.record = { topic = topic, partition = integer(object, "partition_id"), headers = headers_of(object),
    timestamp = timestamp_of(object) }
  put_bytes(job, "key")
  put_bytes(job, "value")
  return job
end

-- What a record became: { job, index } in the batch, or { entry } already.
local function begin(call, topic, text, batch, span)
  local ok, job = pcall(job_of, call, topic, text)
  if not ok then
    if type(job) ~= "table" or not job.refusal then error(job, 0) end
    return { entry = failed(job.error_code, job.message) }
  end
  local record, err = records.run(call.exchange, "produce", job.record)
  if err then return { entry = failed(500, err) } end
  if not record then return { entry = succeeded(call, job) } end -- a plugin took it out: nothing went wrong
  job.record = record
  span:put(record)
  local index, why, code = batch:add(record)
  if index then return { job = job, index = index } end
  local _, error_code = errors.of(code)
  return { entry = failed(error_code, why) }
end

local function finish(call, one, batch, span)
  if one.entry then return encode(one.entry) end
  local at, err, code = batch:result(one.index)
  if not at then
    local _, error_code = errors.of(code)
    return encode(failed(error_code, err))
  end
  span:add(one.job.record)
  return encode(succeeded(call, one.job, at))
end

-- ---- Requests ------------------------------------------------------------------------------------------------------

---@class kafka-rest.production
local Production = {}
Production.__index = Production

local function production(call, topic)
  return setmetatable({
    call = call, topic = topic, splitter = slices.splitter(call.conf.record_bytes_max), over = false,
    batch = assert(kafka.batch { cluster = call.cluster, timeout = call.conf.timeout / 1000 }),
    span = record_traces.send_many(call.exchange, { topic = topic, cluster = call.cluster }),
  }, Production)
end

local GARBAGE = {
  garbage = { 400, "the body must be JSON objects, one behind the other" },
  large = { 413, "the record has more bytes than this gateway takes" },
}

-- Up to so many records of what has come; the last is what is wrong with the body, and nothing comes behind it.
function Production:take(most)
  local list = {}
  while #list < most and not self.over do
    local text, err = self.splitter:next()
    if err then
      self.over = true
      list[#list + 1] = { entry = failed(unpack(GARBAGE[err])) }
    elseif not text then
      break
    else
      list[#list + 1] = begin(self.call, self.topic, text, self.batch, self.span)
    end
  end
  return list
end

-- Waits for the fate of these records, and gives their entries.
function Production:settle(list)
  self.batch:wait()
  local texts = {}
  for i, one in ipairs(list) do texts[i] = finish(self.call, one, self.batch, self.span) end
  return texts
end

-- The body has ended: inside of a record?
function Production:unfinished()
  if self.over or not self.splitter:is_inside() then return nil end
  self.over = true
  return encode(failed(400, "the body ends inside of a record"))
end

function Production:close()
  self.batch:close()
  self.span:done()
end

-- Entries of all that is there, WAITING_MAX records at a time.
function Production:entries(texts)
  while true do
    local list = self:take(WAITING_MAX)
    if #list == 0 then return texts end
    for _, text in ipairs(self:settle(list)) do texts[#texts + 1] = text end
  end
end

-- The way that most requests go: a batch of one would cost more than its record.
local function just_one(call, topic, text)
  local ok, job = pcall(job_of, call, topic, text)
  if not ok then
    if type(job) ~= "table" or not job.refusal then error(job, 0) end
    call:answer(200, failed(job.error_code, job.message))
  end
  local record, err = records.run(call.exchange, "produce", job.record)
  if err then call:answer(200, failed(500, err)) end
  if not record then call:answer(200, succeeded(call, job)) end -- a plugin took it out: nothing went wrong
  record.cluster, record.timeout, job.record = call.cluster, call.conf.timeout / 1000, record
  local span = record_traces.send(call.exchange, record)
  local at, why, code = kafka.produce(record)
  span:done(at, why, code)
  if at then call:answer(200, succeeded(call, job, at)) end
  local _, error_code = errors.of(code)
  call:answer(200, failed(error_code, why))
end

local function all_at_once(call, topic)
  local body = call:text()
  local only = slices.only(body, call.conf.record_bytes_max)
  if only then just_one(call, topic, only) end
  local making = production(call, topic)
  making.splitter:feed(body)
  local texts = making:entries({})
  texts[#texts + 1] = making:unfinished()
  making:close()
  -- What is no record at all is a bad request; one bad record among others is an entry.
  if #texts == 0 then call:refuse(400, 400, "the body has no record") end
  if #texts == 1 and making.over then
    local entry = json.decode(texts[1])
    call:refuse(entry.error_code, entry.error_code, entry.message)
  end
  call:answer(200, #texts == 1 and texts[1] or concat(texts, "\n") .. "\n")
end

local HEADERS = { ["Content-Type"] = "application/json", ["X-Accel-Buffering"] = "no" }

local function send(stream, texts)
  return #texts == 0 or stream:send(concat(texts, "\n") .. "\n")
end

local function pump(making, request, stream)
  while not making.over do
    local piece = request:read_body()
    if not piece then break end
    making.splitter:feed(piece)
    if not send(stream, making:entries({})) then return end
  end
  send(stream, { making:unfinished() })
end

local function as_it_comes(call, topic)
  local making = production(call, topic)
  local stream = call.exchange.response:stream(200, HEADERS)
  local ok, err = pcall(pump, making, call.exchange.request, stream)
  making:close()
  stream:finish()
  if not ok then error(err, 0) end
end

v3.add("POST", "/topics/*/records", "produce", function(call, topic)
  local length = tonumber(call.exchange.request:get_header("content-length"))
  if length and length <= BUFFERED_BYTES_MAX then return all_at_once(call, topic) end
  as_it_comes(call, topic)
end)

-- ---- A batch: each entry has an id ---------------------------------------------------------------------------------

local function batch_entries(call)
  local body, text = call:body()
  local entries = body.entries
  if type(entries) ~= "table" or #entries == 0 then call:refuse(422, 422, "entries must be a list of records") end
  if #entries > call.conf.batch_records_max then
    call:refuse(422, 422, "a batch has at most " .. call.conf.batch_records_max .. " entries")
  end
  local seen = {}
  for _, entry in ipairs(entries) do
    local id = type(entry) == "table" and entry.id
    if type(id) ~= "string" or not id:find("^[%w_-]+$") or #id > 80 or seen[id] then
      call:refuse(422, 422, "each entry must have an id of its own")
    end
    seen[id] = true
  end
  return entries, slices.elements(slices.members(text).entries)
end

v3.add("POST", "/topics/*/records:batch", "produce", function(call, topic)
  local entries, texts = batch_entries(call)
  local making, list = production(call, topic), {}
  for i, text in ipairs(texts) do list[i] = begin(call, topic, text, making.batch, making.span) end
  local successes, failures = json.array {}, json.array {}
  for i, text in ipairs(making:settle(list)) do
    local entry = json.decode(text)
    entry.id = entries[i].id
    local to = entry.error_code == 200 and successes or failures
    if to == successes then entry.error_code = nil end
    to[#to + 1] = entry
  end
  making:close()
  call:answer(207, { successes = successes, failures = failures })
end)
