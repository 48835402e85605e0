-- SPDX-License-Identifier: Apache-2.0
-- Keys for the specs: P-256 of RFC 7515 (A.3), Ed25519 of RFC 8037 (A.1), and RSA made on the spot.
local crypto = require "sluice.crypto"
local posix = require "spec.support.posix"
local process = require "spec.support.process"

local keys = {}

local EC = { kty = "EC", crv = "P-256", x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
  y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", d = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI" }
local OKP = { kty = "OKP", crv = "Ed25519", x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
  d = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A" }

keys.EC_PUBLIC = [[
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7
6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==
-----END PUBLIC KEY-----
]]

-- Private keys.
function keys.ec() return assert(crypto.key_from_jwk(EC)) end
function keys.okp() return assert(crypto.key_from_jwk(OKP)) end

-- The public half of one of these, as a JWK.
function keys.jwk(which, changes)
  local jwk = {}
  for name, value in pairs(which == "ec" and EC or OKP) do jwk[name] = value end
  jwk.d = nil
  for name, value in pairs(changes or {}) do jwk[name] = value end
  return jwk
end

local function openssl(...)
  local status, output, err = process.run { "openssl", ... }
  assert(status == 0, err)
  return output
end

-- { private = PEM, public = PEM } of a new key, such as ("RSA", "rsa_keygen_bits:2048").
function keys.new(algorithm, option)
  local folder = posix.temporary_directory()
  local path = folder .. "/key"
  openssl("genpkey", "-algorithm", algorithm, "-out", path, unpack(option and { "-pkeyopt", option } or {}))
  local made = { private = process.read_file(path), public = openssl("pkey", "-in", path, "-pubout") }
  if algorithm == "RSA" then
    made.modulus = openssl("rsa", "-in", path, "-noout", "-modulus"):match("=(%x+)")
  end
  process.remove(folder)
  return made
end

-- A public RSA key as a JWK (its exponent is 65537).
function keys.rsa_jwk(made, changes)
  local jwk = { kty = "RSA", e = "AQAB", n = crypto.base64url_encode(crypto.from_hex(made.modulus)) }
  for name, value in pairs(changes or {}) do jwk[name] = value end
  return jwk
end

return keys
