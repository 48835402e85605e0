// SPDX-License-Identifier: Apache-2.0
// The exchange: a request and its response as a machine of few states. Data comes in by exchange_on_*; what happens
// next is decided here and nowhere else.
#include "exchange.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "answer.h"
#include "forward.h"
#include "router.h"
#include "server.h"
#include "tls.h"
#include "try.h"
#include "uri.h"
#include "worker.h"

enum { ARENA_LIMIT = 4 << 20, SPARE_MOST = 256, BODY_HIGH_WATER = 256 * 1024, PRESET_MOST = 100 };

// ---- States --------------------------------------------------------------------------------------------------------

#define STATE(name) (1u << EXCHANGE_##name)

static const uint32_t legal_moves[] = {
    [EXCHANGE_FREE] = STATE(HEAD),
    [EXCHANGE_HEAD] = STATE(REWRITE) | STATE(SENDING) | STATE(LOG),
    [EXCHANGE_REWRITE] = STATE(ACCESS) | STATE(SENDING) | STATE(LOG),
    [EXCHANGE_ACCESS] = STATE(SERVICE) | STATE(STREAM) | STATE(SENDING) | STATE(LOG),
    [EXCHANGE_SERVICE] = STATE(RESPONSE) | STATE(SENDING) | STATE(TUNNEL) | STATE(LOG),
    [EXCHANGE_RESPONSE] = STATE(SENDING) | STATE(LOG),
    [EXCHANGE_STREAM] = STATE(LOG),
    [EXCHANGE_SENDING] = STATE(SENDING) | STATE(LOG),
    [EXCHANGE_TUNNEL] = STATE(LOG),
    [EXCHANGE_LOG] = STATE(ENDED),
    [EXCHANGE_ENDED] = STATE(FREE),
};

static void exchange_move(struct exchange *exchange, enum exchange_state state) {
  assert(legal_moves[exchange->state] & (1u << state));
  exchange->state = (uint8_t)state;
}

// ---- Slots and handles -----------------------------------------------------------------------------------------------

enum { SLOT_BITS = 20 };

double exchange_handle(const struct exchange *exchange) {
  return (double)(((uint64_t)exchange->serial << SLOT_BITS) | exchange->slot);
}

struct exchange *exchange_find(struct worker *worker, double handle) {
  if (!(handle >= 0 && handle < 9007199254740992.0)) return NULL;
  uint64_t number = (uint64_t)handle;
  uint32_t slot = (uint32_t)(number & ((1u << SLOT_BITS) - 1));
  if (slot >= worker->slot_count) return NULL;
  struct exchange *exchange = worker->slots[slot];
  return exchange && exchange->serial == (uint32_t)(number >> SLOT_BITS) && exchange->state != EXCHANGE_FREE ? exchange
                                                                                                             : NULL;
}

static int slots_grow(struct worker *worker) {
  uint32_t count = worker->slot_count ? worker->slot_count * 2 : 64;
  if (count > 1u << SLOT_BITS) return ERROR_MEMORY;
  struct exchange **slots = realloc(worker->slots, count * sizeof *slots);
  if (slots) worker->slots = slots;
  uint32_t *free_slots = realloc(worker->free_slots, count * sizeof *free_slots);
  if (free_slots) worker->free_slots = free_slots;
  if (!slots || !free_slots) return ERROR_MEMORY;
  for (uint32_t i = count; i > worker->slot_count; i--) {
    worker->slots[i - 1] = NULL;
    worker->free_slots[worker->free_slot_count++] = i - 1;
  }
  worker->slot_count = count;
  return 0;
}

static struct exchange *exchange_take(struct worker *worker) {
  struct exchange *exchange = worker->spare;
  if (exchange) {
    worker->spare = exchange->spare;
    worker->spare_count--;
    return exchange;
  }
  if (worker->free_slot_count == 0 && slots_grow(worker) < 0) return NULL;
  exchange = calloc(1, sizeof *exchange);
  if (!exchange) return NULL;
  exchange->slot = worker->free_slots[--worker->free_slot_count];
  exchange->serial = (uint32_t)worker_random(worker) >> 2; // so that handles of an earlier owner of the slot are stale
  worker->slots[exchange->slot] = exchange;
  arena_init(&exchange->arena, ARENA_LIMIT);
  return exchange;
}

struct exchange *exchange_new(struct worker *worker, struct stream *stream, const struct stream_ops *ops) {
  struct exchange *exchange = exchange_take(worker);
  if (!exchange) return NULL;
  uint32_t slot = exchange->slot, serial = exchange->serial + 1;
  struct arena arena = exchange->arena;
  *exchange = (struct exchange){.worker = worker, .slot = slot, .serial = serial, .arena = arena, .stream = stream};
  exchange->ops = ops;
  exchange->peer = stream->peer;
  exchange->service_tls = exchange->service_verify = -1;
  exchange->response_length = -1;
  exchange->started_us = worker->loop.clock.mono_us;
  exchange->started_real_us = worker->loop.clock.real_us;
  buffer_init(&exchange->request_body, &worker->chunks);
  buffer_init(&exchange->replay, &worker->chunks);
  buffer_init(&exchange->answer, &worker->chunks);
  headers_init(&exchange->preset, PRESET_MOST);
  exchange_move(exchange, EXCHANGE_HEAD);
  worker->board->exchanges++;
  worker->board->exchanges_open++;
  return exchange;
}

