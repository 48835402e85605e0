// SPDX-License-Identifier: Apache-2.0
// TLS contexts: certificates by name, ticket keys, trusted roots, sessions of clients.
#include "tls_parts.h"

#include <assert.h>
#include <ctype.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"

// Mozilla's intermediate list (version 5.7) for TLS 1.2; the client's order counts.
static const char intermediate[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305";

int tls_explain(struct error *error, enum error_code code, const char *what) {
  unsigned long cause = ERR_get_error(); // the first is nearest to the cause
  const char *reason = cause ? ERR_reason_error_string(cause) : NULL;
  char text[128];
  if (!reason) {
    ERR_error_string_n(cause, text, sizeof text);
    reason = cause ? text : "unknown reason";
  }
  ERR_clear_error();
  error_set(error, code, "%s: %s", what, reason);
  return TLS_FAILED;
}

// ---- Certificates ----

// A key that wants a pass phrase cannot be used: nobody is there to type it.
int tls_no_passphrase(char *buffer, int size, int writing, void *data) {
  (void)buffer;
  (void)size;
  (void)writing;
  (void)data;
  return -1;
}

static BIO *text_bio(const char *text) {
  return BIO_new_mem_buf(text, -1);
}

// Certificates from the second on. 0, or TLS_FAILED when one of them does not parse.
static int parse_chain(struct tls_certificate *out, BIO *bio, struct error *error) {
  X509 *next;
  out->chain = sk_X509_new_null();
  if (!out->chain) return tls_explain(error, ERROR_MEMORY, "certificate");
  while ((next = PEM_read_bio_X509(bio, NULL, tls_no_passphrase, NULL)) != NULL) {
    if (sk_X509_push(out->chain, next) > 0) continue;
    X509_free(next);
    return tls_explain(error, ERROR_MEMORY, "certificate");
  }
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
    return tls_explain(error, ERROR_INVALID, "certificate chain");
  ERR_clear_error();
  return 0;
}

static int parse_leaf(struct tls_certificate *out, const char *pem, struct error *error) {
  BIO *bio = text_bio(pem);
  if (!bio) return tls_explain(error, ERROR_MEMORY, "certificate");
  out->leaf = PEM_read_bio_X509_AUX(bio, NULL, tls_no_passphrase, NULL);
  int result = out->leaf ? parse_chain(out, bio, error) : tls_explain(error, ERROR_INVALID, "certificate");
  BIO_free(bio);
  return result;
}

static int parse_key(struct tls_certificate *out, const char *pem, struct error *error) {
  BIO *bio = text_bio(pem);
  if (!bio) return tls_explain(error, ERROR_MEMORY, "private key");
  out->key = PEM_read_bio_PrivateKey(bio, NULL, tls_no_passphrase, NULL);
  BIO_free(bio);
  if (out->key) {
    ERR_clear_error(); // decoders that did not fit leave their complaints behind
    return 0;
  }
  if (strstr(pem, "ENCRYPTED")) {
    ERR_clear_error();
    error_set(error, ERROR_INVALID, "private key: it is encrypted with a pass phrase");
    return TLS_FAILED;
  }
  return tls_explain(error, ERROR_INVALID, "private key");
}

int tls_certificate_parse(struct tls_certificate *out, const char *certificate_pem, const char *key_pem,
                          struct error *error) {
  *out = (struct tls_certificate){0};
  ERR_clear_error();
  if (!certificate_pem || !key_pem) {
    error_set(error, ERROR_INVALID, "a certificate needs its key, and a key its certificate");
    return ERROR_INVALID;
  }
  if (parse_leaf(out, certificate_pem, error) < 0 || parse_key(out, key_pem, error) < 0) goto fail;
  if (!X509_check_private_key(out->leaf, out->key)) {
    tls_explain(error, ERROR_INVALID, "certificate and private key do not belong together");
    goto fail;
  }
  return 0;
fail:
  tls_certificate_close(out);
  return ERROR_INVALID;
}

void tls_certificate_close(struct tls_certificate *certificate) {
  X509_free(certificate->leaf);
  EVP_PKEY_free(certificate->key);
  sk_X509_pop_free(certificate->chain, X509_free);
  *certificate = (struct tls_certificate){0};
}

int tls_certificate_present(const struct tls_certificate *certificate, SSL *ssl) {
  if (!certificate->leaf) return 1;
  return SSL_use_cert_and_key(ssl, certificate->leaf, certificate->key, certificate->chain, 1);
}

static int add_extension(X509 *certificate, int kind, const char *value) {
  X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, kind, value);
  if (!extension) return 0;
  int result = X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
  return result;
}

