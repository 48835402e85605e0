-- SPDX-License-Identifier: Apache-2.0
-- Protobuf schemas of a registry: .proto texts, or descriptors in base64, with what they import.

local bit = require "bit"
local crypto = require "sluice.crypto"
local protobuf = require "sluice.protobuf"

local band, bor, rshift = bit.band, bit.bor, bit.rshift
local char, find, ipairs = string.char, string.find, ipairs

local protobuf_texts = {}

local ROOT = "schema.proto" -- what the schema itself is called, which nothing imports

local function varint(value)
  local out = ""
  while value >= 128 do
    out = out .. char(bor(band(value, 127), 128))
    value = rshift(value, 7)
  end
  return out .. char(value)
end

-- A FileDescriptorProto as a FileDescriptorSet of its own; sets stand one behind the other.
local function set_of(descriptor)
  return "\10" .. varint(#descriptor) .. descriptor
end

-- The descriptor that a text is in base64; nil: it is a .proto file.
local function descriptor_of(text)
  if find(text, "[^%w+/=\r\n]") then return nil end
  return crypto.base64_decode((text:gsub("[\r\n]", "")))
end

local function set_of_texts(schema)
  local texts = { [ROOT] = schema.text }
  for _, reference in ipairs(schema.references) do
    if descriptor_of(reference.text) then
      return nil, "reference " .. reference.name .. " is a descriptor, and the schema a .proto text"
    end
    texts[reference.name] = reference.text
  end
  local set, err = protobuf.compile(ROOT, texts)
  return set, err
end

local function set_of_descriptors(schema, root)
  local set = ""
  local texts = {}
  for _, reference in ipairs(schema.references) do
    local descriptor = descriptor_of(reference.text)
    local one, err
    if descriptor then
      one = set_of(descriptor)
    else
      texts[reference.name] = reference.text
      one, err = protobuf.compile(reference.name, texts)
      if not one then return nil, err end
    end
    set = set .. one
  end
  return set .. set_of(root)
end

---@param schema { text: string, references: { name: string, text: string }[] }
---@return sluice.protobuf.schema|nil
---@return string|nil err
function protobuf_texts.load(schema)
  local root = descriptor_of(schema.text)
  local set, err
  if root then
    set, err = set_of_descriptors(schema, root)
  else
    set, err = set_of_texts(schema)
  end
  if not set then return nil, err end
  local loaded, why = protobuf.load(set)
  return loaded, why
end

return protobuf_texts
