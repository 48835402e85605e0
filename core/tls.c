// SPDX-License-Identifier: Apache-2.0
// TLS connections. OpenSSL reaches the socket through a BIO of our own, for the sake of system calls:
//
//   reading: a read that took less than it could has emptied the socket, so no second one is made to be told so
//   writing: sealed records gather in `out` and leave in one write, however many they are
//
//   tls_writev ──> SSL_write ──> out [start..end) ──> send          recv ──> SSL_read ──> tls_read
#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "tls_parts.h"

enum { PEER_MOST = 16384 }; // bytes of a peer's certificates as PEM that are told

// ---- The socket as OpenSSL sees it ----

static int socket_read(BIO *bio, char *data, int room) {
  struct tls *tls = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (tls->drained) {
    BIO_set_retry_read(bio);
    return -1;
  }
  ssize_t n;
  do n = recv(tls->fd, data, (size_t)room, 0);
  while (n < 0 && errno == EINTR);
  tls->drained = n < room;
  tls->eof = n == 0;
  if (n < 0 && errno == EAGAIN) BIO_set_retry_read(bio);
  return (int)n;
}

static bool out_grow(struct tls *tls, uint32_t more) {
  uint32_t room = tls->out_room * 2;
  while (tls->out_end + more > room) room *= 2;
  char *out = room <= TLS_OUT_MOST ? realloc(tls->out, room) : NULL;
  if (!out) return false;
  tls->out = out;
  tls->out_room = room;
  return true;
}

static bool out_take(struct tls *tls) {
  struct tls_context *context = tls->context;
  tls->out = context->out_spare ? context->out_spare : malloc(TLS_OUT_ROOM);
  context->out_spare = NULL;
  tls->out_room = TLS_OUT_ROOM;
  tls->out_start = tls->out_end = 0;
  return tls->out != NULL;
}

static void out_release(struct tls *tls) {
  struct tls_context *context = tls->context;
  if (!context->out_spare && tls->out_room == TLS_OUT_ROOM)
    context->out_spare = tls->out;
  else
    free(tls->out);
  tls->out = NULL;
  tls->out_start = tls->out_end = 0;
}

static int socket_write(BIO *bio, const char *data, int len) {
  struct tls *tls = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (!tls->out && !out_take(tls)) return -1;
  if (tls->out_end + (uint32_t)len > tls->out_room && !out_grow(tls, (uint32_t)len)) return -1;
  memcpy(tls->out + tls->out_end, data, (size_t)len);
  tls->out_end += (uint32_t)len;
  return len;
}

static long socket_control(BIO *bio, int command, long number, void *pointer) {
  (void)number;
  (void)pointer;
  if (command == BIO_CTRL_FLUSH) return 1;
  if (command == BIO_CTRL_EOF) return ((struct tls *)BIO_get_data(bio))->eof;
  return 0;
}

BIO_METHOD *tls_socket_method(void) {
  BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "sluice socket");
  if (!method) return NULL;
  BIO_meth_set_read(method, socket_read);
  BIO_meth_set_write(method, socket_write);
  BIO_meth_set_ctrl(method, socket_control);
  return method;
}

// 0 when all is out, TLS_WANT_WRITE, or TLS_FAILED.
static int out_flush(struct tls *tls, struct error *error) {
  while (tls->out && tls->out_start < tls->out_end) {
    ssize_t n = send(tls->fd, tls->out + tls->out_start, tls->out_end - tls->out_start, MSG_NOSIGNAL);
    if (n >= 0) {
      tls->out_start += (uint32_t)n;
    } else if (errno == EAGAIN) {
      return TLS_WANT_WRITE;
    } else if (errno != EINTR) {
      error_set(error, ERROR_CLOSED, "write: %s", strerror(errno));
      return TLS_FAILED;
    }
  }
  if (tls->out) out_release(tls);
  return 0;
}

// ---- Beginning and end ----

static struct tls *tls_new(struct tls_context *context, int fd) {
  struct tls *tls = calloc(1, sizeof *tls);
  BIO *bio = BIO_new(context->socket);
  if (!tls || !bio) goto fail;
  tls->ssl = SSL_new(context->ssl);
  if (!tls->ssl) goto fail;
  tls->context = context;
  tls->fd = fd;
  context->refs++;
  BIO_set_data(bio, tls);
  BIO_set_init(bio, 1);
  SSL_set_bio(tls->ssl, bio, bio);
  SSL_set_app_data(tls->ssl, tls);
  return tls;
fail:
  BIO_free(bio);
  free(tls);
  ERR_clear_error();
  return NULL;
}

struct tls *tls_server_new(struct tls_context *context, int fd) {
  assert(context->is_server);
  struct tls *tls = tls_new(context, fd);
  if (!tls) return NULL;
  tls->is_server = true;
  SSL_set_accept_state(tls->ssl);
  return tls;
}

