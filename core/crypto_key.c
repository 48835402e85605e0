// SPDX-License-Identifier: Apache-2.0
// Keys of RSA, elliptic curves and EdDSA over OpenSSL: from PEM, certificates and JWKs.
#include "crypto_key.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "crypto_parts.h"

static struct slice slice_of_bytes(const struct bytes *bytes) {
  return (struct slice){bytes->data, bytes->len};
}

enum {
  RSA_BITS_LEAST = 1024,
  RSA_BITS_MOST = CRYPTO_SIGNATURE_MAX * 8, // what a signature's room holds, and what verifying may cost
  COORDINATE_MOST = 66                      // bytes, of P-521
};

struct crypto_key {
  EVP_PKEY *pkey;
  bool is_private;
};

// ---- Reading ----

static int no_passphrase(char *buffer, int size, int writing, void *data) {
  (void)buffer;
  (void)size;
  (void)writing;
  (void)data;
  return -1;
}

static bool is_known(const EVP_PKEY *pkey) {
  static const char *const kinds[] = {"RSA", "RSA-PSS", "EC", "ED25519", "ED448"};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (EVP_PKEY_is_a(pkey, kinds[i])) return true;
  return false;
}

static bool is_rsa(const EVP_PKEY *pkey) {
  return EVP_PKEY_is_a(pkey, "RSA") || EVP_PKEY_is_a(pkey, "RSA-PSS");
}

// Takes `pkey` over (NULL: reading it failed).
static struct crypto_key *adopt(EVP_PKEY *pkey, bool private, struct error *error) {
  struct crypto_key *key = NULL;
  if (!pkey) {
    crypto_explain(error, "key");
  } else if (!is_known(pkey)) {
    error_set(error, ERROR_INVALID, "key: neither RSA, EC nor EdDSA");
  } else if (is_rsa(pkey) && (EVP_PKEY_get_bits(pkey) < RSA_BITS_LEAST || EVP_PKEY_get_bits(pkey) > RSA_BITS_MOST)) {
    error_set(error, ERROR_INVALID, "key: RSA of %d bits, not %d to %d", EVP_PKEY_get_bits(pkey), RSA_BITS_LEAST,
              RSA_BITS_MOST);
  } else if (!(key = calloc(1, sizeof *key))) {
    error_set(error, ERROR_MEMORY, "key: no memory");
  } else {
    *key = (struct crypto_key){pkey, private};
    ERR_clear_error();
    return key;
  }
  EVP_PKEY_free(pkey);
  ERR_clear_error();
  return NULL;
}

static bool says(struct slice text, const char *word) {
  return memmem(text.data, text.len, word, strlen(word)) != NULL;
}

static EVP_PKEY *key_of_certificate(X509 *certificate) {
  EVP_PKEY *pkey = certificate ? X509_get_pubkey(certificate) : NULL;
  X509_free(certificate);
  return pkey;
}

static EVP_PKEY *read_rsa_public(BIO *bio) {
  unsigned char *der = NULL;
  long len = 0;
  if (!PEM_bytes_read_bio(&der, &len, NULL, PEM_STRING_RSA_PUBLIC, bio, no_passphrase, NULL)) return NULL;
  const unsigned char *at = der;
  EVP_PKEY *pkey = d2i_PublicKey(EVP_PKEY_RSA, NULL, &at, len);
  OPENSSL_free(der);
  return pkey;
}

struct crypto_key *crypto_key_from_pem(struct slice pem, struct error *error) {
  EVP_PKEY *pkey = NULL;
  bool private = says(pem, "PRIVATE KEY");
  ERR_clear_error();
  if (pem.len > INT32_MAX) {
    error_set(error, ERROR_INVALID, "key: too long");
    return NULL;
  }
  BIO *bio = BIO_new_mem_buf(pem.data, (int)pem.len);
  if (private)
    pkey = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
  else if (says(pem, "BEGIN CERTIFICATE"))
    pkey = key_of_certificate(PEM_read_bio_X509(bio, NULL, no_passphrase, NULL));
  else if (says(pem, "BEGIN RSA PUBLIC KEY"))
    pkey = read_rsa_public(bio);
  else
    pkey = PEM_read_bio_PUBKEY(bio, NULL, no_passphrase, NULL);
  BIO_free(bio);
  return adopt(pkey, private, error);
}

