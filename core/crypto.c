// SPDX-License-Identifier: Apache-2.0
// Digests, encodings, signatures and sealed text over OpenSSL.
#include "crypto.h"

#include <assert.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <string.h>

static int explain(struct error *error, const char *what) {
  unsigned long cause = ERR_get_error();
  const char *reason = cause ? ERR_reason_error_string(cause) : NULL;
  ERR_clear_error();
  return error_set(error, ERROR_INVALID, "%s: %s", what, reason ? reason : "it cannot be used");
}

// ---- Digests ----

static const char *const digest_names[CRYPTO_DIGESTS] = {"md5", "sha1", "sha256", "sha384", "sha512"};

int crypto_digest_parse(struct slice name) {
  for (int i = 0; i < CRYPTO_DIGESTS; i++)
    if (slice_equal_nocase(name, slice_of(digest_names[i]))) return i;
  return -1;
}

static const EVP_MD *method_of(enum crypto_digest digest) {
  switch (digest) {
  case CRYPTO_MD5: return EVP_md5();
  case CRYPTO_SHA1: return EVP_sha1();
  case CRYPTO_SHA256: return EVP_sha256();
  case CRYPTO_SHA384: return EVP_sha384();
  case CRYPTO_SHA512: return EVP_sha512();
  default: return NULL;
  }
}

int crypto_digest(enum crypto_digest digest, struct slice data, uint8_t *out) {
  unsigned len = 0;
  const EVP_MD *method = method_of(digest);
  if (!method || !EVP_Digest(data.data, data.len, out, &len, method, NULL)) return ERROR_INVALID;
  return (int)len;
}

int crypto_hmac(enum crypto_digest digest, struct slice key, struct slice data, uint8_t *out) {
  unsigned len = 0;
  const EVP_MD *method = method_of(digest);
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

// ---- Signatures ----

static int no_passphrase(char *buffer, int size, int writing, void *data) {
  (void)buffer;
  (void)size;
  (void)writing;
  (void)data;
  return -1;
}

static EVP_PKEY *read_private(struct slice pem) {
  BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
  EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
  BIO_free(bio);
  return key;
}

static bool says(struct slice text, const char *word) {
  return memmem(text.data, text.len, word, strlen(word)) != NULL;
}

// A public key ("PUBLIC KEY", or RSA's own form), that of a certificate, or the public half of a private one.
static EVP_PKEY *read_public(struct slice pem) {
  EVP_PKEY *key = NULL;
  BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
  if (bio && says(pem, "BEGIN CERTIFICATE")) {
    X509 *certificate = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
    key = certificate ? X509_get_pubkey(certificate) : NULL;
    X509_free(certificate);
  } else if (bio && says(pem, "PRIVATE KEY")) {
    key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
  } else if (bio) {
    key = PEM_read_bio_PUBKEY(bio, NULL, no_passphrase, NULL);
  }
  BIO_free(bio);
  return key;
}

// A key must be of the kind that the caller asked for: who verifies with a key of another kind has been tricked.
static bool fits(enum crypto_signature kind, const EVP_PKEY *key) {
  switch (kind) {
  case CRYPTO_RSA: return EVP_PKEY_is_a(key, "RSA");
  case CRYPTO_RSA_PSS: return EVP_PKEY_is_a(key, "RSA") || EVP_PKEY_is_a(key, "RSA-PSS");
  case CRYPTO_ECDSA:
  case CRYPTO_ECDSA_DER: return EVP_PKEY_is_a(key, "EC");
  case CRYPTO_EDDSA: return EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448");
  default: return false;
  }
}

static bool set_padding(EVP_PKEY_CTX *parameters, enum crypto_signature kind) {
  if (kind != CRYPTO_RSA_PSS) return true;
  return EVP_PKEY_CTX_set_rsa_padding(parameters, RSA_PKCS1_PSS_PADDING) > 0 &&
         EVP_PKEY_CTX_set_rsa_pss_saltlen(parameters, RSA_PSS_SALTLEN_DIGEST) > 0;
}

// Bytes of r, and of s.
static int half_size(const EVP_PKEY *key) {
  return (EVP_PKEY_get_bits(key) + 7) / 8;
}

// r and s side by side, from DER, in place. Bytes, or -1.
static int der_to_raw(const EVP_PKEY *key, uint8_t *out, size_t len) {
  const unsigned char *at = out;
  int half = half_size(key);
  ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &at, (long)len);
  bool good = pair && half * 2 <= CRYPTO_SIGNATURE_MAX && BN_bn2binpad(ECDSA_SIG_get0_r(pair), out, half) == half &&
              BN_bn2binpad(ECDSA_SIG_get0_s(pair), out + half, half) == half;
  ECDSA_SIG_free(pair);
  return good ? half * 2 : -1;
}

