// SPDX-License-Identifier: Apache-2.0
// One try of an exchange against one target: a connection from the pool or a new one, the request out, the response in.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "conn.h"
#include "dns.h"
#include "h1.h"
#include "pool.h"
#include "target.h"

struct exchange;
struct worker;
struct tls_context;
struct upstream;

// One connection to a service: in work for a try, or idle in the pool.
struct link {
  struct worker *worker;
  struct conn conn;
  struct h1 h1;
  struct exchange *exchange; // NULL: idle
  struct pool_key key;
  struct link *previous, *next; // in its bucket's list while idle (newest first)
  struct link *older, *newer;   // in the pool's list of all idle ones
  bool idle, reused;
  bool head_sent, request_sent, response_begun, response_head, interim, tunnel;
  bool head_comes;   // the next bytes are the first of a head
  bool paused;       // the client is slow
  int64_t delivered; // by conn_delivered, when the deadline was last looked at
  struct grave grave;
};

// What an exchange needs while it looks for a connection; lives in its arena.
struct try {
  struct exchange *exchange;
  struct link *link; // NULL until there is one
  struct target *target;
  struct dns_query *query; // in flight
  struct address addresses[TARGET_ADDRESSES];
  uint32_t address_count, address_at;
  struct upstream *upstream; // NULL: a plugin named the target
  struct tls_context *tls;   // NULL: plain
  uint64_t tls_key;
  const char *tls_name;       // SNI, and what a certificate is checked against
  bool reused, response_seen; // of the link, once it has failed
};

// A DNS query and whose it is; in the exchange's arena.
struct waiting_query {
  struct dns_query query;
  struct exchange *exchange;
};

// Starts the exchange's first or next try. Ends in exchange_on_service_*.
void try_begin(struct exchange *exchange);
// exchange->request_body has more, or the request is complete.
void try_on_request(struct exchange *exchange);
// The client can take more.
void try_resume(struct exchange *exchange);
// Gives up: the connection is closed.
void try_abandon(struct exchange *exchange);

// Closes all connections that are idle.
void try_close_idle(struct pool *pool);
