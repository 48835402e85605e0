// SPDX-License-Identifier: Apache-2.0
// Idle connections to services: a list in each bucket for who looks for one, one list of all for who makes room.
#include "pool.h"

#include <string.h>

#include "link.h"

void pool_init(struct pool *pool, uint32_t most) {
  *pool = (struct pool){.most = most};
}

uint32_t pool_key_hash(const struct pool_key *key) {
  const unsigned char *bytes = (const unsigned char *)&key->address.socket;
  uint32_t hash = 2166136261u ^ (uint32_t)key->tls ^ (uint32_t)(key->tls >> 32);
  for (uint32_t i = 0; i < key->address.len; i++) hash = (hash ^ bytes[i]) * 16777619u;
  return hash;
}

bool pool_key_equal(const struct pool_key *a, const struct pool_key *b) {
  return a->tls == b->tls && a->address.len == b->address.len &&
         memcmp(&a->address.socket, &b->address.socket, a->address.len) == 0;
}

void pool_remove(struct pool *pool, struct link *link) {
  uint32_t bucket = pool_key_hash(&link->key) % POOL_BUCKETS;
  *(link->previous ? &link->previous->next : &pool->buckets[bucket]) = link->next;
  if (link->next) link->next->previous = link->previous;
  *(link->older ? &link->older->newer : &pool->oldest) = link->newer;
  *(link->newer ? &link->newer->older : &pool->newest) = link->older;
  link->previous = link->next = link->older = link->newer = NULL;
  link->idle = false;
  pool->count--;
}

bool pool_is_full(const struct pool *pool) {
  return pool->count >= pool->most && pool->oldest;
}

struct link *pool_take(struct pool *pool, const struct pool_key *key) {
  for (struct link *link = pool->buckets[pool_key_hash(key) % POOL_BUCKETS]; link; link = link->next) {
    if (!pool_key_equal(&link->key, key) || link->conn.eof || link->conn.failed) continue;
    pool_remove(pool, link);
    return link;
  }
  return NULL;
}

void pool_put(struct pool *pool, struct link *link) {
  uint32_t bucket = pool_key_hash(&link->key) % POOL_BUCKETS;
  link->previous = NULL;
  link->next = pool->buckets[bucket];
  if (link->next) link->next->previous = link;
  pool->buckets[bucket] = link;
  link->newer = NULL;
  link->older = pool->newest;
  *(link->older ? &link->older->newer : &pool->oldest) = link;
  pool->newest = link;
  link->idle = true;
  pool->count++;
}
