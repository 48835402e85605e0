// SPDX-License-Identifier: Apache-2.0
// What Lua may call of counters, leases, store and DNS: thin bodies over the modules.
#include <arpa/inet.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bridge.h"
#include "budget.h"
#include "counters.h"
#include "dns.h"
#include "exchange.h"
#include "lease.h"
#include "phase.h"
#include "store.h"
#include "worker.h"

enum { KEY_BYTES = 512 }; // of counters, that need no allocation

static struct slice slice_from(const char *data, uint32_t len) {
  return (struct slice){data, len};
}

static int failed(struct worker *worker, const struct error *error) {
  worker->error = *error;
  return BRIDGE_FAILED;
}

// Numbers of Lua are doubles: whole up to here.
static int64_t whole(double number) {
  const double most = 9007199254740992.0;
  if (!(number >= -most)) return -(int64_t)most;
  return number > most ? (int64_t)most : (int64_t)number;
}

static int64_t microseconds(double seconds) {
  return seconds > 0 ? whole(seconds * 1e6) : 0;
}

static int64_t now_us(struct worker *worker) {
  return worker->loop.clock.real_us;
}

// Seconds until `end_us`; 0: it never comes.
static double seconds_left(struct worker *worker, int64_t end_us) {
  return end_us ? (double)(end_us - now_us(worker)) / 1e6 : 0;
}

// ---- Counters ----

double bridge_counter_add(struct worker *worker, const char *key, uint32_t len, const char *whose, uint32_t whose_len,
                          double delta, double ttl_s) {
  char few[KEY_BYTES], *both = (size_t)len + whose_len <= sizeof few ? few : malloc((size_t)len + whose_len);
  int status = COUNTERS_FULL;
  int64_t value = 0;
  if (both) {
    memcpy(both, key, len);
    memcpy(both + len, whose, whose_len);
    value = counters_add(worker_counters(worker), both, len + whose_len, whole(delta), microseconds(ttl_s),
                         now_us(worker), &status);
  }
  if (both != few) free(both);
  return status == COUNTERS_FULL ? NAN : (double)value;
}

double bridge_counter_get(struct worker *worker, const char *key, uint32_t len) {
  int status;
  int64_t value = counters_get(worker_counters(worker), key, len, now_us(worker), NULL, &status);
  return status == COUNTERS_OK ? (double)value : NAN;
}

double bridge_counter_ttl(struct worker *worker, const char *key, uint32_t len) {
  int status;
  int64_t end_us;
  counters_get(worker_counters(worker), key, len, now_us(worker), &end_us, &status);
  return status == COUNTERS_OK ? seconds_left(worker, end_us) : NAN;
}

int bridge_counter_set(struct worker *worker, const char *key, uint32_t len, double value, double ttl_s) {
  int status = counters_set(worker_counters(worker), key, len, whole(value), microseconds(ttl_s), now_us(worker));
  return status == COUNTERS_OK ? BRIDGE_OK : BRIDGE_FULL;
}

int bridge_counter_compare_set(struct worker *worker, const char *key, uint32_t len, double expected, double value) {
  int64_t found;
  switch (
      counters_compare_set(worker_counters(worker), key, len, whole(expected), whole(value), now_us(worker), &found)) {
  case COUNTERS_OK: return BRIDGE_OK;
  case COUNTERS_DIFFERS: return BRIDGE_DIFFERS;
  default: return BRIDGE_NONE;
  }
}

int bridge_counter_delete(struct worker *worker, const char *key, uint32_t len) {
  int status = counters_delete(worker_counters(worker), key, len, now_us(worker));
  return status == COUNTERS_OK ? BRIDGE_OK : BRIDGE_NONE;
}

double bridge_counter_name(struct worker *worker, const char *key, uint32_t len) {
  int64_t handle = counters_name(worker_counters(worker), key, len);
  return handle > 0 ? (double)handle : 0;
}

double bridge_counter_add_at(struct worker *worker, double handle, double delta) {
  struct counters *counters = worker_counters(worker);
  int64_t place = whole(handle);
  return counters_is_handle(counters, place) ? (double)counters_add_at(counters, place, whole(delta)) : NAN;
}

double bridge_counter_at(struct worker *worker, double handle) {
  struct counters *counters = worker_counters(worker);
  int64_t place = whole(handle);
  return counters_is_handle(counters, place) ? (double)counters_at(counters, place) : NAN;
}

int bridge_counter_swap_at(struct worker *worker, double handle, double expected, double value) {
  struct counters *counters = worker_counters(worker);
  int64_t place = whole(handle);
  if (!counters_is_handle(counters, place)) return BRIDGE_NONE;
  return counters_swap_at(counters, place, whole(expected), whole(value)) ? BRIDGE_OK : BRIDGE_DIFFERS;
}

double bridge_budget(struct worker *worker, const char *name, uint32_t len, double share, double per_second,
                     double window_s, double spent, double refused) {
  uint32_t number = budget_define(worker, (struct slice){name, len}, share, per_second, microseconds(window_s));
  budget_count_in(worker, number, whole(spent), whole(refused));
  return number;
}

