// SPDX-License-Identifier: Apache-2.0
// What Lua may call of crypto: thin bodies over the modules.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "bridge.h"
#include "crypto.h"
#include "crypto_certificate.h"
#include "crypto_key.h"
#include "passwords.h"
#include "phase.h"
#include "worker.h"

static struct slice slice_from(const char *data, uint32_t len) {
  return (struct slice){data, len};
}

static struct slice slice_of_bytes(const struct bytes *bytes) {
  return bytes ? (struct slice){bytes->data, bytes->len} : (struct slice){NULL, 0};
}

static int failed(struct worker *worker, const struct error *error) {
  worker->error = *error;
  return BRIDGE_FAILED;
}

// ---- Digests and encodings ----

int bridge_crypto_digest_parse(const char *name, uint32_t len) {
  return crypto_digest_parse(slice_from(name, len));
}

int bridge_crypto_digest(int digest, const char *data, uint32_t len, char *out) {
  int count = crypto_digest((enum crypto_digest)digest, slice_from(data, len), (uint8_t *)out);
  return count < 0 ? BRIDGE_INVALID : count;
}

int bridge_crypto_hmac(int digest, const char *key, uint32_t key_len, const char *data, uint32_t len, char *out) {
  int count = crypto_hmac((enum crypto_digest)digest, slice_from(key, key_len), slice_from(data, len), (uint8_t *)out);
  return count < 0 ? BRIDGE_INVALID : count;
}

uint32_t bridge_crypto_encoded_len(int encoding, uint32_t len) {
  return crypto_encoded_len((enum crypto_encoding)encoding, len);
}

uint32_t bridge_crypto_decoded_len(int encoding, uint32_t len) {
  return crypto_decoded_len((enum crypto_encoding)encoding, len);
}

int bridge_crypto_encode(int encoding, const char *data, uint32_t len, char *out) {
  if (len > INT32_MAX / 2) return BRIDGE_INVALID;
  return (int)crypto_encode((enum crypto_encoding)encoding, slice_from(data, len), out);
}

int bridge_crypto_decode(int encoding, const char *text, uint32_t len, char *out) {
  if (len > INT32_MAX) return BRIDGE_INVALID;
  int64_t count = crypto_decode((enum crypto_encoding)encoding, slice_from(text, len), out);
  return count < 0 ? BRIDGE_INVALID : (int)count;
}

bool bridge_crypto_equal(const char *a, uint32_t a_len, const char *b, uint32_t b_len) {
  return crypto_equal(slice_from(a, a_len), slice_from(b, b_len));
}

// ---- Keys and signatures ----

static struct crypto_key *made(struct crypto_key *key, const struct error *error, char *why, uint32_t why_bytes) {
  if (!key) snprintf(why, why_bytes, "%s", error->text);
  return key;
}

struct crypto_key *bridge_key_from_pem(const char *pem, uint32_t len, char *why, uint32_t why_bytes) {
  struct error error = {0};
  return made(crypto_key_from_pem(slice_from(pem, len), &error), &error, why, why_bytes);
}

struct crypto_key *bridge_key_from_certificate(const char *der, uint32_t len, char *why, uint32_t why_bytes) {
  struct error error = {0};
  return made(crypto_key_from_certificate(slice_from(der, len), &error), &error, why, why_bytes);
}

struct crypto_key *bridge_key_from_jwk(const struct jwk_parts *parts, char *why, uint32_t why_bytes) {
  struct error error = {0};
  return made(crypto_key_from_jwk(parts, &error), &error, why, why_bytes);
}

void bridge_key_free(struct crypto_key *key) {
  crypto_key_free(key);
}

void bridge_key_tell(const struct crypto_key *key, struct key_info *out) {
  crypto_key_tell(key, out);
}

bool bridge_key_same(const struct crypto_key *a, const struct crypto_key *b) {
  return crypto_key_same(a, b);
}

int bridge_key_sign(const struct crypto_key *key, int kind, int digest, const char *data, uint32_t len, char *out,
                    char *why, uint32_t why_bytes) {
  struct error error = {0};
  int count = crypto_key_sign(key, (enum crypto_signature)kind, (enum crypto_digest)digest, slice_from(data, len),
                              (uint8_t *)out, &error);
  if (count >= 0) return count;
  snprintf(why, why_bytes, "%s", error.text);
  return BRIDGE_FAILED;
}

int bridge_key_verify(const struct crypto_key *key, int kind, int digest, const char *data, uint32_t len,
                      const char *signature, uint32_t signature_len) {
  int good = crypto_key_verify(key, (enum crypto_signature)kind, (enum crypto_digest)digest, slice_from(data, len),
                               slice_from(signature, signature_len));
  if (good < 0) return BRIDGE_INVALID;
  return good ? BRIDGE_OK : BRIDGE_NONE;
}