static int fill_self_signed(X509 *certificate, EVP_PKEY *key) {
  uint64_t serial = 1;
  X509_NAME *name = X509_get_subject_name(certificate);
  return X509_set_version(certificate, X509_VERSION_3) && RAND_bytes((unsigned char *)&serial, 7) == 1 &&
         ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), serial | 1) &&
         X509_gmtime_adj(X509_getm_notBefore(certificate), -24 * 3600L) &&
         X509_gmtime_adj(X509_getm_notAfter(certificate), 10 * 365 * 24 * 3600L) &&
         X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0) &&
         X509_set_issuer_name(certificate, name) && X509_set_pubkey(certificate, key) &&
         add_extension(certificate, NID_subject_alt_name, "DNS:localhost") &&
         add_extension(certificate, NID_basic_constraints, "critical,CA:FALSE") &&
         X509_sign(certificate, key, EVP_sha256()) > 0;
}

static int make_self_signed(struct tls_certificate *out, struct error *error) {
  ERR_clear_error();
  *out = (struct tls_certificate){.leaf = X509_new(), .key = EVP_EC_gen("P-256")};
  if (out->leaf && out->key && fill_self_signed(out->leaf, out->key)) return 0;
  tls_explain(error, ERROR_TLS, "self-signed certificate");
  tls_certificate_close(out);
  return ERROR_TLS;
}

static int copy_pem(BIO *bio, char out[TLS_PEM_BYTES]) {
  int len = BIO_read(bio, out, TLS_PEM_BYTES - 1);
  if (len <= 0) return -1;
  out[len] = 0;
  return 0;
}

int tls_self_signed(char certificate_pem[TLS_PEM_BYTES], char key_pem[TLS_PEM_BYTES], struct error *error) {
  struct tls_certificate made;
  if (make_self_signed(&made, error) < 0) return ERROR_TLS;
  BIO *bio = BIO_new(BIO_s_mem());
  bool written = bio && PEM_write_bio_X509(bio, made.leaf) && copy_pem(bio, certificate_pem) == 0 &&
                 PEM_write_bio_PrivateKey(bio, made.key, NULL, NULL, 0, NULL, NULL) && copy_pem(bio, key_pem) == 0;
  BIO_free(bio);
  tls_certificate_close(&made);
  if (written) return 0;
  tls_explain(error, ERROR_MEMORY, "self-signed certificate");
  return ERROR_MEMORY;
}

// ---- Names ----

static uint64_t hash_name(const char *text) {
  uint64_t hash = 14695981039346656037u;
  for (; *text; text++) hash = (hash ^ (uint8_t)*text) * 1099511628211u;
  return hash;
}

static struct tls_name *name_place(struct tls_name *names, uint32_t room, const char *text) {
  uint32_t at = (uint32_t)hash_name(text) & (room - 1);
  while (names[at].text && strcmp(names[at].text, text) != 0) at = (at + 1) & (room - 1);
  return &names[at];
}

static int names_grow(struct tls_context *context) {
  if ((context->name_count + 1) * 2 <= context->name_room) return 0;
  uint32_t room = context->name_room ? context->name_room * 2 : 16;
  struct tls_name *names = calloc(room, sizeof *names);
  if (!names) return ERROR_MEMORY;
  for (uint32_t i = 0; i < context->name_room; i++)
    if (context->names[i].text) *name_place(names, room, context->names[i].text) = context->names[i];
  free(context->names);
  context->names = names;
  context->name_room = room;
  return 0;
}

int tls_context_sni(struct tls_context *context, uint32_t index, const char *name, struct error *error) {
  if (index == 0 || index >= context->pair_count)
    return error_set(error, ERROR_INVALID, "no certificate %u for name %s", index, name);
  if (strcmp(name, "*") == 0) {
    context->any = index;
    return 0;
  }
  char *text = strdup(name);
  if (!text || names_grow(context) < 0) {
    free(text);
    return error_set(error, ERROR_MEMORY, "no memory for name %s", name);
  }
  for (char *c = text; *c; c++) *c = (char)tolower((unsigned char)*c);
  struct tls_name *place = name_place(context->names, context->name_room, text);
  if (place->text)
    free(place->text);
  else
    context->name_count++;
  *place = (struct tls_name){text, index};
  return 0;
}

static uint32_t name_index(const struct tls_context *context, const char *text) {
  return context->name_room ? name_place(context->names, context->name_room, text)->index : 0;
}

