// SPDX-License-Identifier: Apache-2.0
// What Lua may do with an exchange: thin bodies that find it by its handle, check, and read or write its fields.
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "answer.h"
#include "budget.h"
#include "cache.h"
#include "control.h"
#include "endpoint.h"
#include "exchange.h"
#include "forward.h"
#include "grpc.h"
#include "hedge.h"
#include "router.h"
#include "stream.h"
#include "tls.h"
#include "try.h"
#include "websocket.h"
#include "worker.h"

#ifndef SLUICE_VERSION
#define SLUICE_VERSION "unknown"
#endif

const char *bridge_version(void) {
  return SLUICE_VERSION;
}

const char *bridge_error(struct worker *worker) {
  return worker->error.text;
}

static int give(struct bytes *out, struct slice text) {
  *out = (struct bytes){text.data ? text.data : "", text.len};
  return BRIDGE_OK;
}

static int give_text(struct bytes *out, const char *text) {
  return text ? give(out, slice_of(text)) : BRIDGE_NONE;
}

// ---- Texts -----------------------------------------------------------------------------------------------------------

static int give_query(const struct exchange *exchange, struct bytes *out) {
  return exchange->has_query ? give(out, exchange->query) : BRIDGE_NONE;
}

static int give_service_target(struct exchange *exchange, int what, struct bytes *out) {
  struct slice path, query;
  bool has_query;
  if (!exchange->route || forward_target(exchange, &path, &query, &has_query) < 0) return BRIDGE_NONE;
  if (what == TEXT_SERVICE_PATH) return give(out, path);
  return has_query ? give(out, query) : BRIDGE_NONE;
}

static int give_service_scheme(const struct exchange *exchange, struct bytes *out) {
  if (exchange->service_tls >= 0) return give(out, exchange->service_tls ? SLICE("https") : SLICE("http"));
  if (!exchange->service) return BRIDGE_NONE;
  return give(out, exchange->service->tls ? SLICE("https") : SLICE("http"));
}

static int give_service_host(const struct exchange *exchange, struct bytes *out) {
  if (exchange->service_host.len) return give(out, exchange->service_host);
  return exchange->service ? give(out, exchange->service->host) : BRIDGE_NONE;
}

static int give_certificate(struct exchange *exchange, struct bytes *out) {
  if (!exchange->peer.tls || !exchange->stream) return BRIDGE_NONE;
  struct slice pem = tls_peer_certificate(stream_tls(exchange->stream));
  return pem.len > 0 ? give(out, pem) : BRIDGE_NONE;
}

// The request line as the client sent it; the head's bytes are still there, so no copy.
static int give_request_line(const struct exchange *exchange, struct bytes *out) {
  if (!exchange->request.method.data || !exchange->request.target.data) return BRIDGE_NONE;
  const char *end = exchange->request.target.data + exchange->request.target.len + sizeof " HTTP/1.1" - 1;
  return give(out, (struct slice){exchange->request.method.data, (uint32_t)(end - exchange->request.method.data)});
}

static int give_local_ip(struct exchange *exchange, struct bytes *out) {
  char text[46];
  if (!exchange->stream || !stream_local_ip(exchange->stream, text)) return BRIDGE_NONE;
  struct slice kept = arena_copy(&exchange->arena, text, (uint32_t)strlen(text));
  return kept.data ? give(out, kept) : BRIDGE_FULL;
}

int bridge_text(struct worker *worker, double handle, int what, struct bytes *out) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  struct slice prefix;
  switch (what) {
  case TEXT_ID: return give_text(out, exchange_id(exchange));
  case TEXT_METHOD: return give(out, exchange->request.method);
  case TEXT_SCHEME: return give(out, exchange->scheme);
  case TEXT_HOST: return give(out, exchange->host);
  case TEXT_RAW_TARGET: return give(out, exchange->request.target);
  case TEXT_RAW_PATH: return give(out, exchange->raw_path);
  case TEXT_PATH: return give(out, exchange->path);
  case TEXT_QUERY: return give_query(exchange, out);
  case TEXT_FORWARDED_SCHEME: return give(out, forward_scheme(exchange));
  case TEXT_FORWARDED_HOST: return give(out, forward_host(exchange));
  case TEXT_FORWARDED_PATH: return give(out, forward_path(exchange));
  case TEXT_FORWARDED_PREFIX: prefix = forward_prefix(exchange); return prefix.len ? give(out, prefix) : BRIDGE_NONE;
  case TEXT_CLIENT_IP: return give_text(out, exchange->peer.client_ip);
  case TEXT_FORWARDED_IP: return give(out, forward_ip(exchange));
  case TEXT_SERVICE_METHOD: return give(out, forward_method(exchange));
  case TEXT_SERVICE_SCHEME: return give_service_scheme(exchange, out);
  case TEXT_SERVICE_PATH:
  case TEXT_SERVICE_QUERY: return give_service_target(exchange, what, out);
  case TEXT_SERVICE_HOST: return give_service_host(exchange, out);
  case TEXT_TARGET_IP: return exchange->target_ip[0] ? give_text(out, exchange->target_ip) : BRIDGE_NONE;
  case TEXT_TLS_VERSION: return give_text(out, exchange->tls_version);
  case TEXT_TLS_CIPHER: return give_text(out, exchange->tls_cipher);
  case TEXT_TLS_SNI: return exchange->tls_sni.len ? give(out, exchange->tls_sni) : BRIDGE_NONE;
  case TEXT_TLS_CLIENT_CERTIFICATE: return give_certificate(exchange, out);
  case TEXT_ERROR: return give(out, exchange->error);
  case TEXT_REQUEST_LINE: return give_request_line(exchange, out);
  case TEXT_LOCAL_IP: return give_local_ip(exchange, out);
  default: return BRIDGE_INVALID;
  }
}