// "[::1]" without its brackets; false when `name` is no address.
static bool plain_address(const char *name, char out[INET6_ADDRSTRLEN]) {
  uint8_t bytes[16];
  size_t len = strlen(name);
  if (len > 2 && name[0] == '[' && name[len - 1] == ']') {
    name++;
    len -= 2;
  }
  if (len >= INET6_ADDRSTRLEN) return false;
  memcpy(out, name, len);
  out[len] = 0;
  return inet_pton(AF_INET, out, bytes) == 1 || inet_pton(AF_INET6, out, bytes) == 1;
}

static int set_names(struct tls *tls, const char *server_name, const char *verify_name) {
  char address[INET6_ADDRSTRLEN];
  if (server_name && !plain_address(server_name, address) && !SSL_set_tlsext_host_name(tls->ssl, server_name))
    return -1;
  if (verify_name && plain_address(verify_name, address)) {
    if (!X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls->ssl), address)) return -1;
  } else if (verify_name) {
    SSL_set_hostflags(tls->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    if (!SSL_set1_host(tls->ssl, verify_name)) return -1;
  }
  return 0;
}

// A resumed session is not verified again: so it is remembered for exactly these two names.
static int resume(struct tls *tls, const char *server_name, const char *verify_name) {
  size_t room = (server_name ? strlen(server_name) : 0) + (verify_name ? strlen(verify_name) : 0) + 2;
  tls->session_name = malloc(room);
  if (!tls->session_name) return -1;
  snprintf(tls->session_name, room, "%s %s", server_name ? server_name : "", verify_name ? verify_name : "");
  SSL_SESSION *session = tls_session_find(tls->context, tls->session_name);
  if (session && SSL_SESSION_is_resumable(session)) SSL_set_session(tls->ssl, session);
  return 0;
}

struct tls *tls_client_new(struct tls_context *context, int fd, const char *server_name, const char *verify_name) {
  assert(!context->is_server);
  struct tls *tls = tls_new(context, fd);
  if (!tls) return NULL;
  SSL_set_connect_state(tls->ssl);
  if (set_names(tls, server_name, verify_name) == 0 && resume(tls, server_name, verify_name) == 0) return tls;
  ERR_clear_error();
  tls_free(tls);
  return NULL;
}

void tls_free(struct tls *tls) {
  if (!tls) return;
  // Without this OpenSSL forbids a session for good whose connection ended without close_notify (as SSL 3 wanted).
  if (tls->established) SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  SSL_free(tls->ssl);
  if (tls->out) out_release(tls);
  tls_context_free(tls->context);
  free(tls->sni);
  free(tls->peer);
  free(tls->session_name);
  free(tls);
}

void tls_offer_only(struct tls *tls, const char *protocol) {
  tls->only = protocol;
}

void tls_set_owner(struct tls *tls, void *owner) {
  tls->owner = owner;
}

void *tls_owner(const struct tls *tls) {
  return tls->owner;
}

// ---- Going on ----

const char *tls_verdict_text(long verdict) {
  return X509_verify_cert_error_string(verdict);
}

static int explain_failure(struct tls *tls, struct error *error, int cause) {
  long verdict = SSL_get_verify_result(tls->ssl);
  if (tls->eof) {
    ERR_clear_error();
    error_set(error, ERROR_CLOSED, "the peer closed the connection without a word");
  } else if (cause == SSL_ERROR_SYSCALL && !ERR_peek_error()) {
    error_set(error, ERROR_CLOSED, "read: %s", errno ? strerror(errno) : "closed");
  } else if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_CERTIFICATE_VERIFY_FAILED && verdict != X509_V_OK) {
    ERR_clear_error();
    error_set(error, ERROR_TLS, "certificate verify failed: %s", tls_verdict_text(verdict));
  } else {
    tls_explain(error, ERROR_TLS, "TLS");
  }
  return TLS_FAILED;
}

// What a call of OpenSSL that did not succeed means to the caller.
static int outcome(struct tls *tls, int result, struct error *error) {
  int saved = errno;
  int cause = SSL_get_error(tls->ssl, result);
  errno = saved;
  switch (cause) {
  case SSL_ERROR_WANT_READ: return TLS_WANT_READ;
  case SSL_ERROR_WANT_WRITE: return TLS_WANT_WRITE;
  case SSL_ERROR_WANT_X509_LOOKUP: return TLS_WANT_CERTIFICATE;
  case SSL_ERROR_ZERO_RETURN: return TLS_EOF;
  default: return explain_failure(tls, error, cause);
  }
}

static void begin_call(struct tls *tls) {
  if (ERR_peek_error()) ERR_clear_error(); // what another connection left there would be read as ours
  errno = 0;
  tls->drained = false;
}

