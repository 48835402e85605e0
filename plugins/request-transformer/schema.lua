-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults. Templates are compiled here too, so that a wrong one is found before it runs.
local edits = require "request-transformer.edits"
local json_edits = require "sluice.json_edits"
local template = require "request-transformer.template"
local typedefs = require "sluice.typedefs"

local TOKEN = "^[%w!#$%%&'*+.^_`|~-]+$"
local PAIR = "^[^:]+:.*$"

local function check_template(text)
  local value, err = template.compile(text, {})
  if not value then return nil, "expected Lua in its $(...): " .. err end
  return true
end

local function check_value(entry)
  local _, value = edits.split(entry)
  return check_template(value or "")
end

local function check_header(entry)
  local name, value = edits.split(entry)
  if not name or not name:find(TOKEN) then return nil, "expected a header name before the colon" end
  if value and template.constant(value):find("[%z\1-\8\10-\31\127]") then
    return nil, "expected a value without control characters"
  end
  return check_template(value or "")
end

local function list(about, elements)
  elements.type = "string"
  return { type = "array", default = {}, elements = elements, about = about }
end

local function step(what, form)
  local about = function(plural) return plural .. " " .. what .. (form and ", " .. form or "") end
  return {
    type = "record", required = true,
    fields = {
      { headers = list(about("header fields"),
        form and { match = PAIR, err = "name:value", custom_validator = check_header } or {}) },
      { querystring = list(about("arguments of the query"), form and { custom_validator = check_value } or {}) },
      { body = list(about("members of the body"), form and { custom_validator = check_value } or {}) },
    },
  }
end

local TYPES = "types of the values in body where it is JSON, by place; a value without one is a string"

local function typed_step(what, form)
  local made = step(what, form)
  table.insert(made.fields, { json_types = { type = "array", default = {}, about = TYPES,
    elements = { type = "string", one_of = { "boolean", "number", "string" } } } })
  return made
end

-- With paths, each entry of `body` must be one.
local function check_paths(conf)
  if conf.dots_in_keys then return true end
  for _, name in ipairs { "remove", "rename", "replace", "add", "append" } do
    for i, entry in ipairs(conf[name] and conf[name].body or {}) do
      local path, err = json_edits.path(edits.split(entry) or "")
      if not path then return nil, err, ("%s.body[%d]"):format(name, i - 1) end
    end
  end
  return true
end

local replace = typed_step("to give a new value if they are there", "name:value")
table.insert(replace.fields, { uri = { type = "string", custom_validator = check_template,
  about = "path that the service gets, in place of the request's" } })

return {
  name = "request-transformer",
  fields = {
    { protocols = typedefs.protocols },
    { config = { type = "record", required = true, fields = {
      { http_method = { type = "string", match = "^%u+$", err = "a method in capitals",
        about = "method that the service gets" } },
      { remove = step("to remove, by name") },
      { rename = step("to rename if they are there", "old:new") },
      { replace = replace },
      { add = typed_step("to add unless they are there", "name:value") },
      { append = typed_step("to add beside any that are there", "name:value") },
      { allow = { type = "record", required = true, fields = {
        { body = { type = "array", elements = { type = "string" },
          about = "the only members of the body that go on, after all other edits" } },
      } } },
      { dots_in_keys = { type = "boolean", required = true, default = true,
        about = "a dot belongs to the name of a member; false: entries of body are paths where it is JSON" } },
    }, entity_checks = {
      { custom_entity_check = { field_sources = { "dots_in_keys", "remove", "rename", "replace", "add", "append" },
        fn = check_paths } },
    } } },
  },
}