static bool is_visible(struct slice text) {
  for (uint32_t i = 0; i < text.len; i++)
    if ((unsigned char)text.data[i] <= ' ' || text.data[i] == 0x7f) return false;
  return true;
}

static int set_scheme(struct exchange *exchange, struct slice text) {
  if (slice_equal(text, SLICE("http")))
    exchange->service_tls = 0;
  else if (slice_equal(text, SLICE("https")))
    exchange->service_tls = 1;
  else
    return BRIDGE_INVALID;
  return BRIDGE_OK;
}

int bridge_text_set(struct worker *worker, double handle, int what, const char *data, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  struct slice text = {data, len};
  struct slice *place;
  if (what == TEXT_SERVICE_SCHEME) return set_scheme(exchange, text);
  if (what == TEXT_SERVICE_METHOD)
    place = headers_name_is_valid(text) ? &exchange->service_method : NULL;
  else if (what == TEXT_SERVICE_PATH)
    place = is_visible(text) && len > 0 && data[0] == '/' && !memchr(data, '?', len) ? &exchange->service_path : NULL;
  else if (what == TEXT_SERVICE_QUERY)
    place = is_visible(text) ? &exchange->service_query : NULL;
  else
    place = NULL;
  if (!place) return BRIDGE_INVALID;
  if (exchange_is_over(exchange)) return BRIDGE_OK;
  if (exchange->state > EXCHANGE_SERVICE) return BRIDGE_LATE;
  struct slice copy = arena_copy(&exchange->arena, data, len);
  if (!copy.data) return BRIDGE_FULL;
  *place = copy;
  return BRIDGE_OK;
}

// ---- Numbers ---------------------------------------------------------------------------------------------------------

static double span_us(int64_t from, int64_t to) {
  return from > 0 && to > 0 ? (double)(to - from) : (double)NAN;
}

static double http_version(const struct exchange *exchange) {
  return exchange->request.major + exchange->request.minor / 10.0;
}

static double grpc_status(const struct exchange *exchange) {
  if (!exchange->grpc && (!exchange->service || !exchange->service->http2)) return (double)NAN;
  const struct h1_message *message = &exchange->service_message;
  const struct field *field = headers_find(&message->headers, SLICE("grpc-status"), 0);
  if (!field) field = headers_find(&message->trailers, SLICE("grpc-status"), 0);
  if (!field || field->value.len == 0 || field->value.len > 2) return (double)NAN;
  double status = 0;
  for (uint32_t i = 0; i < field->value.len; i++) status = status * 10 + (field->value.data[i] - '0');
  return status;
}

static bool is_broken(const struct exchange *exchange) {
  return exchange->failed_response && exchange->service_status > 0 && exchange->error.len > 0;
}

double bridge_number(struct worker *worker, double handle, int what) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return (double)NAN;
  int64_t now = exchange->ended_us ? exchange->ended_us : worker->loop.clock.mono_us;
  switch (what) {
  case NUMBER_HTTP_VERSION: return http_version(exchange);
  case NUMBER_PORT: return exchange->peer.local_port;
  case NUMBER_FORWARDED_PORT: return forward_port(exchange);
  case NUMBER_CLIENT_PORT: return exchange->peer.client_port;
  case NUMBER_STATUS: return exchange->status > 0 ? exchange->status : (double)NAN;
  case NUMBER_SERVICE_STATUS: return exchange->service_status > 0 ? exchange->service_status : (double)NAN;
  case NUMBER_RESPONSE_SOURCE: return exchange->source;
  case NUMBER_REQUEST_BYTES: return (double)exchange->request_bytes;
  case NUMBER_RESPONSE_BYTES: return (double)exchange->response_bytes;
  case NUMBER_RESPONSE_BODY_BYTES: return (double)exchange->response_body_bytes;
  case NUMBER_STARTED_US: return (double)exchange->started_real_us;
  case NUMBER_ELAPSED_US: return (double)(now - exchange->started_us);
  case NUMBER_GATEWAY_US: return (double)((exchange->sent_us ? exchange->sent_us : now) - exchange->started_us);
  case NUMBER_SERVICE_US: return span_us(exchange->sent_us, exchange->first_byte_us);
  case NUMBER_RECEIVE_US:
    return span_us(exchange->first_byte_us, exchange->last_byte_us ? exchange->last_byte_us : now);
  case NUMBER_ROUTE: return exchange->route_index == ROUTE_STATUS ? 0 : exchange->route_index;
  case NUMBER_SERVICE: return exchange->service ? (double)(exchange->service - exchange->generation->services) : 0;
  case NUMBER_GENERATION: return exchange->generation ? exchange->generation->id : 0;
  case NUMBER_TARGET_PORT: return exchange->target_port ? exchange->target_port : (double)NAN;
  case NUMBER_TRIES: return exchange->tries;
  case NUMBER_CONNECT_TIMEOUT_MS: return exchange->connect_timeout_ms;
  case NUMBER_SEND_TIMEOUT_MS: return exchange->send_timeout_ms;
  case NUMBER_READ_TIMEOUT_MS: return exchange->read_timeout_ms;
  case NUMBER_RETRIES: return exchange->retries;
  case NUMBER_CONTENT_LENGTH:
    return exchange->request.content_length >= 0 ? (double)exchange->request.content_length : (double)NAN;
  case NUMBER_HEAD_SENT: return exchange->head_sent;
  case NUMBER_CONNECTION_REQUESTS: return exchange->peer.requests;
  case NUMBER_CONNECTION: return (double)exchange->peer.number;
  case NUMBER_BUFFERED_MOST: return (double)exchange->generation->limits.max_buffered_body_bytes;
  case NUMBER_TLS: return exchange->peer.tls;
  case NUMBER_FROM_PEER:
    return exchange->stream && exchange->stream->listener && exchange->stream->listener->kind == LISTEN_PEERS;
  case NUMBER_HEDGED: return exchange->hedged;
  case NUMBER_GRPC_STATUS: return grpc_status(exchange);
  case NUMBER_BROKEN: return is_broken(exchange);
  default: return (double)NAN;
  }
}

