-- SPDX-License-Identifier: Apache-2.0
-- Schemas of a configuration, which are texts, as validators.
local json = require "sluice.json"
local json_schema = require "sluice.json_schema"
local record_schema = require "sluice.record_schema"

local validators = {}

-- Kong's names of the drafts.
local DRAFTS = { draft4 = "4", draft6 = "6", draft7 = "7", draft201909 = "2019-09", draft202012 = "2020-12" }

local function decode(text)
  local value, err = json.decode(text, { unique = true })
  if err then return nil, "expected JSON: " .. err end
  return value
end

-- A draft's validator, whose error is one text.
local function of_draft(schema, draft)
  local compiled, err = json_schema.compile(schema, { draft = draft })
  if not compiled then return nil, err end
  return function(value)
    local ok, errors = compiled:validate(value)
    if ok then return true end
    return false, json_schema.text(errors[1])
  end
end

local function of_kong(fields)
  local compiled, err = record_schema.compile(fields)
  if not compiled then return nil, err end
  return function(value)
    local ok, errors = compiled:validate(value)
    return ok, errors
  end
end

-- A function (value) that gives true, or false and what is wrong: a text, or texts by field.
---@param text string
---@param version string
---@return function|nil
---@return string|nil err
function validators.of_body(text, version)
  local schema, err = decode(text)
  if err then return nil, err end
  if version == "kong" then return of_kong(schema) end
  return of_draft(schema, DRAFTS[version])
end

-- Parameters are checked by draft 4 unless the version names a later one.
---@return function|nil validator
---@return table|string schema; or what is wrong with it
function validators.of_parameter(text, version)
  local schema, err = decode(text)
  if err then return nil, err end
  if type(schema) ~= "table" or schema.type == nil then return nil, "expected a schema with `type` at its top" end
  local validator, why = of_draft(schema, DRAFTS[version] or "4")
  if not validator then return nil, why end
  return validator, schema
end

return validators
