// SPDX-License-Identifier: Apache-2.0
// What policies, checks and plugins see of targets and their endpoints: thin bodies over balance.c and endpoint.c.
#include <math.h>

#include "balance.h"
#include "exchange.h"
#include "generation.h"
#include "worker.h"

static struct generation *find_generation(struct worker *worker, int id) {
  struct generation *generation = worker->generations;
  while (generation && generation->id != id) generation = generation->next;
  return generation;
}

static struct upstream *find_upstream(struct worker *worker, int gen, uint32_t index) {
  struct generation *generation = find_generation(worker, gen);
  return generation && index > 0 && index <= generation->upstream_count ? generation->upstreams[index - 1] : NULL;
}

static struct generation *find_open(struct worker *worker, int gen) {
  struct generation *generation = find_generation(worker, gen);
  return generation && !generation->live ? generation : NULL;
}

int bridge_gen_watch(struct worker *worker, int gen, uint32_t upstream, const struct upstream_watch *conf) {
  struct upstream *found = find_open(worker, gen) ? find_upstream(worker, gen, upstream) : NULL;
  if (!found) return BRIDGE_INVALID;
  return balance_watch(find_generation(worker, gen), found, conf) < 0 ? BRIDGE_FULL : BRIDGE_OK;
}

int bridge_gen_watch_service(struct worker *worker, int gen, uint32_t service, uint32_t heeds) {
  struct generation *generation = find_open(worker, gen);
  if (!generation || service == 0 || service > generation->service_count) return BRIDGE_INVALID;
  return generation_watch_service(generation, &generation->services[service], heeds) < 0 ? BRIDGE_FULL : BRIDGE_OK;
}

void bridge_endpoint_forget(struct worker *worker, int gen, const char *upstream, uint32_t len) {
  const struct generation *generation = find_generation(worker, gen);
  int64_t now_us = worker->loop.clock.mono_us;
  struct endpoint *endpoint;
  uint64_t cursor = 0;
  if (!generation || len == 0) return;
  while ((endpoint = endpoints_next(worker->endpoints, (struct slice){upstream, len}, &cursor, now_us)) != NULL)
    endpoint_adopt(endpoint, 0, generation->revision, now_us);
}

int bridge_target_bind(struct worker *worker, int gen, uint32_t upstream, uint32_t target, const char *const *texts,
                       const uint32_t *ports, uint32_t count, double *endpoints) {
  struct upstream *found = find_upstream(worker, gen, upstream);
  struct address addresses[TARGET_ADDRESSES] = {0};
  if (!found || !found->watch || target == 0 || target > found->target_count || count > TARGET_ADDRESSES)
    return BRIDGE_INVALID;
  struct target *its = &found->targets[target - 1];
  if (its->literal && count != 1) return BRIDGE_INVALID;
  for (uint32_t i = 0; i < count; i++)
    if (ports[i] > 65535 || !address_parse(slice_of(texts[i]), (uint16_t)ports[i], &addresses[i]))
      return BRIDGE_INVALID;
  balance_bind(worker, found->watch, its, addresses, count);
  for (uint32_t i = 0; i < count; i++) endpoints[i] = endpoints_handle(worker->endpoints, its->bound[i].endpoint);
  return BRIDGE_OK;
}

uint32_t bridge_target_states(struct worker *worker, double handle, int gen, uint32_t upstream,
                              const struct target_state **out) {
  struct upstream *found = find_upstream(worker, gen, upstream);
  if (!found || !found->watch) return 0;
  return balance_states(exchange_find(worker, handle), worker, found, out);
}

int bridge_upstream_takes(struct worker *worker, double handle, const char *name, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  struct upstream *upstream = generation_find_upstream(exchange->generation, (struct slice){name, len});
  if (!upstream) return BRIDGE_NONE;
  const struct target_state *states;
  uint32_t count = upstream->watch ? balance_states(exchange, worker, upstream, &states) : upstream->target_count;
  return count > 0 ? BRIDGE_OK : BRIDGE_CLOSED;
}

uint32_t bridge_target_by_hash(struct worker *worker, double handle, int gen, uint32_t upstream, const char *text,
                               uint32_t len) {
  struct upstream *found = find_upstream(worker, gen, upstream);
  struct exchange *exchange = exchange_find(worker, handle);
  if (!found || !found->watch || !exchange) return 0;
  return balance_by_hash(exchange, found, balance_hash((struct slice){text, len}));
}