int bridge_number_set(struct worker *worker, double handle, int what, double value) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (!(value >= 0 && value <= INT32_MAX)) return BRIDGE_INVALID;
  uint32_t number = (uint32_t)value;
  switch (what) {
  case NUMBER_STATUS:
    if (exchange_is_over(exchange)) return BRIDGE_OK;
    if (exchange->head_sent) return BRIDGE_LATE;
    if (number < 200 || number > 999) return BRIDGE_INVALID; // an interim one ends nothing
    exchange->status = (int)number;
    exchange->reason = (struct slice){NULL, 0};
    return BRIDGE_OK;
  case NUMBER_CONNECT_TIMEOUT_MS: exchange->connect_timeout_ms = number; return BRIDGE_OK;
  case NUMBER_SEND_TIMEOUT_MS: exchange->send_timeout_ms = number; return BRIDGE_OK;
  case NUMBER_READ_TIMEOUT_MS: exchange->read_timeout_ms = number; return BRIDGE_OK;
  case NUMBER_RETRIES: exchange->retries = number; return BRIDGE_OK;
  default: return BRIDGE_INVALID;
  }
}

int bridge_capture(struct worker *worker, double handle, uint32_t index, struct bytes *out) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (!exchange->match || index == 0 || index > exchange->match->group_count) return BRIDGE_NONE;
  struct router_span span = exchange->match->groups[index - 1];
  if (span.from == UINT32_MAX) return BRIDGE_NONE;
  return give(out, (struct slice){exchange->path.data + span.from, span.to - span.from});
}

int bridge_capture_name(struct worker *worker, double handle, uint32_t index, struct bytes *name, uint32_t *group) {
  struct exchange *exchange = exchange_find(worker, handle);
  struct slice text;
  if (!exchange) return BRIDGE_STALE;
  if (!exchange->match || !exchange->match->regex) return BRIDGE_NONE;
  if (!router_capture_name(exchange->generation->router, exchange->match->regex, index, &text, group))
    return BRIDGE_NONE;
  return give(name, text);
}

// ---- Fields ----------------------------------------------------------------------------------------------------------

static struct headers *fields_of(struct exchange *exchange, int message) {
  switch (message) {
  case MESSAGE_REQUEST: return &exchange->request.headers;
  case MESSAGE_RESPONSE: return exchange->has_response ? &exchange->response : &exchange->preset;
  case MESSAGE_SERVICE_RESPONSE: return &exchange->service_response;
  case MESSAGE_REQUEST_TRAILERS: return &exchange->request.trailers;
  case MESSAGE_RESPONSE_TRAILERS: return &exchange->trailers;
  case MESSAGE_SERVICE_TRAILERS: return &exchange->service_message.trailers;
  case MESSAGE_STORED_RESPONSE:
    return exchange->caching && exchange->caching->found ? &exchange->caching->found->fields : NULL;
  default: return NULL;
  }
}

uint32_t bridge_header_count(struct worker *worker, double handle, int message) {
  struct exchange *exchange = exchange_find(worker, handle);
  struct headers *headers = exchange ? fields_of(exchange, message) : NULL;
  return headers ? headers->count : 0;
}

int bridge_header_at(struct worker *worker, double handle, int message, uint32_t index, struct bytes *name,
                     struct bytes *value) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  struct headers *headers = fields_of(exchange, message);
  if (!headers) return BRIDGE_INVALID;
  if (index >= headers->count) return BRIDGE_NONE;
  give(name, headers->fields[index].name);
  return give(value, headers->fields[index].value);
}

int bridge_header_get(struct worker *worker, double handle, int message, const char *name, uint32_t name_len,
                      uint32_t nth, struct bytes *out) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  struct headers *headers = fields_of(exchange, message);
  if (!headers) return BRIDGE_INVALID;
  struct field *field = headers_find(headers, (struct slice){name, name_len}, nth);
  return field ? give(out, field->value) : BRIDGE_NONE;
}

