-- SPDX-License-Identifier: Apache-2.0
-- Certificates of clients: what one says, whether authorities vouch for it, and whether it has been revoked since.
-- Certificates and lists are texts, PEM unless told.

local ffi = require "ffi"
local check = require "sluice.api.check"
local native = require "sluice.ffi"
local time = require "sluice.time"

local C = native.C
local ffi_new, ffi_string = ffi.new, ffi.string
local find, sub, tonumber = string.find, string.sub, tonumber

---@class sluice.certificate
local certificate = {}

local WHY_BYTES = 256
local MOST = 65536 -- CRYPTO_FIELDS_MOST

local why = ffi_new("char[?]", WHY_BYTES)
local room -- made when it is first needed
local pointers = setmetatable({}, { __mode = "k" }) -- by object, so that no plugin holds a pointer

local function buffer()
  room = room or ffi_new("char[?]", MOST)
  return room
end

-- Points into the text, which a variable of the caller must hold until C is done.
local function bytes_of(text)
  local bytes = ffi_new("struct bytes[1]")
  bytes[0].data, bytes[0].len = text, #text
  return bytes
end

-- "name:length:value,name:length:value," to a function that is given each.
local function each_field(text, take, into)
  local at = 1
  while at <= #text do
    local colon = find(text, ":", at, true)
    local second = find(text, ":", colon + 1, true)
    local len = tonumber(sub(text, colon + 1, second - 1))
    take(into, sub(text, at, colon - 1), sub(text, second + 1, second + len))
    at = second + len + 2
  end
  return into
end

local LISTS = { dns = "dns", email = "email", uri = "uri", ip = "ip", ocsp = "ocsp", crl = "crl" }
local NUMBERS = { not_before = true, not_after = true, authority = true }

local function take_field(info, name, value)
  local list = LISTS[name] and info[name]
  if list then
    list[#list + 1] = value
  else
    info[name] = NUMBERS[name] and tonumber(value) or value
  end
end

---@class sluice.certificate.info
---@field subject string distinguished name (RFC 4514)
---@field cn string|nil common name, the last one
---@field issuer string distinguished name
---@field serial string hexadecimal
---@field not_before integer seconds since 1970
---@field not_after integer
---@field dns string[] alternative names
---@field email string[]
---@field uri string[]
---@field ip string[]
---@field ocsp string[] URLs at which it can be asked whether it has been revoked
---@field crl string[] URLs of lists of revoked ones

-- What a certificate says, which nobody need have vouched for.
---@param pem string the first in it
---@return sluice.certificate.info|nil
---@return string|nil err
function certificate.read(pem)
  check.string("sluice.certificate.read", "pem", pem)
  local written = C.bridge_certificate_tell(pem, #pem, buffer(), why, WHY_BYTES)
  if written < 0 then return nil, ffi_string(why) end
  return each_field(ffi_string(room, written), take_field, { dns = {}, email = {}, uri = {}, ip = {}, ocsp = {},
    crl = {} })
end

---@class sluice.certificate.authorities
local Authorities = {}
local authorities_mt = { __index = Authorities, __metatable = false }

-- Reads authorities once, for many certificates.
---@param pem string one behind the other
---@param options? { partial: boolean } partial: each of them ends a chain, not only those that sign themselves
---@return sluice.certificate.authorities|nil
---@return string|nil err
function certificate.authorities(pem, options)
  check.string("sluice.certificate.authorities", "pem", pem)
  check.table_or_nil("sluice.certificate.authorities", "options", options)
  local partial = options ~= nil and options.partial == true
  local pointer = C.bridge_authorities_new(pem, #pem, partial, why, WHY_BYTES)
  if pointer == nil then return nil, ffi_string(why) end
  local object = setmetatable({}, authorities_mt)
  pointers[object] = ffi.gc(pointer, C.bridge_authorities_free)
  return object
end

-- Whether it is a client's certificate that they vouch for.
---@param pem string the certificate, and behind it those that may help
---@param now? number seconds since 1970, the time unless told
---@return { issuer: string, authority: integer }|nil the one (PEM) that signed it, and which of the authorities ends
---  the chain, from 1
---@return string|nil err
function Authorities:verify(pem, now)
  check.string("authorities:verify", "pem", pem)
  local written = C.bridge_certificate_verify(pointers[self], pem, #pem, now or time.now(), buffer(), why, WHY_BYTES)
  if written < 0 then return nil, ffi_string(why) end
  return each_field(ffi_string(room, written), take_field, {})
end

-- The body (application/ocsp-request) that asks whether a certificate has been revoked.
---@param pem string
---@param issuer string PEM of the one that signed it
---@return string|nil
---@return string|nil err
function certificate.ocsp_request(pem, issuer)
  check.string("sluice.certificate.ocsp_request", "pem", pem)
  check.string("sluice.certificate.ocsp_request", "issuer", issuer)
  local written = C.bridge_ocsp_request(bytes_of(pem), bytes_of(issuer), buffer(), why, WHY_BYTES)
  if written < 0 then return nil, ffi_string(why) end
  return ffi_string(room, written)
end

local until_s = ffi_new("double[1]")
local STATES = { [1] = "good", [2] = "revoked" } -- enum crypto_revocation

local function state(request, answer, pem, issuer, now)
  local found = C.bridge_revocation(bytes_of(request), bytes_of(answer), bytes_of(pem), bytes_of(issuer), now,
    until_s, why, WHY_BYTES)
  if not STATES[found] then return nil, ffi_string(why) end
  return STATES[found], until_s[0] > 0 and until_s[0] or nil
end

-- What the answer to such a request says, which its issuer, or somebody for it, must have signed.
---@param request string as `ocsp_request` gave it
---@param answer string body of the response
---@param pem string
---@param issuer string
---@param now? number seconds since 1970, the time unless told
---@return "good"|"revoked"|nil
---@return number|string|nil until when that holds, seconds since 1970; or why it says neither
function certificate.ocsp_read(request, answer, pem, issuer, now)
  for name, value in pairs { request = request, answer = answer, pem = pem, issuer = issuer } do
    check.string("sluice.certificate.ocsp_read", name, value)
  end
  local found, more = state(request, answer, pem, issuer, now or time.now())
  return found, more
end

-- What a list of revoked certificates says, which their issuer must have signed.
---@param list string DER or PEM
---@param pem string
---@param issuer string
---@param now? number seconds since 1970, the time unless told
---@return "good"|"revoked"|nil
---@return number|string|nil until when that holds; or why it says neither
function certificate.crl_read(list, pem, issuer, now)
  for name, value in pairs { list = list, pem = pem, issuer = issuer } do
    check.string("sluice.certificate.crl_read", name, value)
  end
  local found, more = state("", list, pem, issuer, now or time.now())
  return found, more
end

return certificate
