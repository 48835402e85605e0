// SPDX-License-Identifier: Apache-2.0
// The client's side over HTTP/1.1.
//
//   idle ──bytes──> head ──> exchange ──response whole──> idle (or the next pipelined request)
//                                   └──> lingering: answered, but the client still sends; read and drop, then close
#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "answer.h"
#include "exchange.h"
#include "forward.h"
#include "h2_server.h"
#include "proxy_input.h"
#include "tls.h"
#include "worker.h"

enum { LINGER_BYTES = 1 << 20, LINGER_MS = 2000, HEAD_SLACK = 4096, REQUESTS_A_TURN = 32 };

static void server_pump(struct server *server);
static void server_read_proxy(struct server *server);
static void server_rest(struct server *server);
static void server_on_read(struct conn *conn);
static void server_on_write(struct conn *conn);
static void server_on_deadline(struct conn *conn);

static struct server *server_of_stream(const struct exchange *exchange) {
  return (struct server *)(void *)exchange->stream;
}

static struct server *server_of_conn(struct conn *conn) {
  return (struct server *)(void *)((char *)conn - offsetof(struct server, conn));
}

static void server_timeout(struct server *server, int64_t ms) {
  conn_deadline(&server->conn, ms > 0 ? server->stream.worker->loop.clock.mono_us + ms * 1000 : 0);
}

// ---- Closing -------------------------------------------------------------------------------------------------------

void server_close(struct server *server) {
  struct worker *worker = server->stream.worker;
  if (server->conn.closed) return;
  if (job_is_queued(&server->flush_job)) conn_flush(&server->conn);
  queue_drop(&server->flush_job);
  conn_close(&server->conn);
  struct exchange *exchange = server->exchange;
  server->exchange = NULL;
  if (exchange) exchange_on_gone(exchange);
  if (server->h2) h2_server_close(server->h2);
  server->h2 = NULL;
  if (server->previous)
    server->previous->next = server->next;
  else
    worker->servers = server->next;
  if (server->next) server->next->previous = server->previous;
  worker->server_count--;
  worker->board->connections_open--;
  stream_close(&server->stream);
  proxy_input_free(server->proxy);
  queue_drop(&server->next_job);
  worker_bury(worker, &server->grave, server);
}

// Closing with unread input would reset the connection and could destroy the answer on its way: so the write side is
// shut first, and what still comes is read and dropped, within bounds.
static void server_linger(struct server *server) {
  if (server->lingering) return;
  server->lingering = true;
  if (server->conn.eof || server->conn.failed) {
    server_close(server);
    return;
  }
  conn_finish(&server->conn);
  server_timeout(server, LINGER_MS);
  conn_consume(&server->conn, conn_input(&server->conn).len);
  conn_resume(&server->conn);
}

static void server_drop_input(struct server *server) {
  for (int turns = 0; turns < 16; turns++) {
    int64_t n = conn_fill(&server->conn);
    if (n == CONN_AGAIN) return;
    server->lingered_bytes += n > 0 ? n : 0;
    if (n <= 0 || server->lingered_bytes > LINGER_BYTES) {
      server_close(server);
      return;
    }
    conn_consume(&server->conn, (uint32_t)n);
  }
}

void server_close_after_write(struct server *server) {
  server->closing = true;
  server->conn.on_read = server_on_read; // whatever was spoken, the rest is the same
  server->conn.on_write = server_on_write;
  server->conn.on_deadline = server_on_deadline;
  conn_flush(&server->conn);
  server_timeout(server, worker_limits(server->stream.worker)->send_timeout_ms);
  conn_pause(&server->conn); // what still comes is dropped once it can no longer destroy the answer
  if (server->conn.failed)
    server_close(server);
  else if (server->conn.out.bytes == 0)
    server_linger(server);
}

void server_retire(struct server *server) {
  if (server->h2 && !server->closing) {
    h2_server_retire(server->h2);
    return;
  }
  // Another request waits, whose answer will say that it is the last; or that has been said already.
  if (job_is_queued(&server->next_job) || server->closing) return;
  if (!server->exchange && server->conn.out.bytes == 0)
    server_close(server);
  else
    server->keep_alive = false;
}

