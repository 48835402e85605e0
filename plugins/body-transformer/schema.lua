-- SPDX-License-Identifier: Apache-2.0
local names = require "body-transformer.names"
local document = require "sluice.document"
local typedefs = require "sluice.typedefs"

local function check_templates(conf)
  for _, which in ipairs { "request", "response" } do
    local side = conf[which]
    if side then
      local _, err = document.compile(side.template, side.output_format, names)
      if err then return nil, "expected a template (" .. err .. ")", which .. ".template" end
    end
  end
  return true
end

local function side(which, inputs)
  return { type = "record", about = "how the body of the " .. which .. " is made", fields = {
    { input_format = { type = "string", one_of = inputs,
      about = "what the body is; unless told, what its `Content-Type` says" } },
    { output_format = { type = "string", required = true, default = "json", one_of = document.formats,
      about = "what the template makes: how `{{ }}` writes values, and the `Content-Type`" } },
    { content_type = { type = "string", match = "^[%w!#$&^_.+-]+/[%w!#$&^_.+-]+[^%c]*$", err = "a media type",
      about = "`Content-Type` of the new body, in place of what `output_format` has" } },
    { template = { type = "string", required = true, about = "text of the new body, with Lua in it" } },
  } }
end

return {
  name = "body-transformer",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { request = side("request", { "json", "xml", "form", "multipart", "plain" }) },
      { response = side("response", { "json", "xml", "form", "plain" }) },
    }, entity_checks = {
      { at_least_one_of = { "request", "response" } },
      { custom_entity_check = { field_sources = { "request", "response" }, fn = check_templates } },
    } } },
  },
}
