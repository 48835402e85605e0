// SPDX-License-Identifier: Apache-2.0
// An exchange on its way back: the gateway's own answers, the service's response, answers streamed by a plugin.
#include <stdlib.h>

#include "answer.h"
#include "balance.h"
#include "cache.h"
#include "coder.h"
#include "exchange_parts.h"
#include "forward.h"
#include "hedge.h"
#include "try.h"
#include "worker.h"

enum { PRESET_MOST = 100, RESPONSE_FIELDS_MOST = 400 };

// ---- Responses -------------------------------------------------------------------------------------------------------

// gRPC's answer without content: a head that is all, whose end must be seen in it.
static bool is_head_alone(const struct exchange *exchange) {
  return exchange->grpc && exchange->request.major >= 2 && exchange->source == SOURCE_SERVICE && exchange->try &&
         exchange->try->response_whole;
}

static bool response_has_no_body(const struct exchange *exchange) {
  return slice_equal(exchange->request.method, SLICE("HEAD")) || exchange->status == 204 || exchange->status == 304 ||
         exchange->status / 100 == 1;
}

// Whether the service's response had no content, whatever its Content-Length tells.
static bool service_sent_no_content(const struct exchange *exchange) {
  return slice_equal(forward_method(exchange), SLICE("HEAD")) || exchange->service_status == 204 ||
         exchange->service_status == 304;
}

int exchange_fork_response(struct exchange *exchange) {
  if (exchange->response.fields != exchange->service_response.fields || exchange->response.count == 0) return 0;
  return headers_copy(&exchange->response, &exchange->service_response, &exchange->arena);
}

// Fields that plugins set before there was a response: those that replace, replace; those that add, add.
void exchange_merge_preset(struct exchange *exchange) {
  if (exchange->preset.count == 0) return;
  exchange_fork_response(exchange);
  exchange->response.most += exchange->preset.count;
  headers_merge(&exchange->response, &exchange->preset, &exchange->arena);
}

// ---- Trailers --------------------------------------------------------------------------------------------------------

int exchange_fork_trailers(struct exchange *exchange) {
  exchange->own_trailers = true;
  if (!exchange->has_trailers || exchange->trailers.fields != exchange->service_message.trailers.fields) return 0;
  int result = headers_copy(&exchange->trailers, &exchange->service_message.trailers, &exchange->arena);
  exchange->trailers.most += PRESET_MOST;
  return result;
}

// The service's have come: what plugins set before goes over them.
static void take_trailers(struct exchange *exchange) {
  struct headers set_before = exchange->trailers;
  exchange->has_trailers = true;
  exchange->trailers = exchange->service_message.trailers;
  if (set_before.count == 0) return;
  exchange_fork_trailers(exchange);
  headers_merge(&exchange->trailers, &set_before, &exchange->arena);
}

static bool takes_trailers(const struct exchange *exchange) {
  return exchange->request.major >= 2 || headers_any_list_has(&exchange->request.headers, FIELD_TE, SLICE("trailers"));
}

// A client of HTTP/1.1 gets what the service sent, and of what plugins add only what it said it would take (RFC 9110
// 6.5.1, 10.1.4).
static void drop_unwanted_trailers(struct exchange *exchange) {
  if (!exchange->own_trailers || takes_trailers(exchange)) return;
  struct headers *trailers = &exchange->trailers;
  for (uint32_t i = 0; i < trailers->count;) {
    struct slice name = trailers->fields[i].name;
    if (exchange->has_trailers && headers_find(&exchange->service_message.trailers, name, 0))
      i++;
    else
      headers_remove(trailers, name);
  }
}

// Trailers that are known before the head goes are announced in it, and need a framing that has room for them.
static void announce_trailers(struct exchange *exchange) {
  if (exchange->trailers.count == 0 || exchange->no_body_out) return;
  if (is_http_1_0(exchange)) return;                                                // HTTP/1.0 knows none
  bool others_come = exchange->source == SOURCE_SERVICE && !exchange->has_trailers; // which ours may replace
  if (others_come && !takes_trailers(exchange)) return;
  if (!others_come) drop_unwanted_trailers(exchange);
  if (exchange->trailers.count == 0) return;
  if (exchange->request.major == 1) exchange->response_length = -1;
  exchange_fork_response(exchange);
  if (headers_has(&exchange->response, FIELD_TRAILER)) return;
  for (uint32_t i = 0; i < exchange->trailers.count; i++)
    headers_add(&exchange->response, &exchange->arena, SLICE("Trailer"), exchange->trailers.fields[i].name);
}

