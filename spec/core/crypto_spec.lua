-- SPDX-License-Identifier: Apache-2.0
local ffi = require "ffi"
local core = require "spec.support.core"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local C = core.load("crypto.h", "crypto_key.h")

local failure = ffi.new("struct error")
local out = ffi.new("uint8_t[?]", 4096)
local kept = {}

local function slice(text)
  kept[#kept + 1] = text
  return ffi.new("struct slice", ffi.cast("const char *", text), #text)
end

local function hex(text)
  return (text:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function bytes(text)
  return (text:gsub("%X", ""):gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

local function result(len)
  len = tonumber(len)
  if len < 0 then return nil, len end
  return ffi.string(out, len)
end

local function encode(kind, text)
  local len = C.crypto_encode(kind, slice(text), ffi.cast("char *", out))
  assert.equal(C.crypto_encoded_len(kind, #text), len)
  return ffi.string(out, len)
end

local function decode(kind, text)
  local data = result(C.crypto_decode(kind, slice(text), ffi.cast("char *", out)))
  assert.is_true(not data or #data <= C.crypto_decoded_len(kind, #text))
  return data
end

describe("digests and authentication codes", function()
  before_each(function() kept = {} end)

  it("are those of the standards", function()
    local expected = {
      md5 = "900150983cd24fb0d6963f7d28e17f72", sha1 = "a9993e364706816aba3e25717850c26c9cd0d89d",
      sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      sha384 = "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed"
        .. "8086072ba1e7cc2358baeca134c825a7",
      sha224 = "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
      sha512 = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        .. "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    }
    for name, digest in pairs(expected) do
      local which = C.crypto_digest_parse(slice(name:upper()))
      assert.equal(digest, hex(result(C.crypto_digest(which, slice("abc"), out))), name)
    end
    assert.equal(-1, C.crypto_digest_parse(slice("sha3")))
    assert.equal("d41d8cd98f00b204e9800998ecf8427e", hex(result(C.crypto_digest(C.CRYPTO_MD5, slice(""), out))))
    assert.is_nil(result(C.crypto_digest(C.CRYPTO_DIGESTS, slice("abc"), out)))
  end)

  it("have a key (RFC 4231, test case 2), which may be empty", function()
    local function hmac(key, text)
      return hex(result(C.crypto_hmac(C.CRYPTO_SHA256, slice(key), slice(text), out)))
    end
    assert.equal("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
      hmac("Jefe", "what do ya want for nothing?"))
    assert.equal("b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad", hmac("", ""))
  end)
end)

describe("encodings", function()
  before_each(function() kept = {} end)

  it("are those of RFC 4648", function()
    local cases = { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", ["\255\239\190"] = "/+++" }
    for text, code in pairs(cases) do
      assert.equal(code, encode(C.CRYPTO_BASE64, text))
      assert.equal(text, decode(C.CRYPTO_BASE64, code))
      local url = code:gsub("=", ""):gsub("%+", "-"):gsub("/", "_")
      assert.equal(url, encode(C.CRYPTO_BASE64URL, text))
      assert.equal(text, decode(C.CRYPTO_BASE64URL, url))
    end
    assert.equal("fo", decode(C.CRYPTO_BASE64URL, "Zm8="))
    assert.equal("00ff1a", encode(C.CRYPTO_HEX, "\0\255\26"))
    assert.equal("\0\255\26", decode(C.CRYPTO_HEX, "00fF1A"))
  end)

  it("give back what went in, of any length", function()
    for len = 0, 100 do
      local text = {}
      for i = 1, len do text[i] = string.char((i * 73 + len * 31) % 256) end
      text = table.concat(text)
      for kind = 0, 2 do assert.equal(text, decode(kind, encode(kind, text))) end
    end
  end)

  for kind, codes in pairs {
    [0] = { "a", "0g", "0x" },
    [1] = { "Zg", "Zg=", "Zg===", "Z===", "====", "Zh==", "Zm9=", "Zm9v\n", "Z g=", "Zg==Zg==", "_-__", "\0\0\0\0" },
    [2] = { "Z", "Zg=", "Zh", "+/++", "Zg===", "Zm9v=" },
  } do
    for _, code in ipairs(codes) do
      it(("number %d refuses %q"):format(kind, code), function()
        assert.is_nil(decode(kind, code))
      end)
    end
  end
end)

describe("random bytes and comparison", function()
  it("differ, and tell equal from unequal", function()
    assert.equal(0, C.crypto_random(out, 32))
    local first = ffi.string(out, 32)
    C.crypto_random(out, 32)
    assert.is_false(C.crypto_equal(slice(first), slice(ffi.string(out, 32))))
    assert.is_true(C.crypto_equal(slice(first), slice(first)))
    assert.is_false(C.crypto_equal(slice("a"), slice("ab")))
    assert.is_true(C.crypto_equal(slice(""), slice("")))
  end)
end)

describe("signatures", function()
  local folder, keys
  local DATA = "the data"

  local function openssl(...)
    local status, output, err = process.run { "openssl", ... }
    assert(status == 0, err)
    return output
  end

  setup(function()
    folder, keys = posix.temporary_directory(), {}
    local kinds = { rsa = { "RSA", "rsa_keygen_bits:2048" }, p256 = { "EC", "ec_paramgen_curve:P-256" },
      p521 = { "EC", "ec_paramgen_curve:P-521" }, ed = { "ED25519" } }
    for name, kind in pairs(kinds) do
      local path = folder .. "/" .. name
      openssl("genpkey", "-algorithm", kind[1], "-out", path, unpack(kind[2] and { "-pkeyopt", kind[2] } or {}))
      keys[name] = { path = path, private = process.read_file(path), public = openssl("pkey", "-in", path, "-pubout") }
    end
    openssl("req", "-x509", "-key", folder .. "/p256", "-subj", "/CN=x", "-out", folder .. "/crt")
    keys.certificate = process.read_file(folder .. "/crt")
  end)
  teardown(function() process.remove(folder) end)
  before_each(function() kept = {} end)

  local function read(pem)
    local key = C.crypto_key_from_pem(slice(pem), failure)
    if key ~= nil then return ffi.gc(key, C.crypto_key_free) end
  end

  local function sign(kind, digest, key, data)
    local pair = read(key)
    return pair and result(C.crypto_key_sign(pair, kind, digest, slice(data or DATA), out, failure))
  end

  local function verify(kind, digest, key, signature, data)
    local public = read(key)
    return public and tonumber(C.crypto_key_verify(public, kind, digest, slice(data or DATA), slice(signature)))
  end

  for _, case in ipairs {
    { "CRYPTO_RSA", "rsa", 256 }, { "CRYPTO_RSA_PSS", "rsa", 256 }, { "CRYPTO_ECDSA", "p256", 64 },
    { "CRYPTO_ECDSA", "p521", 132 }, { "CRYPTO_ECDSA_DER", "p256" }, { "CRYPTO_EDDSA", "ed", 64 },
  } do
    it(("%s with %s are good for their data only"):format(case[1], case[2]), function()
      local kind, key = C[case[1]], keys[case[2]]
      local signature = sign(kind, C.CRYPTO_SHA256, key.private)
      if case[3] then assert.equal(case[3], #signature) end
      assert.equal(1, verify(kind, C.CRYPTO_SHA256, key.public, signature))
      assert.equal(0, verify(kind, C.CRYPTO_SHA256, key.public, signature, "other data"))
      assert.equal(0, verify(kind, C.CRYPTO_SHA256, key.public, signature:sub(2) .. "x"))
      assert.equal(0, verify(kind, C.CRYPTO_SHA256, key.public, ""))
      assert.equal(0, verify(kind, C.CRYPTO_SHA256, key.public, ("x"):rep(2000)))
    end)
  end

  it("are understood by others", function()
    process.write_file(folder .. "/data", DATA)
    process.write_file(folder .. "/signature", sign(C.CRYPTO_ECDSA_DER, C.CRYPTO_SHA384, keys.p256.private))
    process.write_file(folder .. "/public", keys.p256.public)
    assert.matches("Verified OK", openssl("dgst", "-sha384", "-verify", folder .. "/public", "-signature",
      folder .. "/signature", folder .. "/data"))
  end)

  it("verify with a certificate too", function()
    local signature = sign(C.CRYPTO_ECDSA, C.CRYPTO_SHA256, keys.p256.private)
    assert.equal(1, verify(C.CRYPTO_ECDSA, C.CRYPTO_SHA256, keys.certificate, signature))
  end)

  it("refuse a key of another kind, or none", function()
    assert.is_nil(sign(C.CRYPTO_RSA, C.CRYPTO_SHA256, keys.p256.private))
    assert.matches("of another kind", ffi.string(failure.text))
    assert.equal(-1, verify(C.CRYPTO_ECDSA, C.CRYPTO_SHA256, keys.rsa.public, "x"))
    assert.is_nil(verify(C.CRYPTO_RSA, C.CRYPTO_SHA256, "no key", "x"))
    assert.matches("^key: ", ffi.string(failure.text))
    assert.is_nil(sign(C.CRYPTO_RSA, C.CRYPTO_SHA256, keys.rsa.public))
    assert.matches("^private key: ", ffi.string(failure.text))
  end)
end)

describe("sealed text", function()
  local KEY, IV = ("k"):rep(32), ("i"):rep(12)
  before_each(function() kept = {} end)

  local function seal(key, iv, text, associated)
    return result(C.crypto_seal(slice(key), slice(iv), slice(text), slice(associated or ""), out, failure))
  end

  local function unseal(key, iv, text, associated)
    return result(C.crypto_open(slice(key), slice(iv), slice(text), slice(associated or ""), out, failure))
  end

  it("is AES-GCM (test case 4 of its specification)", function()
    local key, iv = bytes "feffe9928665731c6d6a8f9467308308", bytes "cafebabefacedbaddecaf888"
    local text = bytes [[d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
      1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39]]
    assert.equal("42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa05"
      .. "1ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47",
      hex(seal(key, iv, text, bytes "feedfacedeadbeeffeedfacedeadbeefabaddad2")))
  end)

  it("opens with the same key, IV and associated text only, and unchanged", function()
    for _, len in ipairs { 16, 24, 32 } do
      local key = KEY:sub(1, len)
      local sealed = seal(key, IV, "hello", "for")
      assert.equal(5 + 16, #sealed)
      assert.equal("hello", unseal(key, IV, sealed, "for"))
      assert.is_nil(unseal(key, IV, sealed, "from"))
      assert.is_nil(unseal(("x"):rep(len), IV, sealed, "for"))
      assert.is_nil(unseal(key, ("j"):rep(12), sealed, "for"))
      assert.is_nil(unseal(key, IV, "x" .. sealed:sub(2), "for"))
    end
    assert.equal("", unseal(KEY, IV, seal(KEY, IV, "")))
  end)

  it("refuses keys, IVs and texts of a wrong size", function()
    assert.is_nil(seal("short", IV, "x"))
    assert.matches("5 bytes, not 16, 24 or 32", ffi.string(failure.text))
    assert.is_nil(seal(KEY, "short", "x"))
    assert.is_nil(unseal(KEY, IV, ("x"):rep(15)))
  end)
end)

describe("scrypt", function()
  it("is that of RFC 7914", function()
    assert.equal(0, C.crypto_scrypt(slice("password"), slice("NaCl"), 1024, 8, 16, out, 64, failure))
    assert.equal("fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
      .. "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640", hex(ffi.string(out, 64)))
  end)

  it("says when its numbers are of no use", function()
    assert.equal(-1, C.crypto_scrypt(slice("p"), slice("s"), 1000, 8, 1, out, 64, failure))
    assert.matches("^scrypt: ", ffi.string(failure.text))
  end)
end)
