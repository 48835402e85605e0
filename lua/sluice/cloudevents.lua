-- SPDX-License-Identifier: Apache-2.0
-- CloudEvents 1.0: events as HTTP messages (binary, structured and batched content mode), as Kafka records (binary and
-- structured) and as JSON, in both directions.
--
--   local events, err = cloudevents.from_http(get_header, body)     -- a list: a batch holds any number
--   local record = cloudevents.to_record(events[1], "binary")       -- { key, value, headers }
--   local event, err = cloudevents.from_record(record)
--   local headers, body = cloudevents.to_http(event, "structured")
--
-- An event is a table of its attributes, with `data` beside them: bytes, as `datacontenttype` says. Data that is JSON
-- passes as it is written, whatever mode it comes and goes in.

local crypto = require "sluice.crypto"
local elements = require "sluice.json_elements"
local json = require "sluice.json"
local time = require "sluice.time"
local uuid = require "sluice.uuid"

local byte, char, find, format, gsub, lower, match, sub =
  string.byte, string.char, string.find, string.format, string.gsub, string.lower, string.match, string.sub
local type, pairs, tostring, tonumber = type, pairs, tostring, tonumber
local concat, sort = table.concat, table.sort

---@class sluice.cloudevents
local cloudevents = {}

cloudevents.STRUCTURED = "application/cloudevents+json"
cloudevents.BATCHED = "application/cloudevents-batch+json"

local VERSION = "1.0"
local CHARSET = "; charset=utf-8"
local HTTP_PREFIX, KAFKA_PREFIX = "ce-", "ce_"
local INTEGER_MOST = 2 ^ 31

---@class sluice.cloudevent
---@field specversion "1.0"
---@field id string
---@field source string
---@field type string
---@field subject? string
---@field time? string RFC 3339
---@field datacontenttype? string
---@field dataschema? string
---@field data? string bytes

-- ---- What an event must be -----------------------------------------------------------------------------------------

local REQUIRED = { "id", "source", "type" }

local function wrong(name, text)
  return nil, "attribute " .. name .. ": " .. text, name
end

local SPECIAL = {
  specversion = function(value) return value == VERSION, 'expected "1.0"' end,
  time = function(value)
    return type(value) == "string" and time.parse_iso8601(value) ~= nil, "expected a time as RFC 3339 writes it"
  end,
  datacontenttype = function(value)
    return type(value) == "string" and find(value, "^[^%s/;]+/[^%s/;]+") ~= nil, "expected a media type"
  end,
}

local function check_attribute(name, value)
  if type(name) ~= "string" or not find(name, "^[a-z0-9]+$") then
    return wrong(tostring(name), "a name has lower-case letters and digits only")
  end
  local kind = type(value)
  if kind == "string" then
    if find(value, "%c") then return wrong(name, "expected a text without control characters") end
  elseif kind == "number" then
    if value % 1 ~= 0 or value < -INTEGER_MOST or value >= INTEGER_MOST then
      return wrong(name, "expected an integer of 32 bits")
    end
  elseif kind ~= "boolean" then
    return wrong(name, "expected a text, an integer or a boolean")
  end
  local special = SPECIAL[name]
  if not special then return true end
  local fine, expected = special(value)
  if not fine then return wrong(name, expected) end
  return true
end

-- Whether a table is an event.
---@param event table
---@return boolean|nil
---@return string|nil err
---@return string|nil attribute that is wrong
function cloudevents.check(event)
  if event.specversion ~= VERSION then return wrong("specversion", 'expected "1.0"') end
  for i = 1, #REQUIRED do
    local value = event[REQUIRED[i]]
    if type(value) ~= "string" or value == "" then return wrong(REQUIRED[i], "expected a text that is not empty") end
  end
  for name, value in pairs(event) do
    if name ~= "data" then
      local fine, err, attribute = check_attribute(name, value)
      if not fine then return nil, err, attribute end
    elseif type(value) ~= "string" then
      return nil, "data: expected bytes, got a " .. type(value), "data"
    end
  end
  return true