// As Kong looks: the name, then "*" for its first label, then for its last.
static uint32_t find_index(const struct tls_context *context, const char *name) {
  char pattern[260];
  uint32_t index = name_index(context, name);
  if (index) return index;
  const char *first = strchr(name, '.'), *last = strrchr(name, '.');
  if (!first || strlen(name) > 255) return 0;
  snprintf(pattern, sizeof pattern, "*%s", first);
  if ((index = name_index(context, pattern))) return index;
  snprintf(pattern, sizeof pattern, "%.*s.*", (int)(last - name), name);
  return name_index(context, pattern);
}

const struct tls_pair *tls_context_find(struct tls_context *context, const char *name) {
  uint32_t index = name && context->name_count ? find_index(context, name) : 0;
  if (index == 0) index = context->any;
  if (index == 0 && !context->pairs[0].main.leaf && make_self_signed(&context->pairs[0].main, NULL) < 0) return NULL;
  return &context->pairs[index];
}

int tls_context_certificate(struct tls_context *context, const char *certificate_pem, const char *key_pem,
                            const char *alt_certificate_pem, const char *alt_key_pem, struct error *error) {
  struct tls_pair pair = {0};
  if (tls_certificate_parse(&pair.main, certificate_pem, key_pem, error) < 0) return ERROR_INVALID;
  if ((alt_certificate_pem || alt_key_pem) &&
      tls_certificate_parse(&pair.alt, alt_certificate_pem, alt_key_pem, error) < 0)
    goto fail;
  uint32_t count = context->pair_count;
  if ((count & (count - 1)) == 0) { // full at each power of two
    struct tls_pair *pairs = realloc(context->pairs, count * 2 * sizeof *pairs);
    if (!pairs) {
      error_set(error, ERROR_MEMORY, "no memory for a certificate");
      goto fail;
    }
    context->pairs = pairs;
  }
  context->pairs[context->pair_count++] = pair;
  return (int)count;
fail:
  tls_certificate_close(&pair.main);
  tls_certificate_close(&pair.alt);
  return ERROR_INVALID;
}

// ---- What OpenSSL calls during a handshake ----

static struct tls *tls_of(SSL *ssl) {
  return SSL_get_app_data(ssl);
}

// 1: go on, 0: end, -1: wait.
static int on_certificate(SSL *ssl, void *data) {
  struct tls_context *context = data;
  struct tls *tls = tls_of(ssl);
  if (context->hook && !tls->chosen) {
    int verdict = context->hook(context->hook_data, tls);
    if (verdict != 0) return verdict > 0 ? -1 : 0;
    tls->chosen = true;
  }
  if (tls->own) return 1;
  const struct tls_pair *pair = tls_context_find(context, tls_sni(tls));
  if (!pair) return 0;
  SSL_certs_clear(ssl);
  return tls_certificate_present(&pair->main, ssl) && tls_certificate_present(&pair->alt, ssl);
}

static bool find_offered(const char *name, const unsigned char **out, unsigned char *out_len,
                         const unsigned char *offered, unsigned int len) {
  size_t name_len = strlen(name);
  for (unsigned int at = 0; at < len; at += 1u + offered[at]) {
    if (offered[at] != name_len || at + 1u + name_len > len || memcmp(offered + at + 1, name, name_len) != 0) continue;
    *out = offered + at + 1;
    *out_len = offered[at];
    return true;
  }
  return false;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *offered,
                   unsigned int offered_len, void *data) {
  struct tls_context *context = data;
  const struct tls *tls = tls_of(ssl);
  if (tls->only && !*tls->only) return SSL_TLSEXT_ERR_NOACK;
  if (tls->only)
    return find_offered(tls->only, out, out_len, offered, offered_len) ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
  unsigned char *chosen;
  if (SSL_select_next_proto(&chosen, out_len, context->alpn, context->alpn_len, offered, offered_len) !=
      OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

// A key as process.h lays it out.
struct ticket_key {
  uint8_t name[16], hmac[32], aes[32];
};

static int ticket_mac(EVP_MAC_CTX *mac, const struct ticket_key *key) {
  OSSL_PARAM params[] = {
      OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)key->hmac, sizeof key->hmac),
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){"SHA256"}, 0), OSSL_PARAM_construct_end()};
  return EVP_MAC_CTX_set_params(mac, params);
}

static int ticket_seal(const struct ticket_keys *tickets, unsigned char *name, unsigned char *iv,
                       EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac) {
  struct ticket_key key;
  uint32_t current = __atomic_load_n(&tickets->current, __ATOMIC_ACQUIRE) % TICKET_KEYS;
  memcpy(&key, tickets->keys[current], sizeof key);
  memcpy(name, key.name, sizeof key.name);
  int good = RAND_bytes(iv, 16) == 1 && EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key.aes, iv) == 1 &&
             ticket_mac(mac, &key);
  OPENSSL_cleanse(&key, sizeof key);
  return good ? 1 : -1;
}