// ---- Sending ---------------------------------------------------------------------------------------------------------

// How the end of the response's content will be told to the client (RFC 9112 6.3).
static void choose_framing(struct exchange *exchange) {
  exchange->no_body_out = response_has_no_body(exchange) || exchange->grpc_answer || is_head_alone(exchange);
  if ((exchange->filtering_body || exchange->coder) && !exchange->no_body_out) exchange->response_length = -1;
  announce_trailers(exchange);
  exchange->chunked_out =
      exchange->response_length < 0 && !exchange->no_body_out && exchange->request.major == 1 && !is_http_1_0(exchange);
}

static void send_head(struct exchange *exchange) {
  uint32_t tells = exchange->generation ? exchange->generation->limits.tells : 0;
  if (tells & ~(uint32_t)(TELL_SERVER | TELL_VIA)) exchange_tell(exchange, tells);
  choose_framing(exchange);
  exchange->head_sent = true;
  exchange->ops->head(exchange);
}

static void put_coded(void *to, const char *data, uint32_t len) {
  struct exchange *exchange = to;
  exchange->response_body_bytes += len;
  exchange->ops->body(exchange, NULL, data, len);
}

// False: the response has been cut.
static bool feed_coder(struct exchange *exchange, struct slice piece, enum coder_step step) {
  if (coder_feed(exchange->coder, piece, step, put_coded, exchange) == 0) return true;
  exchange_cut(exchange, 500, UNEXPECTED);
  return false;
}

void exchange_put_body(struct exchange *exchange, struct chunk *chunk, struct slice piece, bool flush) {
  if (exchange->no_body_out || piece.len == 0) return;
  if (exchange->coder) {
    feed_coder(exchange, piece, flush ? CODER_FLUSH : CODER_MORE);
    return;
  }
  exchange->response_body_bytes += piece.len;
  exchange->ops->body(exchange, chunk, piece.data, piece.len);
}

int exchange_encode(struct exchange *exchange, int coding, int level) {
  if (coding < 0 || coding >= CODING_COUNT) return BRIDGE_INVALID;
  if (exchange_is_over(exchange)) return BRIDGE_OK;
  if (exchange->head_sent || exchange->coder) return BRIDGE_LATE;
  bool gathered = exchange->answered || exchange->source != SOURCE_SERVICE;
  int64_t length = gathered ? (int64_t)exchange->answer.bytes : exchange->response_length;
  struct coder *coder = coder_new((enum coding)coding, level, length);
  if (!coder) return BRIDGE_INVALID;
  if (arena_defer(&exchange->arena, coder_free, coder) < 0) {
    coder_free(coder);
    return BRIDGE_FULL;
  }
  exchange->coder = coder;
  return BRIDGE_OK;
}

bool exchange_filter_head(struct exchange *exchange) {
  if (!(exchange->phases & (1u << PHASE_HEADER_FILTER))) return true;
  enum phase_result result;
  exchange_run(exchange, exchange->route_index, PHASE_HEADER_FILTER, &result);
  return result != PHASE_FAILED;
}

// A response body filter changes: what a cache or a client would check against the content no longer holds.
void exchange_send_piece(struct exchange *exchange, struct chunk *chunk, struct slice piece, bool last) {
  if (exchange->filtering_body) {
    struct slice out = {NULL, 0};
    enum phase_result result = phase_body(exchange->worker, exchange_handle(exchange), exchange->generation->id,
                                          exchange->route_index, piece, last, &out);
    if (exchange->broken) {
      exchange_break_off(exchange);
      return;
    }
    if (result == PHASE_FAILED) {
      exchange_cut(exchange, 500, UNEXPECTED);
      return;
    }
    chunk = NULL;
    piece = out;
  }
  // Of what comes without a length a reader may wait for each piece.
  exchange_put_body(exchange, chunk, piece, exchange->service_message.content_length < 0);
}

void exchange_send_end(struct exchange *exchange) {
  if (exchange->no_body_out) headers_init(&exchange->trailers, 0);
  drop_unwanted_trailers(exchange);
  bool coded = exchange->coder && exchange->stream && !exchange->no_body_out;
  if (coded && !feed_coder(exchange, SLICE(""), CODER_END)) return;
  if (exchange->stream) exchange->ops->end(exchange, exchange->trailers.count ? &exchange->trailers : NULL);
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
  enum phase_result result = phase_body(exchange->worker, exchange_handle(exchange), exchange->generation->id,
                                        exchange->route_index, (struct slice){whole, (uint32_t)len}, true, &out);
  free(whole);
  buffer_clear(&exchange->answer);
  if (result == PHASE_FAILED) return false;
  return buffer_append(&exchange->answer, out.data, out.len) == 0;
}

