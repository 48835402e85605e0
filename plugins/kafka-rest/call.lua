-- SPDX-License-Identifier: Apache-2.0
-- One request to the API: what it asks for, and how it is answered.
local errors = require "kafka-rest.errors"
local json = require "sluice.json"
local kafka = require "sluice.kafka"

local calls = {}

---@class kafka-rest.call
---@field conf table
---@field cluster string
---@field exchange sluice.exchange
---@field admin sluice.kafka.admin
---@field base string URL that the API stands below
---@field v2 boolean
local Call = {}
Call.__index = Call

local V2_TYPE, JSON_TYPE = "application/vnd.kafka.v2+json", "application/json"
local PORTS = { http = 80, https = 443 }

-- Scheme, host and prefix as the client has them.
local function base_of(conf, exchange, prefix)
  if conf.advertised_url then return (conf.advertised_url:gsub("/+$", "")) end
  local request = exchange.request
  local scheme, port = request:get_forwarded_scheme(), request:get_forwarded_port()
  local host = request:get_forwarded_host()
  if port and port ~= PORTS[scheme] then host = host .. ":" .. port end
  return scheme .. "://" .. host .. prefix
end

function calls.new(conf, cluster, exchange, prefix)
  return setmetatable({
    conf = conf, cluster = cluster, exchange = exchange, prefix = prefix, v2 = false, type = JSON_TYPE,
    admin = kafka.admin(cluster, { timeout = conf.timeout / 1000 }),
  }, Call)
end

function Call:base_url()
  self.base = self.base or base_of(self.conf, self.exchange, self.prefix)
  return self.base
end

-- Ends the phase.
---@param status integer
---@param body? table|string nil: none
function Call:answer(status, body, headers)
  headers = headers or {}
  if body == nil then self.exchange.response:exit(status, nil, headers) end
  headers["Content-Type"] = self.type
  if type(body) == "table" then body = assert(json.encode(body)) end
  self.exchange.response:exit(status, body, headers)
end

---@param status integer
---@param code integer
---@param message string
function Call:refuse(status, code, message, headers)
  if status == 503 or status == 429 then
    headers = headers or {}
    headers["Retry-After"] = headers["Retry-After"] or "1"
  end
  self:answer(status, { error_code = code, message = message }, headers)
end

-- What sluice.kafka says.
function Call:refuse_kafka(err, code)
  local status, error_code
  if self.v2 then
    status, error_code = errors.of_v2(code)
  else
    status, error_code = errors.of(code)
  end
  self:refuse(status, error_code, err)
end

-- The value, or the end of the phase: for what gives value | nil, err, code.
function Call:must(value, err, code)
  if value == nil then self:refuse_kafka(err, code) end
  return value
end

-- The whole body.
---@return string
function Call:text()
  local request = self.exchange.request
  if not request:limit_body(self.conf.body_bytes_max) then
    self:refuse(413, 413, "the body has more bytes than this gateway takes")
  end
  local text, err, status = request:get_raw_body()
  if not text then self:refuse(status, status, "the body cannot be read: " .. tostring(err)) end
  return text
end

-- The whole body as a table.
---@return table
---@return string text
function Call:body()
  local text = self:text()
  if text == "" then return {}, "{}" end
  local value, why = json.decode(text)
  if why then self:refuse(self.v2 and 422 or 400, self.v2 and 422 or 400, "the body is no JSON: " .. why) end
  if type(value) ~= "table" or json.is_array(value) then
    self:refuse(self.v2 and 422 or 400, self.v2 and 422 or 400, "the body must be a JSON object")
  end
  return value, text
end

-- A number in the path; one that is none stands for nothing.
---@return integer|nil
function calls.integer(text)
  if not text:find("^%d+$") or #text > 10 then return nil end
  return tonumber(text)
end

-- ---- v2's types ----------------------------------------------------------------------------------------------------

-- Name and q of each range of a field, as it says; unreadable ones are left out.
local function ranges(field)
  local list = {}
  for part in field:gmatch("[^,]+") do
    local name = part:match("^%s*([^;%s]+)")
    local q = tonumber(part:match(";%s*[qQ]%s*=%s*([%d.]+)") or 1)
    if name and q and q > 0 then list[#list + 1] = { name = name:lower(), q = q } end
  end
  return list
end

-- The type among `offered` that Accept likes best; earlier ones where it does not care. nil: none.
local function choose(accept, offered)
  local best, most
  for _, range in ipairs(ranges(accept)) do
    for _, name in ipairs(offered) do
      local fits = range.name == name or range.name == "*/*" or range.name == "application/*"
      if fits and (not most or range.q > most) then best, most = name, range.q end
    end
  end
  return best
end

-- Says what the answer is to be, or refuses with 406.
---@param offered string[]
---@return string
function Call:negotiate(offered)
  local accept = self.exchange.request:get_header("accept")
  local chosen = not accept and offered[1] or choose(accept, offered)
  if not chosen then
    self:refuse(406, 406, "Accept names none of " .. table.concat(offered, ", "))
  end
  self.type = chosen
  return chosen
end

-- Clients may name the format of their records in every request, also where the answer has none.
local V2_ANSWERS = { V2_TYPE, "application/vnd.kafka+json", JSON_TYPE, "application/vnd.kafka.json.v2+json",
  "application/vnd.kafka.binary.v2+json", "application/vnd.kafka.avro.v2+json",
  "application/vnd.kafka.jsonschema.v2+json", "application/vnd.kafka.protobuf.v2+json",
  -- Of v1, whose answers to these questions are the same.
  "application/vnd.kafka.v1+json", "application/vnd.kafka.json.v1+json", "application/vnd.kafka.binary.v1+json",
  "application/vnd.kafka.avro.v1+json" }

-- For all of v2 but reading records.
function Call:begin_v2()
  self.v2, self.type = true, V2_TYPE
  self:negotiate(V2_ANSWERS)
end

-- The media type of the body, without parameters; nil: there is none.
---@return string|nil
function Call:content_type()
  local field = self.exchange.request:get_header("content-type")
  return field and field:match("^%s*([^;%s]*)"):lower() or nil
end

return calls