struct crypto_key *crypto_key_from_certificate(struct slice der, struct error *error) {
  const unsigned char *at = (const unsigned char *)der.data;
  ERR_clear_error();
  return adopt(key_of_certificate(d2i_X509(NULL, &at, (long)der.len)), false, error);
}

// ---- JWK ----

static const struct curve {
  const char *name, *group; // JOSE's and OpenSSL's
  int bytes;
} curves[] = {{"P-256", "prime256v1", 32}, {"P-384", "secp384r1", 48}, {"P-521", "secp521r1", 66}};

static const struct curve *curve_of(struct slice name) {
  for (size_t i = 0; i < sizeof curves / sizeof *curves; i++)
    if (slice_equal(name, slice_of(curves[i].name))) return &curves[i];
  return NULL;
}

// Numbers must outlive the parameters that are built of them.
struct builder {
  OSSL_PARAM_BLD *list;
  BIGNUM *numbers[8];
  int count;
  bool good;
};

static void put(struct builder *builder, const char *name, const struct bytes *value) {
  if (value->len == 0 || value->len > RSA_BITS_MOST / 8) {
    builder->good = false;
    return;
  }
  BIGNUM *number = BN_bin2bn((const unsigned char *)value->data, (int)value->len, NULL);
  builder->numbers[builder->count++] = number;
  if (!number || !OSSL_PARAM_BLD_push_BN(builder->list, name, number)) builder->good = false;
}

static EVP_PKEY *make(const char *type, OSSL_PARAM_BLD *list, bool private) {
  EVP_PKEY *pkey = NULL;
  EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
  OSSL_PARAM *parameters = OSSL_PARAM_BLD_to_param(list);
  int selection = private ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY;
  if (!context || !parameters || EVP_PKEY_fromdata_init(context) <= 0 ||
      EVP_PKEY_fromdata(context, &pkey, selection, parameters) <= 0)
    pkey = NULL;
  OSSL_PARAM_free(parameters);
  EVP_PKEY_CTX_free(context);
  return pkey;
}

static bool is_odd_above_one(const BIGNUM *number) {
  return number && BN_is_odd(number) && !BN_is_one(number);
}

static EVP_PKEY *make_rsa(const struct jwk_parts *parts) {
  struct builder builder = {.list = OSSL_PARAM_BLD_new(), .good = true};
  bool private = parts->d.len > 0;
  put(&builder, OSSL_PKEY_PARAM_RSA_N, &parts->n);
  put(&builder, OSSL_PKEY_PARAM_RSA_E, &parts->e);
  // With e = 1 anything is its own signature.
  builder.good = builder.good && is_odd_above_one(builder.numbers[0]) && is_odd_above_one(builder.numbers[1]);
  if (private) {
    put(&builder, OSSL_PKEY_PARAM_RSA_D, &parts->d);
    put(&builder, OSSL_PKEY_PARAM_RSA_FACTOR1, &parts->p);
    put(&builder, OSSL_PKEY_PARAM_RSA_FACTOR2, &parts->q);
    put(&builder, OSSL_PKEY_PARAM_RSA_EXPONENT1, &parts->dp);
    put(&builder, OSSL_PKEY_PARAM_RSA_EXPONENT2, &parts->dq);
    put(&builder, OSSL_PKEY_PARAM_RSA_COEFFICIENT1, &parts->qi);
  }
  EVP_PKEY *pkey = builder.good ? make("RSA", builder.list, private) : NULL;
  for (int i = 0; i < builder.count; i++) BN_clear_free(builder.numbers[i]);
  OSSL_PARAM_BLD_free(builder.list);
  return pkey;
}

