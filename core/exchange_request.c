// SPDX-License-Identifier: Apache-2.0
// An exchange on its way to the service: head, route, plugins before the service, content.
#include <stdio.h>

#include "exchange_parts.h"
#include "exchange_talk.h"
#include "forward.h"
#include "grpc.h"
#include "router.h"
#include "stream.h"
#include "tls.h"
#include "try.h"
#include "uri.h"
#include "worker.h"

enum { BODY_HIGH_WATER = 256 * 1024, SERVICE_TIMEOUT_MS = 60000, SERVICE_RETRIES = 5 };

// ---- From the head to the service ------------------------------------------------------------------------------------

static void exchange_access(struct exchange *exchange);
static void exchange_refuse_content(struct exchange *exchange);

void exchange_forward(struct exchange *exchange) {
  if (!exchange->service && exchange->service_host.len == 0 && !exchange->upstream) {
    exchange_fail(exchange, 503, "no Service found with those values");
    return;
  }
  if (exchange->body_taken) { // a part of its content is gone: the plugin was to answer
    exchange_fail(exchange, 500, UNEXPECTED);
    return;
  }
  exchange_move(exchange, EXCHANGE_SERVICE);
  if (exchange->request.upgrade) exchange_offer_websocket(exchange);
  exchange->sent_us = exchange->worker->loop.clock.mono_us;
  try_begin(exchange);
}

// What a phase came to, in rewrite and access: go on, answer, or fail.
void exchange_after_phase(struct exchange *exchange, enum phase_result result, void (*next)(struct exchange *)) {
  if (exchange->state == EXCHANGE_STREAM) {
    // The plugin that streamed has returned, whatever it said: the response is over, unless others go on with it.
    if (result == PHASE_FAILED)
      exchange_cut(exchange, 500, UNEXPECTED);
    else if (exchange->detached)
      exchange_rest(exchange);
    else
      exchange_send_end(exchange);
    return;
  }
  if (exchange->state == EXCHANGE_TUNNEL) { // it had been the other end of a WebSocket
    talk_on_phase_end(exchange, result == PHASE_FAILED);
    return;
  }
  if (exchange->broken)
    exchange_break_off(exchange);
  else if (result == PHASE_FAILED)
    exchange_fail(exchange, 500, UNEXPECTED);
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
  struct slice host = exchange->host, path = exchange->raw_path, query = exchange->query;
  size_t room = sizeof "https://?" + host.len + path.len + query.len;
  char *url = arena_alloc(&exchange->arena, room);
  if (!url) {
    exchange_fail(exchange, 500, UNEXPECTED);
    return;
  }
  int len = snprintf(url, room, "https://%.*s%.*s%s%.*s", (int)host.len, host.data, (int)path.len, path.data,
                     exchange->has_query ? "?" : "", (int)query.len, query.len ? query.data : "");
  headers_add(&exchange->preset, &exchange->arena, SLICE("Location"), (struct slice){url, (uint32_t)len});
  exchange_fail(exchange, status, "Please use HTTPS protocol");
}

static bool find_header(const void *context, struct slice name, uint32_t nth, struct slice *value) {
  const struct field *field = headers_find(context, name, nth);
  if (field) *value = field->value;
  return field != NULL;
}

static void take_service(struct exchange *exchange, uint32_t index) {
  exchange->service = &exchange->generation->services[index];
  exchange->connect_timeout_ms = exchange->service->connect_timeout_ms;
  exchange->send_timeout_ms = exchange->service->send_timeout_ms;
  exchange->read_timeout_ms = exchange->service->read_timeout_ms;
  exchange->retries = exchange->service->retries;
}

void exchange_take_route(struct exchange *exchange, uint32_t index) {
  struct generation *generation = exchange->generation;
  exchange->route_index = index;
  exchange->route = &generation->routes[index];
  exchange->phases = exchange->route->phases;
  exchange->wants_identity |= exchange->route->identity;
  // Without a service a plugin may say where to go; Kong's defaults of a service hold there.
  exchange->connect_timeout_ms = exchange->send_timeout_ms = exchange->read_timeout_ms = SERVICE_TIMEOUT_MS;
  exchange->retries = SERVICE_RETRIES;
  if (exchange->route->service) take_service(exchange, exchange->route->service);
}