static void exchange_free(struct exchange *exchange) {
  struct worker *worker = exchange->worker;
  exchange_move(exchange, EXCHANGE_ENDED);
  if (exchange->entered_lua) phase_forget(worker, exchange_handle(exchange));
  arena_reset(&exchange->arena);
  buffer_clear(&exchange->request_body);
  buffer_clear(&exchange->replay);
  buffer_clear(&exchange->answer);
  if (exchange->head_chunk) chunk_release(exchange->head_chunk);
  if (exchange->response_chunk) chunk_release(exchange->response_chunk);
  struct generation *generation = exchange->generation;
  exchange_move(exchange, EXCHANGE_FREE);
  worker->board->exchanges_open--;
  if (worker->spare_count < SPARE_MOST) {
    exchange->spare = worker->spare;
    worker->spare = exchange;
    worker->spare_count++;
  } else {
    worker->slots[exchange->slot] = NULL;
    worker->free_slots[worker->free_slot_count++] = exchange->slot;
    arena_close(&exchange->arena);
    free(exchange);
  }
  if (generation) generation_release(generation);
}

const char *exchange_id(struct exchange *exchange) {
  if (!exchange->id[0]) {
    uint64_t high = worker_random(exchange->worker), low = worker_random(exchange->worker);
    snprintf(exchange->id, sizeof exchange->id, "%016llx%016llx", (unsigned long long)high, (unsigned long long)low);
  }
  return exchange->id;
}

// ---- The end ---------------------------------------------------------------------------------------------------------

static bool run_phase(struct exchange *exchange, uint32_t route, enum phase phase, enum phase_result *result) {
  exchange->entered_lua = true;
  *result = phase_run(exchange->worker, exchange_handle(exchange), exchange->generation->id, route, phase);
  exchange->waiting = *result == PHASE_WAITING;
  return !exchange->waiting;
}

static void wake(struct exchange *exchange, double *waiter, int status) {
  if (*waiter != 0) worker_wake(exchange->worker, *waiter, status, 0);
  *waiter = 0;
}

static void exchange_log(struct exchange *exchange) {
  enum phase_result result;
  if (!(exchange->phases & (1u << PHASE_LOG)) || !exchange->generation ||
      run_phase(exchange, exchange->route_index, PHASE_LOG, &result))
    exchange_free(exchange);
}

// The last byte of the response has been handed over, or will never be. Nothing of the stream is touched from here on.
static void exchange_finish(struct exchange *exchange) {
  if (exchange->state >= EXCHANGE_LOG) return;
  exchange_move(exchange, EXCHANGE_LOG);
  exchange->stream = NULL;
  exchange->ended_us = exchange->worker->loop.clock.mono_us;
  if (exchange->try) try_abandon(exchange);
  // A coroutine that waits for the body or for room to send will get none.
  wake(exchange, &exchange->body_waiter, BRIDGE_CLOSED);
  wake(exchange, &exchange->stream_waiter, BRIDGE_CLOSED);
  if (!exchange->waiting) exchange_log(exchange); // else the phase in work ends first, see exchange_on_phase
}

static void exchange_cut(struct exchange *exchange) {
  exchange->failed_response = true;
  if (exchange->stream) exchange->ops->abort(exchange);
  exchange_finish(exchange);
}

// ---- Responses -------------------------------------------------------------------------------------------------------

static bool response_has_no_body(const struct exchange *exchange) {
  return slice_equal(exchange->request.method, SLICE("HEAD")) || exchange->status == 204 || exchange->status == 304 ||
         exchange->status / 100 == 1;
}

int exchange_fork_response(struct exchange *exchange) {
  if (exchange->response.fields != exchange->service_response.fields || exchange->response.count == 0) return 0;
  return headers_copy(&exchange->response, &exchange->service_response, &exchange->arena);
}

// Fields that plugins set before there was a response: those that replace, replace; those that add, add.
static void merge_preset(struct exchange *exchange) {
  if (exchange->preset.count == 0) return;
  exchange_fork_response(exchange);
  exchange->response.most += exchange->preset.count;
  for (uint32_t i = 0; i < exchange->preset.count; i++) {
    struct field *field = &exchange->preset.fields[i];
    if (field->replaces) headers_remove(&exchange->response, field->name);
    headers_add(&exchange->response, &exchange->arena, field->name, field->value);
  }
}

