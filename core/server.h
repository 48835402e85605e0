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
#include "stream.h"

struct h2_server;
struct listener;
struct worker;

struct server {
  struct stream stream;
  struct conn conn;
  struct h2_server *h2; // NULL: the client speaks HTTP/1.1, and what follows is of use
  bool may_be_h2;       // plain: the first bytes will tell
  struct h1 h1;
  struct exchange *exchange;      // the one in work, NULL: idle
  struct server *previous, *next; // in worker->servers
  bool request_open;              // its body is still arriving
  bool want_body, lingering, closing, keep_alive, tunnel;
  int64_t lingered_bytes;
  int64_t delivered;         // by conn_delivered, when the deadline was last looked at
  struct proxy_input *proxy; // the PROXY protocol's header is awaited; NULL: none, or read
  bool pumping;
  struct job next_job;
  struct job flush_job;
  uint32_t turn_left; // requests that may begin before others get their turn
  struct grave grave;
};

// Takes over an accepted socket.
void server_open(struct worker *worker, const struct listener *listener, int fd, const struct sockaddr *address);
// Closes when idle, else after the exchange in work (drain).
void server_retire(struct server *server);
void server_close(struct server *server);
// The last bytes are in the connection's queue: it closes once they have gone.
void server_close_after_write(struct server *server);
