-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults; `responses` and `pass_unmatched` are Sluice's own.
local expression = require "sluice.expression"
local openapi = require "mocking.openapi"
local template = require "sluice.template"
local typedefs = require "sluice.typedefs"

local function is_early_expression(text)
  local ok, why = expression.check(text)
  if not ok then return nil, why end
  local since, field = expression.since(text)
  if since ~= "header_filter" then return true end
  return nil, ("expected an expression on the request (%s is known too late)"):format(field)
end

local function not_negative(value)
  if value >= 0 and value <= 3600 then return true end
  return nil, "expected a number of seconds from 0 to 3600"
end

-- An empty one is one too: `json: {}` answers with that.
local function not_both(response)
  if response.body == nil or response.json == nil then return true end
  return nil, "expected at most one of body or json, found both", ""
end

local response = { type = "record", fields = {
  { path = { type = "string", match = "^/", err = "a path that starts with /",
    about = "of the request, whole, with names in braces: `/users/{id}`; any unless told" } },
  { methods = { type = "set", elements = typedefs.http_method, about = "any unless told" } },
  { match = { type = "string", custom_validator = is_early_expression,
    about = "expression that a request must meet" } },
  { status = { type = "integer", required = true, default = 200, between = { 200, 599 } } },
  { headers = { type = "map", keys = typedefs.header_name, values = { type = "string" },
    custom_validator = template.check, about = "fields; may hold expressions" } },
  { body = { type = "string", len_min = 0, custom_validator = template.check,
    about = "a text; may hold expressions" } },
  { json = { type = "any", custom_validator = template.check,
    about = "a value to answer with as JSON; its texts may hold expressions" } },
  { delay = { type = "integer", between = { 0, 3600000 }, about = "milliseconds until it comes" } },
}, entity_checks = { { custom_entity_check = { field_sources = { "body", "json" }, fn = not_both } } } }

local function document_text(config, files)
  if config.api_specification then return config.api_specification, "api_specification" end
  if not config.api_specification_filename then return nil end
  local text, err = files.text(files.path(config.api_specification_filename))
  if not text then return nil, "api_specification_filename", err end
  return text, "api_specification_filename"
end

-- Workers get the operations with their answers, and never see the document.
local function prepare(config, files)
  local text, field, err = document_text(config, files)
  if err then return { field = field, message = err } end
  if not text then return nil end
  local tree
  tree, err = files.tree(text, config.api_specification_filename or "api_specification")
  if not tree then return { field = field, expected = "a document in YAML or JSON", found = err } end
  if type(tree) ~= "table" then return { field = field, expected = "an OpenAPI document", found = "a text" } end
  local operations
  operations, err = openapi.compile(tree)
  if not operations then return { field = field, expected = "an OpenAPI document", found = err } end
  config.__operations = operations
  if config.api_specification then config.api_specification = "(" .. #text .. " bytes)" end
end

local function delays_in_order(conf)
  if not conf.random_delay or conf.min_delay_time < conf.max_delay_time then return true end
  return nil, "expected more than min_delay_time", "max_delay_time"
end

return {
  name = "mocking",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { responses = { type = "array", elements = response,
        about = "answers; the first one that a request meets is given, before the document is asked" } },
      { api_specification = { type = "string", about = "an OpenAPI document, 2.0, 3.0 or 3.1, as YAML or JSON" } },
      { api_specification_filename = { type = "string",
        about = "file that holds it, relative to the configuration's; watched" } },
      { include_base_path = { type = "boolean", default = false,
        about = "paths of the document begin with the path of its first server (`basePath` in 2.0)" } },
      { custom_base_path = typedefs.path { about = "what they begin with in place of that" } },
      { random_delay = { type = "boolean", default = false, about = "answers come late" } },
      { max_delay_time = { type = "number", default = 1, custom_validator = not_negative, about = "seconds" } },
      { min_delay_time = { type = "number", default = 0.001, custom_validator = not_negative, about = "seconds" } },
      { random_examples = { type = "boolean", default = false,
        about = "any of several examples; else the first by name" } },
      { included_status_codes = { type = "array", elements = { type = "integer", between = { 100, 599 } },
        about = "answer with these statuses only" } },
      { random_status_code = { type = "boolean", default = false,
        about = "any of an operation's statuses; else the lowest" } },
      { pass_unmatched = { type = "boolean", required = true, default = false,
        about = "what there is no answer for goes to the service, in place of 404" } },
    }, entity_checks = {
      { at_least_one_of = { "api_specification", "api_specification_filename", "responses" } },
      { mutually_exclusive = { "api_specification", "api_specification_filename" } },
      { custom_entity_check = { field_sources = { "random_delay", "min_delay_time", "max_delay_time" },
        fn = delays_in_order } },
    } } },
  },
  prepare = prepare,
}