int exchange_use_service(struct exchange *exchange, uint32_t index) {
  // A path that somebody has looked at is kept on the exchange, and is the old service's: one that a plugin has set
  // stays.
  if (exchange->service_path.data && exchange->match) {
    struct slice set = exchange->service_path, path, query;
    bool has_query;
    exchange->service_path = (struct slice){NULL, 0};
    if (forward_target(exchange, &path, &query, &has_query) < 0) return BRIDGE_FULL;
    exchange->service_path = slice_equal(path, set) ? (struct slice){NULL, 0} : set;
  }
  exchange->upstream = NULL;
  exchange->service_host = (struct slice){NULL, 0};
  exchange->service_port = 0;
  exchange->service_tls = -1;
  take_service(exchange, index);
  return BRIDGE_OK;
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
    exchange_fail(exchange, 500, UNEXPECTED);
  return true;
}

// One for WebSockets takes nothing else either.
static bool fits_websocket_route(struct exchange *exchange) {
  const struct field *upgrade = headers_find_id(&exchange->request.headers, FIELD_UPGRADE);
  bool asks = exchange->request.upgrade && upgrade && slice_equal_nocase(upgrade->value, SLICE("websocket"));
  if (asks) return true;
  headers_add(&exchange->preset, &exchange->arena, SLICE("Upgrade"), SLICE("websocket"));
  exchange_fail(exchange, 426, "Please use WebSocket protocol");
  return false;
}

// A route for gRPC is found like every other, and then takes nothing else. False: answered.
static bool fits_grpc_route(struct exchange *exchange, bool needs_tls) {
  if (!exchange_is_grpc(exchange)) {
    exchange_fail(exchange, 415, "Non-gRPC request matched gRPC route");
  } else if (exchange->request.major < 2) {
    headers_add(&exchange->preset, &exchange->arena, SLICE("Connection"), SLICE("Upgrade"));
    headers_add(&exchange->preset, &exchange->arena, SLICE("Upgrade"), SLICE("HTTP/2"));
    exchange_fail(exchange, 426, "Please use HTTP2 protocol");
  } else if (needs_tls) {
    exchange->grpc_status = GRPC_CANCELLED; // as Kong answers
    exchange_fail(exchange, 426, "gRPC request matched gRPCs route");
  } else {
    return true;
  }
  return false;
}

void exchange_route(struct exchange *exchange) {
  if (exchange->own_route) {
    exchange_take_route(exchange, exchange->own_route);
    exchange_access(exchange);
    return;
  }
  bool tls = exchange->peer.tls;
  bool secure = slice_equal(forward_scheme(exchange), SLICE("https"));
  struct router_request request = {
      .method = exchange->request.method,
      .host = exchange->host,
      .path = exchange->path,
      .sni = exchange->tls_sni,
      .port = exchange->port ? exchange->port
              : secure       ? 443
                             : 80,
      .tls = tls,
      .secure = secure,
      .header = find_header,
      .context = &exchange->request.headers,
  };
  exchange->match = arena_alloc(&exchange->arena, sizeof *exchange->match);
  if (!exchange->match) {
    exchange_fail(exchange, 500, UNEXPECTED);
    return;
  }
  enum router_outcome outcome = router_match(exchange->generation->router, &request, exchange->match);
  if (answer_unrouted(exchange, outcome)) return;
  exchange_take_route(exchange, exchange->match->route);
  if (exchange->route->grpc && !fits_grpc_route(exchange, outcome == ROUTER_NEEDS_TLS)) return;
  if (exchange->route->websocket && !fits_websocket_route(exchange)) return;
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
  else if (exchange_run(exchange, exchange->route_index, PHASE_ACCESS, &result))
    exchange_after_phase(exchange, result, exchange_forward);
}

static void exchange_rewrite(struct exchange *exchange) {
  exchange_move(exchange, EXCHANGE_REWRITE);
  enum phase_result result = PHASE_DONE;
  if (!(exchange->phases & (1u << PHASE_REWRITE)))
    exchange_route(exchange);
  else if (exchange_run(exchange, ROUTE_NONE, PHASE_REWRITE, &result))
    exchange_after_phase(exchange, result, exchange_route);
}

