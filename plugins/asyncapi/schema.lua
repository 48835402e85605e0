-- SPDX-License-Identifier: Apache-2.0
-- What the configuration does not know by itself: titles, who is responsible, what is in the messages.
local json = require "sluice.json"
local json_schema = require "sluice.json_schema"
local typedefs = require "sluice.typedefs"

local function is_schema(text)
  local value, err = json.decode(text)
  if value == nil then return nil, "expected a JSON Schema as a text of JSON (" .. tostring(err) .. ")" end
  if type(value) ~= "table" then return nil, "expected a JSON Schema: an object" end
  local ok, why = json_schema.compile(value, { draft = "7" })
  if not ok then return nil, "expected a JSON Schema (" .. tostring(why) .. ")" end
  return true
end

local function is_server(url)
  local protocol = url:match("^(%a[%a%d+.-]*)://[^/?#%s]+[^?#%s]*$")
  if protocol == "http" or protocol == "https" or protocol == "ws" or protocol == "wss" then return true end
  return nil, "expected a URL with http, https, ws or wss, such as https://events.example"
end

local function text(about, more)
  local field = more or {}
  field.type, field.about = "string", about
  return field
end

return {
  name = "asyncapi",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = { type = "record", required = true, fields = {
      { title = text("title of the document", { required = true, default = "Events" }) },
      { version = text("version of what it documents", { required = true, default = "1.0.0" }) },
      { description = text("what clients should know before all else; may be Markdown") },
      { id = text("identifier of the API, a URI such as urn:example:orders", { match = "^%a[%a%d+.-]*:%S+$" }) },
      { terms_of_service = typedefs.url { about = "where the terms of service are" } },
      { contact = { type = "record", about = "whom to ask", fields = {
        { name = text("name") }, { url = typedefs.url { about = "page" } }, { email = text("address") },
      } } },
      { license = { type = "record", about = "license of the API", fields = {
        { name = text("name", { required = true }) }, { url = typedefs.url { about = "page" } },
      } } },
      { servers = { type = "array", elements = { type = "string", custom_validator = is_server }, len_min = 1,
        about = "URLs under which clients reach the gateway; the one that the client has asked under unless told" } },
      { route_tags = { type = "array", elements = { type = "string" },
        about = "only routes with one of these tags are shown; all unless told" } },
      { topics = { type = "boolean", required = true, default = false,
        about = "whether topics and addresses of brokers are shown too, for those who speak Kafka themselves" } },
      { messages = { type = "array", about = "what is in the records of topics", elements = { type = "record",
        fields = {
          { topic = text("the topic", { required = true }) },
          { name = text("name of the message; the topic's unless told") },
          { title = text("title") },
          { summary = text("in a few words") },
          { description = text("in many; may be Markdown") },
          { content_type = text("media type of the value, application/json unless told") },
          { schema = text("JSON Schema of the value, as a text of JSON; unless told what request-validator demands of "
            .. "requests", { custom_validator = is_schema }) },
          { examples = { type = "array", elements = { type = "string" }, about = "values, as texts" } },
        } } } },
      { cache = { type = "integer", required = true, default = 60, between = { 0, 86400 },
        about = "seconds that clients may keep the document without asking again" } },
    } } },
  },
}
