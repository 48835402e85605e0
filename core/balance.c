// SPDX-License-Identifier: Apache-2.0
// Targets of watched upstreams: choosing among those that take requests, and counting what tries come to.
#include "balance.h"

#include <math.h>
#include <stdio.h>

#include "exchange.h"
#include "generation.h"
#include "grpc.h"
#include "try.h"
#include "worker.h"

enum { FAILURE_US = 1000000, TARGET_TEXT = 300 };

static const double LEAST_WARMTH = 0.1;

static int64_t now(const struct worker *worker) {
  return worker->loop.clock.mono_us;
}

static uint32_t id_of(const struct worker *worker) {
  return (uint32_t)worker->options.id;
}

// ---- Telling ---------------------------------------------------------------------------------------------------------

static const char *name_of(uint32_t reason) {
  return reason == REASON_CHECKS ? "health checks" : "circuit breaker";
}

static void tell(struct worker *worker, const struct endpoint *endpoint, uint32_t reason, const char *why) {
  uint32_t out = __atomic_load_n(&endpoint->out, __ATOMIC_RELAXED);
  if (out & reason)
    log_warn(&worker->log, "a target takes no requests", "upstream", endpoint->upstream_name, "target",
             endpoint->target, "address", endpoint->address, "by", name_of(reason), "why", why);
  else
    log_notice(&worker->log, out ? "a target has one reason less to take no requests" : "a target takes requests again",
               "upstream", endpoint->upstream_name, "target", endpoint->target, "address", endpoint->address, "by",
               name_of(reason), "why", why);
}

bool balance_set(struct worker *worker, struct endpoint *endpoint, uint32_t reason, bool out, int64_t until_us,
                 const char *why) {
  if (!endpoint_set(endpoint, reason, out, until_us, now(worker))) return false;
  tell(worker, endpoint, reason, why);
  return true;
}

bool balance_break(struct worker *worker, struct endpoint *endpoint, int64_t until_us, int64_t probe_us,
                   const char *why) {
  if (!endpoint_break(endpoint, until_us, probe_us, now(worker))) return false;
  tell(worker, endpoint, REASON_BREAKER, why);
  return true;
}

void balance_count(struct worker *worker, struct endpoint *endpoint, const struct check_limits *limits,
                   enum endpoint_event event, const char *why) {
  if (endpoint_count(endpoint, limits, event, now(worker))) tell(worker, endpoint, REASON_CHECKS, why);
}

uint32_t balance_out(struct worker *worker, struct endpoint *endpoint, uint32_t heeds) {
  if (!__atomic_load_n(&endpoint->out, __ATOMIC_RELAXED)) return 0;
  uint32_t ended, out = endpoint_out(endpoint, heeds, now(worker), &ended);
  for (; ended; ended &= ended - 1) tell(worker, endpoint, ended & -ended, "its time is over");
  return out;
}

static bool takes_requests(struct worker *worker, struct endpoint *endpoint, uint32_t heeds) {
  return balance_out(worker, endpoint, heeds) == 0;
}

// ---- Watching --------------------------------------------------------------------------------------------------------

static struct slice target_text(const struct target *target, char out[TARGET_TEXT]) {
  bool v6 = memchr(target->host.data, ':', target->host.len) != NULL && target->host.data[0] != '[';
  int len =
      snprintf(out, TARGET_TEXT, v6 ? "[%.*s]:%u" : "%.*s:%u", (int)target->host.len, target->host.data, target->port);
  return (struct slice){out, len < TARGET_TEXT ? (uint32_t)len : TARGET_TEXT - 1};
}

static void set_statuses(uint64_t bits[STATUS_WORDS], const uint16_t *statuses, uint32_t count) {
  for (uint32_t i = 0; i < count; i++)
    if (statuses[i] < STATUS_WORDS * 64) bits[statuses[i] / 64] |= (uint64_t)1 << statuses[i] % 64;
}

static bool has_status(const uint64_t bits[STATUS_WORDS], int status) {
  return status > 0 && status < STATUS_WORDS * 64 && (bits[status / 64] >> status % 64 & 1);
}

static bool any_limit(const struct check_limits *limits) {
  return limits->successes || limits->tcp_failures || limits->http_failures || limits->timeouts;
}