static int hints_to_change(struct exchange *exchange, struct headers **out) {
  enum { HINTS_MOST = 100 };
  if (!exchange->hints) {
    exchange->hints = arena_alloc(&exchange->arena, sizeof *exchange->hints);
    if (!exchange->hints) return BRIDGE_FULL;
    headers_init(exchange->hints, HINTS_MOST);
  }
  *out = exchange->hints;
  return BRIDGE_OK;
}

// The fields that a plugin may change now, on their own: 0, or why not.
static int fields_to_change(struct exchange *exchange, int message, struct headers **out) {
  if (exchange_is_over(exchange)) {
    *out = &exchange->preset;
    return BRIDGE_OK;
  }
  if (message == MESSAGE_REQUEST) {
    *out = &exchange->request.headers;
    return exchange->state <= EXCHANGE_SERVICE ? BRIDGE_OK : BRIDGE_LATE;
  }
  if (message == MESSAGE_RESPONSE_TRAILERS) {
    *out = &exchange->trailers;
    return exchange_fork_trailers(exchange) < 0 ? BRIDGE_FULL : BRIDGE_OK;
  }
  if (message == MESSAGE_EARLY_HINTS) return hints_to_change(exchange, out);
  if (message != MESSAGE_RESPONSE) return BRIDGE_INVALID;
  if (exchange->head_sent) return BRIDGE_LATE;
  if (exchange->has_response && exchange_fork_response(exchange) < 0) return BRIDGE_FULL;
  *out = fields_of(exchange, message);
  return BRIDGE_OK;
}

static bool is_trailer(const struct field_name *name) {
  struct field field = {.name = name->text, .id = name->id};
  return forward_is_trailer(&field);
}

// Puts a field whose name is good, and stays as long as the exchange when `known`.
static int put_field(struct exchange *exchange, int message, const struct field_name *name, bool known,
                     struct slice value, bool replace) {
  struct headers *headers;
  if (!headers_value_is_valid(value)) return BRIDGE_INVALID;
  int status = fields_to_change(exchange, message, &headers);
  if (status != BRIDGE_OK) return status;
  if (message == MESSAGE_RESPONSE_TRAILERS && !is_trailer(name)) {
    error_set(&exchange->worker->error, ERROR_INVALID, "a field of that name may not be a trailer (RFC 9110 6.5.1)");
    return BRIDGE_INVALID;
  }
  value = arena_copy(&exchange->arena, value.data, value.len);
  if (!value.data) return BRIDGE_FULL;
  if (message == MESSAGE_REQUEST && name->id == FIELD_HOST) {
    exchange->host_field = value; // routing is done: this is for the service alone
    return BRIDGE_OK;
  }
  struct field_name kept = *name;
  if (!known) kept.text = arena_copy(&exchange->arena, name->text.data, name->text.len);
  if (!kept.text.data) return BRIDGE_FULL;
  int result = replace ? headers_set_name(headers, &exchange->arena, &kept, value)
                       : headers_add_name(headers, &exchange->arena, &kept, value);
  return result < 0 ? BRIDGE_FULL : BRIDGE_OK;
}

static int change_field(struct worker *worker, double handle, int message, struct slice name, struct slice value,
                        bool replace) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (!headers_name_is_valid(name)) return BRIDGE_INVALID;
  struct field_name whole = headers_name(name);
  return put_field(exchange, message, &whole, false, value, replace);
}

int bridge_header_set(struct worker *worker, double handle, int message, const char *name, uint32_t name_len,
                      const char *value, uint32_t value_len) {
  return change_field(worker, handle, message, (struct slice){name, name_len}, (struct slice){value, value_len}, true);
}

int bridge_header_add(struct worker *worker, double handle, int message, const char *name, uint32_t name_len,
                      const char *value, uint32_t value_len) {
  return change_field(worker, handle, message, (struct slice){name, name_len}, (struct slice){value, value_len}, false);
}

int bridge_header_clear(struct worker *worker, double handle, int message, const char *name, uint32_t name_len) {
  struct exchange *exchange = exchange_find(worker, handle);
  struct headers *headers;
  if (!exchange) return BRIDGE_STALE;
  int status = fields_to_change(exchange, message, &headers);
  if (status != BRIDGE_OK) return status;
  headers_remove(headers, (struct slice){name, name_len});
  return BRIDGE_OK;
}

int bridge_header_clear_alike(struct worker *worker, double handle, int message, const char *name, uint32_t name_len) {
  struct exchange *exchange = exchange_find(worker, handle);
  struct headers *headers;
  if (!exchange) return BRIDGE_STALE;
  int status = fields_to_change(exchange, message, &headers);
  if (status != BRIDGE_OK) return status;
  headers_remove_alike(headers, (struct slice){name, name_len});
  return BRIDGE_OK;
}

// ---- Fields whose names are known ----

enum { FIELD_NAMES_MOST = 1000, FIELD_NAME_BYTES = 128 };

uint32_t bridge_field_name(struct worker *worker, const char *name, uint32_t len) {
  struct slice text = {name, len};
  if (worker->field_name_count >= FIELD_NAMES_MOST || len > FIELD_NAME_BYTES || !headers_name_is_valid(text)) return 0;
  if (!worker->field_names) worker->field_names = calloc(FIELD_NAMES_MOST, sizeof *worker->field_names);
  char *kept = worker->field_names ? malloc(len) : NULL;
  if (!kept) return 0;
  memcpy(kept, name, len);
  worker->field_names[worker->field_name_count++] = headers_name((struct slice){kept, len});
  return worker->field_name_count;
}

