// SPDX-License-Identifier: Apache-2.0
// What Lua may call of stored responses: looking one up, answering with it, purging. Storing is in exchange_cache.c.
#include <math.h>
#include <stdio.h>

#include "cache.h"
#include "exchange.h"
#include "worker.h"

static struct slice slice_of_bytes(const struct bytes *bytes) {
  return (struct slice){bytes->data, bytes->len};
}

static double seconds(int64_t us) {
  return (double)us / 1e6;
}

// ---- Finding and answering -------------------------------------------------------------------------------------------

static void add_field(struct exchange *exchange, struct slice name, struct slice value) {
  value = arena_copy(&exchange->arena, value.data, value.len);
  if (value.data) headers_set(&exchange->preset, &exchange->arena, name, value);
}

static void add_number(struct exchange *exchange, struct slice name, int64_t number) {
  char digits[DIGITS_MOST];
  add_field(exchange, name, slice_of_number(number > 0 ? (uint64_t)number : 0, digits));
}

// The fields that tell of the cache; they take the place of what is stored under their names.
static void tell(struct exchange *exchange, uint32_t tells, struct slice label, struct slice member) {
  struct caching *caching = exchange->caching;
  char text[CACHE_KEY_HEX > 64 ? CACHE_KEY_HEX : 64];
  const struct stored *stored = &caching->found->stored;
  int64_t age_us = cache_age_us(exchange, stored);
  if (tells & CACHE_TELLS_AGE) add_number(exchange, SLICE("Age"), age_us / 1000000);
  if (tells & CACHE_TELLS_STATUS) add_field(exchange, SLICE("X-Cache-Status"), label);
  if (tells & CACHE_TELLS_KEY) {
    cache_hex(caching->hash, text);
    add_field(exchange, SLICE("X-Cache-Key"), (struct slice){text, CACHE_KEY_HEX});
  }
  if (!(tells & CACHE_TELLS_MEMBER)) return;
  struct slice name = SLICE("Cache-Status");
  if (!member.data) {
    int len =
        snprintf(text, sizeof text, "sluice; hit; ttl=%lld", (long long)((stored->lifetime_us - age_us) / 1000000));
    member = (struct slice){text, (uint32_t)len};
  }
  member = arena_copy(&exchange->arena, member.data, member.len); // a list, to which each cache adds (RFC 9211 2)
  if (member.data) headers_add(&exchange->preset, &exchange->arena, name, member);
}

static int add_piece(struct exchange *exchange, struct slice text, uint64_t from, uint64_t to) {
  struct caching *caching = exchange->caching;
  struct cache_piece *piece = arena_alloc(&exchange->arena, sizeof *piece);
  if (!piece) return BRIDGE_FULL;
  *piece = (struct cache_piece){NULL, text, from, to};
  if (!caching->pieces) caching->pieces_end = &caching->pieces;
  *caching->pieces_end = piece;
  caching->pieces_end = &piece->next;
  return BRIDGE_OK;
}

static int answer(struct exchange *exchange, int status) {
  struct caching *caching = exchange->caching;
  const struct stored *stored = &caching->found->stored;
  exchange->status = status ? status : stored->status;
  bool empty = exchange->status == 304 || exchange->status == 412 || exchange->status == 416;
  if (!caching->pieces && !empty && stored->length > 0 &&
      add_piece(exchange, SLICE(""), 0, stored->length) != BRIDGE_OK)
    return BRIDGE_FULL;
  exchange->answered = true;
  exchange->source = SOURCE_EXIT;
  exchange->message = exchange->whole_answer = (struct slice){NULL, 0};
  caching->answering = true;
  return BRIDGE_OK;
}

// What needs no second look: fresh, whole, and a request that asks for nothing but that.
static bool is_plain(const struct exchange *exchange, const struct cache_rules *rules) {
  const struct caching *caching = exchange->caching;
  const struct stored *stored = &caching->found->stored;
  uint32_t asks = caching->asks & ~(uint32_t)CACHE_ASKS_AUTHORIZATION;
  if (rules->ignores_control) asks &= ~(uint32_t)CACHE_ASKS_CONTROL;
  return asks == 0 && !(stored->flags & CACHE_ALWAYS_VALIDATE) && stored->status != 206 &&
         cache_age_us(exchange, stored) < stored->lifetime_us;
}

static void describe(const struct exchange *exchange, struct cache_found *out) {
  const struct caching *caching = exchange->caching;
  cache_hex(caching->hash, out->key);
  out->asks = caching->asks;
  if (!caching->found) return;
  const struct stored *stored = &caching->found->stored;
  out->flags = stored->flags;
  out->status = stored->status;
  out->age_s = seconds(cache_age_us(exchange, stored));
  out->lifetime_s = seconds(stored->lifetime_us);
  out->revalidate_s = seconds(stored->revalidate_us);
  out->error_s = seconds(stored->error_us);
  out->length = (double)stored->length;
  out->first = (double)stored->first;
  out->total = (double)stored->total;
}

int bridge_cache_find(struct worker *worker, double handle, const struct cache_rules *rules,
                      const struct cache_subject *subject, struct cache_found *out) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (exchange_is_over(exchange)) return BRIDGE_CLOSED;
  if (exchange->state != EXCHANGE_ACCESS) return BRIDGE_LATE;
  if (exchange->request.upgrade) return BRIDGE_INVALID; // it may become something else than a response
  int status = cache_look_up(exchange, rules, subject);
  if (status == BRIDGE_OK && is_plain(exchange, rules)) {
    tell(exchange, rules->tells, SLICE("Hit"), (struct slice){NULL, 0});
    return answer(exchange, 0);
  }
  if (status != BRIDGE_OK && status != BRIDGE_NONE) return status;
  describe(exchange, out);
  // From here on plugins may change the request; what Vary is about is the request as it was looked at.
  struct headers *request = &exchange->caching->request;
  if (request->count == 0 && headers_copy(request, &exchange->request.headers, &exchange->arena) < 0)
    return BRIDGE_FULL;
  return status == BRIDGE_OK ? BRIDGE_DIFFERS : BRIDGE_NONE;
}

