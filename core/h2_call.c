// SPDX-License-Identifier: Apache-2.0
// One exchange over HTTP/2 to its service: the request goes as one stream, its response comes back on it.
//
//   exchange->request_body ──> out ──window of the service──> DATA
//   DATA ──> exchange ──> client; its window is given back as the client takes the bytes
#include <stdio.h>

#include "exchange.h"
#include "forward.h"
#include "h2_client_parts.h"
#include "hedge.h"
#include "try.h"
#include "worker.h"

struct exchange *h2_call_enter(struct h2_call *call) {
  struct exchange *exchange = call->exchange;
  if (hedge_is_on(exchange) && exchange->try->call != call) hedge_swap(exchange);
  return exchange;
}

// ---- Waiting -------------------------------------------------------------------------------------------------------

static int64_t call_patience_ms(const struct h2_call *call) {
  const struct exchange *exchange = call->exchange;
  if (call->id == 0) return exchange->connect_timeout_ms;
  if (call->paused) return 0; // it is the client who makes us wait
  if (call->request_sent) return exchange->read_timeout_ms;
  return call->out.bytes > 0 ? exchange->send_timeout_ms : 0; // else it is the client's turn
}

void h2_call_await(struct h2_call *call) {
  struct loop *loop = &call->client->worker->loop;
  int64_t ms = call_patience_ms(call);
  call->deadline_us = ms > 0 ? loop->clock.mono_us + ms * 1000 : 0;
  if (ms > 0 && (call->timer.slot < 0 || call->timer.at_us > call->deadline_us))
    timer_set(&loop->timers, &call->timer, call->deadline_us);
}

static void call_on_deadline(struct h2_call *call) {
  struct exchange *exchange = h2_call_enter(call);
  if (call->id == 0) {
    try_failed(exchange, 504, "The connection to the service timed out", true);
  } else if (!call->request_sent && call->framed != call->delivered) { // however slowly
    call->delivered = call->framed;
    h2_call_await(call);
  } else {
    h2_client_probe(call->client);
    try_failed(exchange, 504,
               call->request_sent ? "The service did not answer in time" : "Sending to the service timed out", false);
  }
}

static void call_on_timer(struct timer *timer) {
  struct h2_call *call = (struct h2_call *)((char *)timer - offsetof(struct h2_call, timer));
  struct loop *loop = &call->client->worker->loop;
  if (call->deadline_us == 0) return;
  if (call->deadline_us > loop->clock.mono_us)
    timer_set(&loop->timers, timer, call->deadline_us);
  else
    call_on_deadline(call);
}

// ---- The end -------------------------------------------------------------------------------------------------------

void h2_call_touch(struct h2_call *call) {
  struct h2_client *client = call->client;
  if (call->touched) return;
  call->touched = true;
  call->touched_previous = NULL;
  call->touched_next = client->touched;
  if (client->touched) client->touched->touched_previous = call;
  client->touched = call;
}

static void call_untouch(struct h2_call *call) {
  if (!call->touched) return;
  call->touched = false;
  *(call->touched_previous ? &call->touched_previous->touched_next : &call->client->touched) = call->touched_next;
  if (call->touched_next) call->touched_next->touched_previous = call->touched_previous;
}

void h2_call_drop(struct h2_call *call) {
  struct h2_client *client = call->client;
  if (client->current == call) client->current = NULL;
  if (client->heading == call) client->heading = NULL;
  call_untouch(call);
  timer_cancel(&client->worker->loop.timers, &call->timer);
  buffer_clear(&call->out);
  call->exchange->try->call = NULL;
  h2_calls_remove(call->id ? &client->active : &client->waiting, call);
  if (call->id && client->session) {
    nghttp2_session_set_stream_user_data(client->session, call->id, NULL);
    if (!call->closed) nghttp2_submit_rst_stream(client->session, NGHTTP2_FLAG_NONE, call->id, NGHTTP2_CANCEL);
  }
  h2_client_later(client);
}

void h2_call_refuse(struct h2_call *call, const char *why) {
  char message[256];
  snprintf(message, sizeof message, "The service sent an invalid response: %s", why);
  try_failed(h2_call_enter(call), 502, message, false);
}