end

-- An event: what is not told of specversion, id and time is made up.
---@param event table
---@return sluice.cloudevent|nil the same table
---@return string|nil err
---@return string|nil attribute that is wrong
function cloudevents.new(event)
  event.specversion = event.specversion or VERSION
  event.id = event.id or uuid()
  event.time = event.time or time.iso8601(nil, 3)
  local fine, err, attribute = cloudevents.check(event)
  if not fine then return nil, err, attribute end
  return event
end

local function media_type(text)
  return text and lower(match(text, "^%s*([^;%s]*)")) or ""
end

local function is_json_type(text)
  local kind = media_type(text)
  return kind == "" or sub(kind, -5) == "/json" or sub(kind, -5) == "+json"
end

local function is_text_type(text)
  local kind = media_type(text)
  local charset = match(lower(text or ""), "charset%s*=%s*\"?([^\"%s;]+)")
  if charset and charset ~= "utf-8" and charset ~= "us-ascii" then return false end
  return sub(kind, 1, 5) == "text/" or sub(kind, -4) == "/xml" or sub(kind, -4) == "+xml"
end

-- ---- JSON ----------------------------------------------------------------------------------------------------------

-- Data of a structured event: JSON as it is written, a text's content where the type is another.
local function put_data(event, text, value)
  local encoded = value.data_base64
  if encoded ~= nil and encoded ~= json.null then
    local bytes = type(encoded) == "string" and crypto.base64_decode(encoded)
    if not bytes then return nil, "data_base64: expected a text in base64", "data_base64" end
    if value.data ~= nil then return nil, "expected data or data_base64, found both", "data" end
    event.data = bytes
    return event
  end
  local data = value.data
  if data == nil then return event end
  if type(data) == "string" and not is_json_type(event.datacontenttype) then
    event.data = data
  else
    event.data = elements.member(text, "data")
    event.datacontenttype = event.datacontenttype or "application/json"
  end
  return event
end

local function from_value(text, value)
  if type(value) ~= "table" or json.is_array(value) or value[1] ~= nil then return nil, "expected a JSON object" end
  local event = {}
  for name, attribute in pairs(value) do
    if name ~= "data" and name ~= "data_base64" and attribute ~= json.null then event[name] = attribute end
  end
  local fine, err, attribute = cloudevents.check(event)
  if not fine then return nil, err, attribute end
  return put_data(event, text, value)
end

-- An event out of the JSON event format.
---@param text string
---@return sluice.cloudevent|nil
---@return string|nil err
---@return string|nil attribute that is wrong
function cloudevents.decode(text)
  local value, err = json.decode(text)
  if err then return nil, "no JSON: " .. err end
  return from_value(text, value)
end

local FIRST = { "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema" }
local IS_FIRST = { data = true }
for _, name in ipairs(FIRST) do IS_FIRST[name] = true end

