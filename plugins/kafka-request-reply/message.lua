-- SPDX-License-Identifier: Apache-2.0
-- A request as a record, and a reply as a response.
local template = require "sluice.template"

local message = {}

message.NAMES = { "method", "path", "query", "headers", "params", "body", "id" }

local STATUS_MOST = 599

-- ---- The request ----------------------------------------------------------------------------------------------------

local function captures(exchange)
  local found = exchange.request:get_uri_captures()
  local params = {}
  for i = 1, #found.unnamed do params[i] = found.unnamed[i] end
  for name, value in pairs(found.named) do params[name] = value end
  return params
end

-- What templates see; headers, arguments and the parsed body are read when one looks at them.
local function values_of(exchange, id)
  local request = exchange.request
  return setmetatable({ id = id, method = request:get_method(), path = request:get_path() },
    { __index = function(self, name)
      local value
      if name == "headers" then value = request:get_headers(1000)
      elseif name == "query" then value = request:get_query(1000)
      elseif name == "params" then value = captures(exchange)
      elseif name == "body" then value = request:get_body() or request:get_raw_body()
      end
      rawset(self, name, value)
      return value
    end })
end

local function compiled(text)
  return text and assert(template.deep(text, message.NAMES))
end

-- What is made of a configuration once.
function message.plan(conf)
  local plan = { key = compiled(conf.key), value = compiled(conf.value), headers = {} }
  for name, text in pairs(conf.record_headers or {}) do
    plan.headers[#plan.headers + 1] = { name = name, value = compiled(text) }
  end
  table.sort(plan.headers, function(a, b) return a.name < b.name end)
  return plan
end

-- Nothing for an expression that gives nil or an empty text: there is no such key or header then.
local function rendered(fn, values)
  local value = fn(values)
  if value == nil then return nil end
  local text = template.text(value)
  return text ~= "" and text or nil
end

-- The record for a request whose body has been read.
function message.record(conf, plan, exchange, id, body)
  local values = values_of(exchange, id)
  local headers = { { conf.correlation_id_header, id }, { conf.reply_topic_header, conf.reply_topic } }
  for _, header in ipairs(plan.headers) do
    local value = rendered(header.value, values)
    if value then headers[#headers + 1] = { header.name, value } end
  end
  for _, name in ipairs(conf.forward_headers) do
    local value = exchange.request:get_header(name)
    if value then headers[#headers + 1] = { name, value } end
  end
  return {
    topic = conf.topic, key = plan.key and rendered(plan.key, values), headers = headers,
    value = plan.value and template.text(plan.value(values)) or body,
  }
end

-- ---- The reply ------------------------------------------------------------------------------------------------------

local function header_of(record, wanted)
  for _, header in ipairs(record.headers) do
    if header[1]:lower() == wanted then return header[2] end
  end
end

-- What a field may hold: a record's header may be any bytes.
local function as_field(value)
  if value and not value:find("[%z\1-\8\10-\31\127]") then return value end
end

local function status_of(conf, record)
  local text = header_of(record, conf.status_header:lower())
  if not text then return record.value and 200 or 204 end
  local status = text:match("^%d%d%d$") and tonumber(text)
  return status and status >= 200 and status <= STATUS_MOST and status or nil
end

-- status, body and headers of the response that a reply is; nil and why when it is none.
function message.response(conf, record)
  local status = status_of(conf, record)
  if not status then return nil, "the reply's " .. conf.status_header .. " is no status" end
  local headers = {}
  for _, name in ipairs(conf.response_headers) do
    name = name:lower()
    headers[name] = as_field(header_of(record, name))
  end
  if record.value and not headers["content-type"] then headers["content-type"] = conf.content_type end
  return status, record.value or "", headers
end

return message