// The point must be on the curve, which making the key checks; the coordinates have their whole length (RFC 7518, 6.2).
static EVP_PKEY *make_ec(const struct jwk_parts *parts) {
  const struct curve *curve = curve_of(slice_of_bytes(&parts->curve));
  uint8_t point[1 + 2 * COORDINATE_MOST] = {POINT_CONVERSION_UNCOMPRESSED};
  if (!curve || parts->x.len != (uint32_t)curve->bytes || parts->y.len != (uint32_t)curve->bytes) return NULL;
  memcpy(point + 1, parts->x.data, parts->x.len);
  memcpy(point + 1 + parts->x.len, parts->y.data, parts->y.len);
  struct builder builder = {.list = OSSL_PARAM_BLD_new(), .good = true};
  bool private = parts->d.len > 0;
  builder.good =
      OSSL_PARAM_BLD_push_utf8_string(builder.list, OSSL_PKEY_PARAM_GROUP_NAME, curve->group, 0) &&
      OSSL_PARAM_BLD_push_octet_string(builder.list, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * (size_t)curve->bytes);
  if (private) put(&builder, OSSL_PKEY_PARAM_PRIV_KEY, &parts->d);
  EVP_PKEY *pkey = builder.good ? make("EC", builder.list, private) : NULL;
  for (int i = 0; i < builder.count; i++) BN_clear_free(builder.numbers[i]);
  OSSL_PARAM_BLD_free(builder.list);
  return pkey;
}

static EVP_PKEY *make_okp(const struct jwk_parts *parts) {
  struct slice curve = slice_of_bytes(&parts->curve);
  const char *type = slice_equal(curve, slice_of("Ed25519")) ? "ED25519"
                     : slice_equal(curve, slice_of("Ed448")) ? "ED448"
                                                             : NULL;
  if (!type) return NULL;
  if (parts->d.len > 0)
    return EVP_PKEY_new_raw_private_key_ex(NULL, type, NULL, (const unsigned char *)parts->d.data, parts->d.len);
  return EVP_PKEY_new_raw_public_key_ex(NULL, type, NULL, (const unsigned char *)parts->x.data, parts->x.len);
}

struct crypto_key *crypto_key_from_jwk(const struct jwk_parts *parts, struct error *error) {
  struct slice type = slice_of_bytes(&parts->type);
  EVP_PKEY *pkey = NULL;
  ERR_clear_error();
  if (slice_equal(type, slice_of("RSA")))
    pkey = make_rsa(parts);
  else if (slice_equal(type, slice_of("EC")))
    pkey = make_ec(parts);
  else if (slice_equal(type, slice_of("OKP")))
    pkey = make_okp(parts);
  return adopt(pkey, parts->d.len > 0, error);
}

void crypto_key_free(struct crypto_key *key) {
  if (!key) return;
  EVP_PKEY_free(key->pkey);
  free(key);
}

// ---- What it is ----

static const char *curve_name(const EVP_PKEY *pkey) {
  char group[64];
  size_t len;
  if (EVP_PKEY_is_a(pkey, "ED25519")) return "Ed25519";
  if (EVP_PKEY_is_a(pkey, "ED448")) return "Ed448";
  if (!EVP_PKEY_is_a(pkey, "EC") || !EVP_PKEY_get_group_name(pkey, group, sizeof group, &len)) return NULL;
  for (size_t i = 0; i < sizeof curves / sizeof *curves; i++)
    if (strcmp(group, curves[i].group) == 0) return curves[i].name;
  return "other";
}

void crypto_key_tell(const struct crypto_key *key, struct key_info *out) {
  const EVP_PKEY *pkey = key->pkey;
  const char *type = EVP_PKEY_is_a(pkey, "RSA") ? "RSA" : EVP_PKEY_is_a(pkey, "RSA-PSS") ? "RSA-PSS" : "OKP";
  *out = (struct key_info){.type = EVP_PKEY_is_a(pkey, "EC") ? "EC" : type,
                           .curve = curve_name(pkey),
                           .bits = EVP_PKEY_get_bits(pkey),
                           .is_private = key->is_private};
}

bool crypto_key_same(const struct crypto_key *a, const struct crypto_key *b) {
  bool same = EVP_PKEY_eq(a->pkey, b->pkey) == 1;
  ERR_clear_error();
  return same;
}

// A key must be of the kind that the caller asked for: who verifies with a key of another kind has been tricked.
static bool fits(enum crypto_signature kind, const EVP_PKEY *pkey) {
  switch (kind) {
  case CRYPTO_RSA: return EVP_PKEY_is_a(pkey, "RSA");
  case CRYPTO_RSA_PSS: return is_rsa(pkey);
  case CRYPTO_ECDSA:
  case CRYPTO_ECDSA_DER: return EVP_PKEY_is_a(pkey, "EC");
  case CRYPTO_EDDSA: return EVP_PKEY_is_a(pkey, "ED25519") || EVP_PKEY_is_a(pkey, "ED448");
  default: return false;
  }
}