static int raw_to_der(const EVP_PKEY *key, struct slice raw, uint8_t out[CRYPTO_SIGNATURE_MAX]) {
  int half = half_size(key), len = -1;
  const unsigned char *bytes = (const unsigned char *)raw.data;
  if (raw.len != (uint32_t)half * 2) return -1;
  ECDSA_SIG *pair = ECDSA_SIG_new();
  BIGNUM *r = BN_bin2bn(bytes, half, NULL), *s = BN_bin2bn(bytes + half, half, NULL);
  if (pair && r && s && ECDSA_SIG_set0(pair, r, s)) {
    r = s = NULL; // the pair's now
    len = i2d_ECDSA_SIG(pair, NULL);
    if (len > 0 && len <= CRYPTO_SIGNATURE_MAX) len = i2d_ECDSA_SIG(pair, &out);
  }
  BN_free(r);
  BN_free(s);
  ECDSA_SIG_free(pair);
  return len;
}

static int sign_with(EVP_PKEY *key, enum crypto_signature kind, const EVP_MD *method, struct slice data, uint8_t *out) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  EVP_PKEY_CTX *parameters;
  size_t len = CRYPTO_SIGNATURE_MAX;
  bool good = context && EVP_DigestSignInit(context, &parameters, method, NULL, key) > 0 &&
              set_padding(parameters, kind) &&
              EVP_DigestSign(context, out, &len, (const unsigned char *)data.data, data.len) > 0;
  EVP_MD_CTX_free(context);
  if (!good) return -1;
  return kind == CRYPTO_ECDSA ? der_to_raw(key, out, len) : (int)len;
}

int crypto_sign(enum crypto_signature kind, enum crypto_digest digest, struct slice key_pem, struct slice data,
                uint8_t *out, struct error *error) {
  const EVP_MD *method = kind == CRYPTO_EDDSA ? NULL : method_of(digest);
  ERR_clear_error();
  EVP_PKEY *key = read_private(key_pem);
  if (!key) return explain(error, "private key");
  int len = -1;
  if (!fits(kind, key) || (!method && kind != CRYPTO_EDDSA))
    error_set(error, ERROR_INVALID, "private key: of another kind than the signature");
  else if ((len = sign_with(key, kind, method, data, out)) < 0)
    explain(error, "signing");
  EVP_PKEY_free(key);
  ERR_clear_error();
  return len < 0 ? ERROR_INVALID : len;
}

static bool verify_with(EVP_PKEY *key, enum crypto_signature kind, const EVP_MD *method, struct slice data,
                        struct slice signature) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  EVP_PKEY_CTX *parameters;
  uint8_t der[CRYPTO_SIGNATURE_MAX];
  if (kind == CRYPTO_ECDSA) {
    int len = raw_to_der(key, signature, der);
    signature = (struct slice){(const char *)der, len > 0 ? (uint32_t)len : 0};
  }
  bool good = context && signature.len > 0 && EVP_DigestVerifyInit(context, &parameters, method, NULL, key) > 0 &&
              set_padding(parameters, kind) &&
              EVP_DigestVerify(context, (const unsigned char *)signature.data, signature.len,
                               (const unsigned char *)data.data, data.len) == 1;
  EVP_MD_CTX_free(context);
  return good;
}

int crypto_verify(enum crypto_signature kind, enum crypto_digest digest, struct slice key_pem, struct slice data,
                  struct slice signature, struct error *error) {
  const EVP_MD *method = kind == CRYPTO_EDDSA ? NULL : method_of(digest);
  ERR_clear_error();
  EVP_PKEY *key = read_public(key_pem);
  if (!key) return explain(error, "public key");
  int good = ERROR_INVALID;
  if (!fits(kind, key) || (!method && kind != CRYPTO_EDDSA))
    error_set(error, ERROR_INVALID, "public key: of another kind than the signature");
  else
    good = verify_with(key, kind, method, data, signature);
  EVP_PKEY_free(key);
  ERR_clear_error();
  return good;
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
  return good ? len + last + CRYPTO_GCM_TAG : explain(error, "sealing");
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
  return good ? 0 : explain(error, "scrypt");
}
