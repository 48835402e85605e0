-- SPDX-License-Identifier: Apache-2.0
require "sluice.spec" -- whose core it is
local crypto = require "sluice.crypto"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local from_url = crypto.base64url_decode

-- Keys and signatures of RFC 7515 (appendix A.2, A.3) and RFC 8037 (appendix A).
local RFC = {
  rsa = {
    kind = "rsa", jwk = { kty = "RSA", e = "AQAB", n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQ"
      .. "p-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL"
      .. "-bSf63kpaS"
      .. "HSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGh"
      .. "yxXFvUK-DW"
      .. "NmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ" },
    input = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290"
      .. "Ijp0cnVlfQ",
    signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJ"
      .. "dbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcO"
      .. "Ln6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkW"
      .. "ywlVmtVrBp"
      .. "0igcN_IoypGlUPQGe77Rw",
  },
  ec = {
    kind = "ecdsa", jwk = { kty = "EC", crv = "P-256", x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
      y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" },
    d = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
    input = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290"
      .. "Ijp0cnVlfQ",
    signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
  },
  okp = {
    kind = "eddsa", jwk = { kty = "OKP", crv = "Ed25519", x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
    d = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    input = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
    signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
  },
}

local function with(jwk, changes)
  local copy = {}
  for name, value in pairs(jwk) do copy[name] = value end
  for name, value in pairs(changes) do copy[name] = value or nil end
  return copy
end

describe("crypto", function()
  for name, vector in pairs(RFC) do
    it("verifies the signature that the standard gives for a key of kind " .. name, function()
      local key = assert(crypto.key_from_jwk(vector.jwk))
      assert.equal(vector.jwk.kty, key.type)
      assert.equal(vector.jwk.crv, key.curve)
      assert.is_false(key.private)
      assert.is_true(crypto.verify(vector.kind, "sha256", key, vector.input, from_url(vector.signature)))
      assert.is_false(crypto.verify(vector.kind, "sha256", key, vector.input .. "x", from_url(vector.signature)))
      assert.same({ nil, "private key: it is a public one" }, { crypto.sign(vector.kind, "sha256", key, "x") })
    end)
  end

  it("signs with the private half of a JWK", function()
    local pair = assert(crypto.key_from_jwk(with(RFC.okp.jwk, { d = RFC.okp.d })))
    assert.equal(RFC.okp.signature, crypto.base64url_encode(crypto.sign("eddsa", nil, pair, RFC.okp.input)))
    pair = assert(crypto.key_from_jwk(with(RFC.ec.jwk, { d = RFC.ec.d })))
    assert.is_true(pair.private)
    local signature = assert(crypto.sign("ecdsa", "sha256", pair, "data"))
    assert.is_true(crypto.verify("ecdsa", "sha256", crypto.key_from_jwk(RFC.ec.jwk), "data", signature))
  end)

  for what, case in pairs {
    ["another kty"] = { { kty = "oct", k = "c2VjcmV0" }, "kty is neither RSA, EC nor OKP" },
    ["no kty"] = { {}, "kty is neither" },
    ["a missing number"] = { { kty = "RSA", e = "AQAB" }, "member n is missing" },
    ["a number that is no text"] = { with(RFC.ec.jwk, { x = 7 }), "member x is not base64url" },
    ["a number that is not base64url"] = { with(RFC.rsa.jwk, { e = "AQ+B" }), "member e is not base64url" },
    ["a point that is not on its curve"] = { with(RFC.ec.jwk, { y = RFC.ec.jwk.x }), "^key: " },
    ["a coordinate that is cut"] = { with(RFC.ec.jwk, { x = "AQAB" }), "^key: " },
    ["an unknown curve"] = { with(RFC.ec.jwk, { crv = "P-192" }), "^key: " },
    ["an exponent of 1"] = { with(RFC.rsa.jwk, { e = "AQ" }), "^key: " },
    ["an even exponent"] = { with(RFC.rsa.jwk, { e = "AgAC" }), "^key: " },
    ["a modulus that is too small"] = { with(RFC.rsa.jwk, { n = ("_"):rep(80) .. "8" }), "^key: " },
    ["a modulus that is too large"] = { with(RFC.rsa.jwk, { n = ("_"):rep(5000) }), "^key: " },
    ["an Edwards point of another length"] = { with(RFC.okp.jwk, { x = "AQAB" }), "^key: " },
    ["x5c without a certificate"] = { with(RFC.rsa.jwk, { x5c = { "AQAB" } }), "^key: " },
    ["an x5c that is empty"] = { with(RFC.rsa.jwk, { x5c = {} }), "x5c holds no certificate" },
  } do
    it("refuses a JWK with " .. what, function()
      local key, err = crypto.key_from_jwk(case[1])
      assert.is_nil(key)
      assert.matches(case[2], err)
    end)
  end

  describe("reads", function()
    local folder

    local function openssl(...)
      local status, output, err = process.run { "openssl", ... }
      assert(status == 0, err)
      return output
    end

    setup(function()
      folder = posix.temporary_directory()
      openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", folder .. "/rsa")
      openssl("req", "-x509", "-key", folder .. "/rsa", "-subj", "/CN=x", "-out", folder .. "/crt")
      openssl("genpkey", "-algorithm", "ED448", "-out", folder .. "/ed448")
      openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", folder .. "/p384")
      openssl("genpkey", "-algorithm", "X25519", "-out", folder .. "/x25519")
    end)
    teardown(function() process.remove(folder) end)

    local function read(name)
      return process.read_file(folder .. "/" .. name)
    end

    it("public keys, RSA's own form, certificates and private keys", function()
      local private = read "rsa"
      local signature = assert(crypto.sign("rsa", "sha512", private, "data"))
      for _, pem in ipairs { openssl("pkey", "-in", folder .. "/rsa", "-pubout"), read "crt", private,
        openssl("rsa", "-in", folder .. "/rsa", "-RSAPublicKey_out") } do
        local key = assert(crypto.key(pem))
        assert.same({ "RSA", 2048 }, { key.type, key.bits })
        assert.is_true(crypto.verify("rsa", "sha512", key, "data", signature))
        assert.is_false(crypto.verify("rsa_pss", "sha512", key, "data", signature))
      end
    end)

    it("the certificate of an x5c, which must hold the JWK's own key", function()
      local der = read("crt"):gsub("%-%-%-%-%-[^-]+%-%-%-%-%-", ""):gsub("%s", "")
      local signature = assert(crypto.sign("rsa_pss", "sha256", read "rsa", "data"))
      local key = assert(crypto.key_from_jwk { kty = "RSA", x5c = { der } })
      assert.is_true(crypto.verify("rsa_pss", "sha256", key, "data", signature))
      assert.same({ nil, "key: x5c holds another key than the JWK" },
        { crypto.key_from_jwk(with(RFC.rsa.jwk, { x5c = { der } })) })
      assert.same({ nil, "key: x5c holds a key of another kind" },
        { crypto.key_from_jwk(with(RFC.ec.jwk, { x5c = { der } })) })
    end)

    it("keys of other curves", function()
      local key = assert(crypto.key(read "ed448"))
      assert.same({ "OKP", "Ed448" }, { key.type, key.curve })
      assert.is_true(crypto.verify("eddsa", nil, key, "x", crypto.sign("eddsa", nil, key, "x")))
      key = assert(crypto.key(read "p384"))
      assert.same({ "EC", "P-384", 384 }, { key.type, key.curve, key.bits })
      assert.equal(96, #crypto.sign("ecdsa", "sha384", key, "x"))
    end)

    it("no key that is good for no signature, and nothing that is none", function()
      assert.same({ nil, "key: neither RSA, EC nor EdDSA" }, { crypto.key(read "x25519") })
      assert.matches("^key: ", select(2, crypto.key("no key")))
      assert.matches("^key: ", select(2, crypto.key("")))
    end)

    it("a key that a signature of another kind does not take", function()
      assert.same({ nil, "key: of another kind than the signature" },
        { crypto.verify("ecdsa", "sha256", read "rsa", "data", "x") })
      assert.same({ nil, "private key: of another kind than the signature" },
        { crypto.sign("eddsa", nil, read "rsa", "data") })
      assert.matches("key must be a key or a string of PEM, got a number",
        select(2, pcall(crypto.verify, "rsa", "sha256", 7, "data", "x")))
    end)
  end)
end)