// ---- Signatures ----

static bool set_padding(EVP_PKEY_CTX *parameters, enum crypto_signature kind) {
  if (kind != CRYPTO_RSA_PSS) return true;
  return EVP_PKEY_CTX_set_rsa_padding(parameters, RSA_PKCS1_PSS_PADDING) > 0 &&
         EVP_PKEY_CTX_set_rsa_pss_saltlen(parameters, RSA_PSS_SALTLEN_DIGEST) > 0;
}

// Bytes of r, and of s.
static int half_size(const EVP_PKEY *pkey) {
  return (EVP_PKEY_get_bits(pkey) + 7) / 8;
}

// r and s side by side, from DER, in place. Bytes, or -1.
static int der_to_raw(const EVP_PKEY *pkey, uint8_t *out, size_t len) {
  const unsigned char *at = out;
  int half = half_size(pkey);
  ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &at, (long)len);
  bool good = pair && half * 2 <= CRYPTO_SIGNATURE_MAX && BN_bn2binpad(ECDSA_SIG_get0_r(pair), out, half) == half &&
              BN_bn2binpad(ECDSA_SIG_get0_s(pair), out + half, half) == half;
  ECDSA_SIG_free(pair);
  return good ? half * 2 : -1;
}

static int raw_to_der(const EVP_PKEY *pkey, struct slice raw, uint8_t out[CRYPTO_SIGNATURE_MAX]) {
  int half = half_size(pkey), len = -1;
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

static int sign_with(EVP_PKEY *pkey, enum crypto_signature kind, const EVP_MD *method, struct slice data,
                     uint8_t *out) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  EVP_PKEY_CTX *parameters;
  size_t len = CRYPTO_SIGNATURE_MAX;
  bool good = context && EVP_DigestSignInit(context, &parameters, method, NULL, pkey) > 0 &&
              set_padding(parameters, kind) &&
              EVP_DigestSign(context, out, &len, (const unsigned char *)data.data, data.len) > 0;
  EVP_MD_CTX_free(context);
  if (!good) return -1;
  return kind == CRYPTO_ECDSA ? der_to_raw(pkey, out, len) : (int)len;
}

int crypto_key_sign(const struct crypto_key *key, enum crypto_signature kind, enum crypto_digest digest,
                    struct slice data, uint8_t *out, struct error *error) {
  const EVP_MD *method = kind == CRYPTO_EDDSA ? NULL : crypto_method(digest);
  if (!key->is_private) return error_set(error, ERROR_INVALID, "private key: it is a public one");
  if (!fits(kind, key->pkey) || (!method && kind != CRYPTO_EDDSA))
    return error_set(error, ERROR_INVALID, "private key: of another kind than the signature");
  ERR_clear_error();
  int len = sign_with(key->pkey, kind, method, data, out);
  if (len < 0) crypto_explain(error, "signing");
  ERR_clear_error();
  return len < 0 ? ERROR_INVALID : len;
}

static bool verify_with(EVP_PKEY *pkey, enum crypto_signature kind, const EVP_MD *method, struct slice data,
                        struct slice signature) {
  EVP_PKEY_CTX *parameters;
  uint8_t der[CRYPTO_SIGNATURE_MAX];
  if (kind == CRYPTO_ECDSA) {
    int len = raw_to_der(pkey, signature, der);
    signature = (struct slice){(const char *)der, len > 0 ? (uint32_t)len : 0};
  }
  if (signature.len == 0) return false;
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  bool good = context && EVP_DigestVerifyInit(context, &parameters, method, NULL, pkey) > 0 &&
              set_padding(parameters, kind) &&
              EVP_DigestVerify(context, (const unsigned char *)signature.data, signature.len,
                               (const unsigned char *)data.data, data.len) == 1;
  EVP_MD_CTX_free(context);
  return good;
}

int crypto_key_verify(const struct crypto_key *key, enum crypto_signature kind, enum crypto_digest digest,
                      struct slice data, struct slice signature) {
  const EVP_MD *method = kind == CRYPTO_EDDSA ? NULL : crypto_method(digest);
  if (!fits(kind, key->pkey) || (!method && kind != CRYPTO_EDDSA)) return ERROR_INVALID;
  ERR_clear_error();
  bool good = verify_with(key->pkey, kind, method, data, signature);
  ERR_clear_error();
  return good;
}