// 2: open it, but give the client a new one; 0: unknown, so a full handshake.
static int ticket_open(const struct ticket_keys *tickets, const unsigned char *name, unsigned char *iv,
                       EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac) {
  struct ticket_key key;
  for (uint32_t i = 0; i < TICKET_KEYS; i++) {
    memcpy(&key, tickets->keys[i], sizeof key);
    if (CRYPTO_memcmp(name, key.name, sizeof key.name) != 0) continue;
    bool good = ticket_mac(mac, &key) && EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key.aes, iv) == 1;
    OPENSSL_cleanse(&key, sizeof key);
    if (!good) return -1;
    return i == __atomic_load_n(&tickets->current, __ATOMIC_ACQUIRE) % TICKET_KEYS ? 1 : 2;
  }
  return 0;
}

static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                     int sealing) {
  const struct ticket_keys *tickets = tls_of(ssl)->context->tickets;
  return sealing ? ticket_seal(tickets, name, iv, cipher, mac) : ticket_open(tickets, name, iv, cipher, mac);
}

int tls_accept_any(int preverified, X509_STORE_CTX *store) {
  (void)preverified;
  (void)store;
  return 1;
}

// ---- Sessions of clients ----

static struct tls_session *session_place(struct tls_context *context, const char *name) {
  for (uint32_t i = 0; i < TLS_SESSIONS; i++) {
    struct tls_session *session = &context->sessions[i];
    if (session->name && strcmp(session->name, name) == 0) return session;
  }
  return NULL;
}

SSL_SESSION *tls_session_find(struct tls_context *context, const char *name) {
  struct tls_session *place = session_place(context, name);
  return place ? place->session : NULL;
}

// Keeps the session (1: its reference is ours now).
static int on_session(SSL *ssl, SSL_SESSION *session) {
  struct tls *tls = tls_of(ssl);
  struct tls_context *context = tls->context;
  struct tls_session *place = session_place(context, tls->session_name);
  if (!place) {
    char *name = strdup(tls->session_name);
    if (!name) return 0;
    place = &context->sessions[context->session_next++ % TLS_SESSIONS];
    free(place->name);
    place->name = name;
  }
  SSL_SESSION_free(place->session);
  place->session = session;
  return 1;
}

// ---- Making and ending contexts ----

// "h2,http/1.1" as lengths and names.
static int set_alpn(struct tls_context *context, const char *names) {
  size_t len = strlen(names);
  if (len > 250 || !(context->alpn = malloc(len + 1))) return -1;
  unsigned char *out = context->alpn;
  for (const char *at = names;;) {
    size_t word = strcspn(at, ",");
    *out++ = (unsigned char)word;
    memcpy(out, at, word);
    out += word;
    if (at[word] == 0) break;
    at += word + 1;
  }
  context->alpn_len = (uint32_t)(out - context->alpn);
  return 0;
}

static struct tls_context *context_new(const SSL_METHOD *method, const char *alpn, struct error *error) {
  struct tls_context *context = calloc(1, sizeof *context);
  if (!context) goto fail;
  ERR_clear_error();
  context->refs = 1;
  context->socket = tls_socket_method();
  context->ssl = SSL_CTX_new(method);
  context->gather = malloc(TLS_RECORD);
  if (!context->socket || !context->ssl || !context->gather) goto fail;
  if (alpn && set_alpn(context, alpn) < 0) goto fail;
  SSL_CTX_set_min_proto_version(context->ssl, TLS1_2_VERSION);
  SSL_CTX_set_options(context->ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context->ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                     SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY);
  SSL_CTX_set_read_ahead(context->ssl, 1);
  SSL_CTX_set_default_read_buffer_len(context->ssl, 2 * (TLS_RECORD + 512));
  return context;
fail:
  tls_explain(error, ERROR_MEMORY, "TLS context");
  if (context) tls_context_free(context);
  return NULL;
}

