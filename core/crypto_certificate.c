// SPDX-License-Identifier: Apache-2.0
// Clients' certificates over OpenSSL. Everything that comes from a client is bounded by the room of its result.
#include "crypto_certificate.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crypto_parts.h"

enum {
  AUTHORITIES_MOST = 1000,
  CHAIN_MOST = 16, // certificates that a client may send
  NAMES_MOST = 64, // of one certificate, of each kind
  SKEW_S = 300     // that the clock of who revokes may differ
};

struct crypto_authorities {
  X509_STORE *store;
  STACK_OF(X509) * list; // in the order in which they were given
  bool partial;
};

static BIO *reader(struct slice text) {
  return text.len <= INT32_MAX ? BIO_new_mem_buf(text.data, (int)text.len) : NULL;
}

static int no_passphrase(char *buffer, int size, int writing, void *data) {
  (void)buffer;
  (void)size;
  (void)writing;
  (void)data;
  return -1;
}

// All certificates of a PEM; NULL: there is none, or more than `most`.
static STACK_OF(X509) * read_all(struct slice pem, int most, struct error *error) {
  BIO *bio = reader(pem);
  STACK_OF(X509) *list = sk_X509_new_null();
  X509 *certificate;
  ERR_clear_error();
  while (bio && list && (certificate = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL))) {
    if (sk_X509_num(list) < most && sk_X509_push(list, certificate)) continue;
    X509_free(certificate);
    break;
  }
  BIO_free(bio);
  ERR_clear_error(); // reading ends with "no start line"
  if (list && sk_X509_num(list) > 0) return list;
  sk_X509_free(list);
  error_set(error, ERROR_INVALID, "there is no certificate in it");
  return NULL;
}

static X509 *read_one(struct slice pem, struct error *error) {
  BIO *bio = reader(pem);
  ERR_clear_error();
  X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
  BIO_free(bio);
  if (!certificate) crypto_explain(error, "certificate");
  return certificate;
}

// ---- Authorities ----

struct crypto_authorities *crypto_authorities_new(struct slice pem, bool partial, struct error *error) {
  struct crypto_authorities *authorities = calloc(1, sizeof *authorities);
  if (!authorities) return NULL;
  authorities->partial = partial;
  authorities->list = read_all(pem, AUTHORITIES_MOST, error);
  authorities->store = X509_STORE_new();
  if (!authorities->list || !authorities->store) goto fail;
  for (int i = 0; i < sk_X509_num(authorities->list); i++)
    if (!X509_STORE_add_cert(authorities->store, sk_X509_value(authorities->list, i))) {
      crypto_explain(error, "authority");
      goto fail;
    }
  return authorities;
fail:
  crypto_authorities_free(authorities);
  return NULL;
}

void crypto_authorities_free(struct crypto_authorities *authorities) {
  if (!authorities) return;
  X509_STORE_free(authorities->store);
  sk_X509_pop_free(authorities->list, X509_free);
  free(authorities);
}

// ---- Fields ----

struct fields {
  char *out;
  uint32_t len, room;
  bool full;
};

static void put(struct fields *fields, const char *name, const void *data, size_t len) {
  char head[64];
  int head_len = snprintf(head, sizeof head, "%s:%zu:", name, len);
  if (fields->full || head_len < 0 || (size_t)head_len + len + 1 > fields->room - fields->len) {
    fields->full = true;
    return;
  }
  memcpy(fields->out + fields->len, head, (size_t)head_len);
  memcpy(fields->out + fields->len + head_len, data, len);
  fields->len += (uint32_t)head_len + (uint32_t)len;
  fields->out[fields->len++] = ',';
}

static void put_text(struct fields *fields, const char *name, const char *text) {
  put(fields, name, text, strlen(text));
}