// How the end of the response's content will be told to the client (RFC 9112 6.3).
static void choose_framing(struct exchange *exchange) {
  exchange->no_body_out = response_has_no_body(exchange);
  if (exchange->filtering_body && !exchange->no_body_out) exchange->response_length = -1;
  exchange->chunked_out =
      exchange->response_length < 0 && !exchange->no_body_out && exchange->request.major == 1 && exchange->request.minor > 0;
}

static void send_head(struct exchange *exchange) {
  choose_framing(exchange);
  exchange->head_sent = true;
  exchange->ops->head(exchange);
}

// header_filter. False: a plugin failed, and the answer is now another one.
static bool filter_head(struct exchange *exchange) {
  if (!(exchange->phases & (1u << PHASE_HEADER_FILTER))) return true;
  enum phase_result result;
  run_phase(exchange, exchange->route_index, PHASE_HEADER_FILTER, &result);
  return result != PHASE_FAILED;
}

// A response body filter changes: what a cache or a client would check against the content no longer holds.
static void send_piece(struct exchange *exchange, struct chunk *chunk, struct slice piece, bool last) {
  if (exchange->filtering_body) {
    struct slice out = {NULL, 0};
    enum phase_result result = phase_body(exchange->worker, exchange_handle(exchange), exchange->generation->id,
                                          exchange->route_index, piece, last, &out);
    if (result == PHASE_FAILED) {
      exchange_cut(exchange);
      return;
    }
    chunk = NULL;
    piece = out;
  }
  exchange->response_body_bytes += exchange->no_body_out ? 0 : piece.len;
  if (piece.len && !exchange->no_body_out) exchange->ops->body(exchange, chunk, piece.data, piece.len);
}

static void send_end(struct exchange *exchange, const struct headers *trailers) {
  if (exchange->stream) exchange->ops->end(exchange, trailers);
  exchange_finish(exchange);
}

// Runs the whole body of an answer through body_filter, so that its length is known before the head goes.
static bool filter_answer(struct exchange *exchange) {
  if (!(exchange->phases & (1u << PHASE_BODY_FILTER))) return true;
  size_t len = exchange->answer.bytes;
  char *whole = malloc(len + 1);
  if (!whole) return false;
  buffer_copy_out(&exchange->answer, whole);
  struct slice out = {NULL, 0};
  enum phase_result result =
      phase_body(exchange->worker, exchange_handle(exchange), exchange->generation->id, exchange->route_index,
                 (struct slice){whole, (uint32_t)len}, true, &out);
  free(whole);
  buffer_clear(&exchange->answer);
  if (result == PHASE_FAILED) return false;
  return buffer_append(&exchange->answer, out.data, out.len) == 0;
}

static void send_answer_body(struct exchange *exchange) {
  while (exchange->answer.count > 0) {
    struct segment *first = &exchange->answer.segments[exchange->answer.head];
    uint32_t len = first->len;
    exchange->response_body_bytes += exchange->no_body_out ? 0 : len;
    if (len && !exchange->no_body_out) exchange->ops->body(exchange, first->chunk, first->data, len);
    buffer_consume(&exchange->answer, len);
  }
}

// Sends exchange->status, the response's fields and exchange->answer.
static void send_answer(struct exchange *exchange) {
  exchange_move(exchange, EXCHANGE_SENDING);
  if (!exchange->stream) {
    exchange_finish(exchange);
    return;
  }
  exchange->response_length = (int64_t)exchange->answer.bytes;
  send_head(exchange);
  send_answer_body(exchange);
  send_end(exchange, NULL);
}

// An answer of the gateway's own, through header_filter and body_filter. A filter that fails makes it a bare 500.
static void exchange_respond(struct exchange *exchange) {
  headers_init(&exchange->response, 400);
  exchange->has_response = true;
  merge_preset(exchange);
  if (!filter_head(exchange) || !filter_answer(exchange)) {
    headers_init(&exchange->response, 400);
    headers_init(&exchange->preset, PRESET_MOST);
    answer_error(exchange, 500, SLICE("An unexpected error occurred"));
    headers_copy(&exchange->response, &exchange->preset, &exchange->arena);
    exchange->source = SOURCE_ERROR;
  }
  send_answer(exchange);
}

static void exchange_fail(struct exchange *exchange, int status, const char *message) {
  exchange->source = SOURCE_ERROR;
  struct slice text = slice_of(message);
  exchange->error = arena_copy(&exchange->arena, text.data, text.len);
  answer_error(exchange, status, text);
  exchange_respond(exchange);
}

void exchange_refuse(struct exchange *exchange, int status, const char *message) {
  exchange->close_after = true;
  if (!exchange->generation && exchange->worker->generation) {
    exchange->generation = generation_retain(exchange->worker->generation);
    exchange->route = exchange->generation->routes;
    exchange->phases = exchange->route->phases;
  }
  exchange_fail(exchange, status, message);
}