static int set_server_options(struct tls_context *context, const struct tls_server_options *options,
                              struct error *error) {
  SSL_CTX *ssl = context->ssl;
  if (!SSL_CTX_set_cipher_list(ssl, options->ciphers ? options->ciphers : intermediate))
    return tls_explain(error, ERROR_INVALID, "ciphers");
  SSL_CTX_set_dh_auto(ssl, 1);
  SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF); // tickets only: workers share nothing else
  SSL_CTX_set_session_id_context(ssl, (const unsigned char *)"sluice", 6);
  SSL_CTX_set_timeout(ssl, 2 * 3600);
  if (context->tickets) SSL_CTX_set_tlsext_ticket_key_evp_cb(ssl, on_ticket);
  if (context->alpn) SSL_CTX_set_alpn_select_cb(ssl, on_alpn, context);
  SSL_CTX_set_cert_cb(ssl, on_certificate, context);
  if (options->ask_client) SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, tls_accept_any);
  context->pairs = calloc(1, sizeof *context->pairs);
  context->pair_count = 1;
  if (!context->pairs) return tls_explain(error, ERROR_MEMORY, "TLS context");
  if (!options->default_certificate_pem) return 0;
  return tls_certificate_parse(&context->pairs[0].main, options->default_certificate_pem, options->default_key_pem,
                               error);
}

struct tls_context *tls_server_context_new(const struct tls_server_options *options, struct error *error) {
  struct tls_context *context = context_new(TLS_server_method(), options->alpn, error);
  if (!context) return NULL;
  context->is_server = true;
  context->tickets = options->tickets;
  context->hook = options->hook;
  context->hook_data = options->hook_data;
  if (set_server_options(context, options, error) == 0) return context;
  tls_context_free(context);
  return NULL;
}

static int trust_text(SSL_CTX *ssl, const char *pem, struct error *error) {
  BIO *bio = text_bio(pem);
  X509 *root;
  uint32_t count = 0;
  X509_STORE *store = SSL_CTX_get_cert_store(ssl);
  while (bio && (root = PEM_read_bio_X509_AUX(bio, NULL, tls_no_passphrase, NULL)) != NULL) {
    count += X509_STORE_add_cert(store, root) == 1;
    X509_free(root);
  }
  BIO_free(bio);
  bool ended = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (count == 0 || !ended) return tls_explain(error, ERROR_INVALID, "trusted certificates");
  ERR_clear_error();
  return 0;
}

static int set_trust(SSL_CTX *ssl, const struct tls_client_options *options, struct error *error) {
  if (!options->verify) return 0;
  SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, NULL);
  if (options->verify_depth >= 0) SSL_CTX_set_verify_depth(ssl, options->verify_depth);
  if (options->ca_pem) return trust_text(ssl, options->ca_pem, error);
  return SSL_CTX_set_default_verify_paths(ssl) ? 0 : tls_explain(error, ERROR_TLS, "the system's certificates");
}

static int set_own_certificate(SSL_CTX *ssl, const struct tls_client_options *options, struct error *error) {
  struct tls_certificate own;
  if (!options->certificate_pem && !options->key_pem) return 0;
  if (tls_certificate_parse(&own, options->certificate_pem, options->key_pem, error) < 0) return ERROR_INVALID;
  int set = SSL_CTX_use_cert_and_key(ssl, own.leaf, own.key, own.chain, 1);
  tls_certificate_close(&own);
  return set ? 0 : tls_explain(error, ERROR_INVALID, "client certificate");
}

struct tls_context *tls_client_context_new(const struct tls_client_options *options, struct error *error) {
  struct tls_context *context = context_new(TLS_client_method(), options->alpn, error);
  if (!context) return NULL;
  SSL_CTX *ssl = context->ssl;
  SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
  SSL_CTX_sess_set_new_cb(ssl, on_session);
  if (context->alpn) SSL_CTX_set_alpn_protos(ssl, context->alpn, context->alpn_len);
  if (set_trust(ssl, options, error) == 0 && set_own_certificate(ssl, options, error) == 0) return context;
  tls_context_free(context);
  return NULL;
}

void tls_context_retain(struct tls_context *context) {
  context->refs++;
}

void tls_context_free(struct tls_context *context) {
  assert(context->refs > 0);
  if (--context->refs > 0) return;
  for (uint32_t i = 0; i < context->pair_count; i++) {
    tls_certificate_close(&context->pairs[i].main);
    tls_certificate_close(&context->pairs[i].alt);
  }
  for (uint32_t i = 0; i < context->name_room; i++) free(context->names[i].text);
  for (uint32_t i = 0; i < TLS_SESSIONS; i++) {
    free(context->sessions[i].name);
    SSL_SESSION_free(context->sessions[i].session);
  }
  free(context->pairs);
  free(context->names);
  free(context->alpn);
  free(context->gather);
  free(context->out_spare);
  SSL_CTX_free(context->ssl);
  BIO_meth_free(context->socket);
  free(context);
}