-- Names of the attributes: those of the standard in its order, then extensions.
local function names_of(event)
  local names, extensions = {}, {}
  for i = 1, #FIRST do
    if event[FIRST[i]] ~= nil then names[#names + 1] = FIRST[i] end
  end
  for name in pairs(event) do
    if not IS_FIRST[name] then extensions[#extensions + 1] = name end
  end
  sort(extensions)
  for i = 1, #extensions do names[#names + 1] = extensions[i] end
  return names
end

local function data_member(event)
  local data, kind = event.data, event.datacontenttype
  if data == nil then return nil end
  if is_json_type(kind) then
    local _, err = json.decode(data)
    if err then return nil, "data: no JSON, as datacontenttype says it is: " .. err end
    return '"data":' .. data
  end
  local is_text = is_text_type(kind) and json.is_text(data)
  if is_text then return '"data":' .. json.encode(data) end
  return '"data_base64":"' .. crypto.base64_encode(data) .. '"'
end

-- The same into it.
---@param event sluice.cloudevent
---@return string|nil text
---@return string|nil err
function cloudevents.encode(event)
  local parts = {}
  for i, name in ipairs(names_of(event)) do parts[i] = format('"%s":%s', name, json.encode(event[name])) end
  local data, err = data_member(event)
  if err then return nil, err end
  parts[#parts + 1] = data
  return "{" .. concat(parts, ",") .. "}"
end

-- ---- HTTP ----------------------------------------------------------------------------------------------------------

local function to_percent(c) return format("%%%02X", byte(c)) end
local function from_percent(digits) return char(tonumber(digits, 16)) end

-- A value in a field, and back (HTTP binding, 3.1.3.2).
local function field_value(value)
  return (gsub(tostring(value), "[^!#$&-~]", to_percent))
end

local function attribute_value(text)
  local inner = match(text, '^"(.*)"$')
  if inner then text = gsub(inner, "\\(.)", "%1") end
  return (gsub(text, "%%(%x%x)", from_percent))
end

-- "binary", "structured" or "batched"; nil: no event.
---@param content_type string|nil
---@param version string|nil of the field ce-specversion
---@return string|nil
function cloudevents.http_mode(content_type, version)
  local kind = media_type(content_type)
  if find(kind, "^application/cloudevents%-batch") then return "batched" end
  if find(kind, "^application/cloudevents") then return "structured" end
  return version and "binary" or nil
end

local function first(value)
  if type(value) == "table" then return value[1] end
  return value
end

local function from_fields(headers, body)
  local event = {}
  for name, value in pairs(headers) do
    name = lower(name)
    if sub(name, 1, 3) == HTTP_PREFIX then
      if type(value) == "table" then return wrong(sub(name, 4), "there are several") end
      event[sub(name, 4)] = attribute_value(value)
    end
  end
  if event.data ~= nil or event.datacontenttype ~= nil then
    return nil, "ce-data and ce-datacontenttype are no fields of an event"
  end
  event.datacontenttype = first(headers["content-type"])
  if body ~= "" then event.data = body end
  local fine, err, attribute = cloudevents.check(event)
  if not fine then return nil, err, attribute end
  return event
end

local BATCH_TURN = 256 -- events between pauses
local BATCH_CODES = { syntax = "no JSON: %s", path = "expected an array of events", many = "%s" }

local function from_batch(body, options)
  local texts, values, code = elements.of(body, nil, options)
  if not texts then return nil, format(BATCH_CODES[code], values), code == "many" and "many" or nil end
  local pause = options and options.pause
  local list = {}
  for i = 1, #texts do
    local event, err, attribute = from_value(texts[i], values[i])
    if not event then return nil, format("event %d: %s", i, err), attribute end
    list[i] = event
    if pause and i % BATCH_TURN == 0 then pause() end
  end
  return list
end

-- The events of a message.
---@param headers table<string, string|string[]> by lower-case name
---@param body string
---@param options? { most?: integer, pause?: fun() } events that a batch may have; called between pieces of a long work
---@return sluice.cloudevent[]|nil
---@return string|nil err
---@return string|nil attribute that is wrong; "none": the message is no event; "many": it has too many
---@return string|nil mode
function cloudevents.from_http(headers, body, options)
  local content_type = first(headers["content-type"])
  local mode = cloudevents.http_mode(content_type, first(headers["ce-specversion"]))
  if not mode then return nil, "there is neither ce-specversion nor a type of CloudEvents", "none" end
  if mode ~= "binary" and not find(media_type(content_type), "+json", 1, true) then
    return nil, "expected the JSON event format, found " .. content_type
  end
  if mode == "batched" then
    local list, err, attribute = from_batch(body, options)
    return list, err, attribute, mode
  end
  local event, err, attribute
  if mode == "structured" then
    event, err, attribute = cloudevents.decode(body)
  else
    event, err, attribute = from_fields(headers, body)
  end
  if not event then return nil, err, attribute, mode end
  return { event }, nil, nil, mode
end

-- An event as fields and a body; with mode "batched" a list of events.
---@param event sluice.cloudevent|sluice.cloudevent[]
---@param mode? "binary"|"structured"|"batched" binary unless told
---@return table<string, string>|nil headers
---@return string body or why not
function cloudevents.to_http(event, mode)
  if mode == "batched" then
    local texts = {}
    for i = 1, #event do
      local text, err = cloudevents.encode(event[i])
      if not text then return nil, format("event %d: %s", i, err) end
      texts[i] = text
    end
    return { ["content-type"] = cloudevents.BATCHED .. CHARSET }, "[" .. concat(texts, ",") .. "]"
  end
  if mode == "structured" then
    local text, err = cloudevents.encode(event)
    if not text then return nil, err end
    return { ["content-type"] = cloudevents.STRUCTURED .. CHARSET }, text
  end
  local headers = { ["content-type"] = event.datacontenttype }
  for _, name in ipairs(names_of(event)) do
    if name ~= "datacontenttype" then headers[HTTP_PREFIX .. name] = field_value(event[name]) end
  end
  return headers, event.data or ""
end

-- ---- Kafka ---------------------------------------------------------------------------------------------------------

-- An event as a record. Its key is the extension `partitionkey`, where there is one.
---@param event sluice.cloudevent
---@param mode? "binary"|"structured" binary unless told
---@return { key: string|nil, value: string|nil, headers: string[][] }|nil
---@return string|nil err
function cloudevents.to_record(event, mode)
  local key = event.partitionkey ~= nil and tostring(event.partitionkey) or nil
  if mode == "structured" then
    local text, err = cloudevents.encode(event)
    if not text then return nil, err end
    return { key = key, value = text, headers = { { "content-type", cloudevents.STRUCTURED .. CHARSET } } }
  end
  local headers = {}
  for i, name in ipairs(names_of(event)) do
    local header = name == "datacontenttype" and "content-type" or KAFKA_PREFIX .. name
    headers[i] = { header, tostring(event[name]) }
  end
  return { key = key, value = event.data, headers = headers }
end

local function from_headers(found, value)
  local event = {}
  for name, text in pairs(found) do
    if sub(name, 1, 3) == KAFKA_PREFIX then event[sub(name, 4)] = text end
  end
  if event.data ~= nil or event.datacontenttype ~= nil then
    return nil, "ce_data and ce_datacontenttype are no headers of an event"
  end
  event.datacontenttype, event.data = found["content-type"], value
  local fine, err, attribute = cloudevents.check(event)
  if not fine then return nil, err, attribute end
  return event
end

-- The event that a record is.
---@param record { value: string|nil, headers: string[][] } headers: a list of { name, value }
---@return sluice.cloudevent|nil
---@return string|nil err
---@return string|nil attribute that is wrong; "none": the record is no event
function cloudevents.from_record(record)
  local found, headers = {}, record.headers or {}
  for i = 1, #headers do
    local name = lower(headers[i][1])
    if found[name] == nil then found[name] = headers[i][2] end
  end
  local kind = media_type(found["content-type"])
  if find(kind, "^application/cloudevents") and not find(kind, "^application/cloudevents%-batch") then
    if sub(kind, -5) ~= "+json" then return nil, "expected the JSON event format, found " .. kind end
    local event, err, attribute = cloudevents.decode(record.value or "")
    return event, err, attribute
  end
  if not found[KAFKA_PREFIX .. "specversion"] then
    return nil, "there is neither ce_specversion nor a type of CloudEvents", "none"
  end
  local event, err, attribute = from_headers(found, record.value)
  return event, err, attribute
end

return cloudevents
