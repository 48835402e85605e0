-- SPDX-License-Identifier: Apache-2.0
-- Digests, codes, encodings, keys, signatures and sealed text. All of it is done by OpenSSL in the core.

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

local DIGESTS = { md5 = 0, sha1 = 1, sha256 = 2, sha384 = 3, sha512 = 4, sha224 = 5 } -- enum crypto_digest
local KINDS = { rsa = 0, rsa_pss = 1, ecdsa = 2, ecdsa_der = 3, eddsa = 4 } -- enum crypto_signature
local HEX, BASE64, BASE64URL = 0, 1, 2 -- enum crypto_encoding

local scratch = ffi_new("char[?]", 1024) -- CRYPTO_SIGNATURE_MAX, the longest of what has a bound

local function digest_number(name, kind)
  local number = DIGESTS[kind]
  if not number then
    check.fail(name, "digest must be md5, sha1, sha224, sha256, sha384 or sha512, got " .. tostring(kind), 4)
  end
  return number
end

---@param kind "md5"|"sha1"|"sha224"|"sha256"|"sha384"|"sha512"
---@param data string
---@return string bytes
function crypto.digest(kind, data)
  check.string("sluice.crypto.digest", "data", data)
  local written = pure.bridge_crypto_digest(digest_number("sluice.crypto.digest", kind), data, #data, scratch)
  return ffi_string(scratch, written)
end

---@param kind "md5"|"sha1"|"sha224"|"sha256"|"sha384"|"sha512"
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

-- ---- Keys ----

local WHY_BYTES = 256

local why = ffi_new("char[?]", WHY_BYTES)
local info = ffi_new("struct key_info[1]")
local pointers = setmetatable({}, { __mode = "k" }) -- by object, so that no plugin holds a pointer

---@class sluice.crypto.key
---@field type "RSA"|"RSA-PSS"|"EC"|"OKP"
---@field curve string|nil "P-256", "P-384", "P-521", "Ed25519", "Ed448" or "other"; nil for RSA
---@field bits integer
---@field private boolean whether it can sign
local Key = {}
local key_mt = { __index = Key, __metatable = false }

local function new_key(pointer)
  if pointer == nil then return nil, ffi_string(why) end
  pointer = ffi.gc(pointer, pure.bridge_key_free)
  pure.bridge_key_tell(pointer, info)
  local it = info[0]
  local key = setmetatable({ type = ffi_string(it.type), curve = it.curve ~= nil and ffi_string(it.curve) or nil,
    bits = it.bits, private = it.is_private }, key_mt)
  pointers[key] = pointer
  return key
end

-- Reads a key once, for many signatures: reading takes longer than some of them, so it belongs into `configure`.
---@param pem string public key, certificate or private key
---@return sluice.crypto.key|nil
---@return string|nil err
function crypto.key(pem)
  check.string("sluice.crypto.key", "pem", pem)
  return new_key(pure.bridge_key_from_pem(pem, #pem, why, WHY_BYTES))
end

-- Members of a JWK that are numbers, and where they stand in struct jwk_parts.
local JWK_NUMBERS = {
  RSA = { n = "n", e = "e", d = "d", p = "p", q = "q", dp = "dp", dq = "dq", qi = "qi" },
  EC = { x = "x", y = "y", d = "d" },
  OKP = { x = "x", d = "d" },
}
local JWK_NEEDED = { RSA = { "n", "e" }, EC = { "x", "y" }, OKP = { "x" } }

local function jwk_parts(jwk, held)
  local parts = ffi_new("struct jwk_parts[1]")
  local function put(field, text)
    held[#held + 1] = text -- until C has read it
    parts[0][field].data, parts[0][field].len = text, #text
  end
  for member, field in pairs(JWK_NUMBERS[jwk.kty]) do
    local value = jwk[member]
    if value ~= nil then
      local bytes = type(value) == "string" and decode(BASE64URL, value)
      if not bytes then return nil, "key: member " .. member .. " is not base64url" end
      put(field, bytes)
    end
  end
  put("type", jwk.kty)
  if type(jwk.crv) == "string" then put("curve", jwk.crv) end
  return parts
end

local function key_of_numbers(jwk)
  for _, member in ipairs(JWK_NEEDED[jwk.kty]) do
    if jwk[member] == nil then return nil, "key: member " .. member .. " is missing" end
  end
  local held = {}
  local parts, err = jwk_parts(jwk, held)
  if not parts then return nil, err end
  local key
  key, err = new_key(pure.bridge_key_from_jwk(parts, why, WHY_BYTES))
  return key, err, held
end

local function key_of_chain(chain)
  local first = type(chain) == "table" and chain[1]
  local der = type(first) == "string" and decode(BASE64, first)
  if not der then return nil, "key: x5c holds no certificate in base64" end
  return new_key(pure.bridge_key_from_certificate(der, #der, why, WHY_BYTES))
end

-- The key of a JWK (RFC 7517): RSA, EC or OKP, by its numbers or the first certificate of its `x5c`; where it has both
-- they must be the same key. The chain of certificates is not checked: whoever publishes the JWK vouches for it.
---@param jwk table decoded JSON
---@return sluice.crypto.key|nil
---@return string|nil err
function crypto.key_from_jwk(jwk)
  check.table("sluice.crypto.key_from_jwk", "jwk", jwk)
  local kty = jwk.kty
  if not JWK_NEEDED[kty] then return nil, "key: kty is neither RSA, EC nor OKP" end
  local chain, numbers = jwk.x5c, jwk[JWK_NEEDED[kty][1]] ~= nil
  local of_chain, of_numbers, err
  if chain ~= nil then
    of_chain, err = key_of_chain(chain)
    if not of_chain then return nil, err end
    if of_chain.type:sub(1, #kty) ~= kty then return nil, "key: x5c holds a key of another kind" end
    if not numbers then return of_chain end
  end
  of_numbers, err = key_of_numbers(jwk)
  if not of_numbers then return nil, err end
  if of_chain and not pure.bridge_key_same(pointers[of_chain], pointers[of_numbers]) then
    return nil, "key: x5c holds another key than the JWK"
  end
  return of_numbers
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

-- A key, or what it is read from.
local function pointer_of(key, name)
  local pointer = pointers[key]
  if pointer then return pointer end
  if type(key) ~= "string" then
    check.fail(name, "key must be a key or a string of PEM, got a " .. type(key), 4)
  end
  local made, err = crypto.key(key)
  if not made then return nil, err end
  return pointers[made], made -- whose pointer it is: so that it lives
end

---@param kind "rsa"|"rsa_pss"|"ecdsa"|"ecdsa_der"|"eddsa" ecdsa: r and s side by side, as JOSE has it
---@param digest string not used by eddsa
---@param key sluice.crypto.key|string private key, or its PEM
---@param data string
---@return string|nil signature
---@return string|nil err
function crypto.sign(kind, digest, key, data)
  local name = "sluice.crypto.sign"
  check.string(name, "data", data)
  local number = kind_number(name, kind)
  local digest_kind = kind == "eddsa" and 0 or digest_number(name, digest)
  local pointer, made = pointer_of(key, name)
  if not pointer then return nil, made end
  local written = pure.bridge_key_sign(pointer, number, digest_kind, data, #data, scratch, why, WHY_BYTES)
  if written < 0 then return nil, ffi_string(why) end
  return ffi_string(scratch, written)
end

---@param kind "rsa"|"rsa_pss"|"ecdsa"|"ecdsa_der"|"eddsa"
---@param digest string not used by eddsa
---@param key sluice.crypto.key|string public key, or the PEM of one or of a certificate
---@param data string
---@param signature string
---@return boolean|nil whether the signature is good; nil when the key is of no use
---@return string|nil err
function crypto.verify(kind, digest, key, data, signature)
  local name = "sluice.crypto.verify"
  check.string(name, "data", data)
  check.string(name, "signature", signature)
  local number = kind_number(name, kind)
  local digest_kind = kind == "eddsa" and 0 or digest_number(name, digest)
  local pointer, made = pointer_of(key, name)
  if not pointer then return nil, made end
  local status = pure.bridge_key_verify(pointer, number, digest_kind, data, #data, signature, #signature)
  if status == 0 then return true end
  if status == E.BRIDGE_NONE then return false end
  return nil, "key: of another kind than the signature"
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

-- Whether a password is the one that a hash as of crypt(5) was made of. It waits: the work takes 20 ms, which a helper
-- thread does.
---@param password string
---@param hash string such as "$y$j9T$..."
---@return boolean|nil fits nil when it could not be found out
---@return string|nil err
function crypto.check_password(password, hash)
  check.string("sluice.crypto.check_password", "password", password)
  check.string("sluice.crypto.check_password", "hash", hash)
  local status = core.wait(C.bridge_password_check(worker, password, #password, hash, #hash))
  if status == E.BRIDGE_OK then return true end
  if status == E.BRIDGE_NONE or status == E.BRIDGE_INVALID then return false end
  return nil, core.reason(status)
end

return crypto