// The status listener, and that for other workers, know no routes: one handler answers.
static void exchange_status(struct exchange *exchange) {
  exchange_move(exchange, EXCHANGE_REWRITE);
  exchange_move(exchange, EXCHANGE_ACCESS);
  exchange->route_index = ROUTE_STATUS;
  exchange->phases = 0;
  enum phase_result result;
  if (exchange_run(exchange, ROUTE_STATUS, PHASE_ACCESS, &result))
    exchange_after_phase(exchange, result, exchange_forward);
}

// An absolute target's authority wins over Host (RFC 9112 3.2.2), but there must be one Host field all the same.
static bool read_host(struct exchange *exchange, struct slice authority) {
  const struct headers *headers = &exchange->request.headers;
  struct field *field = headers_find_id(headers, FIELD_HOST);
  if (!field && is_http_1_0(exchange)) return true;
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
  exchange->authority = authority.len ? authority : field->value;
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

// CONNECT asks for a tunnel to anywhere, which a gateway in front of its services is not for (RFC 9110 9.3.6). What is
// allowed must be told (RFC 9110 15.5.6).
static void refuse_method(struct exchange *exchange) {
  headers_add(&exchange->preset, &exchange->arena, SLICE("Allow"),
              SLICE("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE"));
  exchange_refuse(exchange, 405, "CONNECT is not allowed");
}

static bool check_request(struct exchange *exchange) {
  struct h1_message *request = &exchange->request;
  const struct limits *limits = &exchange->generation->limits;
  struct field *expect = headers_find_id(&request->headers, FIELD_EXPECT);
  if (request->major != 1 && request->major != 2) {
    exchange_refuse(exchange, 505, "HTTP version not supported");
  } else if (slice_equal(request->method, SLICE("CONNECT"))) {
    refuse_method(exchange);
  } else if (expect && !slice_equal_nocase(expect->value, SLICE("100-continue"))) {
    exchange_refuse(exchange, 417, "Expectation Failed");
  } else if (request->chunked && is_http_1_0(exchange)) {
    exchange_refuse(exchange, 400, "Transfer-Encoding in a request of HTTP/1.0");
  } else if (limits->max_body_bytes > 0 && request->content_length > limits->max_body_bytes) {
    exchange_refuse(exchange, 413, "Request body is too large");
  } else {
    return true;
  }
  return false;
}

void exchange_note_tls(struct exchange *exchange) {
  struct tls_info info;
  tls_info(stream_tls(exchange->stream), &info);
  exchange->tls_version = info.version;
  exchange->tls_cipher = info.cipher;
  if (info.sni) exchange->tls_sni = arena_copy(&exchange->arena, info.sni, strlen(info.sni));
}

bool exchange_stand(struct exchange *exchange) {
  exchange->generation = generation_retain(exchange->worker->generation);
  exchange->route = exchange->generation->routes;
  if (!check_request(exchange) || !read_target(exchange)) return false;
  exchange_take_route(exchange, exchange->own_route);
  exchange->phases = 0;
  exchange->unlogged = exchange->still = true;
  exchange->entered_lua = true; // an object will stand for it there
  exchange->worker->board->exchanges--;
  return true;
}

void exchange_on_head(struct exchange *exchange) {
  struct worker *worker = exchange->worker;
  if (!worker->generation) {
    exchange_refuse(exchange, 503, "The gateway is starting");
    return;
  }
  exchange->generation = generation_retain(worker->generation);
  exchange->body_most = (uint64_t)exchange->generation->limits.max_body_bytes;
  exchange->route = exchange->generation->routes;
  exchange->phases = exchange->route->phases;
  if (exchange->peer.tls) exchange_note_tls(exchange);
  exchange_note_grpc(exchange);
  if (exchange->grpc && !exchange_take_deadline(exchange)) return;
  if (!check_request(exchange) || !read_target(exchange)) return;
  forward_mark_hop_by_hop(&exchange->request.headers);
  const struct listener *listener = exchange->stream->listener;
  if (listener && (listener->kind == LISTEN_STATUS || listener->kind == LISTEN_PEERS))
    exchange_status(exchange);
  else
    exchange_rewrite(exchange);
}

// ---- Request content -------------------------------------------------------------------------------------------------

// A plugin that streams its answer may begin to take the content a moment later.
static bool body_is_wanted(const struct exchange *exchange) {
  if (exchange->body_replaced || exchange->body_passed) return false;
  if (exchange->state < EXCHANGE_RESPONSE || exchange->try) return true;
  return exchange->state == EXCHANGE_STREAM; // see throttle_request
}

// From here on there is a hole in it.
static void pass_body(struct exchange *exchange) {
  exchange->body_passed = true;
  buffer_clear(&exchange->request_body);
}

// Whoever streams an answer without a look at the content keeps nobody from sending it.
static void throttle_request(struct exchange *exchange) {
  if (!exchange->stream || exchange->body_buffering || exchange->request_body.bytes <= BODY_HIGH_WATER) return;
  if (exchange->state == EXCHANGE_STREAM && !exchange->body_taken)
    pass_body(exchange);
  else
    exchange->ops->want_body(exchange, false);
}

static const char *refusal_message(const struct exchange *exchange) {
  if (exchange->refusal == 413)
    return exchange->body_limited ? "Request size limit exceeded" : "Request body is too large";
  return exchange->refusal == 408 ? "The request did not arrive in time" : "The framing of the request body is broken";
}

static void exchange_refuse_content(struct exchange *exchange) {
  exchange_refuse(exchange, exchange->refusal, refusal_message(exchange));
}

// The rest of the request is of no use. Who waits for it hears so; otherwise the client does, while it can.
static void refuse_content(struct exchange *exchange, uint16_t status) {
  exchange->refusal = status;
  buffer_clear(&exchange->request_body);
  exchange_wake(exchange, &exchange->body_waiter, BRIDGE_FULL);
  if (exchange->waiting || exchange->state >= EXCHANGE_LOG) return; // see exchange_after_phase
  if (exchange->try) try_abandon(exchange);
  if (exchange->head_sent)
    exchange_cut(exchange, status, refusal_message(exchange));
  else
    exchange_refuse_content(exchange);
}

int exchange_limit_body(struct exchange *exchange, uint64_t most) {
  bool announced = exchange->request.content_length > 0 && (uint64_t)exchange->request.content_length > most;
  if (announced || exchange->body_received > most || exchange->refusal) return BRIDGE_FULL;
  if (exchange->body_most > 0 && exchange->body_most <= most) return BRIDGE_OK;
  exchange->body_most = most;
  exchange->body_limited = true;
  return BRIDGE_OK;
}

void exchange_on_bad_body(struct exchange *exchange) {
  refuse_content(exchange, 400);
}

void exchange_on_late_body(struct exchange *exchange) {
  refuse_content(exchange, 408);
}

void exchange_on_body(struct exchange *exchange, struct chunk *chunk, struct slice piece) {
  const struct limits *limits = &exchange->generation->limits;
  exchange->body_received += piece.len;
  exchange->request_bytes += piece.len;
  if (exchange->refusal) return;
  if (exchange->body_most > 0 && exchange->body_received > exchange->body_most && exchange->state != EXCHANGE_TUNNEL) {
    refuse_content(exchange, 413);
    return;
  }
  if (exchange->websocket && exchange->state == EXCHANGE_TUNNEL) {
    websocket_on_client(exchange, chunk, piece);
    return;
  }
  if (exchange->talk) {
    talk_on_client(exchange, chunk, piece);
    return;
  }
  if (exchange->copy) exchange_copy_piece(exchange, piece);
  if (!body_is_wanted(exchange)) return;
  if (buffer_append_piece(&exchange->request_body, chunk, piece.data, piece.len) < 0) {
    exchange_cut(exchange, 500, UNEXPECTED);
    return;
  }
  if (exchange->body_buffering && exchange->request_body.bytes > (uint64_t)limits->max_buffered_body_bytes) {
    exchange->body_buffering = false; // too large for who asked; it goes on to the service piece by piece
    exchange_wake(exchange, &exchange->body_waiter, BRIDGE_FULL);
  }
}

void exchange_on_body_settled(struct exchange *exchange) {
  if (exchange->request_body.bytes == 0 || exchange->body_buffering) return;
  if (exchange->body_taken) exchange_wake(exchange, &exchange->body_waiter, BRIDGE_OK);
  if (exchange->try)
    try_on_request(exchange);
  else
    throttle_request(exchange);
}

void exchange_distrust_trailers(struct exchange *exchange) {
  exchange->vouched = true;
  if (exchange->request.trailers.count) headers_remove_identity(&exchange->request.trailers);
}

void exchange_on_request_end(struct exchange *exchange) {
  if (exchange->websocket && exchange->state == EXCHANGE_TUNNEL) {
    websocket_on_client_end(exchange);
    return;
  }
  if (exchange->talk) {
    talk_on_client_end(exchange);
    return;
  }
  exchange->request_complete = true;
  if (exchange->vouched) exchange_distrust_trailers(exchange);
  if (exchange->body_waiter != 0)
    exchange_wake(exchange, &exchange->body_waiter, BRIDGE_OK);
  else if (exchange->try && !exchange->body_replaced)
    try_on_request(exchange);
}

// The client waits for a sign before it sends its content (RFC 9110 10.1.1): now somebody wants it.
static void invite_body(struct exchange *exchange) {
  if (exchange->sent_continue || exchange->request_complete || exchange->body_received > 0) return;
  if (exchange->head_sent || !exchange->stream) return;
  exchange->sent_continue = true;
  if (headers_has(&exchange->request.headers, FIELD_EXPECT) && !is_http_1_0(exchange))
    exchange->ops->interim(exchange, 100, NULL);
}

int exchange_want_whole_body(struct exchange *exchange) {
  const struct limits *limits = &exchange->generation->limits;
  if (exchange->refusal || exchange->request_body.bytes > (uint64_t)limits->max_buffered_body_bytes) return BRIDGE_FULL;
  if (exchange->body_taken) return BRIDGE_LATE;
  if (exchange->request_complete || exchange->body_replaced) return BRIDGE_OK;
  if (!exchange->stream || exchange->state < EXCHANGE_REWRITE || exchange->state >= EXCHANGE_SERVICE)
    return BRIDGE_LATE;
  exchange->body_buffering = true;
  exchange->body_waiter = phase_self(exchange->worker);
  invite_body(exchange);
  exchange->ops->want_body(exchange, true);
  return BRIDGE_AGAIN;
}

// Content is taken while the plugin waits in access, before it answers or while it streams its answer.
static bool body_can_be_taken(const struct exchange *exchange) {
  if (exchange->body_replaced || exchange->body_buffering) return false;
  return exchange->state == EXCHANGE_ACCESS || exchange->state == EXCHANGE_STREAM;
}

int exchange_take_body(struct exchange *exchange, struct slice *piece) {
  if (exchange_is_over(exchange)) return BRIDGE_CLOSED;
  if (exchange->refusal) return BRIDGE_FULL;
  if (!body_can_be_taken(exchange)) return BRIDGE_LATE;
  if (exchange->body_passed) {
    error_set(&exchange->worker->error, ERROR_INVALID, "the body has passed by the answer that is streamed");
    return BRIDGE_FAILED;
  }
  exchange->body_taken = true;
  buffer_consume(&exchange->request_body, exchange->piece_bytes);
  exchange->piece_bytes = 0;
  if (exchange->request_body.bytes > 0) {
    const struct segment *first = &exchange->request_body.segments[exchange->request_body.head];
    *piece = (struct slice){first->data, (uint32_t)first->len};
    exchange->piece_bytes = piece->len;
    return BRIDGE_OK;
  }
  if (exchange->request_complete) return BRIDGE_NONE;
  if (!exchange->stream) return BRIDGE_CLOSED;
  exchange_wake(exchange, &exchange->body_waiter, BRIDGE_CLOSED); // there is one who takes
  exchange->body_waiter = phase_self(exchange->worker);
  invite_body(exchange);
  exchange->ops->want_body(exchange, true);
  return BRIDGE_AGAIN;
}

void exchange_on_service_drained(struct exchange *exchange) {
  exchange->service_full = false;
  if (exchange->websocket && exchange->state == EXCHANGE_TUNNEL) {
    websocket_on_drained(exchange);
    return;
  }
  invite_body(exchange);
  if (exchange->stream && !exchange->request_complete) exchange->ops->want_body(exchange, true);
}
