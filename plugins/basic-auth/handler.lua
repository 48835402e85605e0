-- SPDX-License-Identifier: Apache-2.0
-- Who sends a request is told by a user name and a password (RFC 7617).
local authentication = require "sluice.authentication"
local crypto = require "sluice.crypto"
local passwords = require "basic-auth.passwords"

local byte, find, lower, match, rep, sub = string.byte, string.find, string.lower, string.match, string.rep, string.sub
local SPACE = 32

local basic_auth = { version = "1.0.0", priority = 1100 }

local WRONG, BUSY = "Unauthorized", "Too many passwords are being checked"
local FIELDS = { "proxy-authorization", "authorization" } -- in the order in which they are looked at

local challenges = setmetatable({}, { __mode = "k" }) -- by configuration: fields of a refusal

function basic_auth.configure(confs)
  for _, conf in ipairs(confs or {}) do challenges[conf] = authentication.challenge("Basic", conf.realm) end
end

-- Patterns do not compile, so what clients usually send is read without them.
local function code_of(value)
  if byte(value, 6) == SPACE and lower(sub(value, 1, 5)) == "basic" and not find(value, " ", 7, true) then
    return sub(value, 7)
  end
  return match(value, "^%s*[Bb][Aa][Ss][Ii][Cc]%s+(%S+)%s*$")
end

local function text_of(value)
  local code = code_of(value)
  if not code then return nil end
  return crypto.base64_decode(code) or crypto.base64_decode(code .. rep("=", -#code % 4))
end

-- Name and password in a field; nil when there are none, or more than one could tell apart.
local function read(exchange, name)
  local value, several = authentication.field(exchange, name)
  local text = value and not several and text_of(value)
  local colon = text and find(text, ":", 1, true)
  if not colon or colon == 1 then return nil end
  return sub(text, 1, colon - 1), sub(text, colon + 1)
end

-- Other schemes are other plugins' business, or the service's. Of two fields nobody knows which one counts.
local function hide(exchange, name)
  local value, several = authentication.field(exchange, name)
  if several or value and value:find("^%s*[Bb][Aa][Ss][Ii][Cc]%s") then exchange.service.request:clear_alike(name) end
end

-- The credential of a request and the password that came with it; nil and the name that nobody has.
local function look_for(conf, exchange)
  local credential, name, password
  for i = 1, #FIELDS do
    local its_name, its_password = read(exchange, FIELDS[i])
    if conf.hide_credentials then hide(exchange, FIELDS[i]) end
    if its_name then
      name, password = its_name, its_password
      credential = exchange.client:load_credential("basicauth_credentials", "username", name)
      if credential then return credential, password end
    end
  end
  return nil, password, name
end

-- nil when it is known who it is, else what is wrong.
local function authenticate(conf, exchange)
  local credential, password, stranger = look_for(conf, exchange)
  if not password then return WRONG end
  local fits, busy = passwords.check(credential, stranger, password, exchange.client:get_forwarded_ip())
  if busy then return nil, busy end
  if not fits then return WRONG end
  authentication.accept(exchange, credential, credential.username)
end

function basic_auth.access(conf, exchange)
  if authentication.is_settled(conf, exchange) then return end
  local problem, busy = authenticate(conf, exchange)
  if busy then exchange.response:error(503, BUSY, { ["Retry-After"] = "1" }) end
  if problem then authentication.refuse(conf, exchange, problem, challenges[conf]) end
end

return basic_auth
