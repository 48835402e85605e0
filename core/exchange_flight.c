// SPDX-License-Identifier: Apache-2.0
// Of the exchanges that want the same response at once one goes to the service, and the others wait for what it stores: in
// this worker in a list, in others by a shared counter that one of theirs asks for now and then.
#include <stddef.h>
#include <stdlib.h>

#include "cache.h"
#include "counters.h"
#include "exchange_parts.h"
#include "phase.h"
#include "worker.h"

enum { WAKE_A_TURN = 32, FLIGHT_BUCKETS = 256, FLIGHT_KEY = sizeof "cache flight " - 1 + OBJECT_HASH };

struct waiter {
  struct waiter *next;
  struct flight *flight;
  struct worker *worker;
  struct timer timer;
  double coroutine;
};

// One request that others of this worker wait for; `shared`: for those of other workers, too.
struct flight {
  struct flight *next;
  struct job job;
  struct waiter *waiters, **end;
  int status; // once it has landed
  bool landed, shared;
  unsigned char hash[OBJECT_HASH];
};

struct flights {
  struct flight *buckets[FLIGHT_BUCKETS];
  struct flight *landed; // whose waiters are being woken
};

static void flight_key(const unsigned char *hash, char key[FLIGHT_KEY]) {
  memcpy(key, "cache flight ", FLIGHT_KEY - OBJECT_HASH);
  memcpy(key + FLIGHT_KEY - OBJECT_HASH, hash, OBJECT_HASH);
}

static struct flight **flight_at(struct worker *worker, const unsigned char *hash) {
  struct flight **at = &worker->flights->buckets[hash[0] % FLIGHT_BUCKETS];
  while (*at && memcmp((*at)->hash, hash, OBJECT_HASH) != 0) at = &(*at)->next;
  return at;
}

static void flight_remove(struct flight **at, struct flight *flight) {
  while (*at && *at != flight) at = &(*at)->next;
  if (*at) *at = flight->next;
}

static void waiter_remove(struct waiter *waiter) {
  struct flight *flight = waiter->flight;
  struct waiter **at = &flight->waiters;
  while (*at != waiter) at = &(*at)->next;
  *at = waiter->next;
  if (flight->end == &waiter->next) flight->end = at;
  timer_cancel(&waiter->worker->loop.timers, &waiter->timer);
  free(waiter);
}

static void waiter_on_timer(struct timer *timer) {
  struct waiter *waiter = (struct waiter *)(void *)((char *)timer - offsetof(struct waiter, timer));
  struct worker *worker = waiter->worker;
  double coroutine = waiter->coroutine;
  waiter_remove(waiter);
  phase_resume(worker, coroutine, BRIDGE_TIMEOUT, 0);
}

// Thousands may have waited: some a turn.
static void wake_some(struct worker *worker, void *data) {
  struct flight *flight = data;
  for (int i = 0; i < WAKE_A_TURN && flight->waiters; i++) {
    worker_wake(worker, flight->waiters->coroutine, flight->status, 0);
    waiter_remove(flight->waiters);
  }
  if (flight->waiters) {
    worker_give_way(worker, wake_some, flight, &flight->job);
    return;
  }
  flight_remove(&worker->flights->landed, flight);
  free(flight);
}

void exchange_land_flight(struct exchange *exchange, int status) {
  struct flight *flight = exchange->caching->flight;
  struct worker *worker = exchange->worker;
  if (!flight) return;
  exchange->caching->flight = NULL;
  char key[FLIGHT_KEY];
  flight_key(flight->hash, key);
  if (flight->shared) counters_delete(worker->counters, key, sizeof key, worker->loop.clock.real_us);
  flight_remove(&worker->flights->buckets[flight->hash[0] % FLIGHT_BUCKETS], flight);
  flight->next = worker->flights->landed;
  worker->flights->landed = flight;
  flight->landed = true;
  flight->status = status;
  wake_some(worker, flight);
}

static struct flight *flight_new(struct worker *worker, struct flight **at, const unsigned char *hash) {
  struct flight *flight = calloc(1, sizeof *flight);
  if (!flight) return NULL;
  flight->end = &flight->waiters;
  memcpy(flight->hash, hash, OBJECT_HASH);
  (void)worker;
  return *at = flight;
}

bool exchange_flight_is_free(struct exchange *exchange) {
  return !exchange->worker->flights || !*flight_at(exchange->worker, exchange->caching->hash);
}

int bridge_cache_lead(struct worker *worker, double handle, double seconds) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (exchange_is_over(exchange)) return BRIDGE_CLOSED;
  struct caching *caching = exchange->caching;
  if (!caching || caching->key.len == 0) return BRIDGE_INVALID;
  if (!worker->flights) worker->flights = calloc(1, sizeof *worker->flights);
  if (!worker->flights) return BRIDGE_FULL;
  struct flight **at = flight_at(worker, caching->hash);
  if (*at && *at != caching->flight) return BRIDGE_DIFFERS;
  if (!caching->flight) caching->flight = flight_new(worker, at, caching->hash);
  if (!caching->flight) return BRIDGE_FULL;
  if (caching->flight->shared) return BRIDGE_OK;
  char key[FLIGHT_KEY];
  int status;
  flight_key(caching->hash, key);
  int64_t others =
      counters_add(worker->counters, key, sizeof key, 1, cache_us(seconds), worker->loop.clock.real_us, &status);
  caching->flight->shared = status == COUNTERS_NEW;
  return status == COUNTERS_FULL || others == 1 ? BRIDGE_OK : BRIDGE_NONE;
}

int bridge_cache_wait(struct worker *worker, double handle, double seconds) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (exchange_is_over(exchange)) return BRIDGE_CLOSED;
  if (!exchange->caching || !worker->flights) return BRIDGE_NONE;
  struct flight *flight = *flight_at(worker, exchange->caching->hash);
  if (!flight || flight == exchange->caching->flight) return BRIDGE_NONE;
  struct waiter *waiter = calloc(1, sizeof *waiter);
  if (!waiter) return BRIDGE_FULL;
  *waiter = (struct waiter){.flight = flight, .worker = worker, .coroutine = phase_self(worker)};
  timer_init(&waiter->timer, waiter_on_timer);
  if (timer_set(&worker->loop.timers, &waiter->timer, worker->loop.clock.mono_us + cache_us(seconds)) < 0) {
    free(waiter);
    return BRIDGE_FULL;
  }
  *flight->end = waiter;
  flight->end = &waiter->next;
  return BRIDGE_AGAIN;
}

int bridge_cache_unlead(struct worker *worker, double handle, bool stored) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (exchange->caching) exchange_land_flight(exchange, stored ? BRIDGE_OK : BRIDGE_NONE);
  return BRIDGE_OK;
}

static void flights_free(struct flight *flight) {
  while (flight) {
    struct flight *next = flight->next;
    while (flight->waiters) waiter_remove(flight->waiters);
    queue_drop(&flight->job);
    free(flight);
    flight = next;
  }
}

void flights_close(struct worker *worker) {
  if (!worker->flights) return;
  for (int i = 0; i < FLIGHT_BUCKETS; i++) flights_free(worker->flights->buckets[i]);
  flights_free(worker->flights->landed);
  free(worker->flights);
  worker->flights = NULL;
}