static struct exchange *with_found(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange && exchange->caching && exchange->caching->found ? exchange : NULL;
}

int bridge_cache_answer(struct worker *worker, double handle, uint32_t tells, int status, const struct bytes *label,
                        const struct bytes *member) {
  struct exchange *exchange = with_found(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (exchange_is_over(exchange)) return BRIDGE_CLOSED;
  if (exchange->head_sent) return BRIDGE_LATE;
  tell(exchange, tells, slice_of_bytes(label), slice_of_bytes(member));
  return answer(exchange, status);
}

int bridge_cache_piece(struct worker *worker, double handle, const char *text, uint32_t len, double from, double to) {
  struct exchange *exchange = with_found(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (!(from >= 0 && from <= to && to <= (double)exchange->caching->found->stored.length)) return BRIDGE_INVALID;
  struct slice kept = arena_copy(&exchange->arena, text, len);
  return kept.data ? add_piece(exchange, kept, (uint64_t)from, (uint64_t)to) : BRIDGE_FULL;
}

int bridge_cache_hide(struct worker *worker, double handle, const char *names, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (!exchange->caching) return BRIDGE_NONE;
  exchange->caching->hidden = arena_copy(&exchange->arena, names, len);
  return exchange->caching->hidden.data ? BRIDGE_OK : BRIDGE_FULL;
}

int bridge_cache_drop(struct worker *worker, double handle) {
  struct exchange *exchange = with_found(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  struct caching *caching = exchange->caching;
  int64_t count = objects_remove(worker->objects, caching->hash, caching->found->id, worker->loop.clock.real_us);
  caching->found = NULL;
  return count < 0 ? BRIDGE_FAILED : BRIDGE_OK;
}

// ---- Purging ---------------------------------------------------------------------------------------------------------

// A kind and a text as a name that responses are stored under, as far as names go.
static struct slice name_for(int kind, const char *text, uint32_t len, char room[OBJECT_NAME_MAX + 1]) {
  if (len > OBJECT_NAME_MAX) len = OBJECT_NAME_MAX;
  room[0] = (char)kind;
  memcpy(room + 1, text, len);
  return (struct slice){room, len + 1};
}

int bridge_cache_url(struct worker *worker, double handle, const struct cache_rules *rules, const char *path,
                     uint32_t len, struct bytes *out) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  struct slice url = cache_url(exchange, rules, (struct slice){path, len});
  if (!url.data) return BRIDGE_FULL;
  *out = (struct bytes){url.data, url.len};
  return BRIDGE_OK;
}

double bridge_cache_purge(struct worker *worker, int kind, const char *text, uint32_t len, bool prefix) {
  char room[OBJECT_NAME_MAX + 1];
  struct objects *objects = worker_objects(worker);
  if (!objects) return (double)NAN;
  int64_t count = objects_purge(objects, name_for(kind, text, len, room), prefix, worker->loop.clock.real_us);
  return count < 0 ? (double)NAN : (double)count;
}

static bool hash_of_hex(const char *hex, uint32_t len, unsigned char hash[OBJECT_HASH]) {
  if (len != CACHE_KEY_HEX) return false;
  for (uint32_t i = 0; i < len; i++) {
    char c = ascii_lower(hex[i]);
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) return false;
    hash[i / 2] = (unsigned char)(i % 2 ? hash[i / 2] | digit : digit << 4);
  }
  return true;
}

double bridge_cache_purge_key(struct worker *worker, const char *hex, uint32_t len) {
  unsigned char hash[OBJECT_HASH];
  struct objects *objects = worker_objects(worker);
  if (!objects || !hash_of_hex(hex, len, hash)) return (double)NAN;
  int64_t count = objects_remove(objects, hash, 0, worker->loop.clock.real_us);
  return count < 0 ? (double)NAN : (double)count;
}

static int64_t purge_all(struct objects *objects, int kind, const char *text, uint32_t len, bool prefix) {
  char room[OBJECT_NAME_MAX + 1];
  unsigned char hash[OBJECT_HASH];
  struct clock clock;
  clock_init(&clock);
  if (kind == 0) return hash_of_hex(text, len, hash) ? objects_remove(objects, hash, 0, clock.real_us) : 0;
  int64_t total = 0, count;
  do {
    count = objects_purge(objects, name_for(kind, text, len, room), prefix, clock.real_us);
    total += count;
  } while (count == OBJECT_PURGE_BATCH);
  return count < 0 ? count : total;
}

double bridge_cache_purge_in(const char *folder, double bytes, int kind, const char *text, uint32_t len, bool prefix,
                             char *why, uint32_t why_bytes) {
  struct error error = {0};
  struct objects *objects = objects_open(folder, (uint64_t)bytes, &error);
  int64_t count = objects ? purge_all(objects, kind, text, len, prefix) : -1;
  if (objects) objects_close(objects);
  if (count >= 0) return (double)count;
  snprintf(why, why_bytes, "%s", error.text[0] ? error.text : "the stored responses cannot be changed");
  return (double)NAN;
}

int bridge_cache_usage(struct worker *worker, struct store_usage *out) {
  struct objects_use use;
  struct objects *objects = worker_objects(worker);
  if (!objects) return BRIDGE_FAILED;
  objects_use(objects, &use);
  *out = (struct store_usage){(double)use.entries, (double)use.bytes_used, (double)use.bytes_limit, 0};
  return BRIDGE_OK;
}
