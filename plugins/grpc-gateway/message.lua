-- SPDX-License-Identifier: Apache-2.0
-- The request as a message: its body, the variables of its path, its query. Each part is encoded by itself, for
-- messages that stand one behind the other are one: of a field that several set, the last counts.
local crypto = require "sluice.crypto"
local json = require "sluice.json"
local query = require "sluice.query"
local rules = require "grpc-gateway.rules"

local message = {}

local ARGUMENTS_MOST = 1000
local HTTP_BODY = "google.api.HttpBody"

-- Puts a value where the names lead to.
local function put(target, names, value)
  for i = 1, #names - 1 do
    local inner = target[names[i]]
    if not inner then
      inner = {}
      target[names[i]] = inner
    end
    target = inner
  end
  target[names[#names]] = value
end

-- ---- The body -------------------------------------------------------------------------------------------------------

-- Which message the body is for: the request's, or that of the field which the rule names.
---@param rule table
---@return string|nil
function message.body_type(rule)
  if rule.body == "*" then return rule.method.input end
  return rule.field and rule.field.message
end

---@param rule table
---@return boolean whether the body is taken as it is, whatever it is
function message.takes_any_body(rule)
  return message.body_type(rule) == HTTP_BODY and not (rule.field and rule.field.repeated)
end

---@param api table
---@param rule table
---@param body string
---@param content_type? string
---@return string|nil bytes
---@return string|nil err
function message.of_body(api, rule, body, content_type)
  if message.takes_any_body(rule) then
    body = json.encode { contentType = content_type or "", data = crypto.base64_encode(body) }
  elseif body == "" then
    return ""
  end
  local field = rule.field and rule.field.name or nil
  local bytes, err = api.schema:to_binary(rule.method.input, body, api.input_flags, field)
  return bytes, err
end

-- ---- Path and query -------------------------------------------------------------------------------------------------

-- "limits[day]" names an entry of a map.
local function field_of(api, rule, name)
  local path, key = name:match("^(.-)%[([^%]]*)%]$")
  local names, field = rules.field(api.schema, rule.method.input, path or name)
  if not names or field.map ~= (key ~= nil) then return nil end
  if key then names[#names + 1] = key end
  return names, field
end

-- Fields that the path or the body has are theirs.
local function is_taken(rule, names)
  if rule.field and names[1] == rule.field.name then return true end
  return rule.bound[table.concat(names, ".")] == true
end

local function texts_of(value)
  local list = json.array()
  for i, item in ipairs(type(value) == "table" and value or { value }) do list[i] = item == true and "" or item end
  return list
end

local function put_argument(api, rule, target, name, value)
  local names, field = field_of(api, rule, name)
  if not names then
    return api.strict and ("there is no field %q"):format(name) or nil
  end
  if is_taken(rule, names) then return nil end
  local texts = texts_of(value)
  if field.repeated and not field.map then
    put(target, names, texts)
  elseif #texts > 1 then
    return ("%s: more than one value"):format(name)
  else
    put(target, names, texts[1])
  end
end

local function put_query(api, rule, target, text)
  local args, cut = query.decode(text, ARGUMENTS_MOST)
  if cut then return "too many arguments" end
  for name, value in pairs(args) do
    local err = put_argument(api, rule, target, name, value)
    if err then return err end
  end
end

---@param api table
---@param rule table
---@param values table of the path's variables
---@param text string the raw query
---@return string|nil bytes
---@return string|nil err
function message.of_target(api, rule, values, text)
  local target = {}
  if rule.body ~= "*" and text ~= "" then
    local err = put_query(api, rule, target, text)
    if err then return nil, err end
  end
  for _, variable in ipairs(values) do put(target, variable.names, variable.value) end
  if next(target) == nil then return "" end
  local bytes, err = api.schema:to_binary(rule.method.input, (json.encode(target)), api.input_flags)
  return bytes, err
end

return message