void h2_call_on_closed(struct h2_call *call, uint32_t error_code) {
  char message[128];
  struct exchange *exchange = h2_call_enter(call);
  call->closed = true;
  // The service has done nothing for it (RFC 9113 8.7): safe to send again, whatever it was.
  bool unsent = error_code == NGHTTP2_REFUSED_STREAM && !exchange->try->response_seen;
  if (unsent && (call->client->leaving || call->early) && try_move(exchange)) return;
  snprintf(message, sizeof message, "The service reset the stream: %s", h2_error_name(error_code));
  try_failed(exchange, 502, message, unsent);
}

// ---- Request -------------------------------------------------------------------------------------------------------

// Trailers of the request, if it has any, follow the content. False: there are none.
static bool submit_trailers(nghttp2_session *session, struct h2_call *call) {
  const struct exchange *exchange = call->exchange;
  const struct headers *trailers = &exchange->request.trailers;
  struct h2_fields fields;
  if (exchange->body_replaced || trailers->count == 0) return false;
  if (h2_fields_init(&fields, &call->exchange->arena, trailers->count) < 0) return false;
  h2_put_trailers(&fields, trailers);
  return fields.count > 0 && nghttp2_submit_trailer(session, call->id, fields.list, fields.count) == 0;
}

static ssize_t read_content(nghttp2_session *session, int32_t id, uint8_t *bytes, size_t most, uint32_t *flags,
                            nghttp2_data_source *source, void *user) {
  (void)bytes, (void)source, (void)user;
  struct h2_call *call = nghttp2_session_get_stream_user_data(session, id);
  if (!call) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  size_t len = call->out.bytes < most ? call->out.bytes : most;
  bool last = call->complete && len == call->out.bytes;
  if (len == 0 && !last) {
    call->resumed = false;
    return NGHTTP2_ERR_DEFERRED;
  }
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (!last) return (ssize_t)len;
  *flags |= NGHTTP2_DATA_FLAG_EOF;
  call->request_sent = true;
  if (submit_trailers(session, call)) *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
  return (ssize_t)len;
}

int h2_call_send_data(struct h2_call *call, const uint8_t head[9], size_t len) {
  int result = h2_write_data(&call->client->conn, head, &call->out, len);
  if (result != 0) return result;
  call->framed += len;
  h2_call_await(call);
  if (call->throttled && call->out.bytes <= CONN_LOW_WATER) h2_call_touch(call);
  return 0;
}

// Moves what has come of the content to the stream.
static void call_take(struct h2_call *call) {
  struct exchange *exchange = call->exchange;
  call->complete = exchange->body_replaced || exchange->request_complete;
  if (exchange->request_body.bytes > 0) {
    try_keep_content(exchange);
    if (buffer_move(&call->out, &exchange->request_body, exchange->request_body.bytes) < 0) {
      try_failed(exchange, 500, "No memory for the request", false);
      return;
    }
  }
  if (!call->resumed && !call->request_sent && (call->out.bytes > 0 || call->complete)) {
    call->resumed = true;
    nghttp2_session_resume_data(call->client->session, call->id);
  }
  h2_call_await(call);
  h2_client_later(call->client);
  if (call->complete || call->request_sent) return;
  call->throttled = call->out.bytes > CONN_HIGH_WATER;
  if (!call->throttled)
    exchange_on_service_drained(exchange);
  else if (exchange->stream)
    exchange->ops->want_body(exchange, false);
}

static int32_t call_submit(struct h2_call *call) {
  struct exchange *exchange = call->exchange;
  struct forward_list list;
  struct slice scheme = call->client->tls ? SLICE("https") : SLICE("http");
  if (forward_request_list(exchange, scheme, &list) < 0) return NGHTTP2_ERR_NOMEM;
  struct h2_fields fields;
  if (h2_fields_init(&fields, &exchange->arena, list.count) < 0) return NGHTTP2_ERR_NOMEM;
  for (uint32_t i = 0; i < list.count; i++) h2_put(&fields, list.fields[i].name, list.fields[i].value);
  call->request_sent = !forward_has_content(exchange);
  call->resumed = true;
  nghttp2_data_provider provider = {.read_callback = read_content};
  return nghttp2_submit_request(call->client->session, NULL, fields.list, fields.count,
                                call->request_sent ? NULL : &provider, call);
}

