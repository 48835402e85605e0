// SPDX-License-Identifier: Apache-2.0
// The client's side over HTTP/1.1: one downstream connection and, one after the other, its exchanges.
// Reads heads and bodies, keeps pipelined requests in order, writes responses, times out slow clients.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "conn.h"
#include "exchange.h"
#include "h1.h"
#include "loop.h"

struct generation;
struct listener;
struct worker;

// What an exchange knows of the connection that carries it. HTTP/2 will embed it too.
struct stream {
  struct worker *worker;
  const struct listener *listener;
  struct peer peer;
};

struct server {
  struct stream stream;
  struct conn conn;
  struct h1 h1;
  struct exchange *exchange;      // the one in work, NULL: idle
  struct server *previous, *next; // in worker->servers
  bool request_open;              // its body is still arriving
  bool want_body, lingering, closing, keep_alive, tunnel;
  int64_t lingered_bytes;
  int64_t delivered; // by conn_delivered, when the deadline was last looked at
  bool pumping;
  struct generation *generation; // TLS: the one whose certificates it was greeted with
  struct job next_job;
  uint32_t turn_left; // requests that may begin before others get their turn
  struct grave grave;
};

// Takes over an accepted socket.
void server_open(struct worker *worker, const struct listener *listener, int fd, const struct sockaddr *address);
// Closes when idle, else after the exchange in work (drain).
void server_retire(struct server *server);
void server_close(struct server *server);
// The hook of listeners' TLS contexts: phase certificate, which may wait.
int server_on_certificate(void *data, struct tls *tls);
void server_greets(struct stream *stream, struct exchange *exchange);
void server_continue(struct stream *stream, bool good);
// The connection's TLS, NULL when plain; and the server name the client asked for, empty when none.
struct tls *stream_tls(const struct stream *stream);
struct slice stream_sni(const struct stream *stream);
