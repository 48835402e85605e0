-- SPDX-License-Identifier: Apache-2.0
-- Answers in place of a service that there is not yet: from responses of the configuration, or from the examples and
-- schemas of an OpenAPI document.
local expression = require "sluice.expression"
local json = require "sluice.json"
local paths = require "mocking.paths"
local sluice = require "sluice"
local template = require "sluice.template"

local mocking = { version = "1.0.0", priority = -1 }

local NAMES = { "params", "headers", "query", "body", "method", "path" }
local DELAY, STATUS, EXAMPLE = "X-Kong-Mocking-Delay", "X-Kong-Mocking-Status-Code", "X-Kong-Mocking-Example-Id"
local MOST_DELAY_MS = 10000
local NOT_FOUND = "Corresponding path and method spec does not exist in API Specification"

local states = setmetatable({}, { __mode = "k" }) -- by configuration

-- ---- Once a configuration -------------------------------------------------------------------------------------------

local function methods_of(list)
  if not list then return nil end
  local set = {}
  for _, name in ipairs(list) do set[name] = true end
  return set
end

local function response_of(given)
  local headers = {}
  for name, value in pairs(given.headers or {}) do headers[name] = assert(template.deep(value, NAMES)) end
  return {
    given = given, path = given.path and paths.compile(given.path), methods = methods_of(given.methods),
    holds = given.match and assert(expression.compile(given.match)) or nil, headers = headers,
    body = given.body and assert(template.deep(given.body, NAMES)),
    json = given.json ~= nil and assert(template.deep(given.json, NAMES)) or nil,
  }
end

