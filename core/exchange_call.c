// SPDX-License-Identifier: Apache-2.0
// Requests that plugins make of a service by themselves: exchanges without a client, which go by a route of their own
// through the plugins, the balancer and the tries of the service, and end in memory.
//
//   bridge_call ──> exchange ──> rewrite, access ... service ──> head, body, end ──> struct call ──> the coroutine
//
// A call is freed when both have let go of it: the exchange, whose arena tells of its end, and Lua.
#include <math.h>
#include <stdlib.h>

#include "arena.h"
#include "conn.h"
#include "exchange_parts.h"
#include "phase.h"
#include "stream.h"
#include "worker.h"

enum { CALLS_MOST = 4096, FIELDS_MOST = 1000, ARENA_MOST = 1 << 20 };

struct call {
  struct stream stream; // first: the one is the other
  struct conn conn;     // closed
  struct call *next;
  double number;
  struct exchange *exchange; // NULL: it has ended
  int generation;            // whose routes the caller knows
  double coroutine;          // that waits, 0: none
  bool held;                 // by Lua
  bool ended, failed, truncated;
  int status, source;
  struct arena arena; // of what follows
  struct headers headers;
  char *body;
  size_t body_len, body_room, body_most;
};

static struct call *call_of(const struct exchange *exchange) {
  return (struct call *)exchange->stream;
}

static struct call **find(struct worker *worker, double number) {
  struct call **at = &worker->calls;
  while (*at && ((*at)->number != number || !(*at)->held)) at = &(*at)->next;
  return at;
}

static void let_go(struct call *call) {
  if (call->held || call->exchange) return;
  struct call **at = &call->stream.worker->calls;
  while (*at != call) at = &(*at)->next;
  *at = call->next;
  call->stream.worker->call_count--;
  arena_close(&call->arena);
  free(call->body);
  free(call);
}

static void settle(struct call *call, bool failed) {
  if (call->ended) return;
  call->ended = true;
  call->failed = failed;
  if (call->coroutine != 0) bridge_wake(call->stream.worker, call->coroutine, BRIDGE_OK, 0);
  call->coroutine = 0;
}

// Deferred in the exchange's arena.
static void on_exchange_end(void *what) {
  struct call *call = what;
  call->exchange = NULL;
  settle(call, true); // unless it has its response
  let_go(call);
}

// ---- The client's side -----------------------------------------------------------------------------------------------

static void take_head(struct exchange *exchange) {
  struct call *call = call_of(exchange);
  call->status = exchange->status;
  call->source = exchange->source;
  for (uint32_t i = 0; i < exchange->response.count; i++) {
    struct slice name = exchange->response.fields[i].name, value = exchange->response.fields[i].value;
    name = arena_copy(&call->arena, name.data, name.len);
    value = arena_copy(&call->arena, value.data, value.len);
    if (!name.data || !value.data || headers_add(&call->headers, &call->arena, name, value) < 0) return;
  }
}

static void take_body(struct exchange *exchange, struct chunk *chunk, const char *data, uint32_t len) {
  (void)chunk;
  struct call *call = call_of(exchange);
  if (call->truncated) return;
  if (call->body_len + len > call->body_room) {
    size_t room = call->body_room ? call->body_room * 2 : 4096;
    while (room < call->body_len + len) room *= 2;
    char *body = call->body_len + len <= call->body_most ? realloc(call->body, room) : NULL;
    call->truncated = !body;
    if (!body) return;
    call->body = body;
    call->body_room = room;
  }
  memcpy(call->body + call->body_len, data, len);
  call->body_len += len;
}

static void take_end(struct exchange *exchange, const struct headers *trailers) {
  (void)trailers;
  settle(call_of(exchange), false);
}

static void take_abort(struct exchange *exchange) {
  settle(call_of(exchange), true);
}

static void nothing(struct exchange *exchange) {
  (void)exchange;
}

static void no_interim(struct exchange *exchange, int status, const struct headers *fields) {
  (void)exchange, (void)status, (void)fields;
}

static bool never_congested(const struct exchange *exchange) {
  (void)exchange;
  return false;
}

static void no_want(struct exchange *exchange, bool wanted) {
  (void)exchange, (void)wanted; // all of the content is there
}

static const struct stream_ops call_ops = {
    .head = take_head,
    .interim = no_interim,
    .body = take_body,
    .end = take_end,
    .abort = take_abort,
    .flush = nothing,
    .is_congested = never_congested,
    .want_body = no_want,
    .tunnel = nothing,
    .finish = nothing,
};

// ---- The request -----------------------------------------------------------------------------------------------------

static struct slice text_in(struct exchange *exchange, struct bytes bytes) {
  return arena_copy(&exchange->arena, bytes.data, bytes.len);
}

