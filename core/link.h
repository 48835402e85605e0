// SPDX-License-Identifier: Apache-2.0
// The service's side over HTTP/1.1: one connection, from the pool or a new one, and the exchange that it serves.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "conn.h"
#include "h1.h"
#include "loop.h"
#include "pool.h"

struct carrier;
struct exchange;
struct worker;

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
  bool head_sent, request_sent, response_head, interim, tunnel;
  bool head_comes;   // the next bytes are the first of a head
  bool paused;       // the client is slow
  int64_t delivered; // by conn_delivered, when the deadline was last looked at
  struct job flush_job;
  struct grave grave;
};

extern const struct carrier link_carrier;

// Closes all connections that are idle.
void link_close_idle(struct pool *pool);