int tls_handshake(struct tls *tls, struct error *error) {
  int result = 0;
  begin_call(tls);
  if (!tls->established) {
    int done = SSL_do_handshake(tls->ssl);
    tls->established = done == 1;
    if (done != 1) result = outcome(tls, done, error);
  }
  if (result == TLS_FAILED || result == TLS_EOF) {
    out_flush(tls, NULL); // the alert, if it can still be told
    if (result == TLS_EOF) error_set(error, ERROR_CLOSED, "the peer ended the handshake");
    return TLS_FAILED;
  }
  int flushed = out_flush(tls, error);
  return flushed ? flushed : result;
}

int tls_check_pair(const char *certificate_pem, const char *key_pem, struct error *error) {
  struct tls_certificate given;
  if (tls_certificate_parse(&given, certificate_pem, key_pem, error) < 0) return ERROR_INVALID;
  tls_certificate_close(&given);
  return 0;
}

void tls_forget_session(struct tls *tls) {
  SSL_set_options(tls->ssl, SSL_OP_NO_TICKET);
  SSL_set_num_tickets(tls->ssl, 0);
}

// Adds the names of the authorities to those that the client is told. How many.
static int name_authorities(struct tls *tls, struct slice authorities) {
  BIO *bio = authorities.len <= INT32_MAX ? BIO_new_mem_buf(authorities.data, (int)authorities.len) : NULL;
  int count = 0;
  X509 *certificate;
  while (bio && (certificate = PEM_read_bio_X509(bio, NULL, tls_no_passphrase, NULL))) {
    count += SSL_add1_to_CA_list(tls->ssl, certificate);
    X509_free(certificate);
  }
  BIO_free(bio);
  ERR_clear_error(); // reading ends with "no start line"
  return count;
}

int tls_ask_client(struct tls *tls, struct slice authorities, struct error *error) {
  SSL_set_verify(tls->ssl, SSL_VERIFY_PEER, tls_accept_any);
  if (authorities.len == 0 || name_authorities(tls, authorities) > 0) return 0;
  return error_set(error, ERROR_INVALID, "authorities: there is no certificate in it");
}

int tls_set_certificate(struct tls *tls, const char *certificate_pem, const char *key_pem, struct error *error) {
  struct tls_certificate given;
  if (tls_certificate_parse(&given, certificate_pem, key_pem, error) < 0) return ERROR_INVALID;
  SSL_certs_clear(tls->ssl);
  tls->own = tls_certificate_present(&given, tls->ssl) == 1;
  tls_certificate_close(&given);
  if (tls->own) return 0;
  tls_explain(error, ERROR_INVALID, "certificate");
  return ERROR_INVALID;
}

void tls_continue(struct tls *tls) {
  tls->chosen = true;
}

int64_t tls_read(struct tls *tls, void *data, size_t room, struct error *error) {
  size_t got = 0;
  int result = 0;
  begin_call(tls);
  tls->starved = false;
  while (got < room) {
    size_t n = 0;
    int good = SSL_read_ex(tls->ssl, (char *)data + got, room - got, &n);
    got += n;
    if (!good) {
      result = outcome(tls, good, got ? NULL : error);
      tls->starved = true;
      break;
    }
    if (tls->drained && !SSL_has_pending(tls->ssl)) break;
  }
  // What reading made us say: alerts, key updates.
  if (tls->out && out_flush(tls, NULL) == TLS_WANT_WRITE && result == TLS_WANT_READ) result = TLS_WANT_WRITE;
  return got > 0 ? (int64_t)got : result;
}

bool tls_is_cut_off(const struct tls *tls) {
  return tls->eof;
}

bool tls_pending(const struct tls *tls) {
  return !tls->starved && SSL_has_pending(tls->ssl);
}

// ---- Writing ----

struct cursor {
  const struct iovec *iov, *end;
  size_t offset;
};

// The plain bytes of the next record: a part of one piece where that fills it or is the last, else gathered.
static struct iovec next_record(struct tls_context *context, struct cursor *cursor) {
  size_t left = cursor->iov->iov_len - cursor->offset;
  struct iovec record = {(char *)cursor->iov->iov_base + cursor->offset, left};
  if (left >= TLS_RECORD || cursor->iov + 1 == cursor->end) {
    if (left > TLS_RECORD) record.iov_len = TLS_RECORD;
    cursor->offset += record.iov_len;
  } else {
    record = (struct iovec){context->gather, 0};
    while (cursor->iov < cursor->end && record.iov_len < TLS_RECORD) {
      size_t part = cursor->iov->iov_len - cursor->offset;
      if (part > TLS_RECORD - record.iov_len) part = TLS_RECORD - record.iov_len;
      memcpy(context->gather + record.iov_len, (const char *)cursor->iov->iov_base + cursor->offset, part);
      record.iov_len += part;
      cursor->offset += part;
      if (cursor->offset < cursor->iov->iov_len) break;
      cursor->iov++;
      cursor->offset = 0;
    }
  }
  if (cursor->iov < cursor->end && cursor->offset == cursor->iov->iov_len) {
    cursor->iov++;
    cursor->offset = 0;
  }
  return record;
}