static void watch_fill(struct watch *watch, const struct upstream_watch *conf) {
  watch->checks = conf->checks;
  watch->spread = (uint8_t)conf->spread;
  watch->threshold = conf->threshold;
  // Where clients stay with a target, it would move them away.
  watch->slow_start_us = conf->spread == SPREAD_HASH ? 0 : (int64_t)(conf->slow_start_s * 1e6);
  watch->passive_limits = conf->passive;
  watch->active_limits = conf->active;
  watch->passive = any_limit(&conf->passive);
  set_statuses(watch->healthy, conf->healthy, conf->healthy_count);
  set_statuses(watch->unhealthy, conf->unhealthy, conf->unhealthy_count);
}

static int prepare_target(struct generation *generation, struct watch *watch, struct target *target) {
  char text[TARGET_TEXT];
  target->hash = balance_hash(target_text(target, text));
  target->bound = arena_alloc(&generation->arena, (target->literal ? 1 : TARGET_ADDRESSES) * sizeof *target->bound);
  if (!target->bound) return ERROR_MEMORY;
  if (target->literal) balance_bind(generation->worker, watch, target, &target->fixed, 1);
  return 0;
}

int balance_watch(struct generation *generation, struct upstream *upstream, const struct upstream_watch *conf) {
  if (upstream->watch) {
    upstream->watch->heeds |= conf->heeds;
    return 0;
  }
  struct watch *watch = arena_alloc(&generation->arena, sizeof *watch);
  if (!watch) return ERROR_MEMORY;
  *watch = (struct watch){.upstream = upstream, .generation = generation, .heeds = conf->heeds};
  watch->state_room = upstream->target_count;
  watch->states = arena_alloc(&generation->arena, (watch->state_room + 1) * sizeof *watch->states);
  if (!watch->states) return ERROR_MEMORY;
  watch_fill(watch, conf);
  for (uint32_t i = 0; i < upstream->target_count; i++)
    if (prepare_target(generation, watch, &upstream->targets[i]) < 0) return ERROR_MEMORY;
  upstream->watch = watch;
  return 0;
}

static bool address_equal(const struct address *a, const struct address *b) {
  return a->len == b->len && memcmp(&a->socket, &b->socket, a->len) == 0;
}

static void tell_full(struct worker *worker, struct watch *watch, const char *target) {
  watch->told_full = true;
  log_warn(&worker->log, "no room to watch a target's address", "upstream", watch->upstream->name.data, "target",
           target);
}

void balance_bind(struct worker *worker, struct watch *watch, struct target *target, const struct address *addresses,
                  uint32_t count) {
  char text[TARGET_TEXT];
  for (uint32_t i = 0; i < count; i++) {
    struct bound *bound = &target->bound[i];
    if (i < target->bound_count && bound->endpoint && address_equal(&bound->address, &addresses[i])) continue;
    bound->address = addresses[i];
    bound->endpoint =
        endpoints_take(worker->endpoints, watch->upstream->name, target_text(target, text), &addresses[i], now(worker));
    if (bound->endpoint)
      endpoint_adopt(bound->endpoint, watch->checks, watch->generation->revision, now(worker));
    else if (!watch->told_full)
      tell_full(worker, watch, text);
  }
  target->bound_count = count;
}

static void touch(struct upstream *upstream, int64_t now_us) {
  if (!upstream || !upstream->watch) return;
  for (uint32_t i = 0; i < upstream->target_count; i++)
    for (uint32_t j = 0; j < upstream->targets[i].bound_count; j++)
      if (upstream->targets[i].bound[j].endpoint) endpoint_touch(upstream->targets[i].bound[j].endpoint, now_us);
}

void balance_touch(struct worker *worker) {
  const struct generation *generation = worker->generation;
  if (!generation) return;
  for (uint32_t i = 0; i < generation->upstream_count; i++) touch(generation->upstreams[i], now(worker));
  for (uint32_t i = 1; i <= generation->service_count; i++) {
    struct upstream *upstream = generation->services[i].upstream;
    if (upstream && upstream->index == 0) touch(upstream, now(worker));
  }
}

// ---- Choosing a target -----------------------------------------------------------------------------------------------

// OUT: it takes no requests. SECOND: it does, but another is better: this exchange has tried it, or it has just begun.
enum standing { STANDING_OUT, STANDING_SECOND, STANDING_FIRST };