// ---- Responses -----------------------------------------------------------------------------------------------------

struct writer {
  char *at;
};

static void put(struct writer *writer, struct slice text) {
  if (text.len) memcpy(writer->at, text.data, text.len);
  writer->at += text.len;
}

static void put_field(struct writer *writer, struct slice name, struct slice value) {
  put(writer, name);
  put(writer, SLICE(": "));
  put(writer, value);
  put(writer, SLICE("\r\n"));
}

static void put_number(struct writer *writer, uint64_t number) {
  char digits[DIGITS_MOST];
  put(writer, slice_of_number(number, digits));
}

static void put_status_line(struct writer *writer, int status, struct slice reason) {
  put(writer, SLICE("HTTP/1.1 "));
  put_number(writer, (uint64_t)status);
  put(writer, SLICE(" "));
  put(writer, reason.data ? reason : slice_of(answer_reason(status)));
  put(writer, SLICE("\r\n"));
}

static size_t fields_bound(const struct headers *fields) {
  size_t bound = 512;
  for (uint32_t i = 0; i < fields->count; i++) bound += fields->fields[i].name.len + fields->fields[i].value.len + 4;
  return bound;
}

// `via`: those fields too, which else go into one with ours.
static void put_fields(struct writer *writer, const struct headers *fields, bool via) {
  for (uint32_t i = 0; i < fields->count; i++) {
    const struct field *field = &fields->fields[i];
    if (field->id == FIELD_CONTENT_LENGTH || forward_is_hop_by_hop(field)) continue;
    if (field->id == FIELD_VIA && !via) continue;
    put_field(writer, field->name, field->value);
  }
}

static void put_via(struct writer *writer, const struct exchange *exchange) {
  put(writer, SLICE("Via: "));
  for (uint32_t i = 0; headers_has(&exchange->response, FIELD_VIA) && i < exchange->response.count; i++) {
    const struct field *field = &exchange->response.fields[i];
    if (field->id != FIELD_VIA) continue;
    put(writer, field->value);
    put(writer, SLICE(", "));
  }
  put(writer, forward_via(&exchange->service_message));
  put(writer, SLICE("\r\n"));
}

static void put_connection(struct writer *writer, const struct server *server, const struct exchange *exchange) {
  if (exchange->state == EXCHANGE_TUNNEL) {
    struct field *upgrade = headers_find_id(&exchange->response, FIELD_UPGRADE);
    put(writer, SLICE("Connection: Upgrade\r\n"));
    if (upgrade) put_field(writer, SLICE("Upgrade"), upgrade->value);
  } else if (exchange->status == 426) {
    struct field *upgrade = headers_find_id(&exchange->response, FIELD_UPGRADE);
    put(writer, server->keep_alive ? SLICE("Connection: Upgrade\r\n") : SLICE("Connection: Upgrade, close\r\n"));
    if (upgrade) put_field(writer, SLICE("Upgrade"), upgrade->value);
  } else if (!server->keep_alive) {
    put(writer, SLICE("Connection: close\r\n"));
  } else if (is_http_1_0(exchange)) {
    put(writer, SLICE("Connection: keep-alive\r\n"));
  }
}

static void put_framing(struct writer *writer, const struct exchange *exchange) {
  if (exchange->state == EXCHANGE_TUNNEL || exchange->status == 204) return;
  // A response to HEAD, or 304, may tell the length that the content would have (RFC 9110 8.6).
  if (exchange->response_length >= 0 && (exchange->response_length > 0 || exchange->status != 304)) {
    put(writer, SLICE("Content-Length: "));
    put_number(writer, (uint64_t)exchange->response_length);
    put(writer, SLICE("\r\n"));
  } else if (exchange->chunked_out) {
    put(writer, SLICE("Transfer-Encoding: chunked\r\n"));
  }
}

// Whether the client holds its content back until it is asked for it, and was not: from here on nobody can tell whether
// what comes is that, or another request (RFC 9110 10.1.1; curl sends one after 417).
static bool holds_content_back(const struct exchange *exchange) {
  return headers_has(&exchange->request.headers, FIELD_EXPECT) && !exchange->sent_continue &&
         !exchange->request_complete && exchange->body_received == 0;
}

