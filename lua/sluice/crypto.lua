-- SPDX-License-Identifier: Apache-2.0
-- Digests, codes, encodings, signatures and sealed text. All of it is done by OpenSSL in the core.

local ffi = require "ffi"
local core = require "sluice.api.core"
local check = require "sluice.api.check"
local native = require "sluice.ffi"

local C, worker = core.C, core.worker
local pure = native.C -- needs no worker: works while the configuration is checked, too
local E = core.E
local ffi_new, ffi_string = ffi.new, ffi.string

---@class sluice.crypto
local crypto = {}

local DIGESTS = { md5 = 0, sha1 = 1, sha256 = 2, sha384 = 3, sha512 = 4 } -- enum crypto_digest
local KINDS = { rsa = 0, rsa_pss = 1, ecdsa = 2, ecdsa_der = 3, eddsa = 4 } -- enum crypto_signature
local HEX, BASE64, BASE64URL = 0, 1, 2 -- enum crypto_encoding

local scratch = ffi_new("char[?]", 1024) -- CRYPTO_SIGNATURE_MAX, the longest of what has a bound

local function digest_number(name, kind)
  local number = DIGESTS[kind]
  if not number then
    check.fail(name, "digest must be md5, sha1, sha256, sha384 or sha512, got " .. tostring(kind), 4)
  end
  return number
end