// Seals what one write may carry. Plain bytes, or enum tls_result.
static int64_t seal_batch(struct tls *tls, const struct iovec *iov, int count, struct error *error) {
  struct cursor cursor = {iov, iov + count, 0};
  size_t sealed = 0;
  while (cursor.iov < cursor.end && sealed < TLS_BATCH) {
    struct iovec record = next_record(tls->context, &cursor);
    size_t n = 0;
    if (record.iov_len == 0) continue;
    int good = SSL_write_ex(tls->ssl, record.iov_base, record.iov_len, &n);
    if (!good) {
      int result = outcome(tls, good, error);
      if (sealed == 0 || result == TLS_FAILED) return result;
      error_set(error, ERROR_TLS, "TLS: a record was refused"); // part of the batch is sealed: no way to tell it
      return TLS_FAILED;
    }
    assert(n == record.iov_len); // our BIO takes everything
    sealed += n;
  }
  return (int64_t)sealed;
}

int64_t tls_writev(struct tls *tls, const struct iovec *iov, int count, struct error *error) {
  begin_call(tls);
  int flushed = out_flush(tls, error);
  if (flushed) return flushed;
  if (tls->owed) {
    int64_t owed = tls->owed;
    tls->owed = 0;
    return owed;
  }
  int64_t sealed = seal_batch(tls, iov, count, error);
  if (sealed <= 0) return sealed;
  flushed = out_flush(tls, error);
  if (flushed == TLS_WANT_WRITE) tls->owed = (uint32_t)sealed;
  return flushed ? flushed : sealed;
}

int tls_shutdown(struct tls *tls) {
  begin_call(tls);
  if (tls->established && !(SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN)) SSL_shutdown(tls->ssl);
  ERR_clear_error();
  return out_flush(tls, NULL);
}

// ---- What was agreed ----

const char *tls_sni(struct tls *tls) {
  if (tls->sni || tls->informed) return tls->sni;
  const char *name = SSL_get_servername(tls->ssl, TLSEXT_NAMETYPE_host_name);
  if (!name) return NULL;
  tls->sni = strdup(name);
  for (char *c = tls->sni; c && *c; c++) *c = (char)tolower((unsigned char)*c);
  return tls->sni;
}

// Asked for with each request: so it is found out once.
void tls_info(struct tls *tls, struct tls_info *out) {
  if (!tls->informed) {
    const unsigned char *alpn;
    unsigned int alpn_len;
    SSL_get0_alpn_selected(tls->ssl, &alpn, &alpn_len);
    tls->info = (struct tls_info){.version = SSL_get_version(tls->ssl),
                                  .cipher = SSL_get_cipher_name(tls->ssl),
                                  .alpn = alpn_len ? (const char *)alpn : NULL,
                                  .alpn_len = alpn_len,
                                  .sni = tls_sni(tls),
                                  .reused = SSL_session_reused(tls->ssl)};
    tls->informed = tls->established;
  }
  *out = tls->info;
}

// NULL: too long, or no memory.
static char *copy_peer(const struct tls *tls, X509 *certificate, uint32_t *out_len) {
  STACK_OF(X509) *others = SSL_get_peer_cert_chain(tls->ssl); // none in a resumed session; of a server with the first
  int from = SSL_is_server(tls->ssl) ? 0 : 1;
  BIO *bio = BIO_new(BIO_s_mem());
  char *text, *copy = NULL;
  bool written = bio && PEM_write_bio_X509(bio, certificate);
  for (int i = from; written && i < sk_X509_num(others); i++)
    written = PEM_write_bio_X509(bio, sk_X509_value(others, i));
  long len = written ? BIO_get_mem_data(bio, &text) : 0;
  if (len > 0 && len <= PEER_MOST && (copy = malloc((size_t)len))) memcpy(copy, text, (size_t)len);
  *out_len = copy ? (uint32_t)len : 0;
  BIO_free(bio);
  return copy;
}

// Asked for with each request of a connection that showed one: so it is written once.
struct slice tls_peer_certificate(struct tls *tls) {
  X509 *certificate = tls->peer ? NULL : SSL_get0_peer_certificate(tls->ssl);
  if (certificate) tls->peer = copy_peer(tls, certificate, &tls->peer_len);
  return (struct slice){tls->peer, tls->peer_len};
}