// Whether another request may follow on this connection, as far as the head of the response shows.
static bool decide_keep_alive(const struct server *server, const struct exchange *exchange) {
  const struct limits *limits = worker_limits(server->stream.worker);
  bool has_end = exchange->response_length >= 0 || exchange->chunked_out || exchange->no_body_out;
  return server->keep_alive && exchange->request.keep_alive && !exchange->close_after && has_end &&
         !holds_content_back(exchange) && !server->stream.worker->draining && !server->h1.problem &&
         (limits->keepalive_requests == 0 || server->stream.peer.requests < limits->keepalive_requests);
}

// The fields as they were sent, for plugins of phase log: read back from the head itself.
static void note_sent_fields(struct exchange *exchange, struct slice head) {
  struct slice copy = arena_copy(&exchange->arena, head.data, head.len);
  if (!copy.data) return;
  headers_init(&exchange->response, UINT32_MAX);
  const char *line = strchr(copy.data, '\n') + 1;
  for (const char *end; (end = strchr(line, '\r')) != line; line = end + 2) {
    const char *colon = memchr(line, ':', (size_t)(end - line));
    headers_add(&exchange->response, &exchange->arena, (struct slice){line, (uint32_t)(colon - line)},
                (struct slice){colon + 2, (uint32_t)(end - colon - 2)});
  }
}

// A head that fits no chunk: plugins have put too much into it.
static void send_bare_head(struct server *server, struct exchange *exchange) {
  static const char bare[] = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
  log_error(&server->stream.worker->log, "the head of a response is too large", "request", exchange_id(exchange));
  server->keep_alive = false;
  exchange->status = 500;
  exchange->no_body_out = true;
  exchange->chunked_out = false;
  if (buffer_append(&server->conn.out, bare, sizeof bare - 1) < 0) server->conn.failed = true;
}

static void server_head(struct exchange *exchange) {
  struct server *server = server_of_stream(exchange);
  struct clock *clock = &server->stream.worker->loop.clock;
  server->keep_alive = decide_keep_alive(server, exchange);
  size_t bound = fields_bound(&exchange->response) + exchange->reason.len;
  char *start = bound <= CHUNK_BYTES ? buffer_reserve(&server->conn.out, bound) : NULL;
  if (!start) {
    send_bare_head(server, exchange);
    return;
  }
  struct writer writer = {start};
  put_status_line(&writer, exchange_sent_status(exchange), exchange->reason);
  bool via = exchange->source == SOURCE_SERVICE && exchange_tells(exchange, TELL_VIA);
  put_fields(&writer, &exchange->response, !via);
  if (!headers_has(&exchange->response, FIELD_DATE))
    put_field(&writer, SLICE("Date"), (struct slice){clock_http_date(clock), 29});
  if (via)
    put_via(&writer, exchange);
  else if (exchange->source != SOURCE_SERVICE && !headers_has(&exchange->response, FIELD_SERVER) &&
           exchange_tells(exchange, TELL_SERVER))
    put(&writer, SLICE("Server: sluice\r\n"));
  put_framing(&writer, exchange);
  put_connection(&writer, server, exchange);
  put(&writer, SLICE("\r\n"));
  struct slice head = {start, (uint32_t)(writer.at - start)};
  exchange->response_bytes += head.len;
  buffer_commit(&server->conn.out, head.len);
  if (exchange->phases & (1u << PHASE_LOG)) note_sent_fields(exchange, head);
}

static void server_interim(struct exchange *exchange, int status, const struct headers *fields) {
  struct server *server = server_of_stream(exchange);
  size_t bound = fields ? fields_bound(fields) : 128;
  char *start = bound <= CHUNK_BYTES ? buffer_reserve(&server->conn.out, bound) : NULL;
  if (!start) return;
  struct writer writer = {start};
  put_status_line(&writer, status, (struct slice){NULL, 0});
  if (fields) put_fields(&writer, fields, false);
  put(&writer, SLICE("\r\n"));
  buffer_commit(&server->conn.out, (size_t)(writer.at - start));
  conn_flush(&server->conn);
}

