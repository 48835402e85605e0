// SPDX-License-Identifier: Apache-2.0
// What the two halves of TLS share: contexts (tls_context.c) and connections (tls.c).
#pragma once
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "tls.h"

enum {
  TLS_RECORD = 16384,              // plain bytes of one record (RFC 8446 5.1)
  TLS_BATCH = 4 * TLS_RECORD,      // plain bytes that one write of the socket carries at most
  TLS_OUT_ROOM = TLS_BATCH + 4096, // the same, sealed
  TLS_OUT_MOST = 4 * TLS_OUT_ROOM, // a peer that makes us answer and does not read is cut off here
  TLS_SESSIONS = 16                // remembered by a client's context
};

// A certificate as it is presented: leaf, its chain, its key, and perhaps an alternative of another key type.
struct tls_certificate {
  X509 *leaf;
  EVP_PKEY *key;
  STACK_OF(X509) * chain;
};

struct tls_pair {
  struct tls_certificate main, alt; // alt.leaf NULL: none
};

struct tls_name { // of the SNI table
  char *text;     // NULL: free
  uint32_t index;
};

struct tls_session {
  char *name;
  SSL_SESSION *session;
};

struct tls_context {
  SSL_CTX *ssl;
  BIO_METHOD *socket;
  uint32_t refs;
  bool is_server;
  char *out_spare;     // a buffer of TLS_OUT_ROOM bytes between uses, so that connections at rest hold none
  char *gather;        // TLS_RECORD bytes in which small pieces become one record
  unsigned char *alpn; // as on the wire
  uint32_t alpn_len;
  // Server
  const struct ticket_keys *tickets;
  tls_certificate_hook hook;
  void *hook_data;
  struct tls_pair *pairs; // index 0: the default
  uint32_t pair_count;
  struct tls_name *names; // open addressing
  uint32_t name_count, name_room;
  uint32_t any; // index of "*", 0: none
  // Client
  struct tls_session sessions[TLS_SESSIONS];
  uint32_t session_next;
};

struct tls {
  struct tls_context *context;
  SSL *ssl;
  void *owner;
  char *out; // sealed bytes on their way, NULL: none
  uint32_t out_start, out_end, out_room;
  uint32_t owed; // plain bytes within `out` that the caller has not been told of
  int fd;
  bool is_server, established;
  bool drained; // the last read of the socket took all that was there
  bool starved; // nothing whole is left to be read inside
  bool eof;
  bool chosen;      // the certificate hook has decided
  bool own;         // tls_set_certificate was called
  bool informed;    // `info` is known
  const char *only; // the one protocol that is offered; NULL: those of the context
  struct tls_info info;
  char *sni;
  char *peer; // its certificates as PEM; NULL: not asked for yet, or none
  uint32_t peer_len;
  char *session_name;
};

// Writes why OpenSSL failed, from its queue, which it empties. Always TLS_FAILED.
int tls_explain(struct error *error, enum error_code code, const char *what);
// In tls.c: how OpenSSL reaches the socket.
BIO_METHOD *tls_socket_method(void);

// Verification that leaves the verdict to a plugin.
// For reading PEM: none is asked for.
int tls_no_passphrase(char *buffer, int size, int writing, void *data);
int tls_accept_any(int preverified, X509_STORE_CTX *store);
// The pair for a name, or the default one. NULL: none can be made.
const struct tls_pair *tls_context_find(struct tls_context *context, const char *name);
int tls_certificate_parse(struct tls_certificate *out, const char *certificate_pem, const char *key_pem,
                          struct error *error);
void tls_certificate_close(struct tls_certificate *certificate);
int tls_certificate_present(const struct tls_certificate *certificate, SSL *ssl);
SSL_SESSION *tls_session_find(struct tls_context *context, const char *name);
