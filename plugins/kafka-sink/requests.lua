-- SPDX-License-Identifier: Apache-2.0
-- Records as requests: one record's value, or one or several as JSON.
local json = require "sluice.json"
local sluice = require "sluice"
local template = require "sluice.template"

local base64_encode = sluice.crypto.base64_encode

local requests = {}

requests.NAMES = { "topic", "partition", "offset", "timestamp", "key", "headers", "value" }

local KEPT_BYTES = 1024  -- of a response that nobody wants
local FIELD_MOST = 4096  -- bytes of a record's header that become a field

-- ---- Once a configuration -------------------------------------------------------------------------------------------

function requests.plan(conf)
  local plan = { path = assert(template.deep(conf.path, requests.NAMES)), headers = {}, forward = {} }
  for name, text in pairs(conf.headers or {}) do
    plan.headers[#plan.headers + 1] = { name = name, value = assert(template.deep(text, requests.NAMES)) }
  end
  table.sort(plan.headers, function(a, b) return a.name < b.name end)
  for i, name in ipairs(conf.forward_headers) do plan.forward[i] = { name = name, plain = name:lower() } end
  return plan
end

-- ---- Parts of a record ----------------------------------------------------------------------------------------------

local function header_of(record, plain)
  for _, header in ipairs(record.headers) do
    if header[1]:lower() == plain then return header[2] end
  end
end

-- What a field may hold: keys and headers of records may be any bytes.
local function as_field(value)
  if value and #value <= FIELD_MOST and not value:find("[%z\1-\8\10-\31\127]") then return value end
end

-- What templates see of a record.
local function values_of(record)
  return setmetatable({ topic = record.topic, partition = record.partition, offset = record.offset,
    timestamp = record.timestamp, key = record.key }, { __index = function(self, name)
      local value
      if name == "headers" then
        value = {}
        for _, header in ipairs(record.headers) do value[header[1]] = header[2] end
      elseif name == "value" then
        value = record.value and json.decode(record.value)
        if value == nil then value = record.value end
      end
      rawset(self, name, value)
      return value
    end })
end

-- Well-formed UTF-8, each of whose sequences becomes a byte of ASCII: what is left shows that it is none.
local SEQUENCES = {
  "[\194-\223][\128-\191]", "\224[\160-\191][\128-\191]", "[\225-\236\238\239][\128-\191][\128-\191]",
  "\237[\128-\159][\128-\191]", "\240[\144-\191][\128-\191][\128-\191]",
  "[\241-\243][\128-\191][\128-\191][\128-\191]", "\244[\128-\143][\128-\191][\128-\191]",
}

local function is_text(bytes)
  if not bytes:find("[\128-\255]") then return true end
  for i = 1, #SEQUENCES do bytes = bytes:gsub(SEQUENCES[i], ".") end
  return not bytes:find("[\128-\255]")
end

-- JSON for bytes: the value that they are the JSON of, else the text, else base64 with a mark.
local function shown(out, name, bytes)
  if bytes == nil then
    out[name] = json.null
    return
  end
  local text = is_text(bytes)
  local value = text and json.decode(bytes)
  if value then
    out[name] = value
  elseif text then
    out[name] = value == false and false or bytes
  else
    out[name], out[name .. "_base64"] = base64_encode(bytes), true
  end
end

local function as_record(record)
  local out = { topic = record.topic, partition = record.partition, offset = record.offset,
    timestamp = record.timestamp }
  if record.key == nil then out.key = json.null
  elseif is_text(record.key) then out.key = record.key
  else out.key, out.key_base64 = base64_encode(record.key), true end
  shown(out, "value", record.value)
  local headers = {}
  for i, header in ipairs(record.headers) do
    headers[i] = {}
    if is_text(header[1]) then headers[i].name = header[1]
    else headers[i].name, headers[i].name_base64 = base64_encode(header[1]), true end
    shown(headers[i], "value", header[2])
  end
  out.headers = json.array(headers)
  return out
end

-- ---- Requests -------------------------------------------------------------------------------------------------------

local function body_of(conf, items)
  if conf.body == "value" then return items[1].made.value or "" end
  if conf.batch_size == 1 then return json.encode(as_record(items[1].made)) end
  local list = {}
  for i, item in ipairs(items) do list[i] = as_record(item.made) end
  return json.encode(json.array(list))
end

local function put(headers, name, value)
  value = as_field(value)
  if value then headers[#headers + 1] = { name, value } end
end

-- What tells the service of a record that it has seen already, since a record may come twice.
local function identity_of(items)
  local first, last = items[1].record, items[#items].record
  local id = ("%s-%d-%d"):format(first.topic, first.partition, first.offset)
  if #items > 1 then id = ("%s.%s-%d-%d"):format(id, last.topic, last.partition, last.offset) end
  return id
end

-- Templates that fail are the record's fault: nil and why.
local function rendered(fn, values)
  local ok, value = pcall(fn, values)
  if not ok then return nil, tostring(value) end
  return value == nil and "" or template.text(value)
end

local function put_record(plan, headers, record)
  put(headers, "Kafka-Topic", record.topic)
  put(headers, "Kafka-Partition", ("%d"):format(record.partition))
  put(headers, "Kafka-Offset", ("%d"):format(record.offset))
  put(headers, "Kafka-Timestamp", ("%.0f"):format(record.timestamp))
  put(headers, "Kafka-Key", record.key)
  for _, forward in ipairs(plan.forward) do put(headers, forward.name, header_of(record, forward.plain)) end
end

-- The request for some records, as plugins have made them (`made`); nil and why when it cannot be made of them.
-- Templates see the first one.
---@return table|nil for calls.call
---@return string|nil err
function requests.of(conf, plan, items)
  local record = items[1].made
  local values = values_of(record)
  local path, err = rendered(plan.path, values)
  if not path then return nil, "path: " .. err end
  if not path:find("^/[^%s%c]*$") then return nil, "path: expected a path, found " .. path:sub(1, 200) end
  local headers = { { "Idempotency-Key", identity_of(items) } }
  local content_type = conf.body == "value" and as_field(header_of(record, "content-type")) or conf.content_type
  headers[2] = { "Content-Type", content_type }
  if conf.batch_size == 1 then put_record(plan, headers, record) end
  for _, header in ipairs(plan.headers) do
    local value
    value, err = rendered(header.value, values)
    if not value then return nil, header.name .. ": " .. err end
    if value ~= "" then put(headers, header.name, value) end
  end
  local body
  body, err = body_of(conf, items)
  if not body then return nil, "the record cannot be told as JSON: " .. err end
  return { method = conf.method, path = path, headers = headers, body = body,
    timeout = conf.timeout / 1000, max_body = conf.reply_topics and conf.max_reply or KEPT_BYTES }
end

return requests
