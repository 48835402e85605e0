// SPDX-License-Identifier: Apache-2.0
// TLS over non-blocking sockets: contexts with certificates and settings, and one object a connection.
// The only module (with crypto) that knows OpenSSL. Nothing here waits or calls the loop: a call that cannot go on
// says what it wants, and is made again when the socket is ready.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "slice.h"

struct iovec;
struct ticket_keys; // process.h
struct tls;
struct tls_context;

// What calls answer besides a count of bytes (0 from tls_handshake and tls_shutdown: done).
enum tls_result {
  TLS_WANT_READ = -1,
  TLS_WANT_WRITE = -2,
  TLS_EOF = -3,             // the peer said that it is done (close_notify)
  TLS_FAILED = -4,          // `error` says why; its code ERROR_CLOSED: the peer went without close_notify
  TLS_WANT_CERTIFICATE = -5 // the certificate hook answered "wait": call tls_continue, then tls_handshake again
};

enum { TLS_PEM_BYTES = 4096 }; // enough for what tls_self_signed writes

// ---- Contexts -------------------------------------------------------------------------------------------------------

// What tells a server's context to choose by itself. Called in the middle of a handshake, when SNI is known (tls_sni).
// 0: take the certificate by SNI, or the one that tls_set_certificate has set; 1: wait; negative: end the handshake.
typedef int (*tls_certificate_hook)(void *data, struct tls *tls);

struct tls_server_options {
  const char *alpn;                  // protocols in order of preference, "h2,http/1.1"; NULL: none
  const char *ciphers;               // of TLS 1.2, OpenSSL's syntax; NULL: Mozilla's intermediate list
  const struct ticket_keys *tickets; // read at each handshake, must outlive the context; NULL: keys of its own
  bool ask_client;                   // ask for a client certificate and take any; who trusts it is a plugin's decision
  // Presented where no name matches and "*" is not configured; NULL: a self-signed one, made when first needed.
  const char *default_certificate_pem, *default_key_pem;
  tls_certificate_hook hook; // NULL: none
  void *hook_data;
};

// A server's context. NULL, and why.
struct tls_context *tls_server_context_new(const struct tls_server_options *options, struct error *error);

// Adds a certificate (its chain behind it) with its key, and the alternative of another key type (NULL: none).
// Its index from 1, or ERROR_INVALID: the text does not parse, or key and certificate do not belong together.
int tls_context_certificate(struct tls_context *context, const char *certificate_pem, const char *key_pem,
                            const char *alt_certificate_pem, const char *alt_key_pem, struct error *error);
// Presents certificate `index` for a name: "a.x", "*.x", "x.*", or "*" for every other. 0, or a negative error.
int tls_context_sni(struct tls_context *context, uint32_t index, const char *name, struct error *error);

struct tls_client_options {
  bool verify;                           // chain and name
  int verify_depth;                      // intermediate certificates allowed; -1: OpenSSL's default
  const char *ca_pem;                    // trusted roots; NULL: the system's
  const char *certificate_pem, *key_pem; // of the client; NULL: none
  const char *alpn;                      // as above
};

// A client's context; remembers the last session of each server name. NULL, and why.
struct tls_context *tls_client_context_new(const struct tls_client_options *options, struct error *error);

// One more owner.
void tls_context_retain(struct tls_context *context);
// Drops the owner's reference. Connections hold their own, so the context ends with the last of them.
void tls_context_free(struct tls_context *context);

// Makes a self-signed certificate for localhost with a P-256 key, as PEM texts ended by zero.
int tls_self_signed(char certificate_pem[TLS_PEM_BYTES], char key_pem[TLS_PEM_BYTES], struct error *error);

// ---- Connections ----------------------------------------------------------------------------------------------------

// Both speak over `fd`, which stays the caller's. NULL: no memory.
struct tls *tls_server_new(struct tls_context *context, int fd);
// `server_name` goes out as SNI unless NULL or an address; `verify_name` (a name or an address) must be in the
// server's certificate when the context verifies; NULL: any name does.
struct tls *tls_client_new(struct tls_context *context, int fd, const char *server_name, const char *verify_name);
void tls_free(struct tls *tls);

// Of a server: agrees on no other protocol than this one, whatever the context has; on none at all when it is empty. The
// text stays the caller's.
void tls_offer_only(struct tls *tls, const char *protocol);

// The owner's pointer, for hooks.
void tls_set_owner(struct tls *tls, void *owner);
void *tls_owner(const struct tls *tls);

// 0 when done, or enum tls_result.
int tls_handshake(struct tls *tls, struct error *error);
// Uses these instead of the table: from the hook or before tls_continue.
int tls_set_certificate(struct tls *tls, const char *certificate_pem, const char *key_pem, struct error *error);
// Why a certificate was not accepted, by OpenSSL's number for it. Static text; from any thread.
const char *tls_verdict_text(long verdict);
// Whether a certificate (its chain behind it) and a key parse and belong together: 0, or ERROR_INVALID and why.
int tls_check_pair(const char *certificate_pem, const char *key_pem, struct error *error);
// From the hook too: the client gets no ticket; it is asked for a certificate, and any is taken, or none.
void tls_forget_session(struct tls *tls);
// `authorities` (PEM; empty: none): whose names it is told; they add up. ERROR_INVALID: there is no certificate in it.
int tls_ask_client(struct tls *tls, struct slice authorities, struct error *error);
// The hook's decision is made.
void tls_continue(struct tls *tls);

// Bytes read (as many as came, one read of the socket if that empties it), or enum tls_result.
int64_t tls_read(struct tls *tls, void *data, size_t room, struct error *error);
// Bytes taken from the front of the pieces, or enum tls_result. Small pieces share a record, several records share a
// write. What was not taken must be offered again, unchanged, at the front of the next call (it may have moved).
int64_t tls_writev(struct tls *tls, const struct iovec *iov, int count, struct error *error);
// Bytes were read from the socket and wait here: call tls_read without waiting for the socket.
bool tls_pending(const struct tls *tls);
// The peer closed its connection in order, but without close_notify: what has come may not be all.
bool tls_is_cut_off(const struct tls *tls);
// Says close_notify, without waiting for the peer's. 0, or enum tls_result; after TLS_WANT_WRITE it may be tried again.
int tls_shutdown(struct tls *tls);

// Texts live as long as the connection.
struct tls_info {
  const char *version; // "TLSv1.3"
  const char *cipher;  // OpenSSL's name
  const char *alpn;    // NULL: none agreed; not ended by zero
  uint32_t alpn_len;
  const char *sni; // lower case; NULL: none
  bool reused;     // the session was resumed
};

void tls_info(struct tls *tls, struct tls_info *out);
// The name that the client asked for, in lower case; NULL: none.
const char *tls_sni(struct tls *tls);
// The peer's certificate as PEM, those that it sent with it behind; the bytes live as long as `tls`. NULL: none, or more
// than 16 KB of it.
struct slice tls_peer_certificate(struct tls *tls);
