// SPDX-License-Identifier: Apache-2.0
// What an exchange knows of the connection that carries it, whatever the protocol: an HTTP/1.1 connection is one stream,
// an HTTP/2 connection many. Embedded, so that the protocol finds its own struct from it. And the connection's greeting:
// TLS on the client's side, with the plugins of phase certificate.
#pragma once
#include <stdbool.h>

#include "exchange.h"
#include "slice.h"

struct conn;
struct generation;
struct listener;
struct sockaddr;
struct tls;
struct worker;

struct stream {
  struct worker *worker;
  const struct listener *listener;
  struct conn *conn; // never NULL; after its end it is closed
  struct peer peer;
  // Of the stream that a connection begins with, when in TLS
  struct generation *generation; // the one whose certificates it is greeted with; a reference
  struct exchange *greeting;     // phase certificate waits
  void (*on_greeting_failed)(struct stream *stream);
};

// The stream that begins a connection from `address`.
void stream_open(struct stream *stream, struct worker *worker, const struct listener *listener, struct conn *conn,
                 const struct sockaddr *address);
// Speaks TLS with the client from here on, greeted with the running generation's certificates. 0, or ERROR_MEMORY.
int stream_start_tls(struct stream *stream);
// The connection has gone: drops what its greeting held.
void stream_close(struct stream *stream);
// The hook of listeners' TLS contexts: phase certificate, which may wait.
int stream_on_certificate(void *data, struct tls *tls);
// From the exchange: phase certificate has come to an end.
void stream_greeted(struct stream *stream, bool good);

// The connection's TLS, NULL when plain; and the server name the client asked for, empty when none.
struct tls *stream_tls(const struct stream *stream);
struct slice stream_sni(const struct stream *stream);
// The address that the client connected to, as text; false when it has none (a socket of the same machine).
bool stream_local_ip(const struct stream *stream, char out[46]);