static bool take_request(struct exchange *exchange, const struct call_options *options) {
  struct h1_message *request = &exchange->request;
  *request = (struct h1_message){.method = text_in(exchange, options->method),
                                 .target = text_in(exchange, options->target),
                                 .major = 1,
                                 .minor = 1,
                                 .keep_alive = true};
  headers_init(&request->headers, FIELDS_MOST);
  if (!request->method.data || !request->target.data) return false;
  for (uint32_t i = 0; i < options->header_count; i++) {
    struct slice name = text_in(exchange, options->headers[2 * i]);
    struct slice value = text_in(exchange, options->headers[2 * i + 1]);
    if (!name.data || !value.data || headers_add(&request->headers, &exchange->arena, name, value) < 0) return false;
  }
  request->content_length = options->body.data ? (int64_t)options->body.len : -1;
  exchange->body_received = exchange->request_bytes = options->body.len;
  exchange->request_complete = true;
  return !options->body.len || buffer_append(&exchange->request_body, options->body.data, options->body.len) == 0;
}

static struct call *call_new(struct worker *worker, const struct call_options *options) {
  struct call *call = worker->call_count < CALLS_MOST ? calloc(1, sizeof *call) : NULL;
  if (!call) return NULL;
  call->stream = (struct stream){.worker = worker, .conn = &call->conn, .peer = {.client_ip = "127.0.0.1"}};
  call->conn.fd = -1;
  call->conn.closed = true;
  call->number = ++worker->last_call;
  call->generation = options->generation;
  call->body_most = options->max_body;
  call->held = true;
  arena_init(&call->arena, ARENA_MOST);
  headers_init(&call->headers, FIELDS_MOST);
  call->next = worker->calls;
  worker->calls = call;
  worker->call_count++;
  return call;
}

static void set_out(struct worker *worker, double number) {
  struct call *call = *find(worker, number);
  struct exchange *exchange = call ? call->exchange : NULL;
  if (!exchange || exchange->state != EXCHANGE_HEAD) return;
  if (!worker->generation || worker->generation->id != call->generation)
    exchange_on_gone(exchange); // its route may be another's now
  else
    exchange_on_head(exchange);
}

static double end_unsent(struct worker *worker, double number) {
  bridge_call_end(worker, number);
  return BRIDGE_INVALID;
}

double bridge_call(struct worker *worker, const struct call_options *options) {
  const struct generation *generation = worker->generation;
  if (!generation || generation->id != options->generation) return BRIDGE_STALE;
  if (options->route == 0 || options->route >= generation->route_count) return BRIDGE_INVALID;
  struct call *call = call_new(worker, options);
  if (!call) return BRIDGE_FULL;
  struct exchange *exchange = exchange_new(worker, &call->stream, &call_ops);
  if (!exchange || arena_defer(&exchange->arena, on_exchange_end, call) < 0) {
    if (exchange) exchange_finish(exchange);
    call->held = false;
    let_go(call);
    return BRIDGE_FULL;
  }
  call->exchange = exchange;
  exchange->own_route = options->route;
  if (take_request(exchange, options)) {
    double number = call->number; // the call may end at once
    if (options->still) return exchange_stand(exchange) ? number : end_unsent(worker, number);
    if (worker_later(worker, set_out, number) == 0) return number;
  }
  call->held = false;
  exchange_on_gone(exchange);
  return BRIDGE_FULL;
}

// ---- The response ----------------------------------------------------------------------------------------------------

double bridge_call_exchange(struct worker *worker, double number) {
  const struct call *call = *find(worker, number);
  return call && call->exchange ? exchange_handle(call->exchange) : 0;
}

int bridge_call_wait(struct worker *worker, double number, double seconds) {
  struct call *call = *find(worker, number);
  if (!call) return BRIDGE_STALE;
  if (call->ended) return BRIDGE_OK;
  call->coroutine = phase_self(worker);
  return bridge_wait(worker, seconds);
}

int bridge_call_result(struct worker *worker, double number, struct call_result *out) {
  const struct call *call = *find(worker, number);
  if (!call || !call->ended) return BRIDGE_STALE;
  *out = (struct call_result){.status = call->status,
                              .by_service = call->source == SOURCE_SERVICE,
                              .failed = call->failed,
                              .truncated = call->truncated,
                              .body = {call->body, (uint32_t)call->body_len}};
  return BRIDGE_OK;
}

int bridge_call_field(struct worker *worker, double number, uint32_t index, struct bytes *name, struct bytes *value) {
  const struct call *call = *find(worker, number);
  if (!call || index >= call->headers.count) return BRIDGE_NONE;
  const struct field *field = &call->headers.fields[index];
  *name = (struct bytes){field->name.data, field->name.len};
  *value = (struct bytes){field->value.data, field->value.len};
  return BRIDGE_OK;
}

int bridge_call_end(struct worker *worker, double number) {
  struct call *call = *find(worker, number);
  if (!call) return BRIDGE_STALE;
  call->held = false;
  call->coroutine = 0;
  if (call->exchange && call->exchange->stream && !worker->closing)
    exchange_on_gone(call->exchange); // as if a client had left
  else
    let_go(call);
  return BRIDGE_OK;
}
