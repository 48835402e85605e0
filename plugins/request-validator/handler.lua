-- SPDX-License-Identifier: Apache-2.0
-- Lets requests through whose parameters and JSON bodies fit their schemas, and answers 400 to the others.
local json = require "sluice.json"
local media_type = require "request-validator.media_type"
local parameters = require "request-validator.parameters"
local validators = require "request-validator.validators"

local request_validator = { version = "1.0.0", priority = 999 }

local BAD_REQUEST, TOO_LARGE = 400, 413
local BAD_BODY = "request body doesn't conform to schema"
local BAD_PARAMETER = "request param doesn't conform to schema"
local BAD_TYPE = "specified Content-Type is not allowed"

local plans = setmetatable({}, { __mode = "k" }) -- by configuration

-- ---- What is made once ----

local function parameters_of(conf)
  local list = {}
  for i, one in ipairs(conf.parameter_schema or {}) do
    local validator, schema
    if one.schema then validator, schema = validators.of_parameter(one.schema, conf.version) end
    list[i] = parameters.plan(one, validator and schema or nil)
    list[i].validator = validator
  end
  return list
end

local function types_of(conf)
  local list = {}
  for i, text in ipairs(conf.allowed_content_types) do list[i] = media_type.parse(text) end
  return list
end

function request_validator.configure(confs)
  for _, conf in ipairs(confs or {}) do
    plans[conf] = {
      parameters = parameters_of(conf), types = types_of(conf),
      body = conf.body_schema and validators.of_body(conf.body_schema, conf.version),
    }
  end
end

-- ---- Each request ----

local function refuse(conf, exchange, message, detail)
  exchange.response:exit(BAD_REQUEST, { message = conf.verbose_response and detail or message })
end

-- What is wrong with a parameter; nil: nothing.
local function fault_of(plan, source)
  local value, is_there = parameters.read(plan, source)
  if not is_there then return plan.required and "required parameter value not found in request" or nil end
  if not plan.validator then return nil end
  if value == nil then return "it does not stand as its style has it" end
  local ok, err = plan.validator(parameters.coerce(value, plan.schema, json.array))
  return not ok and err or nil
end

local function check_parameters(conf, exchange, list)
  local source = { request = exchange.request }
  for i = 1, #list do
    local fault = fault_of(list[i], source)
    if fault then refuse(conf, exchange, BAD_PARAMETER, list[i].title .. " validation failed, [error] " .. fault) end
  end
end

-- The Content-Type, where it is allowed.
local function allowed_type(conf, exchange, types)
  local text, several = exchange.request:get_only_header("Content-Type")
  local sent = text and not several and media_type.parse(text)
  for i = 1, sent and #types or 0 do
    if media_type.is_allowed(types[i], sent, conf.content_type_parameter_validation) then return sent end
  end
  return nil
end

-- A body that is not there counts as an object without members.
local function check_body(conf, exchange, validator)
  local text = exchange.request:get_raw_body()
  if not text then exchange.response:error(TOO_LARGE) end
  local value, err = json.decode(text == "" and "{}" or text, { unique = true })
  if err then refuse(conf, exchange, BAD_BODY, "request body is not valid JSON: " .. err) end
  local ok, fault = validator(value)
  if not ok then refuse(conf, exchange, BAD_BODY, fault) end
end

function request_validator.access(conf, exchange)
  local plan = plans[conf]
  check_parameters(conf, exchange, plan.parameters)
  if not plan.body then return end
  local sent = allowed_type(conf, exchange, plan.types)
  if not sent then refuse(conf, exchange, BAD_TYPE, BAD_TYPE) end
  if media_type.is_json(sent) then check_body(conf, exchange, plan.body) end
end

return request_validator