static const struct field_name *known_name(const struct worker *worker, uint32_t number) {
  return number > 0 && number <= worker->field_name_count ? &worker->field_names[number - 1] : NULL;
}

int bridge_field_get(struct worker *worker, double handle, int message, uint32_t name, uint32_t nth,
                     struct bytes *out) {
  struct exchange *exchange = exchange_find(worker, handle);
  const struct field_name *known = known_name(worker, name);
  if (!exchange) return BRIDGE_STALE;
  struct headers *headers = known ? fields_of(exchange, message) : NULL;
  if (!headers) return BRIDGE_INVALID;
  struct field *field = headers_find_name(headers, known, nth);
  return field ? give(out, field->value) : BRIDGE_NONE;
}

int bridge_field_only(struct worker *worker, double handle, int message, uint32_t name, struct bytes *out) {
  struct exchange *exchange = exchange_find(worker, handle);
  const struct field_name *known = known_name(worker, name);
  if (!exchange) return BRIDGE_STALE;
  struct headers *headers = known ? fields_of(exchange, message) : NULL;
  if (!headers) return BRIDGE_INVALID;
  bool several;
  struct field *field = headers_find_only(headers, known, &several);
  if (!field) return BRIDGE_NONE;
  give(out, field->value);
  return several ? BRIDGE_SEVERAL : BRIDGE_OK;
}

static int change_known(struct worker *worker, double handle, int message, uint32_t name, struct slice value,
                        bool replace) {
  struct exchange *exchange = exchange_find(worker, handle);
  const struct field_name *known = known_name(worker, name);
  if (!exchange) return BRIDGE_STALE;
  return known ? put_field(exchange, message, known, true, value, replace) : BRIDGE_INVALID;
}

int bridge_field_set(struct worker *worker, double handle, int message, uint32_t name, const char *value,
                     uint32_t value_len) {
  return change_known(worker, handle, message, name, (struct slice){value, value_len}, true);
}

int bridge_field_add(struct worker *worker, double handle, int message, uint32_t name, const char *value,
                     uint32_t value_len) {
  return change_known(worker, handle, message, name, (struct slice){value, value_len}, false);
}

// As Lua's tostring, which gives up to 14 digits.
static struct slice number_text(double value, char text[32]) {
  if (value >= 0 && value < 1e14 && value == (double)(uint64_t)value) return slice_of_number((uint64_t)value, text);
  int len = snprintf(text, 32, "%.14g", value);
  return (struct slice){text, (uint32_t)len};
}

int bridge_field_set_number(struct worker *worker, double handle, int message, uint32_t name, double value) {
  char text[32];
  return change_known(worker, handle, message, name, number_text(value, text), true);
}

int bridge_identity_clear(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  struct headers *headers;
  if (!exchange) return BRIDGE_STALE;
  int status = fields_to_change(exchange, MESSAGE_REQUEST, &headers);
  if (status != BRIDGE_OK) return status;
  headers_remove_identity(headers);
  exchange_distrust_trailers(exchange);
  return BRIDGE_OK;
}

static int tell(struct exchange *exchange, struct slice name, struct bytes value) {
  if (!value.data) return BRIDGE_OK;
  struct field_name whole = headers_name(name);
  return put_field(exchange, MESSAGE_REQUEST, &whole, true, (struct slice){value.data, value.len}, false);
}

int bridge_identity_set(struct worker *worker, double handle, const struct identity *identity) {
  static const struct bytes yes = {"true", 4}, no = {NULL, 0};
  int status = bridge_identity_clear(worker, handle);
  struct exchange *exchange = status == BRIDGE_OK ? exchange_find(worker, handle) : NULL;
  if (status == BRIDGE_OK) status = tell(exchange, SLICE("X-Consumer-ID"), identity->consumer_id);
  if (status == BRIDGE_OK) status = tell(exchange, SLICE("X-Consumer-Custom-ID"), identity->consumer_custom_id);
  if (status == BRIDGE_OK) status = tell(exchange, SLICE("X-Consumer-Username"), identity->consumer_username);
  if (status == BRIDGE_OK) status = tell(exchange, SLICE("X-Credential-Identifier"), identity->credential);
  if (status == BRIDGE_OK) status = tell(exchange, SLICE("X-Anonymous-Consumer"), identity->anonymous ? yes : no);
  return status;
}

// ---- Bodies and answers ----------------------------------------------------------------------------------------------

// `held`: the content in one piece, from when it was last asked for.
static int give_whole(struct exchange *exchange, const struct buffer *buffer, struct slice *held, struct bytes *out) {
  if (buffer->bytes == 0) return give(out, SLICE(""));
  const struct segment *first = &buffer->segments[buffer->head];
  if (first->len == buffer->bytes) return give(out, (struct slice){first->data, first->len});
  if (held->len != buffer->bytes) {
    char *whole = malloc(buffer->bytes);
    if (!whole || arena_defer(&exchange->arena, free, whole) < 0) {
      free(whole);
      return BRIDGE_FULL;
    }
    buffer_copy_out(buffer, whole);
    *held = (struct slice){whole, (uint32_t)buffer->bytes};
  }
  return give(out, *held);
}

