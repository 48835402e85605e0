-- SPDX-License-Identifier: Apache-2.0
-- References to secrets, as in Kong: {vault://env/NAME} is the environment variable NAME; {vault://env/NAME/KEY} is KEY
-- of the JSON object in it; ?prefix=P puts P before the name. A vault entity gives such settings a name of their own.
local cjson = require "cjson.safe"

local vault = {}

-- Is this text a reference, whole?
---@param text any
---@return boolean
function vault.is_reference(text)
  return type(text) == "string" and text:find("^{vault://.+}$") ~= nil
end

local function unescape(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function parse(reference)
  local name, rest = reference:match("^{vault://([^/?{}]+)/(.+)}$")
  if not name then return nil end
  local path, query = rest:match("^([^?]*)%??(.*)$")
  local secret, key = path:match("^([^/]+)/?(.*)$")
  if not secret then return nil end
  local settings = {}
  for field, value in query:gmatch("([^&=]+)=([^&]*)") do settings[field] = unescape(value) end
  return { vault = name, secret = unescape(secret), key = key ~= "" and unescape(key) or nil, settings = settings }
end

local function decode_base64(text)
  local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local bits, count, out = 0, 0, {}
  for char in text:gsub("[%s=]", ""):gmatch(".") do
    local digit = alphabet:find(char, 1, true)
    if not digit then return nil end
    bits, count = bits * 64 + digit - 1, count + 6
    if count >= 8 then
      count = count - 8
      local unit = 2 ^ count
      out[#out + 1] = string.char(math.floor(bits / unit))
      bits = bits % unit
    end
  end
  return table.concat(out)
end

local function variable_name(parsed, config)
  local prefix = parsed.settings.prefix or config.prefix or ""
  return (prefix .. parsed.secret):upper():gsub("-", "_")
end

local function member(value, key, name)
  local object = cjson.decode(value)
  if type(object) ~= "table" then return nil, ("a JSON object in the environment variable %s"):format(name) end
  local found = object[key]
  if found == nil or type(found) == "table" or found == cjson.null then
    return nil, ("a field %q in the JSON object of the environment variable %s"):format(key, name)
  end
  return tostring(found)
end

local function from_environment(parsed, config, getenv)
  local name = variable_name(parsed, config)
  local value = getenv(name)
  if value == nil then return nil, ("the environment variable %s"):format(name) end
  if parsed.key then
    local why
    value, why = member(value, parsed.key, name)
    if not value then return nil, why end
  end
  if config.base64_decode or parsed.settings.base64_decode == "true" then
    value = decode_base64(value)
    if not value then return nil, ("base64 in the environment variable %s"):format(name) end
  end
  return value
end

-- A function that gives the value of a reference; or nil and what it had expected to find.
---@param vaults table<string, table> configuration ({ prefix, base64_decode }) by the vault's name beside "env"
---@param getenv? fun(name: string): string|nil
---@return fun(reference: string): string|nil, string|nil
function vault.resolver(vaults, getenv)
  getenv = getenv or os.getenv
  return function(reference)
    local parsed = parse(reference)
    if not parsed then return nil, "a reference such as {vault://env/NAME}" end
    local config = parsed.vault == "env" and {} or vaults[parsed.vault]
    if not config then return nil, ('a vault named "env" or in the configuration, not %q'):format(parsed.vault) end
    return from_environment(parsed, config, getenv)
  end
end

local resolve_env = vault.resolver({})

-- The value of a reference to the environment; nil and why not.
---@param reference string
---@return string|nil value
---@return string|nil why
function vault.get(reference)
  local value, expected = resolve_env(reference)
  if value == nil then return nil, ("%s: expected %s, found nothing"):format(tostring(reference), expected) end
  return value
end

return vault
