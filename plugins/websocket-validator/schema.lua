-- SPDX-License-Identifier: Apache-2.0
local json = require "sluice.json"
local json_schema = require "sluice.json_schema"

local TYPES = { "draft4", "draft6", "draft7", "draft201909", "draft202012" }
local DRAFTS = { draft4 = "4", draft6 = "6", draft7 = "7", draft201909 = "2019-09", draft202012 = "2020-12" }

local function compiles(one)
  local schema, err = json.decode(one.schema, { unique = true })
  if err then return nil, "expected JSON: " .. err, "schema" end
  local compiled, why = json_schema.compile(schema, { draft = DRAFTS[one.type] })
  if not compiled then return nil, why, "schema" end
  return true
end

local function messages(whose, kind)
  return { type = "record", about = ("%s messages of the %s"):format(kind, whose),
    fields = {
      { type = { type = "string", required = true, one_of = TYPES, about = "the draft of JSON Schema" } },
      { schema = { type = "string", required = true, about = "the schema, as a text of JSON" } },
    },
    entity_checks = { { custom_entity_check = { field_sources = { "type", "schema" }, fn = compiles } } } }
end

local function side(whose)
  return { type = "record", about = "what the " .. whose .. " sends",
    fields = { { text = messages(whose, "text") }, { binary = messages(whose, "binary") } },
    entity_checks = { { at_least_one_of = { "text", "binary" } } } }
end

return {
  name = "websocket-validator",
  fields = {
    { protocols = { type = "set", default = { "ws", "wss" },
      elements = { type = "string", one_of = { "http", "https", "ws", "wss" } } } },
    { config = { type = "record", required = true,
      fields = { { client = side "client" }, { upstream = side "service" } },
      entity_checks = { { at_least_one_of = { "client", "upstream" } } } } },
  },
}