// The endpoint of the target that has taken requests for longest; NULL: none takes any. `*unknown`: nothing is known.
static struct endpoint *best_endpoint(struct worker *worker, const struct watch *watch, const struct target *target,
                                      bool *unknown) {
  struct endpoint *best = NULL;
  *unknown = target->bound_count == 0;
  for (uint32_t i = 0; i < target->bound_count; i++) {
    struct endpoint *endpoint = target->bound[i].endpoint;
    if (!endpoint) {
      *unknown = true;
      return NULL;
    }
    if (takes_requests(worker, endpoint, watch->heeds) && (!best || endpoint->since_us < best->since_us))
      best = endpoint;
  }
  return best;
}

// In slow start, an endpoint takes a growing share of the turns that it would have.
static bool is_warm(struct worker *worker, const struct watch *watch, const struct endpoint *endpoint) {
  int64_t age = now(worker) - endpoint->since_us;
  if (age >= watch->slow_start_us) return true;
  double warmth = (double)age / (double)watch->slow_start_us;
  double chance = (double)(worker_random(worker) >> 11) * 0x1p-53;
  return chance < (warmth > LEAST_WARMTH ? warmth : LEAST_WARMTH);
}

static uint64_t bit_of(const struct upstream *upstream, const struct target *target) {
  return (uint64_t)1 << ((uint32_t)(target - upstream->targets) & 63);
}

static enum standing standing_of(struct worker *worker, const struct upstream *upstream, const struct target *target,
                                 uint64_t tried, bool warmed) {
  const struct watch *watch = upstream->watch;
  bool unknown;
  if (target->weight == 0) return STANDING_OUT;
  const struct endpoint *best = best_endpoint(worker, watch, target, &unknown);
  if (!best && !unknown) return STANDING_OUT;
  if (tried & bit_of(upstream, target)) return STANDING_SECOND;
  if (warmed && best && watch->slow_start_us > 0 && !is_warm(worker, watch, best)) return STANDING_SECOND;
  return STANDING_FIRST;
}

// Kong's healthchecks.threshold: with less of the weight than that, the whole upstream takes no requests.
static bool below_threshold(struct worker *worker, const struct upstream *upstream) {
  double all = 0, there = 0;
  if (upstream->watch->threshold <= 0) return false;
  for (uint32_t i = 0; i < upstream->target_count; i++) {
    const struct target *target = &upstream->targets[i];
    all += target->weight;
    if (standing_of(worker, upstream, target, 0, false) != STANDING_OUT) there += target->weight;
  }
  return there * 100 < upstream->watch->threshold * all;
}

static struct target *take(struct exchange *exchange, struct upstream *upstream, struct target *target) {
  if (target) exchange->tried |= bit_of(upstream, target);
  return target;
}

static struct target *walk(struct exchange *exchange, struct upstream *upstream) {
  struct target *second = NULL;
  uint32_t steps = upstream->schedule_count ? upstream->schedule_count : upstream->target_count;
  for (uint32_t i = 0; i < steps; i++) {
    struct target *target = upstream->schedule_count ? upstream_next(upstream) : &upstream->targets[i];
    enum standing standing = standing_of(exchange->worker, upstream, target, exchange->tried, true);
    if (standing == STANDING_FIRST) return target;
    if (standing == STANDING_SECOND && !second) second = target;
  }
  return second;
}

struct target *balance_next(struct exchange *exchange, struct upstream *upstream) {
  if (below_threshold(exchange->worker, upstream)) return NULL;
  return take(exchange, upstream, walk(exchange, upstream));
}

struct target *balance_chosen(struct exchange *exchange, struct upstream *upstream, uint32_t index) {
  if (index == 0 || index > upstream->target_count) return NULL;
  struct target *target = &upstream->targets[index - 1];
  // A policy that looks elsewhere may choose one that is out; another takes its place.
  if (standing_of(exchange->worker, upstream, target, 0, false) == STANDING_OUT) target = walk(exchange, upstream);
  return take(exchange, upstream, target);
}

static void load_of(struct worker *worker, const struct watch *watch, const struct target *target,
                    struct target_state *state) {
  uint32_t count = 0;
  state->in_flight = state->latency_us = 0;
  for (uint32_t i = 0; i < target->bound_count; i++) {
    struct endpoint *endpoint = target->bound[i].endpoint;
    if (!endpoint || !takes_requests(worker, endpoint, watch->heeds)) continue;
    double latency = (double)endpoint_latency(endpoint, now(worker));
    double in_flight = endpoint_in_flight(worker->endpoints, endpoint);
    // Of several addresses, the one that will be chosen: with the least load.
    if (count++ > 0 && in_flight >= state->in_flight) continue;
    state->in_flight = in_flight;
    state->latency_us = latency;
  }
}