---@param kind "md5"|"sha1"|"sha256"|"sha384"|"sha512"
---@param data string
---@return string bytes
function crypto.digest(kind, data)
  check.string("sluice.crypto.digest", "data", data)
  local written = pure.bridge_crypto_digest(digest_number("sluice.crypto.digest", kind), data, #data, scratch)
  return ffi_string(scratch, written)
end

---@param kind "md5"|"sha1"|"sha256"|"sha384"|"sha512"
---@param key string
---@param data string
---@return string bytes
function crypto.hmac(kind, key, data)
  check.string("sluice.crypto.hmac", "key", key)
  check.string("sluice.crypto.hmac", "data", data)
  local number = digest_number("sluice.crypto.hmac", kind)
  return ffi_string(scratch, pure.bridge_crypto_hmac(number, key, #key, data, #data, scratch))
end

-- Whether two texts are equal, in a time that depends on their lengths only: for secrets.
---@param a string
---@param b string
---@return boolean
function crypto.equal(a, b)
  check.string("sluice.crypto.equal", "a", a)
  check.string("sluice.crypto.equal", "b", b)
  return pure.bridge_crypto_equal(a, #a, b, #b)
end

-- ---- Encodings ----

local function encode(encoding, data)
  local room = pure.bridge_crypto_encoded_len(encoding, #data)
  local out = room <= 1024 and scratch or ffi_new("char[?]", room)
  return ffi_string(out, pure.bridge_crypto_encode(encoding, data, #data, out))
end

local function decode(encoding, text)
  local room = pure.bridge_crypto_decoded_len(encoding, #text)
  local out = room <= 1024 and scratch or ffi_new("char[?]", room)
  local written = pure.bridge_crypto_decode(encoding, text, #text, out)
  if written < 0 then return nil end
  return ffi_string(out, written)
end

---@param data string
---@return string lower-case hex digits
function crypto.hex(data)
  check.string("sluice.crypto.hex", "data", data)
  return encode(HEX, data)
end

---@param text string
---@return string|nil bytes nil: not hex
function crypto.from_hex(text)
  check.string("sluice.crypto.from_hex", "text", text)
  return decode(HEX, text)
end

---@param data string
---@return string
function crypto.base64_encode(data)
  check.string("sluice.crypto.base64_encode", "data", data)
  return encode(BASE64, data)
end

---@param text string
---@return string|nil bytes nil: not base64
function crypto.base64_decode(text)
  check.string("sluice.crypto.base64_decode", "text", text)
  return decode(BASE64, text)
end

---@param data string
---@return string without padding
function crypto.base64url_encode(data)
  check.string("sluice.crypto.base64url_encode", "data", data)
  return encode(BASE64URL, data)
end

---@param text string with or without padding
---@return string|nil bytes nil: not base64url
function crypto.base64url_decode(text)
  check.string("sluice.crypto.base64url_decode", "text", text)
  return decode(BASE64URL, text)
end

-- ---- Randomness ----

---@param count integer bytes, 1 to 65536
---@return string
function crypto.random(count)
  check.integer("sluice.crypto.random", "count", count, 1, 65536)
  local out = count <= 1024 and scratch or ffi_new("char[?]", count)
  C.bridge_random(worker, out, count)
  return ffi_string(out, count)
end

-- ---- Signatures ----

-- Points into the text, which a variable of the caller must hold until C is done.
local function bytes_of(text)
  local bytes = ffi_new("struct bytes[1]")
  bytes[0].data, bytes[0].len = text, #text
  return bytes
end

local function kind_number(name, kind)
  local number = KINDS[kind]
  if not number then
    check.fail(name, "kind must be rsa, rsa_pss, ecdsa, ecdsa_der or eddsa, got " .. tostring(kind), 4)
  end
  return number
end

---@param kind "rsa"|"rsa_pss"|"ecdsa"|"ecdsa_der"|"eddsa" ecdsa: r and s side by side, as JOSE has it
---@param digest string not used by eddsa
---@param key_pem string private key
---@param data string
---@return string|nil signature
---@return string|nil err
function crypto.sign(kind, digest, key_pem, data)
  check.string("sluice.crypto.sign", "key_pem", key_pem)
  check.string("sluice.crypto.sign", "data", data)
  local number = kind_number("sluice.crypto.sign", kind)
  local digest_kind = kind == "eddsa" and 0 or digest_number("sluice.crypto.sign", digest)
  local written = C.bridge_crypto_sign(worker, number, digest_kind, bytes_of(key_pem), bytes_of(data), scratch)
  if written < 0 then return nil, core.reason(written) end
  return ffi_string(scratch, written)
end

---@param kind "rsa"|"rsa_pss"|"ecdsa"|"ecdsa_der"|"eddsa"
---@param digest string not used by eddsa
---@param key_pem string public key or certificate
---@param data string
---@param signature string
---@return boolean|nil whether the signature is good; nil when the key is of no use
---@return string|nil err
function crypto.verify(kind, digest, key_pem, data, signature)
  local name = "sluice.crypto.verify"
  check.string(name, "key_pem", key_pem)
  check.string(name, "data", data)
  check.string(name, "signature", signature)
  local digest_kind = kind == "eddsa" and 0 or digest_number(name, digest)
  local status = C.bridge_crypto_verify(worker, kind_number(name, kind), digest_kind, bytes_of(key_pem),
    bytes_of(data), bytes_of(signature))
  if status == E.BRIDGE_OK then return true end
  if status == E.BRIDGE_NONE then return false end
  return nil, core.reason(status)
end

-- ---- Sealed text ----

local IV_BYTES, TAG_BYTES = 12, 16

-- AES-GCM: secret and unchangeable. The IV, made here, stands in front of the sealed text.
---@param key string 16, 24 or 32 bytes
---@param data string
---@param associated? string protected with it, but not in it
---@return string|nil sealed
---@return string|nil err
function crypto.seal(key, data, associated)
  check.string("sluice.crypto.seal", "key", key)
  check.string("sluice.crypto.seal", "data", data)
  check.string_or_nil("sluice.crypto.seal", "associated", associated)
  local iv = crypto.random(IV_BYTES)
  local out = ffi_new("char[?]", #data + TAG_BYTES)
  local written = C.bridge_crypto_seal(worker, bytes_of(key), bytes_of(iv), bytes_of(data),
    associated and bytes_of(associated), out)
  if written < 0 then return nil, core.reason(written) end
  return iv .. ffi_string(out, written)
end

---@param key string
---@param sealed string as `seal` gave it
---@param associated? string
---@return string|nil data nil: changed, or sealed with another key
---@return string|nil err
function crypto.open(key, sealed, associated)
  check.string("sluice.crypto.open", "key", key)
  check.string("sluice.crypto.open", "sealed", sealed)
  check.string_or_nil("sluice.crypto.open", "associated", associated)
  if #sealed < IV_BYTES + TAG_BYTES then return nil, "too short for sealed text" end
  local out = ffi_new("char[?]", #sealed)
  local iv, text = sealed:sub(1, IV_BYTES), sealed:sub(IV_BYTES + 1)
  local written = C.bridge_crypto_open(worker, bytes_of(key), bytes_of(iv), bytes_of(text),
    associated and bytes_of(associated), out)
  if written < 0 then return nil, core.reason(written) end
  return ffi_string(out, written)
end

-- ---- Passwords ----

-- scrypt (RFC 7914). Slow by intent: cache what it says.
---@param password string
---@param salt string
---@param options? { n: integer, r: integer, p: integer, len: integer } 16384, 8, 1, 32 unless told
---@return string|nil bytes
---@return string|nil err
function crypto.scrypt(password, salt, options)
  check.string("sluice.crypto.scrypt", "password", password)
  check.string("sluice.crypto.scrypt", "salt", salt)
  options = options or {}
  local len = options.len or 32
  check.integer("sluice.crypto.scrypt", "len", len, 1, 1024)
  local status = C.bridge_crypto_scrypt(worker, bytes_of(password), bytes_of(salt), options.n or 16384,
    options.r or 8, options.p or 1, scratch, len)
  if status ~= 0 then return nil, core.reason(status) end
  return ffi_string(scratch, len)
end

return crypto