// A name with a NUL is one thing to who signed it and another to who compares it.
static void put_string(struct fields *fields, const char *name, const ASN1_STRING *string) {
  unsigned char *text = NULL;
  int len = string ? ASN1_STRING_to_UTF8(&text, string) : -1;
  if (len > 0 && !memchr(text, 0, (size_t)len)) put(fields, name, text, (size_t)len);
  OPENSSL_free(text);
}

static void put_bio(struct fields *fields, const char *name, BIO *bio) {
  char *text;
  long len = BIO_get_mem_data(bio, &text);
  if (len > 0) put(fields, name, text, (size_t)len);
}

static void put_distinguished(struct fields *fields, const char *name, const X509_NAME *value) {
  BIO *bio = BIO_new(BIO_s_mem());
  if (bio && X509_NAME_print_ex(bio, value, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0)
    put_bio(fields, name, bio);
  BIO_free(bio);
}

static void put_pem(struct fields *fields, const char *name, X509 *certificate) {
  BIO *bio = BIO_new(BIO_s_mem());
  if (bio && PEM_write_bio_X509(bio, certificate)) put_bio(fields, name, bio);
  BIO_free(bio);
}

static void put_number(struct fields *fields, const char *name, int64_t value) {
  char text[32];
  snprintf(text, sizeof text, "%lld", (long long)value);
  put_text(fields, name, text);
}

// Seconds since 1970; 0: none, or none that can be read.
static int64_t seconds_of(const ASN1_TIME *at) {
  struct tm parts;
  return at && ASN1_TIME_to_tm(at, &parts) ? (int64_t)timegm(&parts) : 0;
}

static void put_address(struct fields *fields, const ASN1_OCTET_STRING *bytes) {
  char text[INET6_ADDRSTRLEN];
  int len = ASN1_STRING_length(bytes), family = len == 4 ? AF_INET : len == 16 ? AF_INET6 : 0;
  if (family && inet_ntop(family, ASN1_STRING_get0_data(bytes), text, sizeof text)) put_text(fields, "ip", text);
}

static void put_general(struct fields *fields, const GENERAL_NAME *name) {
  int type;
  void *value = GENERAL_NAME_get0_value(name, &type);
  if (type == GEN_DNS) put_string(fields, "dns", value);
  if (type == GEN_EMAIL) put_string(fields, "email", value);
  if (type == GEN_URI) put_string(fields, "uri", value);
  if (type == GEN_IPADD) put_address(fields, value);
}

static void put_alternatives(struct fields *fields, X509 *certificate) {
  GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
  for (int i = 0; i < sk_GENERAL_NAME_num(names) && i < NAMES_MOST; i++)
    put_general(fields, sk_GENERAL_NAME_value(names, i));
  GENERAL_NAMES_free(names);
}

static void put_url(struct fields *fields, const char *name, const GENERAL_NAME *place) {
  int type;
  void *value = GENERAL_NAME_get0_value(place, &type);
  if (type == GEN_URI) put_string(fields, name, value);
}

static void put_responders(struct fields *fields, X509 *certificate) {
  AUTHORITY_INFO_ACCESS *list = X509_get_ext_d2i(certificate, NID_info_access, NULL, NULL);
  for (int i = 0; i < sk_ACCESS_DESCRIPTION_num(list) && i < NAMES_MOST; i++) {
    ACCESS_DESCRIPTION *one = sk_ACCESS_DESCRIPTION_value(list, i);
    if (OBJ_obj2nid(one->method) == NID_ad_OCSP) put_url(fields, "ocsp", one->location);
  }
  AUTHORITY_INFO_ACCESS_free(list);
}

static void put_lists(struct fields *fields, X509 *certificate) {
  CRL_DIST_POINTS *points = X509_get_ext_d2i(certificate, NID_crl_distribution_points, NULL, NULL);
  for (int i = 0; i < sk_DIST_POINT_num(points) && i < NAMES_MOST; i++) {
    DIST_POINT_NAME *name = sk_DIST_POINT_value(points, i)->distpoint;
    if (!name || name->type != 0) continue;
    for (int k = 0; k < sk_GENERAL_NAME_num(name->name.fullname) && k < NAMES_MOST; k++)
      put_url(fields, "crl", sk_GENERAL_NAME_value(name->name.fullname, k));
  }
  CRL_DIST_POINTS_free(points);
}

static void put_serial(struct fields *fields, const X509 *certificate) {
  BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
  char *text = number ? BN_bn2hex(number) : NULL;
  if (text) put_text(fields, "serial", text);
  OPENSSL_free(text);
  BN_free(number);
}

// The last common name, as the most specific one.
static void put_common_name(struct fields *fields, const X509_NAME *subject) {
  int at = -1, next;
  while ((next = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0) at = next;
  if (at >= 0) put_string(fields, "cn", X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

static int finish(const struct fields *fields, struct error *error) {
  ERR_clear_error();
  return fields->full ? error_set(error, ERROR_INVALID, "the certificate is too large") : (int)fields->len;
}

int crypto_certificate_tell(struct slice pem, char *out, uint32_t room, struct error *error) {
  X509 *certificate = read_one(pem, error);
  struct fields fields = {.out = out, .room = room};
  if (!certificate) return ERROR_INVALID;
  put_distinguished(&fields, "subject", X509_get_subject_name(certificate));
  put_common_name(&fields, X509_get_subject_name(certificate));
  put_distinguished(&fields, "issuer", X509_get_issuer_name(certificate));
  put_serial(&fields, certificate);
  put_number(&fields, "not_before", seconds_of(X509_get0_notBefore(certificate)));
  put_number(&fields, "not_after", seconds_of(X509_get0_notAfter(certificate)));
  put_alternatives(&fields, certificate);
  put_responders(&fields, certificate);
  put_lists(&fields, certificate);
  X509_free(certificate);
  return finish(&fields, error);
}

// ---- Verifying ----

static int place_of(const struct crypto_authorities *authorities, const X509 *certificate) {
  for (int i = 0; i < sk_X509_num(authorities->list); i++)
    if (X509_cmp(sk_X509_value(authorities->list, i), certificate) == 0) return i + 1;
  return 0;
}

static int tell_chain(const struct crypto_authorities *authorities, X509_STORE_CTX *context, char *out, uint32_t room,
                      struct error *error) {
  STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(context);
  int count = sk_X509_num(chain);
  struct fields fields = {.out = out, .room = room};
  put_pem(&fields, "issuer", sk_X509_value(chain, count > 1 ? 1 : 0));
  put_number(&fields, "authority", place_of(authorities, sk_X509_value(chain, count - 1)));
  return finish(&fields, error);
}

int crypto_certificate_verify(const struct crypto_authorities *authorities, struct slice pem, int64_t now_s, char *out,
                              uint32_t room, struct error *error) {
  STACK_OF(X509) *sent = read_all(pem, CHAIN_MOST, error);
  X509_STORE_CTX *context = sent ? X509_STORE_CTX_new() : NULL;
  int result = ERROR_INVALID;
  if (context && X509_STORE_CTX_init(context, authorities->store, sk_X509_value(sent, 0), sent)) {
    X509_VERIFY_PARAM *rules = X509_STORE_CTX_get0_param(context);
    X509_VERIFY_PARAM_set_purpose(rules, X509_PURPOSE_SSL_CLIENT);
    X509_VERIFY_PARAM_set_time(rules, (time_t)now_s);
    if (authorities->partial) X509_VERIFY_PARAM_set_flags(rules, X509_V_FLAG_PARTIAL_CHAIN);
    if (X509_verify_cert(context) == 1)
      result = tell_chain(authorities, context, out, room, error);
    else
      error_set(error, ERROR_INVALID, "%s", X509_verify_cert_error_string(X509_STORE_CTX_get_error(context)));
  }
  X509_STORE_CTX_free(context);
  sk_X509_pop_free(sent, X509_free);
  ERR_clear_error();
  return result;
}

// ---- OCSP ----

struct parties {
  X509 *certificate, *issuer;
};

static bool read_parties(struct parties *parties, struct slice pem, struct slice issuer_pem, struct error *error) {
  parties->certificate = read_one(pem, error);
  parties->issuer = parties->certificate ? read_one(issuer_pem, error) : NULL;
  return parties->issuer != NULL;
}

static void free_parties(struct parties *parties) {
  X509_free(parties->certificate);
  X509_free(parties->issuer);
}

int crypto_ocsp_request(struct slice pem, struct slice issuer_pem, char *out, uint32_t room, struct error *error) {
  struct parties parties;
  bool read = read_parties(&parties, pem, issuer_pem, error);
  OCSP_REQUEST *request = read ? OCSP_REQUEST_new() : NULL;
  OCSP_CERTID *id = request ? OCSP_cert_to_id(EVP_sha1(), parties.certificate, parties.issuer) : NULL;
  int len = -1;
  if (id && OCSP_request_add0_id(request, id) && OCSP_request_add1_nonce(request, NULL, -1)) {
    unsigned char *at = (unsigned char *)out;
    len = i2d_OCSP_REQUEST(request, NULL);
    len = len > 0 && (uint32_t)len <= room ? i2d_OCSP_REQUEST(request, &at) : -1;
  }
  OCSP_REQUEST_free(request);
  free_parties(&parties);
  if (len > 0) return len;
  return read ? crypto_explain(error, "request for the state of a certificate") : ERROR_INVALID;
}

// Whether the issuer has signed it, or somebody whom the issuer lets do so.
static bool is_vouched_for(OCSP_BASICRESP *answer, X509 *issuer) {
  X509_STORE *store = X509_STORE_new();
  STACK_OF(X509) *list = sk_X509_new_null();
  bool good = store && list && X509_STORE_add_cert(store, issuer) && sk_X509_push(list, issuer) &&
              X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) && OCSP_basic_verify(answer, list, store, 0) > 0;
  sk_X509_free(list);
  X509_STORE_free(store);
  return good;
}

static enum crypto_revocation state_of(OCSP_BASICRESP *answer, const struct parties *parties, int64_t now_s,
                                       int64_t *until_s, struct error *error) {
  OCSP_CERTID *id = OCSP_cert_to_id(EVP_sha1(), parties->certificate, parties->issuer);
  ASN1_GENERALIZEDTIME *from = NULL, *until = NULL;
  int state = -1, reason;
  bool found = id && OCSP_resp_find_status(answer, id, &state, &reason, NULL, &from, &until);
  OCSP_CERTID_free(id);
  *until_s = seconds_of(until);
  if (!found)
    error_set(error, ERROR_INVALID, "the answer is about another certificate");
  else if (seconds_of(from) > now_s + SKEW_S || (until && *until_s < now_s - SKEW_S))
    error_set(error, ERROR_INVALID, "the answer is too old, or from the future");
  else if (state == V_OCSP_CERTSTATUS_GOOD)
    return CRYPTO_GOOD;
  else if (state == V_OCSP_CERTSTATUS_REVOKED)
    return CRYPTO_REVOKED;
  else
    error_set(error, ERROR_INVALID, "the certificate is unknown to who was asked");
  return CRYPTO_UNKNOWN;
}

static enum crypto_revocation judge(OCSP_REQUEST *request, OCSP_BASICRESP *answer, const struct parties *parties,
                                    int64_t now_s, int64_t *until_s, struct error *error) {
  enum { DIFFERENT = 0 };
  if (!request || !answer)
    error_set(error, ERROR_INVALID, "the answer cannot be read, or is none");
  else if (OCSP_check_nonce(request, answer) == DIFFERENT)
    error_set(error, ERROR_INVALID, "the answer is to another request");
  else if (!is_vouched_for(answer, parties->issuer))
    error_set(error, ERROR_INVALID, "the answer is not signed by the issuer, nor for it");
  else
    return state_of(answer, parties, now_s, until_s, error);
  return CRYPTO_UNKNOWN;
}

enum crypto_revocation crypto_ocsp_read(struct slice request_der, struct slice response_der, struct slice pem,
                                        struct slice issuer_pem, int64_t now_s, int64_t *until_s, struct error *error) {
  struct parties parties;
  enum crypto_revocation found = CRYPTO_UNKNOWN;
  const unsigned char *asked = (const unsigned char *)request_der.data;
  const unsigned char *said = (const unsigned char *)response_der.data;
  *until_s = 0;
  if (read_parties(&parties, pem, issuer_pem, error)) {
    OCSP_REQUEST *request = d2i_OCSP_REQUEST(NULL, &asked, (long)request_der.len);
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &said, (long)response_der.len);
    bool successful = response && OCSP_response_status(response) == OCSP_RESPONSE_STATUS_SUCCESSFUL;
    OCSP_BASICRESP *answer = successful ? OCSP_response_get1_basic(response) : NULL;
    found = judge(request, answer, &parties, now_s, until_s, error);
    OCSP_BASICRESP_free(answer);
    OCSP_RESPONSE_free(response);
    OCSP_REQUEST_free(request);
  }
  free_parties(&parties);
  ERR_clear_error();
  return found;
}

// ---- Lists ----

static X509_CRL *read_list(struct slice text) {
  const unsigned char *at = (const unsigned char *)text.data;
  if (!memmem(text.data, text.len, "-----BEGIN", 10)) return d2i_X509_CRL(NULL, &at, (long)text.len);
  BIO *bio = reader(text);
  X509_CRL *list = bio ? PEM_read_bio_X509_CRL(bio, NULL, no_passphrase, NULL) : NULL;
  BIO_free(bio);
  return list;
}

static bool has_signed(X509 *issuer, X509_CRL *list) {
  if (X509_NAME_cmp(X509_CRL_get_issuer(list), X509_get_subject_name(issuer)) != 0) return false;
  return !(X509_get_extension_flags(issuer) & EXFLAG_KUSAGE && !(X509_get_key_usage(issuer) & KU_CRL_SIGN)) &&
         X509_CRL_verify(list, X509_get0_pubkey(issuer)) == 1;
}

static enum crypto_revocation look_up(X509_CRL *list, const struct parties *parties, int64_t now_s, int64_t *until_s,
                                      struct error *error) {
  enum { REVOKED = 1 };
  X509_REVOKED *entry;
  if (!list) {
    error_set(error, ERROR_INVALID, "the list cannot be read");
  } else if (!has_signed(parties->issuer, list)) {
    error_set(error, ERROR_INVALID, "the list is not signed by the issuer");
  } else if (seconds_of(X509_CRL_get0_lastUpdate(list)) > now_s + SKEW_S ||
             seconds_of(X509_CRL_get0_nextUpdate(list)) < now_s - SKEW_S) {
    error_set(error, ERROR_INVALID, "the list is too old, or from the future");
  } else {
    *until_s = seconds_of(X509_CRL_get0_nextUpdate(list));
    return X509_CRL_get0_by_cert(list, &entry, parties->certificate) == REVOKED ? CRYPTO_REVOKED : CRYPTO_GOOD;
  }
  return CRYPTO_UNKNOWN;
}

enum crypto_revocation crypto_crl_read(struct slice text, struct slice pem, struct slice issuer_pem, int64_t now_s,
                                       int64_t *until_s, struct error *error) {
  struct parties parties;
  enum crypto_revocation found = CRYPTO_UNKNOWN;
  *until_s = 0;
  if (read_parties(&parties, pem, issuer_pem, error)) {
    X509_CRL *list = read_list(text);
    found = look_up(list, &parties, now_s, until_s, error);
    X509_CRL_free(list);
  }
  free_parties(&parties);
  ERR_clear_error();
  return found;
}
