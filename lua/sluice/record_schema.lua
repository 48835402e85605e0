-- SPDX-License-Identifier: Apache-2.0
-- Kong's own form of schemas for values that come with requests: fields by name, each with its type and what it asks
-- for (`[{ "name": { "type": "string", "required": true } }]`), as plugins describe their configuration.
local arguments = require "sluice.schema.arguments"
local schema = require "sluice.schema"

---@class sluice.record_schema
local record_schema = {}

local REQUIRED = "required field missing"

-- "name: expected ..." of each field, in tables as the fields stand in each other.
local function by_field(errors)
  local result = {}
  for _, err in ipairs(errors) do
    local at, keys = result, err.keys
    for i = 2, #keys - 1 do
      if type(at[keys[i]]) ~= "table" then at[keys[i]] = {} end
      at = at[keys[i]]
    end
    local text = err.message or "expected " .. err.expected .. ", found " .. tostring(err.found)
    if err.found == "nothing" then text = REQUIRED end
    at[keys[math.max(2, #keys)] or "value"] = text
  end
  return result
end

---@class sluice.record_schema.validator
local Validator = {}
local validator_mt = { __index = Validator, __metatable = false }
local normals = setmetatable({}, { __mode = "k" })

---@param value any as sluice.json decodes
---@return boolean
---@return table|nil errors texts by field
function Validator:validate(value)
  local result, errors = schema.process(normals[self], value)
  if result then return true end
  return false, by_field(errors)
end

---@param fields table[] a list of { name = field }
---@return sluice.record_schema.validator|nil
---@return string|nil err
function record_schema.compile(fields)
  if type(fields) ~= "table" or (next(fields) ~= nil and fields[1] == nil) then
    return nil, "expected a list of fields"
  end
  for i = 1, #fields do
    if type(fields[i]) ~= "table" or next(fields[i]) == nil then return nil, "expected a list of fields" end
  end
  local fault = arguments.fault(fields)
  if fault then return nil, fault end
  local normal, err = schema.normalise { name = "value",
    fields = { { config = { type = "record", required = true, fields = fields } } } }
  if not normal then return nil, err end
  local ok, why = pcall(schema.process, normal, {})
  if not ok then return nil, tostring(why) end
  local validator = setmetatable({}, validator_mt)
  normals[validator] = normal
  return validator
end

return record_schema