// ---- Certificates ----

static int told(int result, const struct error *error, char *why, uint32_t why_bytes) {
  if (result >= 0) return result;
  snprintf(why, why_bytes, "%s", error->text);
  return BRIDGE_FAILED;
}

struct crypto_authorities *bridge_authorities_new(const char *pem, uint32_t len, bool partial, char *why,
                                                  uint32_t why_bytes) {
  struct error error = {0};
  struct crypto_authorities *authorities = crypto_authorities_new(slice_from(pem, len), partial, &error);
  if (!authorities) snprintf(why, why_bytes, "%s", error.text);
  return authorities;
}

void bridge_authorities_free(struct crypto_authorities *authorities) {
  crypto_authorities_free(authorities);
}

int bridge_certificate_tell(const char *pem, uint32_t len, char *out, char *why, uint32_t why_bytes) {
  struct error error = {0};
  return told(crypto_certificate_tell(slice_from(pem, len), out, CRYPTO_FIELDS_MOST, &error), &error, why, why_bytes);
}

int bridge_certificate_verify(const struct crypto_authorities *authorities, const char *pem, uint32_t len, double now_s,
                              char *out, char *why, uint32_t why_bytes) {
  struct error error = {0};
  int result =
      crypto_certificate_verify(authorities, slice_from(pem, len), (int64_t)now_s, out, CRYPTO_FIELDS_MOST, &error);
  return told(result, &error, why, why_bytes);
}

int bridge_ocsp_request(const struct bytes *pem, const struct bytes *issuer, char *out, char *why, uint32_t why_bytes) {
  struct error error = {0};
  int result = crypto_ocsp_request(slice_of_bytes(pem), slice_of_bytes(issuer), out, CRYPTO_FIELDS_MOST, &error);
  return told(result, &error, why, why_bytes);
}

int bridge_revocation(const struct bytes *request, const struct bytes *answer, const struct bytes *pem,
                      const struct bytes *issuer, double now_s, double *until_s, char *why, uint32_t why_bytes) {
  struct error error = {0};
  struct slice asked = slice_of_bytes(request), said = slice_of_bytes(answer);
  struct slice certificate = slice_of_bytes(pem), by = slice_of_bytes(issuer);
  int64_t now = (int64_t)now_s, until;
  enum crypto_revocation found = asked.len ? crypto_ocsp_read(asked, said, certificate, by, now, &until, &error)
                                           : crypto_crl_read(said, certificate, by, now, &until, &error);
  *until_s = (double)until;
  if (found == CRYPTO_UNKNOWN) snprintf(why, why_bytes, "%s", error.text);
  return found;
}

// ---- Sealed text and passwords ----

int bridge_crypto_seal(struct worker *worker, const struct bytes *key, const struct bytes *iv, const struct bytes *data,
                       const struct bytes *associated, char *out) {
  struct error error;
  int64_t count = crypto_seal(slice_of_bytes(key), slice_of_bytes(iv), slice_of_bytes(data), slice_of_bytes(associated),
                              (uint8_t *)out, &error);
  return count < 0 ? failed(worker, &error) : (int)count;
}

int bridge_crypto_open(struct worker *worker, const struct bytes *key, const struct bytes *iv,
                       const struct bytes *sealed, const struct bytes *associated, char *out) {
  struct error error;
  int64_t count = crypto_open(slice_of_bytes(key), slice_of_bytes(iv), slice_of_bytes(sealed),
                              slice_of_bytes(associated), (uint8_t *)out, &error);
  return count < 0 ? failed(worker, &error) : (int)count;
}

int bridge_crypto_scrypt(struct worker *worker, const struct bytes *password, const struct bytes *salt, double n,
                         uint32_t r, uint32_t p, char *out, uint32_t len) {
  struct error error;
  int status = crypto_scrypt(slice_of_bytes(password), slice_of_bytes(salt), n > 0 && n < 0x1p53 ? (uint64_t)n : 0, r,
                             p, (uint8_t *)out, len, &error);
  return status < 0 ? failed(worker, &error) : BRIDGE_OK;
}

// ---- Passwords ----

int bridge_password_check(struct worker *worker, const char *password, uint32_t len, const char *hash,
                          uint32_t hash_len) {
  struct passwords *passwords = worker_passwords(worker);
  double coroutine = phase_self(worker);
  if (coroutine == 0) return BRIDGE_INVALID;
  if (!passwords) return BRIDGE_FULL;
  int status = passwords_check(passwords, slice_from(password, len), slice_from(hash, hash_len), coroutine);
  return status == PASSWORDS_OK ? BRIDGE_AGAIN : status;
}
