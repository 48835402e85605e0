-- SPDX-License-Identifier: Apache-2.0
-- What a schema's record is called, as Confluent's strategies RecordName and TopicRecordName name subjects: the full
-- name of an Avro type, the title of a JSON Schema, the full name of the first message of a Protobuf schema.

local crypto = require "sluice.crypto"
local json = require "sluice.json"
local protobuf_texts = require "sluice.serde.protobuf_texts"
local recent = require "sluice.recent"

local find, type = string.find, type

local names = {}

local KEPT, KEPT_BYTES = 1000, 512 * 1024

local known = recent.new(KEPT, KEPT_BYTES) -- by digest: to read a Protobuf schema takes part of a millisecond

local function string_or_nil(value)
  if type(value) == "string" and value ~= "" then return value end
end

local of = {}

function of.JSON(schema)
  local document = json.decode(schema.text)
  return type(document) == "table" and string_or_nil(document.title) or nil
end

-- A schema of one word, such as "string", has that as its name.
function of.AVRO(schema)
  local document = json.decode(schema.text)
  if type(document) == "string" then return document end
  if type(document) ~= "table" then return nil end
  local name, space = string_or_nil(document.name), string_or_nil(document.namespace)
  if not name then return string_or_nil(document.type) end
  return space and not find(name, ".", 1, true) and space .. "." .. name or name
end

function of.PROTOBUF(schema)
  local loaded, err = protobuf_texts.load(schema)
  if not loaded then return nil, err end
  return loaded:message_at { 0 }
end

-- Nil, and why where that is known, for a schema without a name.
---@param schema { text: string, type: "AVRO"|"JSON"|"PROTOBUF", references: table[] }
---@return string|nil name
---@return string|nil err
function names.of(schema)
  if schema.type ~= "PROTOBUF" or #schema.references > 0 then
    local name, err = of[schema.type](schema)
    return name, err
  end
  local digest = crypto.digest("sha256", schema.text)
  local name = known:get("PROTOBUF", digest)
  if name then return name end
  local err
  name, err = of.PROTOBUF(schema)
  if name then known:put("PROTOBUF", digest, name) end
  return name, err
end

return names
