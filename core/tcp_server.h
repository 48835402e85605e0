// SPDX-License-Identifier: Apache-2.0
// The client's side of a TCP or TLS stream: one connection, one exchange, bytes both ways.
//
//   PROXY header ──> [ClientHello looked at] ──> [TLS] ──> exchange: preread, balancer ──> bytes ──> closing
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "conn.h"
#include "exchange.h"
#include "loop.h"
#include "stream.h"

struct listener;
struct worker;

enum tcp_stage {
  TCP_AWAITS_PROXY, // the PROXY protocol's header is awaited
  TCP_AWAITS_HELLO, // the ClientHello: it stays in the kernel, for whoever is to answer it
  TCP_GREETS,       // TLS handshake
  TCP_CARRIES,      // the exchange has it
  TCP_ENDS          // what is left to write is written, then closed
};

struct tcp_server {
  struct stream stream;
  struct conn conn;
  struct exchange *exchange;          // NULL before and after
  struct tcp_server *previous, *next; // in worker->tcp_servers
  uint8_t stage;                      // enum tcp_stage
  bool tunnel;                        // bytes may pass
  bool client_done, finish;           // the client sends no more; nor will the service, once `out` is empty
  bool finished;                      // it has been told
  struct ends ends;
  struct proxy_input *proxy; // NULL: none, or read
  uint32_t hello_bytes;      // that had come when it was last looked at
  int64_t greet_until_us;    // when all before the exchange has to be done
  int64_t delivered;         // by conn_delivered, when the deadline was last looked at
  struct grave grave;
};

// Takes over an accepted socket.
void tcp_server_open(struct worker *worker, const struct listener *listener, int fd, const struct sockaddr *address);
void tcp_server_close(struct tcp_server *server);
// The worker is to end: closes those that have not come so far as to carry anything, `all` past its limit. Nothing tells
// where a stream could be cut, so the others have until then to end by themselves.
void tcp_servers_drain(struct worker *worker, bool all);
