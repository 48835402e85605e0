-- SPDX-License-Identifier: Apache-2.0
-- The drafts of JSON Schema, and where in each of them schemas stand within schemas.

local drafts = {}

local function set(words)
  local result = {}
  for word in words:gmatch("%S+") do result[word] = true end
  return result
end

local function merge(base, more)
  local result = {}
  for name in pairs(base) do result[name] = true end
  for name in pairs(more) do result[name] = true end
  return result
end

local ONE_4 = set "additionalProperties additionalItems not items"
local ONE_6 = merge(ONE_4, set "contains propertyNames")
local ONE_7 = merge(ONE_6, set "if then else")
local ONE_2019 = merge(ONE_7, set "unevaluatedItems unevaluatedProperties contentSchema")
local LIST_4 = set "allOf anyOf oneOf items"
local MAP_4 = set "properties patternProperties definitions dependencies"
local MAP_2019 = merge(MAP_4, set "$defs dependentSchemas")

-- id: the keyword that names a schema; alone: nothing beside a `$ref` counts; one, list, map: keywords whose value is a
-- schema, a list of schemas, schemas by name; number: for comparing.
drafts["4"] = { number = 4, id = "id", alone = true, one = ONE_4, list = LIST_4, map = MAP_4 }
drafts["6"] = { number = 6, id = "$id", alone = true, one = ONE_6, list = LIST_4, map = MAP_4 }
drafts["7"] = { number = 7, id = "$id", alone = true, one = ONE_7, list = LIST_4, map = MAP_4 }
drafts["2019-09"] = { number = 2019, id = "$id", alone = false, one = ONE_2019, list = LIST_4, map = MAP_2019 }
drafts["2020-12"] = { number = 2020, id = "$id", alone = false, one = ONE_2019,
  list = set "allOf anyOf oneOf prefixItems", map = MAP_2019 }

local NAMES = {
  ["json-schema.org/draft-04/schema"] = "4", ["json-schema.org/draft-06/schema"] = "6",
  ["json-schema.org/draft-07/schema"] = "7", ["json-schema.org/draft/2019-09/schema"] = "2019-09",
  ["json-schema.org/draft/2020-12/schema"] = "2020-12",
}

-- The draft that a value of `$schema` names; nil: none that is known.
---@param name string
---@return table|nil
function drafts.named(name)
  return drafts[NAMES[name:gsub("^https?://", ""):gsub("#$", "")]]
end

return drafts
