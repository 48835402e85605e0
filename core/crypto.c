// SPDX-License-Identifier: Apache-2.0
// Digests, encodings and sealed text over OpenSSL.
#include "crypto.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>
#include <string.h>

#include "crypto_parts.h"

int crypto_explain(struct error *error, const char *what) {
  unsigned long cause = ERR_get_error();
  const char *reason = cause ? ERR_reason_error_string(cause) : NULL;
  ERR_clear_error();
  return error_set(error, ERROR_INVALID, "%s: %s", what, reason ? reason : "it cannot be used");
}

// ---- Digests ----

static const char *const digest_names[CRYPTO_DIGESTS] = {"md5", "sha1", "sha256", "sha384", "sha512", "sha224"};

int crypto_digest_parse(struct slice name) {
  for (int i = 0; i < CRYPTO_DIGESTS; i++)
    if (slice_equal_nocase(name, slice_of(digest_names[i]))) return i;
  return -1;
}

const EVP_MD *crypto_method(enum crypto_digest digest) {
  switch (digest) {
  case CRYPTO_MD5: return EVP_md5();
  case CRYPTO_SHA1: return EVP_sha1();
  case CRYPTO_SHA256: return EVP_sha256();
  case CRYPTO_SHA384: return EVP_sha384();
  case CRYPTO_SHA512: return EVP_sha512();
  case CRYPTO_SHA224: return EVP_sha224();
  default: return NULL;
  }
}

int crypto_digest(enum crypto_digest digest, struct slice data, uint8_t *out) {
  unsigned len = 0;
  const EVP_MD *method = crypto_method(digest);
  if (!method || !EVP_Digest(data.data, data.len, out, &len, method, NULL)) return ERROR_INVALID;
  return (int)len;
}

int crypto_hmac(enum crypto_digest digest, struct slice key, struct slice data, uint8_t *out) {
  unsigned len = 0;
  const EVP_MD *method = crypto_method(digest);
  const char *key_data = key.len ? key.data : "";
  if (!method || key.len > INT32_MAX) return ERROR_INVALID;
  if (!HMAC(method, key_data, (int)key.len, (const unsigned char *)data.data, data.len, out, &len))
    return ERROR_INVALID;
  return (int)len;
}

// ---- Encodings ----

static const char hex_digits[] = "0123456789abcdef";
static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

uint32_t crypto_encoded_len(enum crypto_encoding encoding, uint32_t len) {
  if (encoding == CRYPTO_HEX) return len * 2;
  if (encoding == CRYPTO_BASE64) return (len + 2) / 3 * 4;
  return len / 3 * 4 + (len % 3 ? len % 3 + 1 : 0);
}

uint32_t crypto_decoded_len(enum crypto_encoding encoding, uint32_t len) {
  return encoding == CRYPTO_HEX ? len / 2 : len / 4 * 3 + 3;
}

static uint32_t encode_hex(struct slice data, char *out) {
  for (uint32_t i = 0; i < data.len; i++) {
    out[i * 2] = hex_digits[(uint8_t)data.data[i] >> 4];
    out[i * 2 + 1] = hex_digits[(uint8_t)data.data[i] & 15];
  }
  return data.len * 2;
}

static uint32_t encode_base64(struct slice data, const char *letters, bool padded, char *out) {
  const uint8_t *in = (const uint8_t *)data.data;
  uint32_t at = 0, i = 0;
  for (; i + 3 <= data.len; i += 3) {
    uint32_t bits = (uint32_t)in[i] << 16 | (uint32_t)in[i + 1] << 8 | in[i + 2];
    out[at++] = letters[bits >> 18];
    out[at++] = letters[bits >> 12 & 63];
    out[at++] = letters[bits >> 6 & 63];
    out[at++] = letters[bits & 63];
  }
  if (i == data.len) return at;
  uint32_t rest = data.len - i, bits = (uint32_t)in[i] << 16 | (rest == 2 ? (uint32_t)in[i + 1] << 8 : 0);
  out[at++] = letters[bits >> 18];
  out[at++] = letters[bits >> 12 & 63];
  if (rest == 2) out[at++] = letters[bits >> 6 & 63];
  for (uint32_t pad = rest; padded && pad < 3; pad++) out[at++] = '=';
  return at;
}

uint32_t crypto_encode(enum crypto_encoding encoding, struct slice data, char *out) {
  if (encoding == CRYPTO_HEX) return encode_hex(data, out);
  bool url = encoding == CRYPTO_BASE64URL;
  return encode_base64(data, url ? url_alphabet : alphabet, !url, out);
}

static int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = ascii_lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int64_t decode_hex(struct slice text, char *out) {
  if (text.len % 2) return ERROR_INVALID;
  for (uint32_t i = 0; i < text.len; i += 2) {
    int high = hex_value(text.data[i]), low = hex_value(text.data[i + 1]);
    if (high < 0 || low < 0) return ERROR_INVALID;
    out[i / 2] = (char)(high << 4 | low);
  }
  return text.len / 2;
}

static int base64_value(char c, bool url) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == (url ? '-' : '+')) return 62;
  return c == (url ? '_' : '/') ? 63 : -1;
}