uint32_t balance_states(struct exchange *exchange, struct worker *worker, struct upstream *upstream,
                        const struct target_state **out) {
  struct watch *watch = upstream->watch;
  *out = watch->states;
  if (below_threshold(worker, upstream)) return 0;
  enum standing best = STANDING_OUT;
  uint64_t tried = exchange ? exchange->tried : 0;
  for (uint32_t i = 0; i < upstream->target_count; i++) {
    struct target *target = &upstream->targets[i];
    enum standing standing = standing_of(worker, upstream, target, tried, true);
    struct target_state *state = &watch->states[i];
    if (standing > best) { // those before were the second choice
      best = standing;
      for (uint32_t j = 0; j < i; j++) watch->states[j].usable = false;
    }
    state->usable = standing != STANDING_OUT && standing == best;
    state->weight = target->weight;
    load_of(worker, watch, target, state);
  }
  return best == STANDING_OUT ? 0 : upstream->target_count;
}

// ---- Choosing by a hash ----------------------------------------------------------------------------------------------
//
// Each text gives every target a number, and the best one wins: when a target leaves, only what it had moves. Dividing
// the logarithm of an even number by the weight makes the share of wins that of the weight.

static uint64_t mix(uint64_t hash) {
  hash ^= hash >> 33;
  hash *= 0xff51afd7ed558ccd;
  hash ^= hash >> 33;
  hash *= 0xc4ceb9fe1a85ec53;
  return hash ^ hash >> 33;
}

uint64_t balance_hash(struct slice text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (uint32_t i = 0; i < text.len; i++) hash = (hash ^ (unsigned char)text.data[i]) * 0x100000001b3;
  hash = mix(hash);
  return hash ? hash : 1;
}

static double distance(uint64_t hash, uint64_t of, double weight) {
  double even = ((double)(mix(hash ^ of) >> 11) + 1) * 0x1p-53;
  return -log(even) / weight;
}

uint32_t balance_by_hash(struct exchange *exchange, struct upstream *upstream, uint64_t hash) {
  enum standing best = STANDING_OUT;
  uint32_t nearest = 0;
  double least = 0;
  if (below_threshold(exchange->worker, upstream)) return 0;
  for (uint32_t i = 0; i < upstream->target_count; i++) {
    struct target *target = &upstream->targets[i];
    enum standing standing = standing_of(exchange->worker, upstream, target, exchange->tried, false);
    if (standing == STANDING_OUT || standing < best) continue;
    double here = distance(hash, target->hash, target->weight);
    if (standing == best && here >= least) continue;
    best = standing;
    least = here;
    nearest = i + 1;
  }
  exchange->hash = hash;
  return nearest;
}

// ---- Choosing an address ---------------------------------------------------------------------------------------------

static bool has_failed(const struct exchange *exchange, const struct endpoint *endpoint) {
  const struct failed_try *failed = exchange->failed_tries;
  for (uint32_t i = 0; i < exchange->failed_count; i++, failed = failed->next)
    if (failed->endpoint == endpoint) return true;
  return false;
}

static double cost_of(struct exchange *exchange, const struct watch *watch, const struct bound *bound, uint32_t turn) {
  struct worker *worker = exchange->worker;
  const struct endpoint *endpoint = bound->endpoint;
  if (watch->spread == SPREAD_HASH && exchange->hash)
    return distance(exchange->hash, balance_hash(slice_of(endpoint->address)), 1);
  if (watch->spread == SPREAD_LOAD) return endpoint_in_flight(worker->endpoints, endpoint);
  if (watch->spread == SPREAD_LATENCY)
    return (double)endpoint_latency(endpoint, now(worker)) * (endpoint_in_flight(worker->endpoints, endpoint) + 1);
  return turn;
}

int balance_address(struct exchange *exchange) {
  struct try *try = exchange->try;
  const struct watch *watch = try->upstream->watch;
  const struct target *target = try->target;
  int best = -1, second = -1;
  double least = 0;
  for (uint32_t i = 0; i < try->address_count; i++) {
    uint32_t at = (try->address_at + i) % try->address_count;
    const struct bound *bound = &target->bound[at];
    if (!bound->endpoint) return (int)at;
    if (!takes_requests(exchange->worker, bound->endpoint, watch->heeds)) continue;
    if (has_failed(exchange, bound->endpoint)) {
      if (second < 0) second = (int)at;
      continue;
    }
    double cost = cost_of(exchange, watch, bound, i);
    if (best >= 0 && cost >= least) continue;
    best = (int)at;
    least = cost;
  }
  return best >= 0 ? best : second;
}