void h2_call_begin(struct h2_call *call) {
  struct h2_client *client = call->client;
  struct exchange *exchange = h2_call_enter(call);
  int32_t id = call_submit(call);
  if (id == NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE || id == NGHTTP2_ERR_START_STREAM_NOT_ALLOWED) {
    client->leaving = true; // its numbers are used up: the call goes elsewhere
    h2_client_unlist(client);
    h2_client_later(client);
    return;
  }
  if (id < 0) {
    try_failed(exchange, 500, "The request head is too large to forward", false);
    return;
  }
  h2_calls_remove(&client->waiting, call);
  call->id = id;
  h2_calls_add(&client->active, call);
  exchange->try->reused = client->served;
  call->early = !client->greeted;
  exchange->sent_us = client->worker->loop.clock.mono_us;
  call_take(call);
}

static bool call_on_request(struct exchange *exchange) {
  struct h2_call *call = exchange->try->call;
  if (!call || call->id == 0) return false;
  call_take(call);
  return true;
}

// ---- Response ------------------------------------------------------------------------------------------------------

static bool head_tells_length(const struct exchange *exchange, int status) {
  return slice_equal(forward_method(exchange), SLICE("HEAD")) || status == 204 || status == 304;
}

void h2_call_on_head(struct h2_call *call, bool last) {
  struct exchange *exchange = h2_call_enter(call);
  struct h1_message *message = &exchange->service_message;
  exchange->try->response_seen = true;
  if (message->status < 200) {
    exchange_on_service_interim(exchange, message->status, &message->headers);
    return;
  }
  call->head_over = true;
  exchange->try->response_whole = last;
  // gRPC's answers without content are nothing but trailers: a length would be out of place.
  if (last && message->content_length < 0 && !exchange->grpc && !head_tells_length(exchange, message->status))
    message->content_length = 0;
  h2_call_await(call);
  h2_call_touch(call);
  exchange_on_service_head(exchange);
}

void h2_call_on_body(struct h2_call *call, const char *data, uint32_t len) {
  struct h2_client *client = call->client;
  call->taken += len;
  h2_call_await(call);
  h2_call_touch(call);
  exchange_on_service_body(call->exchange, client->conn.in, (struct slice){data, len});
}

// Whatever of the request is not sent yet is of no more use (RFC 9113 8.1).
void h2_call_on_end(struct h2_call *call) {
  struct exchange *exchange = h2_call_enter(call);
  call->closed = call->request_sent;
  h2_call_drop(call);
  exchange->try = NULL;
  exchange_on_service_end(exchange);
}

static void call_credit(struct h2_call *call) {
  if (call->taken == 0) return;
  nghttp2_session_consume_stream(call->client->session, call->id, call->taken);
  call->taken = 0;
}

void h2_call_settle(struct h2_call *call) {
  struct h2_client *client = call->client;
  struct exchange *exchange = h2_call_enter(call);
  call_untouch(call);
  client->current = call;
  if (call->throttled && call->out.bytes <= CONN_LOW_WATER) {
    call->throttled = false;
    exchange_on_service_drained(exchange);
  }
  if (client->current == call && exchange->head_sent && exchange->stream) exchange->ops->flush(exchange);
  if (client->current != call) return;
  client->current = NULL;
  call->paused = exchange->head_sent && exchange->stream && exchange->ops->is_congested(exchange);
  if (call->paused)
    call->deadline_us = 0;
  else
    call_credit(call);
}

static void call_resume(struct exchange *exchange) {
  struct h2_call *call = exchange->try->call;
  if (!call || !call->paused) return;
  call->paused = false;
  call_credit(call);
  h2_call_await(call);
  h2_client_later(call->client);
}

// ---- The carrier ---------------------------------------------------------------------------------------------------

static void call_start(struct exchange *exchange, const struct pool_key *key) {
  struct h2_call *call = arena_alloc(&exchange->arena, sizeof *call);
  struct error error = {.code = ERROR_MEMORY, .text = "no memory"};
  if (!call) {
    try_unreachable(exchange, error.text);
    return;
  }
  *call = (struct h2_call){.exchange = exchange};
  timer_init(&call->timer, call_on_timer);
  buffer_init(&call->out, &exchange->worker->chunks);
  exchange->try->call = call;
  if (h2_client_join(call, key, &error) == 0) return;
  exchange->try->call = NULL;
  try_unreachable(exchange, error.text);
}

static void call_abandon(struct exchange *exchange) {
  if (exchange->try->call) h2_call_drop(exchange->try->call);
}

const struct carrier h2_carrier = {
    .begin = call_start,
    .on_request = call_on_request,
    .resume = call_resume,
    .abandon = call_abandon,
};
