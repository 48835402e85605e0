-- SPDX-License-Identifier: Apache-2.0
-- Media types: what a Content-Type says, and whether it is one of those that are allowed.

local lower, match = string.lower, string.match

local media_type = {}

local function unquoted(text)
  local inner = match(text, '^"(.*)"$')
  return inner and inner:gsub("\\(.)", "%1") or text
end

-- { kind, subtype, parameters by lower-case name }; nil: it is none.
---@param text string
---@return table|nil
function media_type.parse(text)
  local kind, subtype, rest = match(text, "^%s*([%w!#$&^_.+*-]+)/([%w!#$&^_.+*-]+)%s*(.*)$")
  if not kind then return nil end
  local parameters, count = {}, 0
  while rest ~= "" do
    local name, value, after = match(rest, '^;%s*([%w!#$&^_.+-]+)=("[^"]*")%s*(.*)$')
    if not name then name, value, after = match(rest, "^;%s*([%w!#$&^_.+-]+)=([^%s;]*)%s*(.*)$") end
    if not name then
      after = match(rest, "^;%s*(.*)$") -- nothing between two semicolons
      if not after then return nil end
    else
      name, value = lower(name), unquoted(value)
      if name == "charset" then value = lower(value) end
      parameters[name], count = value, count + 1
    end
    rest = after
  end
  return { kind = lower(kind), subtype = lower(subtype), parameters = parameters, count = count }
end

local function has_same_parameters(one, other)
  if one.count ~= other.count then return false end
  for name, value in pairs(one.parameters) do
    if other.parameters[name] ~= value then return false end
  end
  return true
end

-- Whether `sent` is what `allowed` names, where `*` stands for any.
---@param with_parameters boolean whether parameters have to be the same
---@return boolean
function media_type.is_allowed(allowed, sent, with_parameters)
  if allowed.kind ~= "*" and allowed.kind ~= sent.kind then return false end
  if allowed.subtype ~= "*" and allowed.subtype ~= sent.subtype then return false end
  return not with_parameters or has_same_parameters(allowed, sent)
end

---@return boolean whether its content is JSON
function media_type.is_json(sent)
  return sent.kind == "application" and (sent.subtype == "json" or sent.subtype:sub(-5) == "+json")
end

return media_type