void exchange_send_answer(struct exchange *exchange) {
  while (exchange->answer.count > 0) {
    struct segment *first = &exchange->answer.segments[exchange->answer.head];
    uint32_t len = first->len;
    exchange_put_body(exchange, first->chunk, (struct slice){first->data, len}, false);
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
  if (exchange->grpc && exchange->source != SOURCE_SERVICE && exchange->status >= 400) exchange_answer_grpc(exchange);
  // A response to HEAD tells the length that its content would have, which nobody here knows better.
  bool keeps_length =
      exchange->source == SOURCE_SERVICE && exchange->answer.bytes == 0 && response_has_no_body(exchange);
  exchange->response_length = keeps_length ? exchange->service_message.content_length : (int64_t)exchange->answer.bytes;
  send_head(exchange);
  exchange_send_answer(exchange);
  exchange_send_end(exchange);
}

// A filter failed: what it may have done to the answer is forgotten.
static void answer_bare(struct exchange *exchange) {
  exchange->coder = NULL;
  headers_init(&exchange->response, RESPONSE_FIELDS_MOST);
  headers_init(&exchange->preset, PRESET_MOST);
  answer_error(exchange, 500, slice_of(UNEXPECTED));
  headers_copy(&exchange->response, &exchange->preset, &exchange->arena);
  exchange->source = SOURCE_ERROR;
}

void exchange_answer(struct exchange *exchange) {
  if (!exchange_filter_head(exchange) || !filter_answer(exchange)) answer_bare(exchange);
  if (exchange->broken)
    exchange_break_off(exchange);
  else
    send_answer(exchange);
}

bool exchange_answer_head(struct exchange *exchange, int64_t length) {
  bool good = exchange_filter_head(exchange);
  if (!good || !exchange->caching->answering) {
    if (!good || !filter_answer(exchange)) answer_bare(exchange);
    if (exchange->broken)
      exchange_break_off(exchange);
    else
      send_answer(exchange);
    return false;
  }
  bool empty = response_has_no_body(exchange);
  exchange->response_length = length;
  exchange->filtering_body = (exchange->phases & (1u << PHASE_BODY_FILTER)) != 0 && !empty;
  exchange_move(exchange, EXCHANGE_SENDING);
  if (!exchange->stream) {
    exchange_finish(exchange);
    return false;
  }
  send_head(exchange);
  return true;
}

// An answer of the gateway's own.
void exchange_respond(struct exchange *exchange) {
  if (exchange->tcp) {
    exchange_close_stream(exchange);
    return;
  }
  if (exchange->has_trailers) headers_init(&exchange->trailers, PRESET_MOST); // they belong to another response
  if (exchange->caching && exchange->caching->answering && exchange->source == SOURCE_EXIT) {
    exchange_answer_stored(exchange);
    return;
  }
  headers_init(&exchange->response, RESPONSE_FIELDS_MOST);
  exchange->has_response = true;
  exchange_merge_preset(exchange);
  exchange_answer(exchange);
}

void exchange_fail(struct exchange *exchange, int status, const char *message) {
  exchange->source = SOURCE_ERROR;
  struct slice text = slice_of(message);
  exchange->error = arena_copy(&exchange->arena, text.data, text.len);
  answer_error(exchange, status, text);
  exchange_respond(exchange);
}

void exchange_refuse(struct exchange *exchange, int status, const char *message) {
  exchange->close_after = true;
  if (exchange->state == EXCHANGE_HEAD) exchange_note_grpc(exchange); // later, plugins may have changed its fields
  if (!exchange->generation && exchange->worker->generation) {
    exchange->generation = generation_retain(exchange->worker->generation);
    exchange->route = exchange->generation->routes;
    exchange->phases = exchange->route->phases;
  }
  exchange_fail(exchange, status, message);
}

int exchange_exit(struct exchange *exchange, int status, const char *body, uint32_t len) {
  if (exchange_is_over(exchange)) return BRIDGE_OK;
  if (exchange->head_sent) return BRIDGE_LATE;
  if (status < 200 || status > 999) return BRIDGE_INVALID;
  exchange->status = status;
  exchange->reason = (struct slice){NULL, 0}; // the service's, who meant another status
  if (exchange->caching) exchange->caching->answering = false;
  exchange->answered = true;
  exchange->source = SOURCE_EXIT;
  exchange->message = (struct slice){NULL, 0};
  exchange->whole_answer = (struct slice){NULL, 0};
  buffer_clear(&exchange->answer);
  return buffer_append(&exchange->answer, body, len) < 0 ? BRIDGE_FULL : BRIDGE_OK;
}

void exchange_exit_message(struct exchange *exchange, const char *message, uint32_t len) {
  if (exchange->grpc && exchange->answered) exchange->message = arena_copy(&exchange->arena, message, len);
}

int exchange_exit_error(struct exchange *exchange, int status, const char *message, uint32_t len) {
  if (exchange_is_over(exchange)) return BRIDGE_OK;
  if (exchange->head_sent) return BRIDGE_LATE;
  if (status < 200 || status > 999) return BRIDGE_INVALID;
  answer_error(exchange, status, (struct slice){message, len});
  if (exchange->caching) exchange->caching->answering = false;
  exchange->answered = true;
  exchange->source = SOURCE_EXIT;
  return BRIDGE_OK;
}

// ---- The service's response ------------------------------------------------------------------------------------------

void exchange_on_service_interim(struct exchange *exchange, int status, struct headers *fields) {
  // 100 has been answered here; others (102, 103) pass to clients that can tell them apart (RFC 9110 15.2).
  if (status == 100 || !exchange->stream || is_http_1_0(exchange) || hedge_is_on(exchange)) return;
  if (exchange->ops->is_congested(exchange)) return; // and nobody misses one
  forward_mark_hop_by_hop(fields);
  exchange->ops->interim(exchange, status, fields);
}

int exchange_early_hints(struct exchange *exchange) {
  struct headers *hints = exchange->hints;
  exchange->hints = NULL;
  if (exchange->head_sent) return BRIDGE_LATE;
  if (!hints || !exchange->stream || is_http_1_0(exchange) || exchange->ops->is_congested(exchange)) return BRIDGE_NONE;
  exchange->ops->interim(exchange, 103, hints);
  return BRIDGE_OK;
}

// header_filter over the service's head. False: the client has been answered otherwise.
static bool head_passes(struct exchange *exchange) {
  if (!exchange_filter_head(exchange)) {
    try_abandon(exchange);
    headers_init(&exchange->preset, PRESET_MOST);
    exchange->coder = NULL;
    exchange->phases &= ~((1u << PHASE_HEADER_FILTER) | (1u << PHASE_BODY_FILTER));
    exchange_fail(exchange, 500, UNEXPECTED);
    return false;
  }
  if (!exchange->answered) return true;
  try_abandon(exchange);
  if (!filter_answer(exchange)) answer_bare(exchange);
  send_answer(exchange);
  return false;
}

static void response_head(struct exchange *exchange) {
  if (!head_passes(exchange)) return;
  // Plugins may have made a GET of it for the client, or a 200.
  if (!response_has_no_body(exchange) && service_sent_no_content(exchange)) exchange->response_length = 0;
  exchange->filtering_body = (exchange->phases & (1u << PHASE_BODY_FILTER)) != 0 && !response_has_no_body(exchange) &&
                             !is_head_alone(exchange);
  exchange_move(exchange, EXCHANGE_SENDING);
  send_head(exchange);
}

static void tunnel_head(struct exchange *exchange) {
  if (exchange->reads_messages && !exchange_open_websocket(exchange)) return;
  if (!head_passes(exchange)) return;
  exchange_move(exchange, EXCHANGE_TUNNEL);
  exchange->generation->tunnels++;
  exchange->status = 101; // whatever a plugin would like it to be
  exchange->head_sent = true;
  exchange->request_complete = exchange->body_replaced = false; // what the client sends from now on begins anew
  exchange->no_body_out = true;
  exchange->ops->head(exchange);
  if (exchange->status != 101) { // it could not be sent
    exchange_cut(exchange, 500, UNEXPECTED);
    return;
  }
  exchange->no_body_out = false; // what comes now is no content, and passes
  if (!exchange->websocket) exchange_track_websocket(exchange);
  if (exchange->websocket) websocket_begin(exchange);
  exchange->ops->flush(exchange); // before the memory goes that a stream may still read the head from
  exchange_slim(exchange);
  exchange->ops->tunnel(exchange);
  exchange->ops->flush(exchange);
}

// Phase service_head: what plugins set is kept as before there was a response. False: the client has been answered
// otherwise.
static bool service_head_passes(struct exchange *exchange) {
  enum phase_result result;
  exchange_run(exchange, exchange->route_index, PHASE_SERVICE_HEAD, &result);
  struct caching *caching = exchange->caching;
  if (caching && !caching->capture) exchange_land_flight(exchange, BRIDGE_NONE);
  if (result != PHASE_FAILED && !exchange->answered) return true;
  try_abandon(exchange);
  if (result == PHASE_FAILED)
    exchange_fail(exchange, 500, UNEXPECTED);
  else
    exchange_respond(exchange);
  return false;
}

// Fields of a response that are for caches, and not for clients.
static void drop_hidden(struct exchange *exchange) {
  struct slice hidden = exchange->caching->hidden;
  for (uint32_t i = 0; i < exchange->response.count;) {
    struct slice name = exchange->response.fields[i].name;
    if (!headers_list_has(hidden, name)) {
      i++;
      continue;
    }
    if (exchange_fork_response(exchange) < 0) return;
    headers_remove(&exchange->response, name);
  }
}

void exchange_on_service_head(struct exchange *exchange) {
  struct h1_message *message = &exchange->service_message;
  if (exchange->hedge) hedge_settle(exchange, true);
  if (exchange->endpoint) balance_on_head(exchange);
  if (exchange->grpc && exchange_retry_grpc(exchange)) return;
  exchange->first_byte_us = exchange->worker->loop.clock.mono_us;
  exchange->status = exchange->service_status = message->status;
  exchange->reason = message->reason;
  exchange->source = SOURCE_SERVICE;
  exchange->response_length = message->content_length;
  exchange->service_response = exchange->response = message->headers;
  forward_mark_hop_by_hop(&exchange->response);
  buffer_clear(&exchange->replay);
  exchange->replayable = false;
  if ((exchange->phases & (1u << PHASE_SERVICE_HEAD)) && message->status != 101 && !service_head_passes(exchange))
    return;
  exchange->has_response = true;
  exchange_merge_preset(exchange);
  if (exchange->caching && exchange->caching->hidden.len) drop_hidden(exchange);
  if (message->status == 101) {
    tunnel_head(exchange);
  } else if ((exchange->phases & (1u << PHASE_RESPONSE)) || exchange->wants_whole_response) {
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
  if (buffer_append_piece(&exchange->answer, chunk, piece.data, piece.len) == 0) return;
  try_abandon(exchange);
  buffer_clear(&exchange->answer);
  exchange_fail(exchange, 500, UNEXPECTED);
}

void exchange_on_service_body(struct exchange *exchange, struct chunk *chunk, struct slice piece) {
  if (exchange->caching && exchange->caching->capture) exchange_store_piece(exchange, piece);
  if (exchange->state == EXCHANGE_RESPONSE)
    gather_response(exchange, chunk, piece);
  else if (exchange->websocket && exchange->state == EXCHANGE_TUNNEL)
    websocket_on_service(exchange, chunk, piece);
  else if (exchange->state == EXCHANGE_SENDING || exchange->state == EXCHANGE_TUNNEL)
    exchange_send_piece(exchange, chunk, piece, false);
}

void exchange_on_service_end(struct exchange *exchange) {
  exchange->last_byte_us = exchange->worker->loop.clock.mono_us;
  if (exchange->endpoint) balance_on_end(exchange);
  take_trailers(exchange);
  if (exchange->caching && exchange->caching->capture) exchange_store_end(exchange);
  if (exchange->state == EXCHANGE_RESPONSE) {
    enum phase_result result = PHASE_DONE;
    exchange->response_length = (int64_t)exchange->answer.bytes;
    if (!(exchange->phases & (1u << PHASE_RESPONSE)) ||
        exchange_run(exchange, exchange->route_index, PHASE_RESPONSE, &result))
      exchange_on_phase(exchange->worker, exchange_handle(exchange), PHASE_RESPONSE, result);
    return;
  }
  if (exchange->websocket && exchange->state == EXCHANGE_TUNNEL) {
    websocket_on_service_end(exchange);
    return;
  }
  struct worker *worker = exchange->worker;
  double handle = exchange_handle(exchange);
  if (exchange->filtering_body) exchange_send_piece(exchange, NULL, SLICE(""), true);
  if (exchange_find(worker, handle) != exchange) return;
  if (exchange->state != EXCHANGE_SENDING && exchange->state != EXCHANGE_TUNNEL) return;
  exchange_send_end(exchange);
}

void exchange_on_service_failed(struct exchange *exchange, int status, const char *message) {
  // The client learns what kind of failure it was; addresses and causes are for the log.
  const char *told = status == 502   ? "An invalid response was received from the upstream server"
                     : status == 504 ? "The upstream server is timing out"
                                     : message;
  struct slice cause = slice_of(message);
  exchange->error = arena_copy(&exchange->arena, cause.data, cause.len);
  if (exchange->head_sent || exchange->state == EXCHANGE_TUNNEL) {
    exchange_cut(exchange, status, told);
    return;
  }
  buffer_clear(&exchange->answer);
  exchange->source = SOURCE_ERROR;
  exchange->status = status;
  if ((exchange->phases & (1u << PHASE_SERVICE_HEAD)) && exchange->state == EXCHANGE_SERVICE &&
      !service_head_passes(exchange))
    return;
  exchange->source = SOURCE_ERROR;
  answer_error(exchange, status, slice_of(told));
  exchange_respond(exchange);
}

// ---- Streamed answers ------------------------------------------------------------------------------------------------

void exchange_begin_answer(struct exchange *exchange, int status) {
  headers_init(&exchange->response, RESPONSE_FIELDS_MOST);
  exchange->status = status;
  exchange->reason = (struct slice){NULL, 0};
  exchange->has_response = true;
  exchange_merge_preset(exchange);
}

// The head of a streamed answer goes in the next step of the loop: header_filter may not run inside a call from Lua.
static void stream_start(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange || exchange->state != EXCHANGE_ACCESS) return;
  bool waited = exchange->waiting;
  exchange_begin_answer(exchange, exchange->status);
  bool good = exchange_filter_head(exchange);
  exchange->waiting = waited;
  if (!good || !exchange->stream) {
    exchange_wake(exchange, &exchange->stream_waiter, good ? BRIDGE_CLOSED : BRIDGE_FAILED);
    return;
  }
  exchange_move(exchange, EXCHANGE_STREAM);
  exchange->response_length = -1;
  exchange->source = SOURCE_EXIT;
  send_head(exchange);
  exchange->ops->flush(exchange);
  exchange_wake(exchange, &exchange->stream_waiter, BRIDGE_OK);
}

int exchange_stream_begin(struct exchange *exchange, int status) {
  if (exchange_is_over(exchange)) return BRIDGE_CLOSED;
  if (exchange->state != EXCHANGE_ACCESS || exchange->head_sent) return BRIDGE_LATE;
  if (status < 200 || status > 999) return BRIDGE_INVALID;
  exchange->status = status;
  exchange->stream_waiter = phase_self(exchange->worker);
  return worker_later(exchange->worker, stream_start, exchange_handle(exchange)) < 0 ? BRIDGE_FULL : BRIDGE_AGAIN;
}

int exchange_stream_send(struct exchange *exchange, const char *data, uint32_t len) {
  if (exchange->state != EXCHANGE_STREAM || !exchange->stream) return BRIDGE_CLOSED;
  if (!exchange->no_body_out && len > 0) { // an empty chunk would be the last one
    exchange_put_body(exchange, NULL, (struct slice){data, len}, true);
    if (exchange->state != EXCHANGE_STREAM || !exchange->stream) return BRIDGE_CLOSED;
    exchange->ops->flush(exchange);
  }
  if (exchange->state != EXCHANGE_STREAM || !exchange->stream) return BRIDGE_CLOSED;
  if (!exchange->ops->is_congested(exchange)) return BRIDGE_OK;
  exchange->stream_waiter = phase_self(exchange->worker);
  return BRIDGE_AGAIN;
}

static void stream_finish(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (exchange && exchange->state == EXCHANGE_STREAM) exchange_send_end(exchange);
}

int exchange_stream_finish(struct exchange *exchange) {
  return worker_later(exchange->worker, stream_finish, exchange_handle(exchange)) < 0 ? BRIDGE_FULL : BRIDGE_OK;
}

int exchange_stream_end(struct exchange *exchange) {
  if (exchange->state != EXCHANGE_STREAM) return BRIDGE_LATE;
  exchange->answered = true; // the rest happens when the phase returns, if it has not yet
  return exchange->detached ? exchange_stream_finish(exchange) : BRIDGE_OK;
}