int bridge_body(struct worker *worker, double handle, int message, struct bytes *out) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (message == MESSAGE_REQUEST) {
    int status = exchange_want_whole_body(exchange);
    if (status != BRIDGE_OK) return status;
    return give_whole(exchange, &exchange->request_body, &exchange->whole_body, out);
  }
  if (exchange->state != EXCHANGE_RESPONSE && !exchange->answered) return BRIDGE_LATE;
  return give_whole(exchange, &exchange->answer, &exchange->whole_answer, out);
}

int bridge_body_refused(struct worker *worker, double handle) {
  const struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? exchange->refusal : 0;
}

int bridge_body_take(struct worker *worker, double handle, struct bytes *out) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  struct slice piece;
  int status = exchange_take_body(exchange, &piece);
  return status == BRIDGE_OK ? give(out, piece) : status;
}

int bridge_body_keep(struct worker *worker, double handle, double most) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  return most >= 0 && most < UINT32_MAX ? exchange_copy_body(exchange, (uint64_t)most) : BRIDGE_INVALID;
}

int bridge_body_kept(struct worker *worker, double handle, struct bytes *out) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  bool lost;
  const struct buffer *copy = exchange_body_copy(exchange, &lost);
  if (!copy) return lost ? BRIDGE_FULL : BRIDGE_NONE;
  struct slice whole = {NULL, 0};
  return give_whole(exchange, copy, &whole, out);
}

int bridge_body_limit(struct worker *worker, double handle, double most) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  return most >= 1 && most < 0x1p53 ? exchange_limit_body(exchange, (uint64_t)most) : BRIDGE_INVALID;
}

// What plugins see of the length is that of the content as it is now.
static int tell_length(struct exchange *exchange, uint32_t len) {
  if (!headers_has(&exchange->response, FIELD_CONTENT_LENGTH)) return 0;
  char room[DIGITS_MOST];
  struct slice digits = slice_of_number(len, room);
  digits = arena_copy(&exchange->arena, digits.data, digits.len);
  if (!digits.data || exchange_fork_response(exchange) < 0) return ERROR_MEMORY;
  return headers_set(&exchange->response, &exchange->arena, SLICE("Content-Length"), digits);
}

int bridge_body_set(struct worker *worker, double handle, int message, const char *data, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (exchange_is_over(exchange)) return BRIDGE_OK;
  bool request = message == MESSAGE_REQUEST;
  if (request ? exchange->state > EXCHANGE_ACCESS : exchange->state != EXCHANGE_RESPONSE) return BRIDGE_LATE;
  struct buffer *buffer = request ? &exchange->request_body : &exchange->answer;
  buffer_clear(buffer);
  *(request ? &exchange->whole_body : &exchange->whole_answer) = (struct slice){NULL, 0};
  if (request) exchange->body_replaced = true;
  if (!request && tell_length(exchange, len) < 0) return BRIDGE_FULL;
  return buffer_append(buffer, data, len) < 0 ? BRIDGE_FULL : BRIDGE_OK;
}

int bridge_grpc_status(int http_status) {
  return (int)grpc_status_of(http_status);
}

int bridge_body_gather(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (exchange->state > EXCHANGE_ACCESS) return exchange_is_over(exchange) ? BRIDGE_OK : BRIDGE_LATE;
  exchange->wants_whole_response = true;
  return BRIDGE_OK;
}

int bridge_forwarded_set(struct worker *worker, double handle, int which, const char *value, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  struct slice text = {value, value ? len : 0};
  if (which < 0 || which >= FORWARDED_COUNT || !headers_value_is_valid(text)) return BRIDGE_INVALID;
  if (exchange->state > EXCHANGE_ACCESS) return exchange_is_over(exchange) ? BRIDGE_OK : BRIDGE_LATE;
  if (value) text = arena_copy(&exchange->arena, value, len);
  if (value && !text.data) return BRIDGE_FULL;
  if (!exchange->forwarded) {
    exchange->forwarded = arena_alloc(&exchange->arena, sizeof *exchange->forwarded);
    if (!exchange->forwarded) return BRIDGE_FULL;
    *exchange->forwarded = (struct forwarded_choice){0};
  }
  exchange->forwarded->set |= 1u << which;
  exchange->forwarded->values[which] = text;
  return BRIDGE_OK;
}

int bridge_request_identity(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (exchange->state > EXCHANGE_ACCESS) return exchange_is_over(exchange) ? BRIDGE_OK : BRIDGE_LATE;
  exchange->wants_identity = true;
  return BRIDGE_OK;
}

int bridge_response_encode(struct worker *worker, double handle, int coding, int level) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? exchange_encode(exchange, coding, level) : BRIDGE_STALE;
}

int bridge_exit(struct worker *worker, double handle, int status, const char *body, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? exchange_exit(exchange, status, body, len) : BRIDGE_STALE;
}

int bridge_break_off(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  exchange->broken = true;
  return BRIDGE_OK;
}

int bridge_exit_error(struct worker *worker, double handle, int status, const char *message, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? exchange_exit_error(exchange, status, message, len) : BRIDGE_STALE;
}

int bridge_early_hints(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? exchange_early_hints(exchange) : BRIDGE_STALE;
}

int bridge_exit_message(struct worker *worker, double handle, const char *message, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  exchange_exit_message(exchange, message, len);
  return BRIDGE_OK;
}

int bridge_stream_begin(struct worker *worker, double handle, int status) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? exchange_stream_begin(exchange, status) : BRIDGE_STALE;
}

