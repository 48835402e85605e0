-- SPDX-License-Identifier: Apache-2.0
-- Who sends a request is told by a user name and a password (RFC 7617).
local authentication = require "sluice.authentication"
local crypto = require "sluice.crypto"
local passwords = require "basic-auth.passwords"

local basic_auth = { version = "1.0.0", priority = 1100 }

local WRONG, BUSY = "Unauthorized", "Too many passwords are being checked"
local FIELDS = { "proxy-authorization", "authorization" } -- in the order in which they are looked at

local challenges = setmetatable({}, { __mode = "k" }) -- by configuration: fields of a refusal

function basic_auth.configure(confs)
  for _, conf in ipairs(confs or {}) do challenges[conf] = authentication.challenge("Basic", conf.realm) end
end

local function text_of(value)
  local code = value:match("^%s*[Bb][Aa][Ss][Ii][Cc]%s+(%S+)%s*$")
  if not code then return nil end
  return crypto.base64_decode(code) or crypto.base64_decode(code .. ("="):rep(-#code % 4))
end

-- Name and password in a field; nil when there are none, or more than one could tell apart.
local function read(exchange, name)
  local value, several = authentication.field(exchange, name)
  local text = value and not several and text_of(value)
  if not text then return nil end
  return text:match("^([^:]+):(.*)$")
end

-- Other schemes are other plugins' business, or the service's. Of two fields nobody knows which one counts.
local function hide(exchange, name)
  local value, several = authentication.field(exchange, name)
  if several or value and value:find("^%s*[Bb][Aa][Ss][Ii][Cc]%s") then exchange.service.request:clear_alike(name) end
end

-- The credential of a request and the password that came with it; nil and the name that nobody has.
local function find(conf, exchange)
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
  local credential, password, stranger = find(conf, exchange)
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
