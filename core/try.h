// SPDX-License-Identifier: Apache-2.0
// One try of an exchange against one target: where it is, how it is spoken to, and what becomes of it when it fails.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "dns.h"
#include "pool.h"
#include "target.h"

struct conn;
struct error;
struct exchange;
struct h2_call;
struct link;
struct tcp_link;
struct tls_context;
struct upstream;
struct worker;

// What carries a request to the service and its response back. It reads exchange->request_body, fills
// exchange->service_message, and tells of what happens by exchange_on_service_* and try_failed.
struct carrier {
  // Takes or makes a connection, then the request goes. May fail at once.
  void (*begin)(struct exchange *exchange, const struct pool_key *key);
  // exchange->request_body has more, or the request is complete. False: there is no connection yet to take it.
  bool (*on_request)(struct exchange *exchange);
  // The client can take more.
  void (*resume)(struct exchange *exchange);
  // Knows the exchange no more from here on.
  void (*abandon)(struct exchange *exchange);
};

// What an exchange needs while it looks for a connection; lives in its arena.
struct try {
  struct exchange *exchange;
  const struct carrier *carrier; // NULL until there is an address
  struct link *link;             // HTTP/1.1: the connection; NULL until there is one
  struct h2_call *call;          // HTTP/2: the stream
  struct tcp_link *tcp_link;     // of a TCP stream
  struct target *target;
  int64_t begun_us;
  struct dns_query *query; // in flight
  uint32_t address_count, address_at;
  struct upstream *upstream; // NULL: a plugin named the target
  struct tls_context *tls;   // NULL: plain
  uint64_t tls_key;
  const char *tls_name; // SNI, and what a certificate is checked against
  bool reused;          // on a connection that had been in use before
  bool content_taken;   // some of the request's is on its way
  bool response_seen;   // at least a byte of it
  bool response_whole;  // with its head: nothing follows
  struct address
      addresses[TARGET_ADDRESSES]; // last: an exchange that will try no more keeps the rest (exchange_slim.c)
};

// A try that came to nothing, for plugins and logs; in the exchange's arena.
struct failed_try {
  struct failed_try *next;
  int64_t begun_us; // on the monotonic clock
  int status;       // that the client would have been told
  uint16_t port;
  bool answered; // by the service, which could not serve
  const struct endpoint *endpoint;
  char ip[46]; // "": none was found
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
// The same of the current try alone, where there may be two (hedge.h): whatever it was at ends, and exchange->try stays.
void try_drop(struct exchange *exchange);
// Whether a request of that method may be sent twice (RFC 9110 9.2.2).
bool try_is_idempotent(struct slice method);

// From the carrier.
// The try came to nothing: another follows where that does no harm. `unsent`: the service has done nothing for it.
void try_failed(struct exchange *exchange, int status, const char *message, bool unsent);
// The service has answered, but that it cannot serve now: another of its targets is asked, each at most once. False:
// there is none, or the request cannot be sent again.
bool try_elsewhere(struct exchange *exchange, const char *cause);
// The connection takes no more and has done nothing for the request: it begins anew, and this try does not count. False: that
// is no longer possible, or has been done too often.
bool try_move(struct exchange *exchange);
// try_failed for a connection that was not made.
void try_unreachable(struct exchange *exchange, const char *why);
// A new connection, on its way. 0, or ERROR_*.
int try_open(struct worker *worker, struct conn *conn, const struct pool_key *key, struct error *error);
// Content on its way: kept, as long as another try may need it again.
void try_keep_content(struct exchange *exchange);
