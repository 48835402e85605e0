-- SPDX-License-Identifier: Apache-2.0
local typedefs = require "sluice.typedefs"

local function may_stand_together(conf)
  if conf.message and (conf.content_type or conf.body) then
    return nil, "message cannot be used with content_type or body"
  end
  if conf.content_type and not conf.body then return nil, "content_type requires a body" end
  if conf.echo and (conf.content_type or conf.body) then
    return nil, "echo cannot be used with content_type and body"
  end
  return true
end

return {
  name = "request-termination",
  fields = {
    { config = { type = "record", required = true, fields = {
      { status_code = { type = "integer", required = true, default = 503, between = { 100, 599 },
        about = "status of the answer" } },
      { message = { type = "string", about = "message of a JSON answer; without it the usual one of the status" } },
      { body = { type = "string", about = "body of the answer, in place of a message" } },
      { content_type = { type = "string", about = "type of `body`; without it `application/json; charset=utf-8`" } },
      { echo = { type = "boolean", required = true, default = false,
        about = "answer with what the request was: for looking at traffic" } },
      { trigger = typedefs.header_name {
        about = "answer only when the request has a field or an argument of that name" } },
    }, entity_checks = { { custom_entity_check = {
      field_sources = { "message", "body", "content_type", "echo" }, fn = may_stand_together } } } } },
  },
}