int exchange_exit(struct exchange *exchange, int status, const char *body, uint32_t len) {
  if (exchange->head_sent) return BRIDGE_LATE;
  if (status < 200 || status > 999) return BRIDGE_INVALID;
  exchange->status = status;
  exchange->answered = true;
  exchange->source = SOURCE_EXIT;
  buffer_clear(&exchange->answer);
  return buffer_append(&exchange->answer, body, len) < 0 ? BRIDGE_FULL : BRIDGE_OK;
}

int exchange_exit_error(struct exchange *exchange, int status, const char *message, uint32_t len) {
  if (exchange->head_sent) return BRIDGE_LATE;
  if (status < 200 || status > 999) return BRIDGE_INVALID;
  answer_error(exchange, status, (struct slice){message, len});
  exchange->answered = true;
  exchange->source = SOURCE_EXIT;
  return BRIDGE_OK;
}

// ---- From the head to the service ------------------------------------------------------------------------------------

static void exchange_access(struct exchange *exchange);
static void exchange_refuse_content(struct exchange *exchange);

static void exchange_forward(struct exchange *exchange) {
  if (!exchange->service && exchange->service_host.len == 0 && !exchange->upstream) {
    exchange_fail(exchange, 503, "no Service found with those values");
    return;
  }
  exchange_move(exchange, EXCHANGE_SERVICE);
  exchange->sent_us = exchange->worker->loop.clock.mono_us;
  try_begin(exchange);
}

// What a phase came to, in rewrite and access: go on, answer, or fail.
static void exchange_after_phase(struct exchange *exchange, enum phase_result result, void (*next)(struct exchange *)) {
  if (exchange->state == EXCHANGE_STREAM) {
    // The plugin that streamed has returned, whatever it said: the response is over.
    if (result == PHASE_FAILED)
      exchange_cut(exchange);
    else
      send_end(exchange, NULL);
    return;
  }
  if (result == PHASE_FAILED)
    exchange_fail(exchange, 500, "An unexpected error occurred");
  else if (result == PHASE_ANSWERED || exchange->answered)
    exchange_respond(exchange);
  else if (exchange->refusal)
    exchange_refuse_content(exchange);
  else
    next(exchange);
}

static void redirect_to_https(struct exchange *exchange, uint16_t status) {
  if (status == 426) {
    headers_add(&exchange->preset, &exchange->arena, SLICE("Connection"), SLICE("Upgrade"));
    headers_add(&exchange->preset, &exchange->arena, SLICE("Upgrade"), SLICE("TLS/1.2, HTTP/1.1"));
    exchange_fail(exchange, 426, "Please use HTTPS protocol");
    return;
  }
  struct slice host = exchange->host, target = exchange->request.target;
  char *url = arena_alloc(&exchange->arena, host.len + target.len + 16);
  if (!url) {
    exchange_fail(exchange, 500, "An unexpected error occurred");
    return;
  }
  int len = snprintf(url, host.len + target.len + 16, "https://%.*s%.*s", (int)host.len, host.data, (int)target.len,
                     target.data);
  headers_add(&exchange->preset, &exchange->arena, SLICE("Location"), (struct slice){url, (uint32_t)len});
  exchange_fail(exchange, status, "Please use HTTPS protocol");
}

static bool find_header(const void *context, struct slice name, uint32_t nth, struct slice *value) {
  const struct field *field = headers_find(context, name, nth);
  if (field) *value = field->value;
  return field != NULL;
}

static void take_route(struct exchange *exchange, uint32_t index) {
  struct generation *generation = exchange->generation;
  exchange->route_index = index;
  exchange->route = &generation->routes[index];
  exchange->phases = exchange->route->phases;
  if (exchange->route->service) exchange->service = &generation->services[exchange->route->service];
  if (!exchange->service) return;
  exchange->connect_timeout_ms = exchange->service->connect_timeout_ms;
  exchange->send_timeout_ms = exchange->service->send_timeout_ms;
  exchange->read_timeout_ms = exchange->service->read_timeout_ms;
  exchange->retries = exchange->service->retries;
}

// The gateway's own answer where the router gives no route to go by. False: it does.
static bool answer_unrouted(struct exchange *exchange, enum router_outcome outcome) {
  if (outcome == ROUTER_FOUND || outcome == ROUTER_NEEDS_TLS) return false;
  exchange->match = NULL;
  if (outcome == ROUTER_NOTHING)
    exchange_fail(exchange, 404, "no Route matched with those values");
  else if (outcome == ROUTER_AMBIGUOUS)
    exchange_fail(exchange, 400, "the path can be read in more than one way");
  else
    exchange_fail(exchange, 500, "An unexpected error occurred");
  return true;
}

