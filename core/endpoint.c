// SPDX-License-Identifier: Apache-2.0
// Endpoints in shared memory: a table by hash. Finding one takes no lock; making one, which is rare, takes one that
// outlives its owner. All else is atomic words.
#include "endpoint.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "target.h"

enum {
  WINDOW = 64,   // how many slots from its home an endpoint may lie
  ABANDONED = 1, // key of a slot that was used once
  COUNT_BITS = 16,
  COUNT_MOST = 0xffff,
  LIFE_US = 1800 * 1000000, // of an endpoint that nobody touches
  FADE_US = 10 * 1000000    // in which a latency falls to 37 %
};

struct head {
  pthread_mutex_t making; // of an endpoint
  uint32_t columns;       // how many are in use
} __attribute__((aligned(64)));

struct endpoints {
  struct head *head;
  uint64_t *keys; // 0: free; apart from the slots, so that memory is only taken where one is used
  struct endpoint *slots;
  uint32_t count;
  size_t bytes;
};

_Static_assert(offsetof(struct endpoint, counts) == 64, "what is read and what is written share no cache line");
_Static_assert(offsetof(struct endpoint, in_flight) == 128, "nor do requests in flight");

// ---- The table -------------------------------------------------------------------------------------------------------

struct endpoints *endpoints_new(uint32_t slots, struct error *error) {
  struct endpoints *endpoints = calloc(1, sizeof *endpoints);
  assert(slots >= WINDOW && (slots & (slots - 1)) == 0);
  if (!endpoints) {
    error_set(error, ERROR_MEMORY, "no memory for endpoints");
    return NULL;
  }
  endpoints->count = slots;
  endpoints->bytes = sizeof(struct head) + slots * (sizeof(uint64_t) + sizeof(struct endpoint));
  void *memory = mmap(NULL, endpoints->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    error_system(error, "shared memory for endpoints");
    free(endpoints);
    return NULL;
  }
  endpoints->head = memory;
  pthread_mutexattr_t shared;
  pthread_mutexattr_init(&shared);
  pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&endpoints->head->making, &shared);
  pthread_mutexattr_destroy(&shared);
  endpoints->keys = (uint64_t *)(void *)((char *)memory + sizeof(struct head));
  endpoints->slots = (struct endpoint *)(void *)(endpoints->keys + slots);
  return endpoints;
}

void endpoints_free(struct endpoints *endpoints) {
  munmap(endpoints->head, endpoints->bytes);
  free(endpoints);
}

static uint32_t column_of(uint32_t id) {
  return id % ENDPOINT_COLUMNS;
}