double bridge_counter_names(struct worker *worker) {
  return (double)counters_names(worker_counters(worker));
}

enum { NEXT_SLOTS = 1024 }; // looked at in one call

int bridge_counter_next(struct worker *worker, const char *prefix, uint32_t len, double *cursor, struct bytes *key,
                        double *value) {
  uint64_t at = (uint64_t)(*cursor > 0 ? whole(*cursor) : 0);
  int64_t number = 0;
  int status = counters_next(worker_counters(worker), prefix, len, NEXT_SLOTS, &at, &key->data, &key->len, &number);
  *cursor = (double)at;
  if (status != COUNTERS_OK) return status == COUNTERS_MORE ? BRIDGE_AGAIN : BRIDGE_NONE;
  *value = (double)number;
  return BRIDGE_OK;
}

enum { USAGE_SLOTS = 1024 }; // looked at in one call: 64 KB

int bridge_counter_usage(struct worker *worker, double *cursor, struct counter_usage *out) {
  uint32_t at = (uint32_t)*cursor;
  struct counters_use use = {.slots = out->slots,
                             .used = out->used,
                             .named = out->named,
                             .text_bytes = (uint64_t)out->text_bytes,
                             .text_used = (uint64_t)out->text_used,
                             .refused = (uint64_t)out->refused};
  bool more = counters_use_some(worker_counters(worker), now_us(worker), &at, USAGE_SLOTS, &use);
  *cursor = at;
  *out = (struct counter_usage){.slots = use.slots,
                                .used = use.used,
                                .named = use.named,
                                .text_bytes = (double)use.text_bytes,
                                .text_used = (double)use.text_used,
                                .refused = (double)use.refused};
  return more ? BRIDGE_AGAIN : BRIDGE_OK;
}

// ---- Leases ----

int bridge_lease_take(struct worker *worker, double handle, const char *key, uint32_t len, double most, double *held) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  int64_t count;
  int status = lease_take(exchange, slice_from(key, len), whole(most), &count);
  *held = (double)count;
  return status == COUNTERS_OK ? BRIDGE_OK : status == COUNTERS_TAKEN ? BRIDGE_NONE : BRIDGE_FULL;
}

int bridge_lease_end(struct worker *worker, double handle, const char *key, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  return lease_end(exchange, slice_from(key, len)) ? BRIDGE_OK : BRIDGE_NONE;
}

double bridge_lease_count(struct worker *worker, const char *key, uint32_t len) {
  return (double)counters_leased(worker_counters(worker), key, len, now_us(worker));
}

// ---- Store ----

// A result of the store as the bridge says it.
static int store_result(struct worker *worker, int status, const struct error *error) {
  switch (status) {
  case STORE_OK: return BRIDGE_OK;
  case STORE_NONE: return BRIDGE_NONE;
  case STORE_DIFFERS: return BRIDGE_DIFFERS;
  default:
    failed(worker, error);
    return status == ERROR_INVALID ? BRIDGE_INVALID : status == ERROR_MEMORY ? BRIDGE_FULL : BRIDGE_FAILED;
  }
}

// The store; NULL, and the worker's error says why.
static struct store *store_of(struct worker *worker) {
  struct store *store = worker_store(worker);
  if (!store && !worker->options.state_dir) error_set(&worker->error, ERROR_INVALID, "store: there is no state_dir");
  return store;
}

int bridge_store_set(struct worker *worker, const char *key, uint32_t key_len, const char *value, uint32_t value_len,
                     double ttl_s) {
  struct error error;
  struct store *store = store_of(worker);
  if (!store) return BRIDGE_FAILED;
  int status = store_set(store, slice_from(key, key_len), slice_from(value, value_len), microseconds(ttl_s),
                         now_us(worker), &error);
  return store_result(worker, status, &error);
}

int bridge_store_add(struct worker *worker, const char *key, uint32_t key_len, const char *value, uint32_t value_len,
                     double ttl_s) {
  struct error error;
  struct store *store = store_of(worker);
  if (!store) return BRIDGE_FAILED;
  int status = store_add(store, slice_from(key, key_len), slice_from(value, value_len), microseconds(ttl_s),
                         now_us(worker), &error);
  return store_result(worker, status, &error);
}

int bridge_store_get(struct worker *worker, const char *key, uint32_t len, struct bytes *out, double *ttl_s) {
  struct error error;
  struct slice value;
  int64_t end_us;
  struct store *store = store_of(worker);
  if (!store) return BRIDGE_FAILED;
  int status = store_get(store, slice_from(key, len), now_us(worker), &value, &end_us, &error);
  if (status == STORE_OK) {
    *out = (struct bytes){value.data, value.len};
    if (ttl_s) *ttl_s = seconds_left(worker, end_us);
  }
  return store_result(worker, status, &error);
}

int bridge_store_delete(struct worker *worker, const char *key, uint32_t len) {
  struct error error;
  struct store *store = store_of(worker);
  return store ? store_result(worker, store_delete(store, slice_from(key, len), &error), &error) : BRIDGE_FAILED;
}