static void exchange_route(struct exchange *exchange) {
  bool tls = exchange->peer.tls;
  bool secure = slice_equal(forward_scheme(exchange), SLICE("https"));
  struct router_request request = {
      .method = exchange->request.method,
      .host = exchange->host,
      .path = exchange->path,
      .sni = exchange->tls_sni,
      .port = exchange->port ? exchange->port : secure ? 443 : 80,
      .tls = tls,
      .secure = secure,
      .header = find_header,
      .context = &exchange->request.headers,
  };
  exchange->match = arena_alloc(&exchange->arena, sizeof *exchange->match);
  if (!exchange->match) {
    exchange_fail(exchange, 500, "An unexpected error occurred");
    return;
  }
  enum router_outcome outcome = router_match(exchange->generation->router, &request, exchange->match);
  if (answer_unrouted(exchange, outcome)) return;
  take_route(exchange, exchange->match->route);
  if (outcome == ROUTER_NEEDS_TLS)
    redirect_to_https(exchange, exchange->route->https_redirect_status);
  else
    exchange_access(exchange);
}

static void exchange_access(struct exchange *exchange) {
  exchange_move(exchange, EXCHANGE_ACCESS);
  enum phase_result result = PHASE_DONE;
  if (!(exchange->phases & (1u << PHASE_ACCESS)))
    exchange_forward(exchange);
  else if (run_phase(exchange, exchange->route_index, PHASE_ACCESS, &result))
    exchange_after_phase(exchange, result, exchange_forward);
}

static void exchange_rewrite(struct exchange *exchange) {
  exchange_move(exchange, EXCHANGE_REWRITE);
  enum phase_result result = PHASE_DONE;
  if (!(exchange->phases & (1u << PHASE_REWRITE)))
    exchange_route(exchange);
  else if (run_phase(exchange, ROUTE_NONE, PHASE_REWRITE, &result))
    exchange_after_phase(exchange, result, exchange_route);
}

// The status listener knows no routes: one handler answers.
static void exchange_status(struct exchange *exchange) {
  exchange_move(exchange, EXCHANGE_REWRITE);
  exchange_move(exchange, EXCHANGE_ACCESS);
  exchange->route_index = ROUTE_STATUS;
  exchange->phases = 0;
  enum phase_result result;
  if (run_phase(exchange, ROUTE_STATUS, PHASE_ACCESS, &result))
    exchange_after_phase(exchange, result, exchange_forward);
}

// An absolute target's authority wins over Host (RFC 9112 3.2.2), but there must be one Host field all the same.
static bool read_host(struct exchange *exchange, struct slice authority) {
  const struct headers *headers = &exchange->request.headers;
  struct field *field = headers_find_id(headers, FIELD_HOST);
  if (!field && exchange->request.minor == 0) return true;
  if (!field || headers_find(headers, SLICE("host"), 1)) {
    exchange_refuse(exchange, 400, field ? "more than one Host field" : "no Host field");
    return false;
  }
  struct uri_host host;
  struct error error;
  if (uri_parse_host(field->value, &host, &error) < 0 ||
      (authority.len && uri_parse_host(authority, &host, &error) < 0)) {
    exchange_refuse(exchange, 400, error.text);
    return false;
  }
  exchange->port = host.port;
  exchange->host = host.name;
  if (host.has_upper) {
    char lower[URI_HOST_MAX + 1];
    struct slice name = uri_lower_host(&host, lower);
    exchange->host = arena_copy(&exchange->arena, name.data, name.len);
  }
  return true;
}

// The target and Host become scheme, host, path and query (RFC 9112 3.2, 3.3). False: refused.
static bool read_target(struct exchange *exchange) {
  struct uri uri;
  struct error error;
  if (uri_parse_target(exchange->request.method, exchange->request.target, &uri, &error) < 0) {
    exchange_refuse(exchange, 400, error.text);
    return false;
  }
  exchange->raw_path = uri.path;
  exchange->query = uri.query;
  exchange->has_query = uri.has_query;
  exchange->scheme = exchange->peer.tls ? SLICE("https") : SLICE("http");
  exchange->path = uri.path;
  if (!read_host(exchange, uri.host)) return false;
  if (uri.form == URI_ASTERISK || uri_is_canonical(uri.path)) return true;
  uint32_t room = uri.path.len * 3, len;
  char *path = arena_alloc(&exchange->arena, room);
  if (!path || uri_normalise(uri.path, path, room, &len, &error) < 0) {
    exchange_refuse(exchange, 400, path ? error.text : "the request target is too long");
    return false;
  }
  exchange->path = (struct slice){path, len};
  return true;
}

static bool check_request(struct exchange *exchange) {
  struct h1_message *request = &exchange->request;
  const struct limits *limits = &exchange->generation->limits;
  struct field *expect = headers_find_id(&request->headers, FIELD_EXPECT);
  if (request->major != 1) {
    exchange_refuse(exchange, 505, "HTTP version not supported");
  } else if (slice_equal(request->method, SLICE("CONNECT"))) {
    exchange_refuse(exchange, 405, "CONNECT is not allowed");
  } else if (expect && !slice_equal_nocase(expect->value, SLICE("100-continue"))) {
    exchange_refuse(exchange, 417, "Expectation Failed");
  } else if (request->chunked && request->minor == 0) {
    exchange_refuse(exchange, 400, "Transfer-Encoding in a request of HTTP/1.0");
  } else if (limits->max_body_bytes > 0 && request->content_length > limits->max_body_bytes) {
    exchange_refuse(exchange, 413, "Request body is too large");
  } else {
    return true;
  }
  return false;
}