void bridge_target_session(struct worker *worker, double handle, const char *text, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (exchange) exchange->hash = balance_hash((struct slice){text, len});
}

double bridge_endpoint(struct worker *worker, double handle) {
  const struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? endpoints_handle(worker->endpoints, exchange->endpoint) : 0;
}

double bridge_endpoint_next(struct worker *worker, const char *upstream, uint32_t len, double *cursor) {
  uint64_t at = *cursor > 0 ? (uint64_t)*cursor : 0;
  const struct endpoint *endpoint =
      endpoints_next(worker->endpoints, (struct slice){upstream, len}, &at, worker->loop.clock.mono_us);
  *cursor = (double)at;
  return endpoints_handle(worker->endpoints, endpoint);
}

int bridge_endpoint_info(struct worker *worker, double handle, struct endpoint_info *out) {
  struct endpoint *endpoint = endpoints_at(worker->endpoints, handle);
  int64_t now_us = worker->loop.clock.mono_us;
  if (!endpoint) return BRIDGE_NONE;
  *out = (struct endpoint_info){.upstream = endpoint->upstream_name,
                                .target = endpoint->target,
                                .address = endpoint->address,
                                .out = balance_out(worker, endpoint, UINT32_MAX),
                                .since_s = (double)(now_us - endpoint->since_us) / 1e6,
                                .in_flight = endpoint_in_flight(worker->endpoints, endpoint),
                                .latency_us = (double)endpoint_latency(endpoint, now_us)};
  return BRIDGE_OK;
}

int bridge_endpoint_set(struct worker *worker, double handle, uint32_t reason, bool out, double seconds,
                        const char *why) {
  struct endpoint *endpoint = endpoints_at(worker->endpoints, handle);
  bool one = reason > 0 && reason < 1u << ENDPOINT_REASONS && (reason & (reason - 1)) == 0;
  if (!endpoint || !one || !(seconds >= 0 && seconds < 1e9)) return BRIDGE_INVALID;
  int64_t until_us = seconds > 0 ? worker->loop.clock.mono_us + (int64_t)(seconds * 1e6) : 0;
  return balance_set(worker, endpoint, reason, out, until_us, why) ? BRIDGE_OK : BRIDGE_NONE;
}

int bridge_endpoint_break(struct worker *worker, double handle, double seconds, double probe_s, const char *why) {
  struct endpoint *endpoint = endpoints_at(worker->endpoints, handle);
  if (!endpoint || !(seconds >= 0 && seconds < 1e9) || !(probe_s > 0 && probe_s < 1e9)) return BRIDGE_INVALID;
  int64_t until_us = worker->loop.clock.mono_us + (int64_t)(seconds * 1e6), probe_us = (int64_t)(probe_s * 1e6);
  return balance_break(worker, endpoint, until_us, probe_us > 0 ? probe_us : 1, why) ? BRIDGE_OK : BRIDGE_NONE;
}

double bridge_endpoint_claim(struct worker *worker, double handle, double lease_s) {
  struct endpoint *endpoint = endpoints_at(worker->endpoints, handle);
  if (!endpoint) return (double)NAN;
  int64_t now_us = worker->loop.clock.mono_us;
  int64_t left_us = endpoint_claim_check(endpoint, (uint32_t)worker->options.id, (int64_t)(lease_s * 1e6), now_us);
  return (double)left_us / 1e6;
}

void bridge_endpoint_check_in(struct worker *worker, double handle, double seconds) {
  struct endpoint *endpoint = endpoints_at(worker->endpoints, handle);
  if (endpoint) endpoint_check_at(endpoint, worker->loop.clock.mono_us + (int64_t)(seconds * 1e6));
}

void bridge_endpoint_count(struct worker *worker, int gen, uint32_t upstream, double handle, int event,
                           const char *why) {
  const struct upstream *found = find_upstream(worker, gen, upstream);
  struct endpoint *endpoint = endpoints_at(worker->endpoints, handle);
  if (!found || !found->watch || !endpoint || event < ENDPOINT_SUCCESS || event > ENDPOINT_TIMEOUT) return;
  balance_count(worker, endpoint, &found->watch->active_limits, (enum endpoint_event)event, why);
}