static void server_body(struct exchange *exchange, struct chunk *chunk, const char *data, uint32_t len) {
  struct server *server = server_of_stream(exchange);
  struct buffer *out = &server->conn.out;
  exchange->response_bytes += len;
  int failed = 0;
  if (exchange->chunked_out) {
    char size[16];
    int digits = snprintf(size, sizeof size, "%x\r\n", len);
    failed |= buffer_append(out, size, (size_t)digits);
  }
  failed |= chunk ? buffer_append_piece(out, chunk, data, len) : buffer_append(out, data, len);
  if (exchange->chunked_out) failed |= buffer_append(out, "\r\n", 2);
  if (failed) server->conn.failed = true;
}

static void server_next_later(struct worker *worker, void *data) {
  (void)worker;
  server_pump(data);
}

static void server_flush_later(struct worker *worker, void *data) {
  (void)worker;
  struct server *server = data;
  conn_flush(&server->conn);
  if (!server->conn.failed) server_rest(server);
}

static void server_end(struct exchange *exchange, const struct headers *trailers) {
  struct server *server = server_of_stream(exchange);
  static const struct headers none;
  if (exchange->chunked_out && forward_last_chunk(trailers ? trailers : &none, &server->conn.out) < 0)
    server->conn.failed = true;
  server->exchange = NULL;
  h1_abandon(&server->h1);
  // What ends in this turn of the loop is written together at its end: whoever reads it is woken once, not for each.
  if (server->keep_alive && server->conn.out.bytes < CONN_LOW_WATER)
    worker_write_later(server->stream.worker, server_flush_later, server, &server->flush_job);
  else
    conn_flush(&server->conn);
  if (server->conn.failed) return; // the loop closes it
  if (server->request_open) server_timeout(server, worker_limits(server->stream.worker)->body_timeout_ms);
  if (!server->keep_alive) {
    server_close_after_write(server);
  } else if (!server->pumping) {
    // Input that has come meanwhile is looked at when the stack is no longer the exchange's.
    if (conn_input(&server->conn).len > 0 || server->conn.eof || server->request_open)
      worker_later_call(server->stream.worker, server_next_later, server, &server->next_job);
    else
      server_pump(server);
  }
}