static void note_tls(struct exchange *exchange) {
  struct tls_info info;
  tls_info(stream_tls(exchange->stream), &info);
  exchange->tls_version = info.version;
  exchange->tls_cipher = info.cipher;
  if (info.sni) exchange->tls_sni = arena_copy(&exchange->arena, info.sni, strlen(info.sni));
}

void exchange_on_head(struct exchange *exchange) {
  struct worker *worker = exchange->worker;
  if (!worker->generation) {
    exchange_refuse(exchange, 503, "The gateway is starting");
    return;
  }
  exchange->generation = generation_retain(worker->generation);
  exchange->route = exchange->generation->routes;
  exchange->phases = exchange->route->phases;
  if (exchange->peer.tls) note_tls(exchange);
  if (!check_request(exchange) || !read_target(exchange)) return;
  forward_mark_hop_by_hop(&exchange->request.headers);
  if (exchange->stream->listener && exchange->stream->listener->kind == LISTEN_STATUS)
    exchange_status(exchange);
  else
    exchange_rewrite(exchange);
}

// Told by the phase runner: a phase that waited has ended.
void exchange_on_phase(struct worker *worker, double handle, enum phase phase, enum phase_result result) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return;
  exchange->waiting = false;
  if (phase == PHASE_LOG) {
    exchange_free(exchange);
  } else if (phase == PHASE_CERTIFICATE) {
    struct stream *stream = exchange->stream;
    exchange_finish(exchange);
    if (stream) server_continue(stream, result != PHASE_FAILED);
  } else if (exchange->state == EXCHANGE_LOG) { // the client left while the plugin waited
    exchange_log(exchange);
  } else if (phase == PHASE_REWRITE) {
    exchange_after_phase(exchange, result, exchange_route);
  } else if (phase == PHASE_ACCESS) {
    exchange_after_phase(exchange, result, exchange_forward);
  } else if (phase == PHASE_RESPONSE) {
    if (result == PHASE_FAILED)
      exchange_fail(exchange, 500, "An unexpected error occurred");
    else
      send_answer(exchange);
  }
}

int exchange_greet(struct worker *worker, struct stream *stream, struct generation *generation) {
  if (!(generation->routes[0].phases & (1u << PHASE_CERTIFICATE))) return 0;
  struct exchange *exchange = exchange_new(worker, stream, NULL);
  if (!exchange) return ERROR_MEMORY;
  exchange->generation = generation_retain(generation);
  exchange->route = generation->routes;
  exchange->tls_sni = stream_sni(stream);
  enum phase_result result;
  if (!run_phase(exchange, ROUTE_NONE, PHASE_CERTIFICATE, &result)) {
    server_greets(stream, exchange);
    return 1;
  }
  exchange_finish(exchange);
  return result == PHASE_FAILED ? ERROR_INVALID : 0;
}

// ---- Request content -------------------------------------------------------------------------------------------------

static void throttle_request(struct exchange *exchange) {
  if (exchange->stream && !exchange->body_buffering && exchange->request_body.bytes > BODY_HIGH_WATER)
    exchange->ops->want_body(exchange, false);
}

static bool body_is_wanted(const struct exchange *exchange) {
  return !exchange->body_replaced && (exchange->state < EXCHANGE_RESPONSE || exchange->state == EXCHANGE_TUNNEL);
}

static void exchange_refuse_content(struct exchange *exchange) {
  exchange_refuse(exchange, exchange->refusal,
                  exchange->refusal == 413 ? "Request body is too large" : "The framing of the request body is broken");
}

// The rest of the request is of no use. Who waits for it hears so; otherwise the client does, while it can.
static void refuse_content(struct exchange *exchange, uint16_t status) {
  exchange->refusal = status;
  buffer_clear(&exchange->request_body);
  wake(exchange, &exchange->body_waiter, BRIDGE_FULL);
  if (exchange->waiting || exchange->state >= EXCHANGE_LOG) return; // see exchange_after_phase
  if (exchange->try) try_abandon(exchange);
  if (exchange->head_sent)
    exchange_cut(exchange);
  else
    exchange_refuse_content(exchange);
}

void exchange_on_bad_body(struct exchange *exchange) {
  refuse_content(exchange, 400);
}