void endpoints_begin_worker(struct endpoints *endpoints, uint32_t id) {
  uint32_t column = column_of(id), columns = __atomic_load_n(&endpoints->head->columns, __ATOMIC_RELAXED);
  while (columns <= column && !__atomic_compare_exchange_n(&endpoints->head->columns, &columns, column + 1, false,
                                                           __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  for (uint32_t i = 0; i < endpoints->count; i++) {
    struct endpoint *endpoint = &endpoints->slots[i];
    if (!endpoints->keys[i]) continue;
    __atomic_store_n(&endpoint->in_flight[column], 0, __ATOMIC_RELAXED);
    if (id > 0 && __atomic_load_n(&endpoint->check_owner, __ATOMIC_ACQUIRE) == id) endpoint_check_at(endpoint, 0);
  }
}

static uint64_t mix(uint64_t hash) {
  hash ^= hash >> 33;
  hash *= 0xff51afd7ed558ccd;
  hash ^= hash >> 33;
  hash *= 0xc4ceb9fe1a85ec53;
  return hash ^ hash >> 33;
}

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t len) {
  const unsigned char *bytes = data;
  for (size_t i = 0; i < len; i++) hash = (hash ^ bytes[i]) * 0x100000001b3;
  return mix(hash + len);
}

uint64_t endpoint_name_hash(struct slice upstream) {
  return hash_bytes(0xcbf29ce484222325, upstream.data, upstream.len);
}

static uint64_t key_of(struct slice upstream, const struct address *address) {
  uint64_t hash = endpoint_name_hash(upstream);
  const struct sockaddr *base = &address->socket.base;
  uint16_t port = address_port(base);
  if (base->sa_family == AF_INET)
    hash = hash_bytes(hash, &address->socket.v4.sin_addr, sizeof address->socket.v4.sin_addr);
  else if (base->sa_family == AF_INET6)
    hash = hash_bytes(hash, &address->socket.v6.sin6_addr, sizeof address->socket.v6.sin6_addr);
  else
    hash = hash_bytes(hash, &address->socket, address->len);
  hash = hash_bytes(hash, &port, sizeof port);
  return hash > ABANDONED ? hash : hash + 2;
}

static void put_text(char *out, size_t room, struct slice text) {
  size_t len = text.len < room ? text.len : room - 1;
  memcpy(out, text.data, len);
  out[len] = 0;
}

static void describe(struct endpoint *endpoint, struct slice upstream, struct slice target,
                     const struct address *address) {
  char ip[INET6_ADDRSTRLEN];
  const struct sockaddr *base = &address->socket.base;
  address_text(base, ip);
  endpoint->upstream = endpoint_name_hash(upstream);
  put_text(endpoint->upstream_name, sizeof endpoint->upstream_name, upstream);
  put_text(endpoint->target, sizeof endpoint->target, target);
  snprintf(endpoint->address, sizeof endpoint->address, strchr(ip, ':') ? "[%s]:%u" : "%s:%u", ip, address_port(base));
}

static bool is_dead(const struct endpoint *endpoint, int64_t now_us) {
  return now_us - __atomic_load_n(&endpoint->touched_us, __ATOMIC_RELAXED) > LIFE_US;
}

static uint32_t slot_of(const struct endpoints *endpoints, uint64_t key, uint32_t step) {
  return ((uint32_t)(key >> 32) + step) & (endpoints->count - 1);
}

static uint64_t key_at(const struct endpoints *endpoints, uint32_t slot) {
  return __atomic_load_n(&endpoints->keys[slot], __ATOMIC_ACQUIRE);
}

static struct endpoint *find(struct endpoints *endpoints, uint64_t key) {
  for (uint32_t step = 0; step < WINDOW; step++) {
    uint32_t slot = slot_of(endpoints, key, step);
    uint64_t there = key_at(endpoints, slot);
    if (there == key) return &endpoints->slots[slot];
    if (there == 0) return NULL; // never used: it lies nowhere behind
  }
  return NULL;
}

// A tunnel of a generation long gone still counts at its end.
static bool is_free(const struct endpoints *endpoints, const struct endpoint *endpoint, int64_t now_us) {
  return is_dead(endpoint, now_us) && endpoint_in_flight(endpoints, endpoint) == 0;
}

// A slot that is free, or whose endpoint nobody has a use for; -1: there is none. Under the lock.
static int64_t free_slot(const struct endpoints *endpoints, uint64_t key, int64_t now_us) {
  for (uint32_t step = 0; step < WINDOW; step++) {
    uint32_t slot = slot_of(endpoints, key, step);
    if (key_at(endpoints, slot) <= ABANDONED || is_free(endpoints, &endpoints->slots[slot], now_us)) return slot;
  }
  return -1;
}

// One process at a time; whoever dies over it leaves a slot that is found to be free.
static void lock(struct endpoints *endpoints) {
  if (pthread_mutex_lock(&endpoints->head->making) == EOWNERDEAD) pthread_mutex_consistent(&endpoints->head->making);
}

struct endpoint *endpoints_take(struct endpoints *endpoints, struct slice upstream, struct slice target,
                                const struct address *address, int64_t now_us) {
  uint64_t key = key_of(upstream, address);
  struct endpoint *endpoint = find(endpoints, key);
  if (!endpoint) {
    lock(endpoints);
    endpoint = find(endpoints, key);
    int64_t slot = endpoint ? -1 : free_slot(endpoints, key, now_us);
    if (slot >= 0) {
      endpoint = &endpoints->slots[slot];
      __atomic_store_n(&endpoints->keys[slot], ABANDONED, __ATOMIC_RELEASE);
      memset(endpoint, 0, sizeof *endpoint);
      endpoint->since_us = now_us;
      describe(endpoint, upstream, target, address);
      __atomic_store_n(&endpoints->keys[slot], key, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&endpoints->head->making);
  }
  if (endpoint) endpoint_touch(endpoint, now_us);
  return endpoint;
}

double endpoints_handle(const struct endpoints *endpoints, const struct endpoint *endpoint) {
  return endpoint ? (double)(endpoint - endpoints->slots + 1) : 0;
}

struct endpoint *endpoints_at(struct endpoints *endpoints, double handle) {
  if (!(handle >= 1 && handle <= endpoints->count)) return NULL;
  uint32_t slot = (uint32_t)handle - 1;
  return key_at(endpoints, slot) > ABANDONED ? &endpoints->slots[slot] : NULL;
}

struct endpoint *endpoints_next(struct endpoints *endpoints, struct slice upstream, uint64_t *cursor, int64_t now_us) {
  uint64_t hash = upstream.len ? endpoint_name_hash(upstream) : 0;
  while (*cursor < endpoints->count) {
    uint32_t slot = (uint32_t)(*cursor)++;
    struct endpoint *endpoint = &endpoints->slots[slot];
    if (key_at(endpoints, slot) <= ABANDONED || is_dead(endpoint, now_us)) continue;
    if (upstream.len == 0 || endpoint->upstream == hash) return endpoint;
  }
  return NULL;
}

void endpoint_touch(struct endpoint *endpoint, int64_t now_us) {
  __atomic_store_n(&endpoint->touched_us, now_us, __ATOMIC_RELAXED);
}

// ---- Reasons to be out -----------------------------------------------------------------------------------------------

static void set_until(struct endpoint *endpoint, uint32_t reason, int64_t until_us) {
  __atomic_store_n(&endpoint->until_us[__builtin_ctz(reason)], until_us, __ATOMIC_RELEASE);
}

// Whether requests come, and since when, is what the outside sees.
static void note_change(struct endpoint *endpoint, uint32_t before, uint32_t after, int64_t now_us) {
  if (!before != !after) __atomic_store_n(&endpoint->since_us, now_us, __ATOMIC_RELAXED);
}

bool endpoint_set(struct endpoint *endpoint, uint32_t reason, bool out, int64_t until_us, int64_t now_us) {
  if (out) set_until(endpoint, reason, until_us);
  uint32_t before = out ? __atomic_fetch_or(&endpoint->out, reason, __ATOMIC_ACQ_REL)
                        : __atomic_fetch_and(&endpoint->out, ~reason, __ATOMIC_ACQ_REL);
  note_change(endpoint, before, out ? before | reason : before & ~reason, now_us);
  return out ? !(before & reason) : (before & reason) != 0;
}

uint32_t endpoint_out(struct endpoint *endpoint, uint32_t heeds, int64_t now_us, uint32_t *ended) {
  uint32_t out = __atomic_load_n(&endpoint->out, __ATOMIC_ACQUIRE);
  *ended = 0;
  for (uint32_t left = out; left; left &= left - 1) {
    uint32_t reason = left & -left;
    int64_t until = __atomic_load_n(&endpoint->until_us[__builtin_ctz(reason)], __ATOMIC_ACQUIRE);
    if (until == 0 || until > now_us) continue;
    if (reason == REASON_BREAKER && __atomic_load_n(&endpoint->probe_us, __ATOMIC_RELAXED) > 0) {
      out &= ~reason; // see endpoint_admit
      continue;
    }
    if (endpoint_set(endpoint, reason, false, 0, now_us)) *ended |= reason;
    out &= ~reason;
  }
  return out & heeds;
}

bool endpoint_break(struct endpoint *endpoint, int64_t until_us, int64_t probe_us, int64_t now_us) {
  __atomic_store_n(&endpoint->probe_us, probe_us, __ATOMIC_RELAXED);
  return endpoint_set(endpoint, REASON_BREAKER, true, until_us, now_us);
}

bool endpoint_admit(struct endpoint *endpoint, int64_t now_us) {
  int64_t probe_us = __atomic_load_n(&endpoint->probe_us, __ATOMIC_RELAXED);
  int64_t *until_us = &endpoint->until_us[__builtin_ctz(REASON_BREAKER)];
  if (!(__atomic_load_n(&endpoint->out, __ATOMIC_ACQUIRE) & REASON_BREAKER) || probe_us == 0) return true;
  int64_t until = __atomic_load_n(until_us, __ATOMIC_ACQUIRE);
  return until != 0 && until <= now_us &&
         __atomic_compare_exchange_n(until_us, &until, now_us + probe_us, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

// ---- Counting --------------------------------------------------------------------------------------------------------

static uint8_t limit_of(const struct check_limits *limits, enum endpoint_event event) {
  switch (event) {
  case ENDPOINT_SUCCESS: return limits->successes;
  case ENDPOINT_TCP_FAILURE: return limits->tcp_failures;
  case ENDPOINT_HTTP_FAILURE: return limits->http_failures;
  case ENDPOINT_TIMEOUT: return limits->timeouts;
  }
  return 0;
}

static const uint64_t SUCCESSES = COUNT_MOST;

// What the counts are after the event; `*reached`: its count.
static uint64_t counted(uint64_t counts, enum endpoint_event event, uint32_t *reached) {
  uint32_t shift = (uint32_t)event * COUNT_BITS;
  uint64_t count = counts >> shift & COUNT_MOST;
  if (count < COUNT_MOST) count++;
  *reached = (uint32_t)count;
  if (event == ENDPOINT_SUCCESS) return count;
  return (counts & ~SUCCESSES & ~((uint64_t)COUNT_MOST << shift)) | count << shift;
}

// Success while it takes requests, and failure while it does not, say nothing new.
static bool count_old(struct endpoint *endpoint, bool out) {
  uint64_t counts = __atomic_load_n(&endpoint->counts, __ATOMIC_RELAXED);
  uint64_t stale = out ? counts & SUCCESSES : counts;
  if (stale) __atomic_fetch_and(&endpoint->counts, out ? ~SUCCESSES : 0, __ATOMIC_RELAXED);
  return false;
}

bool endpoint_count(struct endpoint *endpoint, const struct check_limits *limits, enum endpoint_event event,
                    int64_t now_us) {
  bool out = (__atomic_load_n(&endpoint->out, __ATOMIC_ACQUIRE) & REASON_CHECKS) != 0;
  if ((event == ENDPOINT_SUCCESS) != out) return count_old(endpoint, out);
  uint32_t limit = limit_of(limits, event), reached;
  if (limit == 0) return false;
  uint64_t counts = __atomic_load_n(&endpoint->counts, __ATOMIC_RELAXED), next;
  do {
    next = counted(counts, event, &reached);
  } while (!__atomic_compare_exchange_n(&endpoint->counts, &counts, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  if (reached < limit) return false;
  __atomic_store_n(&endpoint->counts, 0, __ATOMIC_RELAXED);
  endpoint_check_at(endpoint, now_us); // it is checked at another pace from now on
  return endpoint_set(endpoint, REASON_CHECKS, !out, 0, now_us);
}

void endpoint_adopt(struct endpoint *endpoint, uint32_t checks, double revision, int64_t now_us) {
  uint64_t since = (uint64_t)revision;
  if (__atomic_load_n(&endpoint->checks, __ATOMIC_ACQUIRE) == checks) return;
  uint64_t known = __atomic_load_n(&endpoint->revision, __ATOMIC_ACQUIRE);
  if (since < known) return; // an older generation that still runs
  bool fresh = known == 0;
  __atomic_store_n(&endpoint->revision, since, __ATOMIC_RELEASE);
  __atomic_store_n(&endpoint->checks, checks, __ATOMIC_RELEASE);
  if (fresh) return;
  __atomic_store_n(&endpoint->counts, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&endpoint->check_at_us, 0, __ATOMIC_RELAXED);
  endpoint_set(endpoint, REASON_CHECKS, false, 0, now_us);
}

// ---- Load ------------------------------------------------------------------------------------------------------------

void endpoint_enter(struct endpoint *endpoint, uint32_t id) {
  __atomic_fetch_add(&endpoint->in_flight[column_of(id)], 1, __ATOMIC_RELAXED);
}

void endpoint_leave(struct endpoint *endpoint, uint32_t id) {
  __atomic_fetch_sub(&endpoint->in_flight[column_of(id)], 1, __ATOMIC_RELAXED);
}

int32_t endpoint_in_flight(const struct endpoints *endpoints, const struct endpoint *endpoint) {
  uint32_t columns = __atomic_load_n(&endpoints->head->columns, __ATOMIC_RELAXED);
  int32_t sum = 0;
  for (uint32_t i = 0; i < columns; i++) sum += __atomic_load_n(&endpoint->in_flight[i], __ATOMIC_RELAXED);
  return sum > 0 ? sum : 0;
}

int64_t endpoint_latency(const struct endpoint *endpoint, int64_t now_us) {
  int64_t latency = __atomic_load_n(&endpoint->latency_us, __ATOMIC_RELAXED);
  int64_t idle = now_us - __atomic_load_n(&endpoint->latency_at_us, __ATOMIC_RELAXED);
  if (latency == 0 || idle <= 0) return latency;
  int64_t faded = (int64_t)((double)latency * exp(-(double)idle / FADE_US));
  return faded > 0 ? faded : 1;
}

// Two workers at once may lose one of two samples, and nothing else.
void endpoint_answered_in(struct endpoint *endpoint, int64_t us, int64_t now_us) {
  int64_t before = __atomic_load_n(&endpoint->latency_us, __ATOMIC_RELAXED);
  int64_t idle = now_us - __atomic_load_n(&endpoint->latency_at_us, __ATOMIC_RELAXED);
  int64_t after = us > 0 ? us : 1;
  if (before > after) {
    double kept = exp(-(double)(idle > 0 ? idle : 0) / FADE_US);
    after = (int64_t)((double)before * kept + (double)after * (1 - kept)) + 1;
  }
  __atomic_store_n(&endpoint->latency_us, after, __ATOMIC_RELAXED);
  __atomic_store_n(&endpoint->latency_at_us, now_us, __ATOMIC_RELAXED);
}

// ---- Checks ----------------------------------------------------------------------------------------------------------

int64_t endpoint_claim_check(struct endpoint *endpoint, uint32_t id, int64_t lease_us, int64_t now_us) {
  int64_t due = __atomic_load_n(&endpoint->check_at_us, __ATOMIC_ACQUIRE);
  if (due > now_us) return due - now_us;
  if (__atomic_compare_exchange_n(&endpoint->check_at_us, &due, now_us + lease_us, false, __ATOMIC_ACQ_REL,
                                  __ATOMIC_RELAXED)) {
    __atomic_store_n(&endpoint->check_owner, id, __ATOMIC_RELEASE);
    return 0;
  }
  return due > now_us ? due - now_us : 1; // somebody else has it
}

void endpoint_check_at(struct endpoint *endpoint, int64_t at_us) {
  __atomic_store_n(&endpoint->check_owner, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&endpoint->check_at_us, at_us, __ATOMIC_RELEASE);
}
