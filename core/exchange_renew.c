// SPDX-License-Identifier: Apache-2.0
// A request that the cache sends by itself while its client has been served something stale (RFC 5861 3): a copy of the
// exchange that nobody listens to, with no plugins but those of service_head.
#include <math.h>
#include <stdlib.h>

#include "cache.h"
#include "conn.h"
#include "exchange_parts.h"
#include "forward.h"
#include "router.h"
#include "stream.h"
#include "worker.h"

enum { FIELDS_MOST = 100000 };

// ---- A client that is not there ----------------------------------------------------------------------------------------

struct nobody {
  struct stream stream;
  struct conn conn; // closed
};

static void no_head(struct exchange *exchange) {
  (void)exchange;
}

static void no_interim(struct exchange *exchange, int status, const struct headers *fields) {
  (void)exchange, (void)status, (void)fields;
}

static void no_body(struct exchange *exchange, struct chunk *chunk, const char *data, uint32_t len) {
  (void)exchange, (void)chunk, (void)data, (void)len;
}

static void no_end(struct exchange *exchange, const struct headers *trailers) {
  (void)exchange, (void)trailers;
}

static bool never_congested(const struct exchange *exchange) {
  (void)exchange;
  return false;
}

static void no_want(struct exchange *exchange, bool wanted) {
  (void)exchange, (void)wanted;
}

static const struct stream_ops nobody_ops = {
    .head = no_head,
    .interim = no_interim,
    .body = no_body,
    .end = no_end,
    .abort = no_head,
    .flush = no_head,
    .is_congested = never_congested,
    .want_body = no_want,
    .tunnel = no_head,
    .finish = no_head,
};

static struct exchange *exchange_of_nobody(const struct exchange *model) {
  struct nobody *nobody = calloc(1, sizeof *nobody);
  if (!nobody) return NULL;
  nobody->stream = (struct stream){.worker = model->worker, .conn = &nobody->conn, .peer = model->peer};
  nobody->conn.fd = -1;
  nobody->conn.closed = true;
  struct exchange *exchange = exchange_new(model->worker, &nobody->stream, &nobody_ops);
  if (!exchange || arena_defer(&exchange->arena, free, nobody) < 0) {
    free(nobody);
    if (exchange) exchange->stream = NULL;
    if (exchange) exchange_finish(exchange);
    return NULL;
  }
  exchange->unlogged = true;
  return exchange;
}

// ---- The copy ----------------------------------------------------------------------------------------------------------

// Texts live in the arena of the exchange that they belong to.
static bool copy_text(struct arena *arena, struct slice *text) {
  if (!text->data) return true;
  *text = arena_copy(arena, text->data, text->len);
  return text->data != NULL;
}

static bool copy_fields(struct arena *arena, struct headers *to, const struct headers *from) {
  headers_init(to, FIELDS_MOST);
  bool good = true;
  for (uint32_t i = 0; i < from->count && good; i++) {
    struct slice name = from->fields[i].name, value = from->fields[i].value;
    if (from->fields[i].named_by_connection) continue;
    good = copy_text(arena, &name) && copy_text(arena, &value) && headers_add(to, arena, name, value) == 0;
  }
  return good;
}

static bool copy_request(struct exchange *to, const struct exchange *from) {
  struct slice method = slice_equal(from->request.method, SLICE("HEAD")) ? SLICE("GET") : from->request.method;
  to->request = (struct h1_message){.method = method, .target = from->request.target, .major = 1, .minor = 1};
  to->request.keep_alive = true;
  to->request.content_length = -1;
  to->request_complete = true;
  to->scheme = from->scheme;
  to->raw_path = from->raw_path;
  to->path = from->path;
  to->query = from->query;
  to->has_query = from->has_query;
  to->authority = from->authority;
  to->host = from->host;
  to->port = from->port;
  to->service_path = from->service_path;
  to->service_query = from->service_query;
  to->service_host = from->service_host;
  to->host_field = from->host_field;
  struct slice *texts[] = {&to->request.method, &to->request.target, &to->scheme,       &to->raw_path,
                           &to->path,           &to->query,          &to->authority,    &to->host,
                           &to->service_path,   &to->service_query,  &to->service_host, &to->host_field};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    if (!copy_text(&to->arena, texts[i])) return false;
  return copy_fields(&to->arena, &to->request.headers, &from->request.headers);
}