void exchange_on_body(struct exchange *exchange, struct chunk *chunk, struct slice piece) {
  const struct limits *limits = &exchange->generation->limits;
  exchange->body_received += piece.len;
  exchange->request_bytes += piece.len;
  if (exchange->refusal) return;
  if (limits->max_body_bytes > 0 && exchange->body_received > (uint64_t)limits->max_body_bytes &&
      exchange->state != EXCHANGE_TUNNEL) {
    refuse_content(exchange, 413);
    return;
  }
  if (!body_is_wanted(exchange)) return;
  if (buffer_append_ref(&exchange->request_body, chunk, piece.data, piece.len) < 0) {
    exchange_cut(exchange);
    return;
  }
  if (exchange->body_buffering) {
    if (exchange->request_body.bytes > (uint64_t)limits->max_buffered_body_bytes)
      wake(exchange, &exchange->body_waiter, BRIDGE_FULL);
  } else if (exchange->try) {
    try_on_request(exchange);
  } else {
    throttle_request(exchange);
  }
}

void exchange_on_request_end(struct exchange *exchange) {
  exchange->request_complete = true;
  if (exchange->body_waiter != 0)
    wake(exchange, &exchange->body_waiter, BRIDGE_OK);
  else if (exchange->try && !exchange->body_replaced)
    try_on_request(exchange);
}

// The client waits for a sign before it sends its content (RFC 9110 10.1.1): now somebody wants it.
static void invite_body(struct exchange *exchange) {
  if (exchange->sent_continue || exchange->request_complete || exchange->body_received > 0 || !exchange->stream) return;
  exchange->sent_continue = true;
  if (headers_has(&exchange->request.headers, FIELD_EXPECT) && exchange->request.minor > 0)
    exchange->ops->interim(exchange, 100, NULL);
}

int exchange_want_whole_body(struct exchange *exchange) {
  const struct limits *limits = &exchange->generation->limits;
  if (exchange->refusal || exchange->request_body.bytes > (uint64_t)limits->max_buffered_body_bytes)
    return BRIDGE_FULL;
  if (exchange->request_complete || exchange->body_replaced) return BRIDGE_OK;
  if (!exchange->stream || exchange->state >= EXCHANGE_SERVICE) return BRIDGE_LATE;
  exchange->body_buffering = true;
  exchange->body_waiter = phase_self(exchange->worker);
  invite_body(exchange);
  exchange->ops->want_body(exchange, true);
  return BRIDGE_AGAIN;
}

void exchange_on_service_drained(struct exchange *exchange) {
  invite_body(exchange);
  if (exchange->stream && !exchange->request_complete) exchange->ops->want_body(exchange, true);
}

// ---- The service's response ------------------------------------------------------------------------------------------

void exchange_on_service_interim(struct exchange *exchange, int status, const struct headers *fields) {
  // 100 has been answered here; others (102, 103) pass to clients that can tell them apart (RFC 9110 15.2).
  if (status == 100 || !exchange->stream || exchange->request.minor == 0) return;
  exchange->ops->interim(exchange, status, fields);
}

static void response_head(struct exchange *exchange) {
  if (!filter_head(exchange)) {
    try_abandon(exchange);
    headers_init(&exchange->preset, PRESET_MOST);
    exchange->phases &= ~((1u << PHASE_HEADER_FILTER) | (1u << PHASE_BODY_FILTER));
    exchange_fail(exchange, 500, "An unexpected error occurred");
    return;
  }
  exchange->filtering_body = (exchange->phases & (1u << PHASE_BODY_FILTER)) != 0 && !response_has_no_body(exchange);
  exchange_move(exchange, EXCHANGE_SENDING);
  send_head(exchange);
}

void exchange_on_service_head(struct exchange *exchange) {
  struct h1_message *message = &exchange->service_message;
  exchange->first_byte_us = exchange->worker->loop.clock.mono_us;
  exchange->status = exchange->service_status = message->status;
  exchange->reason = message->reason;
  exchange->source = SOURCE_SERVICE;
  exchange->response_length = message->content_length;
  exchange->service_response = exchange->response = message->headers;
  exchange->has_response = true;
  forward_mark_hop_by_hop(&exchange->response);
  buffer_clear(&exchange->replay);
  merge_preset(exchange);
  if (message->status == 101) {
    exchange_move(exchange, EXCHANGE_TUNNEL);
    filter_head(exchange);
    exchange->head_sent = true;
    exchange->no_body_out = true;
    exchange->ops->head(exchange);
    exchange->no_body_out = false; // what comes now is no content, and passes
    exchange->ops->tunnel(exchange);
    exchange->ops->flush(exchange);
  } else if (exchange->phases & (1u << PHASE_RESPONSE)) {
    exchange_move(exchange, EXCHANGE_RESPONSE);
  } else {
    response_head(exchange);
  }
}

static void gather_response(struct exchange *exchange, struct chunk *chunk, struct slice piece) {
  size_t most = (size_t)exchange->generation->limits.max_buffered_body_bytes;
  if (exchange->answer.bytes + piece.len > most) {
    try_abandon(exchange);
    buffer_clear(&exchange->answer);
    exchange_fail(exchange, 502, "The response is too large to be buffered for a plugin");
    return;
  }
  buffer_append_ref(&exchange->answer, chunk, piece.data, piece.len);
}