local function state_of(conf)
  local state, operations = { responses = {} }, {}
  for i, given in ipairs(conf.responses or {}) do state.responses[i] = response_of(given) end
  if conf.__operations then
    local known = assert(json.decode(conf.__operations))
    for _, operation in ipairs(known.operations) do
      local path = operation.path
      if conf.include_base_path then path = (conf.custom_base_path or known.base_path):gsub("/+$", "") .. path end
      operations[#operations + 1] = { method = operation.method, path = paths.compile(path), given = operation }
    end
    table.sort(operations, function(a, b) return paths.is_before(a.path, b.path) end)
    state.operations = operations
  end
  return state
end

function mocking.configure(confs)
  for _, conf in ipairs(confs or {}) do states[conf] = states[conf] or state_of(conf) end
end

-- ---- Responses of the configuration ---------------------------------------------------------------------------------

local function captured(response, method, path, exchange)
  if response.methods and not response.methods[method] then return nil end
  local params = response.path and response.path:match(path) or (not response.path and {})
  if not params then return nil end
  if response.holds and not response.holds(exchange) then return nil end
  return params
end

-- What templates see; the body is read when one looks at it.
local function values_of(params, method, path, exchange)
  return setmetatable({ params = params, method = method, path = path }, { __index = function(self, name)
    local value
    if name == "headers" then value = exchange.request:get_headers(1000)
    elseif name == "query" then value = exchange.request:get_query(1000)
    elseif name == "body" then value = exchange.request:get_body() or exchange.request:get_raw_body()
    end
    rawset(self, name, value)
    return value
  end })
end

local function rendered(response, values)
  local headers = { ["X-Kong-Mocking-Plugin"] = "true" }
  for name, value in pairs(response.headers) do headers[name] = template.text(value(values)) end
  if response.json then return response.json(values), headers end
  return response.body and template.text(response.body(values)) or nil, headers
end

local function wait(conf, exchange, given_ms)
  local asked = exchange.request:get_header(DELAY)
  if asked then
    local ms = tonumber(asked)
    if not ms or ms < 0 or ms > MOST_DELAY_MS then
      local message = "Invalid value for %s. The delay value should be a number between 0 and %d"
      exchange.response:exit(400, { message = message:format(DELAY, MOST_DELAY_MS) })
    end
    if ms > 0 then sluice.sleep(ms / 1000) end
  elseif given_ms then
    sluice.sleep(given_ms / 1000)
  elseif conf.random_delay then
    sluice.sleep(conf.min_delay_time + (conf.max_delay_time - conf.min_delay_time) * sluice.random())
  end
end

local function answer_configured(conf, state, method, path, exchange)
  for _, response in ipairs(state.responses) do
    local params = captured(response, method, path, exchange)
    if params then
      local body, headers = rendered(response, values_of(params, method, path, exchange))
      wait(conf, exchange, response.given.delay)
      exchange.response:exit(response.given.status, body, headers)
    end
  end
end

-- ---- Of the document ------------------------------------------------------------------------------------------------

local function find_operation(state, method, path)
  local fallback
  for _, operation in ipairs(state.operations or {}) do
    if operation.path:match(path) then
      if operation.method == method then return operation.given end
      if method == "HEAD" and operation.method == "GET" then fallback = fallback or operation.given end
    end
  end
  return fallback
end

local function is_included(conf, code)
  if not conf.included_status_codes or #conf.included_status_codes == 0 then return true end
  for _, one in ipairs(conf.included_status_codes) do
    if one == code then return true end
  end
  return false
end

local function choose_status(conf, operation, exchange)
  local asked = exchange.request:get_header(STATUS)
  local list = {}
  for _, status in ipairs(operation.statuses) do
    if asked and tostring(status.code) == asked then return status end
    if is_included(conf, status.code) then list[#list + 1] = status end
  end
  if asked then
    exchange.response:exit(400, { message = ("could not find the status code '%s'"):format(asked) })
  end
  if conf.random_status_code and #list > 1 then return list[sluice.random(#list)] end
  return list[1]
end

-- "text/*;q=0.5, application/json" in the order of preference.
local function accepted(field)
  local list = {}
  for one in field:gmatch("[^,]+") do
    local name, rest = one:match("^%s*([^;%s]+)(.*)$")
    if name then list[#list + 1] = { name = name:lower(), q = tonumber(rest:match("q=([%d.]+)")) or 1, at = #list } end
  end
  table.sort(list, function(a, b)
    if a.q ~= b.q then return a.q > b.q end
    return a.at < b.at
  end)
  return list
end

local function fits(pattern, content_type)
  local plain = content_type:lower():gsub(";.*$", "")
  if pattern == "*/*" or pattern == plain then return true end
  local kind = pattern:match("^([^/]+)/%*$")
  return kind ~= nil and plain:match("^([^/]+)/") == kind
end

local function choose_type(status, exchange)
  local field = exchange.request:get_header("accept")
  for _, wanted in ipairs(field and accepted(field) or {}) do
    for _, content in ipairs(status.types) do
      if wanted.q > 0 and fits(wanted.name, content.type) then return content end
    end
  end
  return status.types[1]
end

local function choose_example(conf, content, exchange)
  local asked = exchange.request:get_header(EXAMPLE)
  for _, example in ipairs(asked and content.examples or {}) do
    if example.id == asked then return example end
  end
  if asked then exchange.response:exit(400, { message = ("could not find the example id '%s'"):format(asked) }) end
  if conf.random_examples and #content.examples > 1 then return content.examples[sluice.random(#content.examples)] end
  return content.examples[1]
end

local function answer_operation(conf, operation, exchange)
  local status = choose_status(conf, operation, exchange)
  if not status then return exchange.response:exit(404, { message = "No response is defined for this operation" }) end
  local headers = { ["X-Kong-Mocking-Plugin"] = "true" }
  for name, value in pairs(status.headers) do headers[name] = value end
  local content = choose_type(status, exchange)
  local example = content and choose_example(conf, content, exchange)
  if content then headers["Content-Type"] = content.type end
  wait(conf, exchange)
  exchange.response:exit(status.code, example and example.body or nil, headers)
end

function mocking.access(conf, exchange)
  local state = states[conf]
  local method, path = exchange.request:get_method(), exchange.request:get_path()
  answer_configured(conf, state, method, path, exchange)
  local operation = find_operation(state, method, path)
  if operation then return answer_operation(conf, operation, exchange) end
  if conf.pass_unmatched then return end
  exchange.response:exit(404, { message = state.operations and NOT_FOUND or "No mock for this path and method" })
end

return mocking