double bridge_store_delete_prefix(struct worker *worker, const char *prefix, uint32_t len) {
  struct error error;
  struct store *store = store_of(worker);
  int64_t count = store ? store_delete_prefix(store, slice_from(prefix, len), &error) : 0;
  if (count < 0) failed(worker, &error);
  return store && count >= 0 ? (double)count : NAN;
}

int bridge_store_next(struct worker *worker, const char *prefix, uint32_t prefix_len, const char *after,
                      uint32_t after_len, struct bytes *key, struct bytes *value, double *ttl_s) {
  struct error error;
  struct slice found, content;
  int64_t end_us;
  struct store *store = store_of(worker);
  if (!store) return BRIDGE_FAILED;
  int status = store_next(store, slice_from(prefix, prefix_len), slice_from(after, after_len), now_us(worker), &found,
                          &content, &end_us, &error);
  if (status == STORE_OK) {
    *key = (struct bytes){found.data, found.len};
    *value = (struct bytes){content.data, content.len};
    if (ttl_s) *ttl_s = seconds_left(worker, end_us);
  }
  return store_result(worker, status, &error);
}

int bridge_store_usage(struct worker *worker, struct store_usage *out) {
  struct store_use use;
  struct store *store = store_of(worker);
  if (!store) return BRIDGE_FAILED;
  store_use(store, &use);
  *out =
      (struct store_usage){(double)use.entries, (double)use.bytes_used, (double)use.bytes_limit, (double)use.evicted};
  return BRIDGE_OK;
}

// ---- DNS ----

struct dns_call { // of a coroutine that waits
  struct worker *worker;
  double coroutine;
  struct dns_query query;
};

static int keep_answer(struct worker *worker, const struct dns_query *query) {
  if (query->error.code) return failed(worker, &query->error);
  return dns_keep(worker_dns(worker), query) < 0 ? BRIDGE_FULL : BRIDGE_OK;
}

static void on_dns(struct dns_query *query) {
  struct dns_call *call = (struct dns_call *)(void *)((char *)query - offsetof(struct dns_call, query));
  struct worker *worker = call->worker;
  double coroutine = call->coroutine;
  uint32_t count = query->count;
  int status = keep_answer(worker, query);
  free(call);
  phase_resume(worker, coroutine, status, count);
}

int bridge_dns_resolve(struct worker *worker, const char *name, uint32_t len, int kind) {
  if (kind < DNS_ADDRESS || kind > DNS_SRV) return BRIDGE_INVALID;
  struct dns_call *call = malloc(sizeof *call);
  if (!call) return BRIDGE_FULL;
  *call = (struct dns_call){.worker = worker, .coroutine = phase_self(worker), .query = {.on_done = on_dns}};
  struct dns *dns = worker_dns(worker);
  int status = BRIDGE_AGAIN;
  if (dns_resolve(dns, slice_from(name, len), (enum dns_kind)kind, &call->query) == DNS_READY)
    status = keep_answer(worker, &call->query);
  else if (call->coroutine != 0)
    return BRIDGE_AGAIN;
  else { // nothing runs that could wait
    dns_cancel(dns, &call->query);
    error_set(&worker->error, ERROR_DNS, "%.*s: its address is not known yet", (int)len, name);
    status = BRIDGE_FAILED;
  }
  free(call);
  return status;
}

int bridge_dns_at(struct worker *worker, uint32_t index, struct dns_record *out, double *ttl_s) {
  uint32_t count;
  double ttl;
  const struct dns_address *kept = dns_kept(worker_dns(worker), &count, &ttl);
  if (index >= count) return BRIDGE_NONE;
  const struct dns_address *address = &kept[index];
  *out = (struct dns_record){.port = address->port, .priority = address->priority, .weight = address->weight};
  inet_ntop(address->family == 4 ? AF_INET : AF_INET6, address->bytes, out->address, sizeof out->address);
  if (ttl_s) *ttl_s = ttl;
  return BRIDGE_OK;
}

static bool parse_address(const char *text, struct dns_address *out) {
  *out = (struct dns_address){.family = 4};
  if (inet_pton(AF_INET, text, out->bytes) == 1) return true;
  out->family = 6;
  return inet_pton(AF_INET6, text, out->bytes) == 1;
}

int bridge_dns_fake(struct worker *worker, const char *name, uint32_t len, const char *const *addresses, uint32_t count,
                    double ttl_s) {
  enum { MOST = 64 };
  struct dns_address list[MOST];
  if (count > MOST) return BRIDGE_INVALID;
  for (uint32_t i = 0; i < count; i++)
    if (!parse_address(addresses[i], &list[i])) return BRIDGE_INVALID;
  return dns_fake(worker_dns(worker), slice_from(name, len), DNS_ADDRESS, list, count, ttl_s) < 0 ? BRIDGE_FULL
                                                                                                  : BRIDGE_OK;
}

void bridge_dns_offline(struct worker *worker, bool offline) {
  dns_offline(worker_dns(worker), offline);
}