int bridge_stream_send(struct worker *worker, double handle, const char *data, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? exchange_stream_send(exchange, data, len) : BRIDGE_STALE;
}

int bridge_stream_open(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  return exchange->state == EXCHANGE_STREAM && exchange->stream ? BRIDGE_OK : BRIDGE_CLOSED;
}

int bridge_stream_end(struct worker *worker, double handle) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? exchange_stream_end(exchange) : BRIDGE_STALE;
}

int bridge_websocket_close(struct worker *worker, double handle, int side, int code, const char *reason, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? exchange_close_websocket(exchange, side, code, (struct slice){reason, len}) : BRIDGE_STALE;
}

int bridge_websocket_bound(struct worker *worker, double handle, int side, double most) {
  struct exchange *exchange = exchange_find(worker, handle);
  return exchange ? exchange_bound_websocket(exchange, side, most) : BRIDGE_STALE;
}

int bridge_websocket_is_text(const char *data, uint32_t len) {
  return ws_utf8_is_valid((struct slice){data, len});
}

int bridge_websocket_is_code(int code) {
  return code >= 0 && code <= UINT16_MAX && ws_code_is_valid((uint16_t)code);
}

// ---- The service -----------------------------------------------------------------------------------------------------

int bridge_service_target(struct worker *worker, double handle, const char *host, uint32_t len, uint32_t port) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (len == 0 || len > 255 || port == 0 || port > 65535 || !is_visible((struct slice){host, len}))
    return BRIDGE_INVALID;
  if (exchange_is_over(exchange)) return BRIDGE_OK;
  if (exchange->state > EXCHANGE_SERVICE) return BRIDGE_LATE;
  // The name of an upstream means the upstream, as in a service's host.
  struct upstream *upstream = generation_find_upstream(exchange->generation, (struct slice){host, len});
  if (upstream) {
    exchange->upstream = upstream;
    exchange->service_host = (struct slice){NULL, 0};
    return BRIDGE_OK;
  }
  struct slice copy = arena_copy(&exchange->arena, host, len);
  if (!copy.data) return BRIDGE_FULL;
  exchange->service_host = copy;
  exchange->service_port = (uint16_t)port;
  return BRIDGE_OK;
}

int bridge_service_upstream(struct worker *worker, double handle, const char *name, uint32_t len) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  struct upstream *upstream = generation_find_upstream(exchange->generation, (struct slice){name, len});
  if (!upstream) return BRIDGE_NONE;
  exchange->upstream = upstream;
  exchange->service_host = (struct slice){NULL, 0};
  return BRIDGE_OK;
}

int bridge_service_use(struct worker *worker, double handle, uint32_t service) {
  struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  if (!exchange->route || service == 0 || service > exchange->generation->service_count) return BRIDGE_INVALID;
  if (exchange_is_over(exchange)) return BRIDGE_OK;
  if (exchange->state > EXCHANGE_SERVICE) return BRIDGE_LATE;
  return exchange_use_service(exchange, service);
}

static struct budget *budget_of(struct worker *worker, double number) {
  return number >= 1 && number <= UINT32_MAX ? budget_find(worker, (uint32_t)number) : NULL;
}

int bridge_service_retry_budget(struct worker *worker, double handle, double number) {
  struct exchange *exchange = exchange_find(worker, handle);
  struct budget *budget = budget_of(worker, number);
  if (!exchange) return BRIDGE_STALE;
  if (!budget) return BRIDGE_INVALID;
  exchange->retry_budget = budget;
  budget_earn(worker, budget);
  return BRIDGE_OK;
}

int bridge_service_hedge(struct worker *worker, double handle, double delay_s, double number) {
  struct exchange *exchange = exchange_find(worker, handle);
  struct budget *budget = budget_of(worker, number);
  if (!exchange) return BRIDGE_STALE;
  if (!budget || !(delay_s >= 0 && delay_s <= 3600)) return BRIDGE_INVALID;
  if (exchange->state >= EXCHANGE_SERVICE) return BRIDGE_LATE;
  budget_earn(worker, budget);
  return hedge_want(exchange, (int64_t)(delay_s * 1e6), budget) < 0 ? BRIDGE_FULL : BRIDGE_OK;
}

static double real_time(const struct exchange *exchange, int64_t mono_us) {
  return (double)(exchange->started_real_us + mono_us - exchange->started_us);
}

int bridge_try(struct worker *worker, double handle, uint32_t index, struct try_info *out) {
  const struct exchange *exchange = exchange_find(worker, handle);
  if (!exchange) return BRIDGE_STALE;
  const struct failed_try *failed = exchange->failed_tries;
  for (uint32_t i = 0; failed && i < index; i++) failed = failed->next;
  if (failed) {
    *out = (struct try_info){.port = failed->port, .status = (uint32_t)failed->status, .answered = failed->answered};
    out->begun_us = real_time(exchange, failed->begun_us);
    out->endpoint = endpoints_handle(worker->endpoints, failed->endpoint);
    give(&out->ip, slice_of(failed->ip));
    return BRIDGE_OK;
  }
  bool current = exchange->tries > 0 && !exchange->last_failed && exchange->target_port > 0;
  if (!current || index != exchange->failed_count) return BRIDGE_NONE;
  *out = (struct try_info){.port = exchange->target_port, .begun_us = real_time(exchange, exchange->try_begun_us)};
  out->endpoint = endpoints_handle(worker->endpoints, exchange->endpoint ? exchange->endpoint : exchange->left);
  return give(&out->ip, slice_of(exchange->target_ip));
}