// Padding must be whole; without it (base64url) the length alone says what the last letters mean.
static bool strip_padding(struct slice *text, bool url) {
  uint32_t whole = text->len;
  while (text->len > 0 && whole - text->len < 2 && text->data[text->len - 1] == '=') text->len--;
  bool padded = whole != text->len;
  return padded || !url ? whole % 4 == 0 : text->len % 4 != 1;
}

static int64_t decode_base64(struct slice text, bool url, char *out) {
  uint32_t bits = 0, have = 0;
  int64_t at = 0;
  if (!strip_padding(&text, url) || text.len % 4 == 1) return ERROR_INVALID;
  for (uint32_t i = 0; i < text.len; i++) {
    int value = base64_value(text.data[i], url);
    if (value < 0) return ERROR_INVALID;
    bits = bits << 6 | (uint32_t)value;
    have += 6;
    if (have < 8) continue;
    have -= 8;
    out[at++] = (char)(bits >> have);
    bits &= (1u << have) - 1;
  }
  return bits == 0 ? at : ERROR_INVALID; // a second spelling of the same bytes
}

int64_t crypto_decode(enum crypto_encoding encoding, struct slice text, char *out) {
  return encoding == CRYPTO_HEX ? decode_hex(text, out) : decode_base64(text, encoding == CRYPTO_BASE64URL, out);
}

int crypto_random(void *out, uint32_t len) {
  return len <= INT32_MAX && RAND_bytes(out, (int)len) == 1 ? 0 : ERROR_SYSTEM;
}

bool crypto_equal(struct slice a, struct slice b) {
  return a.len == b.len && CRYPTO_memcmp(a.data, b.data, a.len) == 0;
}

// ---- Sealed text ----

static const EVP_CIPHER *cipher_of(uint32_t key_len) {
  if (key_len == 16) return EVP_aes_128_gcm();
  if (key_len == 24) return EVP_aes_192_gcm();
  return key_len == 32 ? EVP_aes_256_gcm() : NULL;
}

static int check_sealing(struct slice key, struct slice iv, struct slice data, struct error *error) {
  if (!cipher_of(key.len)) return error_set(error, ERROR_INVALID, "the key has %u bytes, not 16, 24 or 32", key.len);
  if (iv.len != CRYPTO_GCM_IV) return error_set(error, ERROR_INVALID, "the IV has %u bytes, not 12", iv.len);
  return data.len > INT32_MAX - 64 ? error_set(error, ERROR_INVALID, "the text is too long") : 0;
}

static const unsigned char *bytes_of(struct slice slice) {
  return (const unsigned char *)slice.data;
}

static bool begin_sealing(EVP_CIPHER_CTX *context, int sealing, struct slice key, struct slice iv,
                          struct slice associated) {
  int len;
  if (!context || !EVP_CipherInit_ex(context, cipher_of(key.len), NULL, bytes_of(key), bytes_of(iv), sealing))
    return false;
  return associated.len == 0 || EVP_CipherUpdate(context, NULL, &len, bytes_of(associated), (int)associated.len);
}

int64_t crypto_seal(struct slice key, struct slice iv, struct slice data, struct slice associated, uint8_t *out,
                    struct error *error) {
  int len = 0, last = 0;
  if (check_sealing(key, iv, data, error) < 0) return ERROR_INVALID;
  EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
  bool good = begin_sealing(context, 1, key, iv, associated) &&
              (data.len == 0 || EVP_CipherUpdate(context, out, &len, bytes_of(data), (int)data.len)) &&
              EVP_CipherFinal_ex(context, out + len, &last) &&
              EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, CRYPTO_GCM_TAG, out + len + last);
  EVP_CIPHER_CTX_free(context);
  return good ? len + last + CRYPTO_GCM_TAG : crypto_explain(error, "sealing");
}

int64_t crypto_open(struct slice key, struct slice iv, struct slice sealed, struct slice associated, uint8_t *out,
                    struct error *error) {
  int len = 0, last = 0;
  if (check_sealing(key, iv, sealed, error) < 0) return ERROR_INVALID;
  if (sealed.len < CRYPTO_GCM_TAG) return error_set(error, ERROR_INVALID, "the sealed text is too short");
  int data = (int)sealed.len - CRYPTO_GCM_TAG;
  EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
  bool good =
      begin_sealing(context, 0, key, iv, associated) &&
      (data == 0 || EVP_CipherUpdate(context, out, &len, bytes_of(sealed), data)) &&
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, CRYPTO_GCM_TAG, (void *)(uintptr_t)(sealed.data + data)) &&
      EVP_CipherFinal_ex(context, out + len, &last);
  EVP_CIPHER_CTX_free(context);
  ERR_clear_error();
  if (good) return len + last;
  OPENSSL_cleanse(out, (size_t)data); // nobody may use what was not sealed so
  return error_set(error, ERROR_INVALID, "the sealed text was changed, or sealed with another key");
}

int crypto_scrypt(struct slice password, struct slice salt, uint64_t n, uint32_t r, uint32_t p, uint8_t *out,
                  uint32_t len, struct error *error) {
  enum { MEMORY_MOST = 256 << 20 };
  ERR_clear_error();
  int good = EVP_PBE_scrypt(password.data, password.len, bytes_of(salt), salt.len, n, r, p, MEMORY_MOST, out, len);
  return good ? 0 : crypto_explain(error, "scrypt");
}