static void server_abort(struct exchange *exchange) {
  struct server *server = server_of_stream(exchange);
  server->exchange = NULL;
  server->keep_alive = false;
  conn_flush(&server->conn);
  // Nothing may look like a regular end: no last chunk, no quiet FIN where the connection's end is the content's.
  if (!exchange->chunked_out && exchange->response_length < 0 && server->conn.fd >= 0) {
    struct linger reset = {1, 0};
    setsockopt(server->conn.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    server->conn.failed = true; // and no close_notify
  }
  server_close(server);
}

static void server_flush(struct exchange *exchange) {
  struct server *server = server_of_stream(exchange);
  conn_flush(&server->conn);
  if (server->conn.out.bytes > 0) server_timeout(server, worker_limits(server->stream.worker)->send_timeout_ms);
}

static bool server_is_congested(const struct exchange *exchange) {
  return conn_is_congested(&server_of_stream(exchange)->conn);
}

// From now on the client has to go on with its request, if there is more of it.
static void await_body(struct server *server) {
  bool owes = server->request_open && !server->tunnel;
  server_timeout(server, owes ? worker_limits(server->stream.worker)->body_timeout_ms : 0);
}

static void server_want_body(struct exchange *exchange, bool wanted) {
  struct server *server = server_of_stream(exchange);
  server->want_body = wanted;
  if (!wanted) {
    if (!server->conn.eof) conn_pause(&server->conn);
    return;
  }
  if (!server->request_open || server->pumping) return;
  if (!server->conn.reading) await_body(server);
  conn_resume(&server->conn);
  if (conn_input(&server->conn).len > 0)
    worker_later_call(server->stream.worker, server_next_later, server, &server->next_job);
}

static void server_tunnel(struct exchange *exchange) {
  struct server *server = server_of_stream(exchange);
  server->tunnel = server->conn.frugal = true;
  server->keep_alive = false;
  server->request_open = true;
  server_timeout(server, 0);
  server_want_body(exchange, true);
}

static const struct stream_ops server_ops = {
    .head = server_head,
    .interim = server_interim,
    .body = server_body,
    .end = server_end,
    .abort = server_abort,
    .flush = server_flush,
    .is_congested = server_is_congested,
    .want_body = server_want_body,
    .tunnel = server_tunnel,
};

// ---- Requests ------------------------------------------------------------------------------------------------------

static bool server_begin(struct server *server) {
  struct worker *worker = server->stream.worker;
  server->turn_left--;
  const struct limits *limits = worker_limits(worker);
  server->stream.peer.requests++;
  struct exchange *exchange = exchange_new(worker, &server->stream, &server_ops);
  if (!exchange) {
    server_close(server);
    return false;
  }
  server->exchange = exchange;
  server->h1.max_head_bytes = limits->max_head_bytes;
  h1_begin(&server->h1, &exchange->request, &exchange->arena, limits->max_headers, false);
  server_timeout(server, limits->header_timeout_ms);
  // The whole head will fit behind where it begins, so that its slices never have to move.
  if (conn_make_span(&server->conn, limits->max_head_bytes + HEAD_SLACK) == 0) {
    exchange->head_chunk = chunk_retain(server->conn.in);
    return true;
  }
  server_close(server);
  return false;
}

static void server_on_head(struct server *server) {
  struct exchange *exchange = server->exchange;
  exchange->request_bytes = server->h1.head_bytes;
  server->request_open = true;
  server->want_body = true;
  server_timeout(server, worker_limits(server->stream.worker)->body_timeout_ms);
  exchange_on_head(exchange);
}

static void server_on_request_end(struct server *server) {
  server->request_open = false;
  server_timeout(server, 0);
  if (server->exchange) exchange_on_request_end(server->exchange);
}

static void server_on_problem(struct server *server) {
  static const struct {
    int status;
    const char *message;
  } answers[] = {
      [H1_PROBLEM_SYNTAX] = {400, "Bad request"},
      [H1_PROBLEM_TARGET_LONG] = {414, "Request target is too long"},
      [H1_PROBLEM_HEAD_LARGE] = {431, "Request header fields are too large"},
      [H1_PROBLEM_METHOD] = {501, "Method is not known"},
      [H1_PROBLEM_CODING] = {501, "Transfer coding is not known"},
      [H1_PROBLEM_VERSION] = {505, "HTTP version is not supported"},
  };
  struct exchange *exchange = server->exchange;
  server->keep_alive = false;
  conn_pause(&server->conn);
  if (!exchange) {
    server_close_after_write(server);
  } else if (exchange->state == EXCHANGE_HEAD) {
    exchange_refuse(exchange, answers[server->h1.problem].status, answers[server->h1.problem].message);
  } else {
    server->request_open = false;
    exchange_on_bad_body(exchange);
  }
}

// Raw bytes of a tunnel go to the other side as they are.
static void server_pump_tunnel(struct server *server) {
  struct slice input = conn_input(&server->conn);
  if (input.len == 0 || !server->exchange) return;
  exchange_on_body(server->exchange, server->conn.in, input);
  if (server->conn.closed) return;
  conn_consume(&server->conn, input.len);
  conn_release_input(&server->conn);
}

// One event of the parser. False: nothing more can be done with what is there.
static bool server_step(struct server *server) {
  struct slice input = conn_input(&server->conn);
  struct chunk *chunk = server->conn.in;
  uint32_t used;
  if (server->tunnel) {
    server_pump_tunnel(server);
    return false;
  }
  // The next request waits for this response.
  if (server->exchange && !server->request_open && server->exchange->state != EXCHANGE_HEAD) return false;
  if (server->request_open && !server->want_body && server->exchange) return false;
  if (!server->exchange && !server->request_open) {
    if (input.len == 0 || !server->keep_alive || server->closing) return false;
    if (conn_is_congested(&server->conn)) return false; // who does not read gets no more answers
    if (server->turn_left == 0) {
      worker_give_way(server->stream.worker, server_next_later, server, &server->next_job);
      return false;
    }
    if (!server_begin(server)) return false;
    input = conn_input(&server->conn);
    chunk = server->conn.in;
  }
  enum h1_event event = h1_next(&server->h1, input, &used);
  // Before the event is acted on: an answer at once may end the connection, and with it all input. The bytes stay where
  // they are while the exchange or this step looks at them.
  conn_consume(&server->conn, used);
  switch (event) {
  case H1_HEAD: server_on_head(server); break;
  case H1_BODY:
    server_timeout(server, worker_limits(server->stream.worker)->body_timeout_ms);
    if (server->exchange) exchange_on_body(server->exchange, chunk, server->h1.body);
    break;
  case H1_END: server_on_request_end(server); break;
  case H1_ERROR: server_on_problem(server); return false;
  case H1_NEED_MORE: break;
  }
  return !server->conn.closed && event != H1_NEED_MORE;
}

static void server_rest(struct server *server) {
  const struct limits *limits = worker_limits(server->stream.worker);
  if (server->exchange || server->request_open || server->closing || job_is_queued(&server->next_job)) return;
  conn_release_input(&server->conn);
  if (server->stream.worker->draining || !server->keep_alive)
    server_close_after_write(server);
  else
    server_timeout(server, server->conn.out.bytes > 0 ? limits->send_timeout_ms : limits->keepalive_timeout_ms);
}

static bool server_wants_input(const struct server *server) {
  if (!server->exchange || server->exchange->state == EXCHANGE_HEAD) return true;
  return server->request_open && server->want_body;
}

// Uses up the input that is there: any number of requests, as far as their responses allow.
static void server_pump(struct server *server) {
  if (server->conn.closed || server->pumping) return;
  server->pumping = true;
  server->turn_left = REQUESTS_A_TURN;
  while (!server->conn.closed && !server->closing && !server->conn.failed && server_step(server)) {
  }
  server->pumping = false;
  if (!server->conn.closed && server->exchange) exchange_on_body_settled(server->exchange);
  if (server->conn.closed || server->closing) return;
  bool between = !server->exchange && !server->request_open;
  if (job_is_queued(&server->next_job) || (between && conn_is_congested(&server->conn)))
    conn_pause(&server->conn);
  else if (server_wants_input(server))
    conn_resume(&server->conn);
  server_rest(server);
}

// The client closed its side. Behind a request that is the end; in one, it is as good as gone; in a tunnel, the other
// side is told and may go on.
static void server_on_eof(struct server *server) {
  if (server->tunnel && server->exchange) {
    conn_pause(&server->conn);
    server->request_open = false;
    exchange_on_request_end(server->exchange);
  } else if (!server->exchange && server->conn.out.bytes > 0)
    server_close_after_write(server);
  else
    server_close(server);
}

// A line, but not one that a request of HTTP/1.1 begins with.
static bool is_foreign(struct slice input) {
  const char *end = memchr(input.data, '\n', input.len);
  return end && !memmem(input.data, (size_t)(end - input.data), " HTTP/", 6);
}

// A plain connection begins in HTTP/2 where the client knows that it may. Whether it is HTTP/1.1; one that is neither
// would understand no answer.
static bool server_sniff(struct server *server) {
  struct slice input = conn_input(&server->conn);
  int is_h2 = h2_server_preface(input);
  server->may_be_h2 = is_h2 < 0;
  if (is_h2 > 0)
    h2_server_start(server);
  else if (is_h2 == 0 && is_foreign(input))
    server_close(server);
  return is_h2 == 0 && !server->conn.closed;
}

// The handshake is over: now it is known what the client speaks.
static void server_on_greeted(struct server *server) {
  struct tls_info info;
  tls_info(server->conn.tls, &info);
  if (slice_equal((struct slice){info.alpn, info.alpn_len}, SLICE("h2"))) h2_server_start(server);
}

static void server_on_read(struct conn *conn) {
  struct server *server = server_of_conn(conn);
  if (conn->failed) {
    server_close(server);
    return;
  }
  if (server->lingering) {
    server_drop_input(server);
    return;
  }
  if (server->proxy) {
    server_read_proxy(server);
    return;
  }
  int64_t n = conn_fill(conn);
  if (n > 0) {
    if (server->may_be_h2 && !server_sniff(server)) return;
    server_pump(server);
    // A client that pipelines on and on while a response is made waits in the kernel's buffer.
    if (!conn->closed && server->exchange && conn_input(conn).len > 0 && !server->request_open) conn_pause(conn);
  } else if (n == CONN_EOF) {
    server_on_eof(server);
  } else if (n == CONN_FAILED) {
    server_close(server);
  }
}

static void server_on_write(struct conn *conn) {
  struct server *server = server_of_conn(conn);
  if (server->closing) {
    if (conn->out.bytes == 0) server_linger(server);
    return;
  }
  if (server->exchange) {
    if (conn->out.bytes == 0) await_body(server);
    exchange_on_drained(server->exchange);
  } else if (server->stream.peer.requests > 0) {
    server_pump(server); // requests that had to wait, or rest
  } else if (conn->tls) {
    server_on_greeted(server);
  }
}

// Whether the client takes what it is sent, however slowly.
static bool server_moves(struct server *server) {
  int64_t before = server->delivered;
  server->delivered = conn_delivered(&server->conn);
  return server->conn.out.bytes > 0 && server->delivered != before;
}

static void server_on_deadline(struct conn *conn) {
  struct server *server = server_of_conn(conn);
  struct exchange *exchange = server->exchange;
  const struct limits *limits = worker_limits(server->stream.worker);
  if (server_moves(server))
    server_timeout(server, limits->send_timeout_ms);
  else if (!exchange || conn->handshaking || conn->out.bytes > 0)
    server_close(server);
  else if (exchange->state == EXCHANGE_HEAD)
    exchange_refuse(exchange, 408, "The request did not arrive in time");
  else if (server->request_open && !server->tunnel && !server->want_body) // it is us who do not read
    server_timeout(server, limits->body_timeout_ms);
  else if (server->request_open && !server->tunnel)
    exchange_on_late_body(exchange);
}

// The client's address is known.
static void server_start(struct server *server) {
  const struct listener *listener = server->stream.listener;
  server->may_be_h2 = listener && listener->http2 && !listener->tls;
  if (!listener || !listener->tls)
    conn_resume(&server->conn);
  else if (stream_start_tls(&server->stream) < 0)
    server_close(server);
}

static void server_read_proxy(struct server *server) {
  struct proxy_header header;
  int result = proxy_input_read(server->proxy, &server->stream, &header);
  if (result == 0) return;
  if (result < 0) {
    server_close(server);
    return;
  }
  proxy_input_free(server->proxy);
  server->proxy = NULL;
  server_start(server);
}

static void server_on_greeting_failed(struct stream *stream) {
  server_close((struct server *)(void *)stream);
}

// ---- Accepting -----------------------------------------------------------------------------------------------------

void server_open(struct worker *worker, const struct listener *listener, int fd, const struct sockaddr *address) {
  struct server *server = calloc(1, sizeof *server);
  if (!server) {
    close(fd);
    return;
  }
  stream_open(&server->stream, worker, listener, &server->conn, address);
  server->stream.on_greeting_failed = server_on_greeting_failed;
  server->conn.on_read = server_on_read;
  server->conn.on_write = server_on_write;
  server->conn.on_deadline = server_on_deadline;
  server->keep_alive = true;
  conn_init(&server->conn, &worker->loop, &worker->chunks, fd);
  h1_init(&server->h1, H1_SERVER, worker_limits(worker)->max_head_bytes);
  server->next = worker->servers;
  if (server->next) server->next->previous = server;
  worker->servers = server;
  worker->server_count++;
  server->stream.peer.number = ++worker->board->connections;
  worker->board->connections_open++;
  server_timeout(server, worker_limits(worker)->header_timeout_ms);
  if (!listener || !listener->proxy_protocol) {
    server_start(server);
    return;
  }
  server->proxy = proxy_input_new();
  if (server->proxy)
    conn_resume(&server->conn);
  else
    server_close(server);
}
