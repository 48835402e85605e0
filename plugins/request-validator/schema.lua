-- SPDX-License-Identifier: Apache-2.0
local media_type = require "request-validator.media_type"
local parameters = require "request-validator.parameters"
local typedefs = require "sluice.typedefs"
local validators = require "request-validator.validators"

local VERSIONS = { "kong", "draft4", "draft6", "draft7", "draft201909", "draft202012" }
local STYLES = { "label", "form", "matrix", "simple", "spaceDelimited", "pipeDelimited", "deepObject" }

local function is_media_type(text)
  if media_type.parse(text) then return true end
  return nil, "expected a media type such as application/json"
end

local function body_compiles(conf)
  if not conf.body_schema then return true end
  local validator, err = validators.of_body(conf.body_schema, conf.version)
  if validator then return true end
  return nil, err, "body_schema"
end

local function parameter_fault(one, version)
  local style, explode = one.style ~= nil, one.explode ~= nil
  local schema = one.schema ~= nil
  if schema ~= style or schema ~= explode then return "expected `schema`, `style` and `explode` together, or none" end
  if not schema then return nil end
  if not parameters.styles[one["in"]][one.style] then
    local names = {}
    for name in pairs(parameters.styles[one["in"]]) do names[#names + 1] = name end
    table.sort(names)
    return ("expected a style of %s parameters: %s"):format(one["in"], table.concat(names, ", ")), "style"
  end
  local validator, err = validators.of_parameter(one.schema, version)
  if not validator then return err, "schema" end
end

local function parameters_compile(conf)
  for i, one in ipairs(conf.parameter_schema or {}) do
    local fault, field = parameter_fault(one, conf.version)
    if fault then return nil, fault, ("parameter_schema.%d%s"):format(i - 1, field and "." .. field or "") end
  end
  return true
end

return {
  name = "request-validator",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { body_schema = { type = "string", about = "schema of JSON bodies, as a text of JSON" } },
      { allowed_content_types = { type = "set", default = { "application/json" },
        elements = { type = "string", custom_validator = is_media_type },
        about = "what Content-Type may say, where there is a `body_schema`; `*` stands for any part" } },
      { version = { type = "string", required = true, default = "kong", one_of = VERSIONS,
        about = "what `body_schema` is written in: Kong's own form, or a draft of JSON Schema; parameters are always "
          .. "in a draft, 4 with `kong`" } },
      { parameter_schema = { type = "array", about = "parameters, and what they have to be",
        elements = { type = "record", fields = {
          { ["in"] = { type = "string", required = true, one_of = { "query", "header", "path" },
            about = "where it stands" } },
          { name = { type = "string", required = true,
            about = "of the argument, the field, or the named group of the route's path" } },
          { required = { type = "boolean", required = true, about = "requests without it are refused" } },
          { style = { type = "string", one_of = STYLES, about = "how its value is written: OpenAPI's styles" } },
          { explode = { type = "boolean",
            about = "values of arrays and objects stand each for itself instead of in one text" } },
          { schema = { type = "string", about = "JSON Schema of it, with `type` at its top, as a text of JSON" } },
        } } } },
      { verbose_response = { type = "boolean", required = true, default = false,
        about = "clients are told what is wrong" } },
      { content_type_parameter_validation = { type = "boolean", required = true, default = true,
        about = "parameters of Content-Type (charset) have to be the same as in `allowed_content_types`" } },
    }, entity_checks = {
      { at_least_one_of = { "body_schema", "parameter_schema" } },
      { custom_entity_check = { field_sources = { "body_schema", "version" }, fn = body_compiles } },
      { custom_entity_check = { field_sources = { "parameter_schema", "version" }, fn = parameters_compile } },
    } } },
  },
}