static bool copy_way(struct exchange *to, const struct exchange *from) {
  to->generation = generation_retain(from->generation);
  to->route_index = from->route_index;
  to->route = from->route;
  to->service = from->service;
  to->phases = from->route->phases & (1u << PHASE_SERVICE_HEAD);
  to->service_port = from->service_port;
  to->service_tls = from->service_tls;
  to->upstream = from->upstream;
  to->connect_timeout_ms = from->connect_timeout_ms;
  to->send_timeout_ms = from->send_timeout_ms;
  to->read_timeout_ms = from->read_timeout_ms;
  to->retries = from->retries;
  if (!from->match) return true;
  to->match = arena_alloc(&to->arena, sizeof *to->match);
  if (to->match) *to->match = *from->match;
  return to->match != NULL;
}

static bool copy_caching(struct exchange *to, const struct exchange *from) {
  struct arena *arena = &to->arena;
  const struct caching *old = from->caching;
  struct caching *caching = to->caching = arena_alloc(arena, sizeof *caching);
  if (!caching) return false;
  *caching = (struct caching){.key = old->key, .asks = 0};
  memcpy(caching->hash, old->hash, sizeof caching->hash);
  struct found *found = caching->found = arena_alloc(arena, sizeof *found);
  if (!found || !copy_text(arena, &caching->key)) return false;
  caching->url = (struct slice){caching->key.data, old->url.len};
  *found = *old->found;
  return copy_text(arena, &found->reason) && copy_text(arena, &found->url) && copy_text(arena, &found->tags) &&
         copy_text(arena, &found->body) && copy_fields(arena, &found->fields, &old->found->fields) &&
         copy_fields(arena, &caching->request, &old->request);
}

// The whole is asked for, unless it is still what is stored.
static bool make_conditional(struct exchange *exchange) {
  static const struct slice names[] = {SLICE("If-None-Match"), SLICE("If-Modified-Since"),
                                       SLICE("If-Match"),      SLICE("If-Unmodified-Since"),
                                       SLICE("Range"),         SLICE("If-Range")};
  struct headers *headers = &exchange->request.headers;
  const struct headers *stored = &exchange->caching->found->fields;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) headers_remove(headers, names[i]);
  const struct field *tag = headers_find(stored, SLICE("etag"), 0);
  const struct field *modified = headers_find(stored, SLICE("last-modified"), 0);
  if (tag && headers_add(headers, &exchange->arena, names[0], tag->value) < 0) return false;
  return !modified || headers_add(headers, &exchange->arena, names[1], modified->value) == 0;
}

// ---- On its way --------------------------------------------------------------------------------------------------------

static void set_out(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (exchange && exchange->state == EXCHANGE_ACCESS) exchange_forward(exchange);
}

double bridge_cache_renew(struct worker *worker, double handle) {
  struct exchange *from = exchange_find(worker, handle);
  if (!from || exchange_is_over(from) || !from->caching || !from->caching->found) return (double)NAN;
  struct slice method = from->request.method;
  if (!slice_equal(method, SLICE("GET")) && !slice_equal(method, SLICE("HEAD"))) return (double)NAN;
  if (from->tls_choice || from->forwarded || from->service_method.data || !exchange_flight_is_free(from))
    return (double)NAN;
  struct exchange *exchange = exchange_of_nobody(from);
  if (!exchange) return (double)NAN;
  exchange_move(exchange, EXCHANGE_REWRITE);
  exchange_move(exchange, EXCHANGE_ACCESS);
  double renewal = exchange_handle(exchange);
  bool good = copy_request(exchange, from) && copy_way(exchange, from) && copy_caching(exchange, from) &&
              make_conditional(exchange) && bridge_cache_lead(worker, renewal, 60) == BRIDGE_OK &&
              worker_later(worker, set_out, renewal) == 0;
  if (good) return renewal;
  exchange_finish(exchange);
  return (double)NAN;
}
