// SPDX-License-Identifier: Apache-2.0
// What exchanges hold of shared things. The list is not in the exchange's arena, which moves when it becomes a tunnel.
#include "lease.h"

#include <stdlib.h>
#include <string.h>

#include "counters.h"
#include "exchange.h"
#include "worker.h"

enum { MOST_OF_ONE = 64 }; // that one exchange may hold

struct lease {
  struct lease *next;
  uint64_t lease; // of counters.h
  uint32_t len;
  char key[];
};

static bool has_room(const struct exchange *exchange) {
  uint32_t count = 0;
  for (const struct lease *lease = exchange->leases; lease; lease = lease->next) count++;
  return count < MOST_OF_ONE;
}

int lease_take(struct exchange *exchange, struct slice key, int64_t most, int64_t *held) {
  struct worker *worker = exchange->worker;
  *held = 0;
  struct lease *lease = has_room(exchange) ? malloc(sizeof *lease + key.len) : NULL;
  if (!lease) return COUNTERS_FULL;
  lease->len = (uint32_t)key.len;
  memcpy(lease->key, key.data, key.len);
  int status = counters_lease(worker->counters, worker->holder, key.data, lease->len, most, worker->loop.clock.real_us,
                              &lease->lease, held);
  if (status != COUNTERS_OK) {
    free(lease);
    return status;
  }
  lease->next = exchange->leases;
  exchange->leases = lease;
  return COUNTERS_OK;
}

static void end_first(struct exchange *exchange, struct lease **at) {
  struct worker *worker = exchange->worker;
  struct lease *lease = *at;
  *at = lease->next;
  counters_release(worker->counters, worker->holder, lease->lease, worker->loop.clock.real_us);
  free(lease);
}

bool lease_end(struct exchange *exchange, struct slice key) {
  for (struct lease **at = &exchange->leases; *at; at = &(*at)->next) {
    if ((*at)->len != key.len || memcmp((*at)->key, key.data, key.len) != 0) continue;
    end_first(exchange, at);
    return true;
  }
  return false;
}

void lease_end_all(struct exchange *exchange) {
  while (exchange->leases) end_first(exchange, &exchange->leases);
}
