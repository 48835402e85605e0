// SPDX-License-Identifier: Apache-2.0
// Idle connections to services, by address and TLS identity, over all generations. It only keeps them: who takes one
// out, or puts one in, owns it before and after.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "target.h"

struct link;

enum { POOL_BUCKETS = 256 };

// What connections must have in common to stand in for each other.
struct pool_key {
  struct address address;
  uint64_t tls; // 0: plain
};

uint32_t pool_key_hash(const struct pool_key *key);
bool pool_key_equal(const struct pool_key *a, const struct pool_key *b);

struct pool {
  struct link *buckets[POOL_BUCKETS];
  struct link *oldest, *newest;
  uint32_t count, most;
};

void pool_init(struct pool *pool, uint32_t most);
// The newest idle connection of that key that is still good, taken out; NULL: none.
struct link *pool_take(struct pool *pool, const struct pool_key *key);
// Whether the oldest has to go before another comes in.
bool pool_is_full(const struct pool *pool);
void pool_put(struct pool *pool, struct link *link);
void pool_remove(struct pool *pool, struct link *link);