// The exchange's own choice, made at its first use. NULL: the exchange is over, or no memory; `*status` says which.
static struct tls_choice *tls_choice_of(struct worker *worker, double handle, int *status) {
  struct exchange *exchange = exchange_find(worker, handle);
  *status = exchange ? BRIDGE_FULL : BRIDGE_STALE;
  if (!exchange) return NULL;
  if (!exchange->tls_choice) {
    exchange->tls_choice = arena_alloc(&exchange->arena, sizeof *exchange->tls_choice);
    if (!exchange->tls_choice) return NULL;
    *exchange->tls_choice = (struct tls_choice){.verify = -1, .depth = -1};
  }
  *status = BRIDGE_OK;
  return exchange->tls_choice;
}

int bridge_service_tls_verify(struct worker *worker, double handle, int verify) {
  int status;
  struct tls_choice *choice = tls_choice_of(worker, handle, &status);
  if (choice) choice->verify = verify != 0;
  return status;
}

int bridge_service_tls_depth(struct worker *worker, double handle, int depth) {
  int status;
  struct tls_choice *choice = tls_choice_of(worker, handle, &status);
  if (choice) choice->depth = (int16_t)depth;
  return status;
}

int bridge_service_tls_pair(struct worker *worker, double handle, const char *certificate_pem, const char *key_pem) {
  int status;
  struct tls_choice *choice = tls_choice_of(worker, handle, &status);
  if (!choice) return status;
  if (tls_check_pair(certificate_pem, key_pem, &worker->error) < 0) return BRIDGE_INVALID;
  struct arena *arena = &exchange_find(worker, handle)->arena;
  const char *certificate = arena_copy(arena, certificate_pem, strlen(certificate_pem)).data;
  const char *key = arena_copy(arena, key_pem, strlen(key_pem)).data;
  if (!certificate || !key) return BRIDGE_FULL;
  choice->certificate_pem = certificate;
  choice->key_pem = key;
  return BRIDGE_OK;
}

// The handshake that a plugin of phase certificate looks at; NULL: there is none any more.
static struct tls *greeting(struct worker *worker, double handle, int *status) {
  struct exchange *exchange = exchange_find(worker, handle);
  *status = !exchange ? BRIDGE_STALE : !exchange->stream || exchange->ops ? BRIDGE_LATE : BRIDGE_OK;
  return *status == BRIDGE_OK ? stream_tls(exchange->stream) : NULL;
}

int bridge_tls_forget_session(struct worker *worker, double handle) {
  int status;
  struct tls *tls = greeting(worker, handle, &status);
  if (tls) tls_forget_session(tls);
  return status;
}

int bridge_tls_ask_client(struct worker *worker, double handle, const char *authorities, uint32_t len) {
  int status;
  struct tls *tls = greeting(worker, handle, &status);
  if (tls && tls_ask_client(tls, (struct slice){authorities, len}, &worker->error) < 0) return BRIDGE_INVALID;
  return status;
}

int bridge_tls_certificate(struct worker *worker, double handle, const char *certificate_pem, const char *key_pem) {
  int status;
  struct tls *tls = greeting(worker, handle, &status);
  if (!tls) return status;
  return tls_set_certificate(tls, certificate_pem, key_pem, &worker->error) < 0 ? BRIDGE_INVALID : BRIDGE_OK;
}

// ---- Time, chance, log, the master -----------------------------------------------------------------------------------

double bridge_now(struct worker *worker) {
  return (double)worker->loop.clock.real_us / 1e6;
}

double bridge_mono(struct worker *worker) {
  return (double)worker->loop.clock.mono_us / 1e6;
}

double bridge_mono_fresh(struct worker *worker) {
  struct clock clock;
  (void)worker;
  clock_init(&clock);
  return (double)clock.mono_us / 1e6;
}

double bridge_mono_exact(struct worker *worker) {
  return worker->loop.clock.manual ? bridge_mono(worker) : bridge_mono_fresh(worker);
}

int bridge_random(struct worker *worker, char *out, uint32_t len) {
  if (worker->seeded) {
    for (uint32_t i = 0; i < len; i++) out[i] = (char)worker_random(worker);
    return BRIDGE_OK;
  }
  while (len > 0) {
    ssize_t n = getrandom(out, len, 0);
    if (n <= 0) return BRIDGE_FAILED;
    out += n;
    len -= (uint32_t)n;
  }
  return BRIDGE_OK;
}

int bridge_worker_id(struct worker *worker) {
  return worker->options.id;
}

void bridge_log(struct worker *worker, int level, const char *message, const char *const *pairs, uint32_t pair_count) {
  if (level < LOG_DEBUG || level > LOG_CRIT) return;
  log_pairs(&worker->log, (enum log_level)level, message, pairs, pair_count);
}

struct board *bridge_board(struct worker *worker) {
  return worker->board;
}

int bridge_report(struct worker *worker, const char *line, uint32_t len) {
  if (worker->control) return control_send(worker->control, line, len) < 0 ? BRIDGE_CLOSED : BRIDGE_OK;
  free(worker->last_report);
  worker->last_report = strndup(line, len);
  return BRIDGE_OK;
}