// ---- What a try comes to ---------------------------------------------------------------------------------------------

static bool enter(struct exchange *exchange, struct endpoint *endpoint) {
  bool heeded = exchange->try->upstream->watch->heeds & REASON_BREAKER;
  if (heeded && !endpoint_admit(endpoint, now(exchange->worker))) return false;
  exchange->endpoint = endpoint;
  endpoint_enter(endpoint, id_of(exchange->worker));
  return true;
}

bool balance_enter(struct exchange *exchange, const struct address *address) {
  const struct target *target = exchange->try->target;
  exchange->judged = false;
  for (uint32_t i = 0; i < target->bound_count; i++)
    if (address_equal(&target->bound[i].address, address))
      return !target->bound[i].endpoint || enter(exchange, target->bound[i].endpoint);
  return true;
}

void balance_leave(struct exchange *exchange) {
  endpoint_leave(exchange->endpoint, id_of(exchange->worker));
  exchange->left = exchange->endpoint;
  exchange->endpoint = NULL;
}

static const struct watch *watch_of(const struct exchange *exchange) {
  return exchange->upstream ? exchange->upstream->watch : NULL;
}

static void judge(struct exchange *exchange, enum endpoint_event event, const char *why) {
  const struct watch *watch = watch_of(exchange);
  exchange->judged = true;
  if (watch && watch->passive) balance_count(exchange->worker, exchange->endpoint, &watch->passive_limits, event, why);
}

static void judge_status(struct exchange *exchange, int status) {
  const struct watch *watch = watch_of(exchange);
  char why[48];
  exchange->judged = true;
  if (!watch || !watch->passive) return;
  bool bad = has_status(watch->unhealthy, status);
  if (!bad && !has_status(watch->healthy, status)) return;
  snprintf(why, sizeof why, "requests were answered with %d", status);
  judge(exchange, bad ? ENDPOINT_HTTP_FAILURE : ENDPOINT_SUCCESS, why);
}

void balance_on_connected(struct exchange *exchange) {
  int64_t us = now(exchange->worker) - exchange->try_begun_us;
  endpoint_answered_in(exchange->endpoint, us, now(exchange->worker));
  judge(exchange, ENDPOINT_SUCCESS, "a connection was made");
}

// Of a call whose HTTP status is good, gRPC's own decides; it may come with the head, or behind the content.
void balance_on_head(struct exchange *exchange) {
  int64_t us = now(exchange->worker) - exchange->try_begun_us;
  endpoint_answered_in(exchange->endpoint, us, now(exchange->worker));
  int status = exchange->service_message.status;
  if (!exchange->grpc || status != 200) {
    judge_status(exchange, status);
    return;
  }
  const struct field *own = headers_find(&exchange->service_message.headers, SLICE("grpc-status"), 0);
  if (own) judge_status(exchange, grpc_http_status(own->value));
}

void balance_on_end(struct exchange *exchange) {
  if (!exchange->judged && exchange->grpc) {
    const struct field *own = headers_find(&exchange->service_message.trailers, SLICE("grpc-status"), 0);
    judge_status(exchange, own ? grpc_http_status(own->value) : 500);
  }
  balance_leave(exchange);
}

void balance_on_dropped(struct exchange *exchange) {
  int64_t us = now(exchange->worker) - exchange->try_begun_us;
  if (us > endpoint_latency(exchange->endpoint, now(exchange->worker)))
    endpoint_answered_in(exchange->endpoint, us, now(exchange->worker));
}

void balance_on_failed(struct exchange *exchange, int status, bool stale) {
  if (stale || (status != 502 && status != 504)) return; // what is the gateway's own says nothing of the target
  int64_t us = now(exchange->worker) - exchange->try_begun_us;
  endpoint_answered_in(exchange->endpoint, us > FAILURE_US ? us : FAILURE_US, now(exchange->worker));
  if (status == 502)
    judge(exchange, ENDPOINT_TCP_FAILURE, "connections failed");
  else
    judge(exchange, ENDPOINT_TIMEOUT, "requests timed out");
}
