-- SPDX-License-Identifier: Apache-2.0
-- Kong's fields with Kong's defaults.
local json_edits = require "sluice.json_edits"
local statuses = require "response-transformer.statuses"
local typedefs = require "sluice.typedefs"

local TOKEN = "^[%w!#$%%&'*+.^_`|~-]+$"

local function check_header(entry)
  local name, value = entry:match("^([^:]+):*(.-)$")
  if not name or not name:find(TOKEN) then return nil, "expected a header name before the colon" end
  if value:find("[%z\1-\8\10-\31\127]") then return nil, "expected a value without control characters" end
  return true
end

local function check_new_name(entry)
  local ok, err = check_header(entry)
  if not ok then return nil, err end
  local to = entry:match("^[^:]+:+(.-)$")
  if to ~= "" and not to:find(TOKEN) then return nil, "expected a header name behind the colon" end
  return true
end

local PAIR = "^[^:]+:.*$"

local function list(about, elements)
  elements.type = "string"
  return { type = "array", default = {}, elements = elements, about = about }
end

local function pairs_list(about, check)
  return list(about, { match = PAIR, err = "name:value", custom_validator = check })
end

local TYPES = "types of the values in json, by place; a value without one is a string"

local function if_status()
  return { if_status = list("statuses, or ranges such as 500-599, of the answers that this is for; none: all",
    { custom_validator = statuses.check }) }
end

local function edits(about_headers, about_json)
  return {
    type = "record", required = true,
    fields = {
      { headers = pairs_list(about_headers, check_header) },
      { json = pairs_list(about_json) },
      { json_types = list(TYPES, { one_of = { "boolean", "number", "string" } }) },
      if_status(),
    },
  }
end

local replace = edits("fields to give a new value, name:value, if they are there",
  "members to give a new value, name:value, if they are there")
table.insert(replace.fields, 1, { body = { type = "string", len_min = 0,
  about = "takes the place of the whole body" } })

local function check_path(entry)
  local path, err = json_edits.path(entry:match("^[^:]*"))
  if path then return true end
  return nil, err
end

-- With paths, each entry of `json` must be one.
local function check_paths(conf)
  if conf.dots_in_keys then return true end
  for _, step in ipairs { "remove", "rename", "replace", "add", "append" } do
    for i, entry in ipairs(conf[step] and conf[step].json or {}) do
      local ok, err = check_path(entry)
      if not ok then return nil, err, ("%s.json[%d]"):format(step, i - 1) end
    end
  end
  return true
end

return {
  name = "response-transformer",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { remove = { type = "record", required = true, fields = {
        { headers = list("fields to remove, by name", {}) },
        { json = list("members of the JSON body to remove, by name", {}) },
        if_status(),
      } } },
      { rename = { type = "record", required = true, fields = {
        { headers = pairs_list("fields to rename, old:new, if they are there", check_new_name) },
        { json = pairs_list("members to rename, old:new, if they are there") },
        if_status(),
      } } },
      { replace = replace },
      { add = edits("fields to add, name:value, unless they are there",
        "members to add, name:value, unless they are there") },
      { append = edits("fields to add, name:value, beside any that are there",
        "values to append, name:value: what is there and the new value become an array") },
      { allow = { type = "record", required = true, fields = {
        { json = { type = "array", elements = { type = "string" },
          about = "the only members of the JSON body that stay, after all other edits" } },
      } } },
      { dots_in_keys = { type = "boolean", required = true, default = true,
        about = "a dot belongs to the name of a member; false: json entries are paths" } },
    }, entity_checks = {
      { custom_entity_check = { field_sources = { "dots_in_keys", "remove", "rename", "replace", "add", "append" },
        fn = check_paths } },
    } } },
  },
}