void exchange_on_service_body(struct exchange *exchange, struct chunk *chunk, struct slice piece) {
  if (exchange->state == EXCHANGE_RESPONSE)
    gather_response(exchange, chunk, piece);
  else if (exchange->state == EXCHANGE_SENDING || exchange->state == EXCHANGE_TUNNEL)
    send_piece(exchange, chunk, piece, false);
}

void exchange_on_service_end(struct exchange *exchange) {
  exchange->last_byte_us = exchange->worker->loop.clock.mono_us;
  if (exchange->state == EXCHANGE_RESPONSE) {
    enum phase_result result;
    exchange->response_length = (int64_t)exchange->answer.bytes;
    if (run_phase(exchange, exchange->route_index, PHASE_RESPONSE, &result))
      exchange_on_phase(exchange->worker, exchange_handle(exchange), PHASE_RESPONSE, result);
    return;
  }
  struct worker *worker = exchange->worker;
  double handle = exchange_handle(exchange);
  if (exchange->filtering_body) send_piece(exchange, NULL, SLICE(""), true);
  if (exchange_find(worker, handle) != exchange) return;
  if (exchange->state != EXCHANGE_SENDING && exchange->state != EXCHANGE_TUNNEL) return;
  send_end(exchange, &exchange->service_message.trailers);
}

void exchange_on_service_failed(struct exchange *exchange, int status, const char *message) {
  if (exchange->head_sent || exchange->state == EXCHANGE_TUNNEL) {
    exchange_cut(exchange);
    return;
  }
  // The client learns what kind of failure it was; addresses and causes are for the log.
  const char *told = status == 502   ? "An invalid response was received from the upstream server"
                     : status == 504 ? "The upstream server is timing out"
                                     : message;
  struct slice cause = slice_of(message);
  buffer_clear(&exchange->answer);
  exchange->source = SOURCE_ERROR;
  exchange->error = arena_copy(&exchange->arena, cause.data, cause.len);
  answer_error(exchange, status, slice_of(told));
  exchange_respond(exchange);
}

// ---- The client's side -----------------------------------------------------------------------------------------------

void exchange_on_drained(struct exchange *exchange) {
  if (exchange->try) try_resume(exchange);
  wake(exchange, &exchange->stream_waiter, BRIDGE_OK);
}

void exchange_on_gone(struct exchange *exchange) {
  exchange->gone = true;
  if (!exchange->head_sent) exchange->status = 499;
  exchange->failed_response = true;
  exchange->stream = NULL;
  exchange_finish(exchange);
}

// ---- Streamed answers ------------------------------------------------------------------------------------------------

// The head of a streamed answer goes in the next step of the loop: header_filter may not run inside a call from Lua.
static void stream_start(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange || exchange->state != EXCHANGE_ACCESS) return;
  bool waited = exchange->waiting;
  headers_init(&exchange->response, 400);
  exchange->has_response = true;
  merge_preset(exchange);
  bool good = filter_head(exchange);
  exchange->waiting = waited;
  if (!good || !exchange->stream) {
    wake(exchange, &exchange->stream_waiter, good ? BRIDGE_CLOSED : BRIDGE_FAILED);
    return;
  }
  exchange_move(exchange, EXCHANGE_STREAM);
  exchange->response_length = -1;
  exchange->source = SOURCE_EXIT;
  send_head(exchange);
  exchange->ops->flush(exchange);
  wake(exchange, &exchange->stream_waiter, BRIDGE_OK);
}

int exchange_stream_begin(struct exchange *exchange, int status) {
  if (exchange->state != EXCHANGE_ACCESS || exchange->head_sent) return BRIDGE_LATE;
  if (status < 200 || status > 999) return BRIDGE_INVALID;
  exchange->status = status;
  exchange->stream_waiter = phase_self(exchange->worker);
  return worker_later(exchange->worker, stream_start, exchange_handle(exchange)) < 0 ? BRIDGE_FULL : BRIDGE_AGAIN;
}

int exchange_stream_send(struct exchange *exchange, const char *data, uint32_t len) {
  if (exchange->state != EXCHANGE_STREAM || !exchange->stream) return BRIDGE_CLOSED;
  if (!exchange->no_body_out) {
    exchange->response_body_bytes += len;
    exchange->ops->body(exchange, NULL, data, len);
    exchange->ops->flush(exchange);
  }
  if (exchange->state != EXCHANGE_STREAM || !exchange->stream) return BRIDGE_CLOSED;
  if (!exchange->ops->is_congested(exchange)) return BRIDGE_OK;
  exchange->stream_waiter = phase_self(exchange->worker);
  return BRIDGE_AGAIN;
}

int exchange_stream_end(struct exchange *exchange) {
  if (exchange->state != EXCHANGE_STREAM) return BRIDGE_LATE;
  exchange->answered = true; // the rest happens when the phase returns
  return BRIDGE_OK;
}
