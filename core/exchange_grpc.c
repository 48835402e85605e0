// SPDX-License-Identifier: Apache-2.0
// Exchanges whose client speaks gRPC: its deadlines, and the gateway's own answers in the form that it understands.
//
// Such a client looks for a status of gRPC's in the trailers, and for nothing else. So an error of the gateway goes as a
// head without content whose fields are the trailers, with HTTP status 200; the status that it would have had elsewhere
// (exchange->status) is what plugins and logs see.
#include "answer.h"
#include "exchange_parts.h"
#include "grpc.h"
#include "try.h"
#include "worker.h"

enum { MESSAGE_MOST = 1024 };

static bool put_status(struct exchange *exchange, struct headers *fields, enum grpc_status status) {
  static const char *const texts[] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                      "9", "10", "11", "12", "13", "14", "15", "16"};
  return headers_set(fields, &exchange->arena, SLICE("grpc-status"), slice_of(texts[status])) == 0;
}

static bool put_message(struct exchange *exchange, struct headers *fields, struct slice message) {
  char *text = arena_alloc(&exchange->arena, MESSAGE_MOST);
  if (!text) return false;
  uint32_t len = grpc_message_encode(message, text, MESSAGE_MOST);
  return headers_set(fields, &exchange->arena, SLICE("grpc-message"), (struct slice){text, len}) == 0;
}

// A 404 of the gateway's own says that it knows no such method.
static enum grpc_status status_of(const struct exchange *exchange, int status) {
  if (exchange->grpc_status) return (enum grpc_status)exchange->grpc_status;
  if (status == 404 && exchange->source == SOURCE_ERROR) return GRPC_UNIMPLEMENTED;
  return grpc_status_of(status);
}

// What a plugin answered, if it is a text.
static struct slice answered_text(struct exchange *exchange) {
  struct field *type = headers_find_id(&exchange->response, FIELD_CONTENT_TYPE);
  bool text = !type || (type->value.len >= 10 && memcmp(type->value.data, "text/plain", 10) == 0);
  if (!text || exchange->answer.count != 1) return slice_of(answer_reason(exchange->status));
  const struct segment *only = &exchange->answer.segments[exchange->answer.head];
  return (struct slice){only->data, only->len};
}

// ---- The deadline ----------------------------------------------------------------------------------------------------

// Whoever is at work for the exchange stops: the service, where it has been asked; a plugin that waits ends by itself,
// and meanwhile nothing of Lua may run for this exchange.
static void on_deadline(struct timer *timer) {
  struct exchange *exchange = (struct exchange *)(void *)((char *)timer - offsetof(struct exchange, deadline));
  static const char message[] = "The deadline of the call has passed";
  if (exchange->try) try_abandon(exchange);
  if (exchange->head_sent) {
    exchange_cut(exchange, 504, message);
    return;
  }
  if (exchange->waiting) exchange->phases &= ~((1u << PHASE_HEADER_FILTER) | (1u << PHASE_BODY_FILTER));
  exchange_fail(exchange, 504, message);
}

static bool set_deadline(struct exchange *exchange, const struct field *field) {
  int64_t us = grpc_timeout_parse(field->value);
  if (us == GRPC_TIMEOUT_MALFORMED) {
    exchange->grpc_status = GRPC_INTERNAL; // as gRPC's own servers answer
    exchange_fail(exchange, 400, "malformed grpc-timeout");
    return false;
  }
  exchange->deadline_us = exchange->started_us + us;
  exchange->told_timeout = field->value.data;
  timer_init(&exchange->deadline, on_deadline);
  if (timer_set(&exchange->worker->loop.timers, &exchange->deadline, exchange->deadline_us) == 0) return true;
  exchange->deadline_us = 0;
  exchange_fail(exchange, 500, UNEXPECTED);
  return false;
}

void exchange_drop_deadline(struct exchange *exchange) {
  timer_cancel(&exchange->worker->loop.timers, &exchange->deadline);
  exchange->deadline_us = 0;
}

void exchange_tell_deadline(struct exchange *exchange) {
  if (!exchange->deadline_us) return;
  struct field *field = headers_find(&exchange->request.headers, SLICE("grpc-timeout"), 0);
  if (!field || field->value.data != exchange->told_timeout) return; // a plugin's own
  char *text = arena_alloc(&exchange->arena, GRPC_TIMEOUT_BYTES);
  if (!text) return;
  uint32_t len = grpc_timeout_format(exchange->deadline_us - exchange->worker->loop.clock.mono_us, text);
  field->value = (struct slice){text, len};
  exchange->told_timeout = text;
}

void exchange_note_grpc(struct exchange *exchange) {
  const struct field *type = headers_find_id(&exchange->request.headers, FIELD_CONTENT_TYPE);
  exchange->grpc = type && grpc_is_content_type(type->value);
}

bool exchange_take_deadline(struct exchange *exchange) {
  struct field *timeout = headers_find(&exchange->request.headers, SLICE("grpc-timeout"), 0);
  return !timeout || set_deadline(exchange, timeout);
}

// ---- Another try -----------------------------------------------------------------------------------------------------

// Status and nothing else, in the place where gRPC has it then: no message has been answered.
bool exchange_retry_grpc(struct exchange *exchange) {
  struct field *status = headers_find(&exchange->service_message.headers, SLICE("grpc-status"), 0);
  if (!status || !slice_equal(status->value, SLICE("14"))) return false;
  return try_elsewhere(exchange, "The service answered UNAVAILABLE");
}

// ---- Answers ---------------------------------------------------------------------------------------------------------

void exchange_answer_grpc(struct exchange *exchange) {
  struct headers *fields = &exchange->response;
  exchange_fork_response(exchange);
  fields->most += 3;
  bool own_status = headers_find(fields, SLICE("grpc-status"), 0) != NULL; // a plugin that knows gRPC
  struct slice message = exchange->message.data ? exchange->message : answered_text(exchange);
  bool whole = headers_set(fields, &exchange->arena, SLICE("Content-Type"), SLICE("application/grpc")) == 0 &&
               (own_status || (put_status(exchange, fields, status_of(exchange, exchange->status)) &&
                               put_message(exchange, fields, message)));
  buffer_clear(&exchange->answer);
  exchange->grpc_answer = whole; // else it stays an error of HTTP, which every client understands
}

bool exchange_can_end_by_trailers(const struct exchange *exchange) {
  return exchange->grpc && exchange->head_sent && exchange->request.major >= 2 && !exchange->no_body_out &&
         exchange->response_length < 0 && exchange->state != EXCHANGE_TUNNEL;
}

bool exchange_end_grpc(struct exchange *exchange, int status, const char *message) {
  struct headers trailers;
  headers_init(&trailers, 2);
  if (!put_status(exchange, &trailers, status_of(exchange, status)) ||
      !put_message(exchange, &trailers, slice_of(message)))
    return false;
  exchange->ops->end(exchange, &trailers);
  return true;
}
