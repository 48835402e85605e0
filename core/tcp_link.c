// SPDX-License-Identifier: Apache-2.0
// A connection to a service that carries a stream.
//
//   connect ──> [PROXY header] ──> [TLS] ──> bytes both ways; each side may end before the other
#include "tcp_link.h"

#include <stdio.h>
#include <stdlib.h>

#include "exchange.h"
#include "proxy_protocol.h"
#include "tls.h"
#include "try.h"
#include "worker.h"

struct tcp_link {
  struct worker *worker;
  struct conn conn;
  struct exchange *exchange;    // NULL once it has let go
  bool ready;                   // bytes may pass
  bool announced;               // the PROXY header has been written
  bool service_done, told_done; // the service sends no more; it knows that the client sends no more
  bool paused;                  // the client is slow
  int64_t delivered;            // by conn_delivered, when the deadline was last looked at
  struct grave grave;
};

static struct tcp_link *link_of(struct conn *conn) {
  return (struct tcp_link *)(void *)((char *)conn - offsetof(struct tcp_link, conn));
}

static void link_timeout(struct tcp_link *link, int64_t ms) {
  conn_deadline(&link->conn, ms > 0 ? link->worker->loop.clock.mono_us + ms * 1000 : 0);
}

static void link_close(struct tcp_link *link) {
  if (link->conn.closed) return;
  conn_close(&link->conn);
  worker_bury(link->worker, &link->grave, link);
}

// The exchange and the link part.
static struct exchange *link_leave(struct tcp_link *link) {
  struct exchange *exchange = link->exchange;
  exchange->try->tcp_link = NULL;
  exchange->try = NULL;
  link->exchange = NULL;
  link_close(link);
  return exchange;
}

static void link_broke(struct tcp_link *link, const char *why) {
  struct exchange *exchange = link->exchange;
  exchange->error = arena_copy(&exchange->arena, why, strlen(why)); // for the log, and the link's own is about to go
  link_leave(link);
  exchange_on_service_failed(exchange, 502, exchange->error.data ? exchange->error.data : "");
}

static void link_over(struct tcp_link *link) {
  exchange_on_service_end(link_leave(link));
}

// ---- To the service ------------------------------------------------------------------------------------------------

// A stream may be silent, in both directions together, for as long as the service's read_timeout.
static void link_await(struct tcp_link *link) {
  link_timeout(link, link->exchange->read_timeout_ms);
}

static void client_is_done(struct tcp_link *link) {
  if (link->told_done) return;
  link->told_done = true;
  conn_finish(&link->conn);
  if (link->service_done) link_over(link);
}

static void link_send(struct tcp_link *link) {
  struct exchange *exchange = link->exchange;
  if (buffer_move(&link->conn.out, &exchange->request_body, exchange->request_body.bytes) < 0) link->conn.failed = true;
  if (conn_flush(&link->conn) < 0) return; // heard of from the loop
  if (link->conn.out.bytes > 0) {
    link_timeout(link, exchange->send_timeout_ms);
    if (conn_is_congested(&link->conn) && exchange->stream) exchange->ops->want_body(exchange, false);
    return;
  }
  if (!link->paused) link_await(link);
  if (exchange->request_complete)
    client_is_done(link);
  else
    exchange_on_service_drained(exchange);
}

static bool link_on_request(struct exchange *exchange) {
  struct tcp_link *link = exchange->try->tcp_link;
  if (!link || !link->ready || link->conn.failed) return false;
  link_send(link);
  return true;
}

// ---- From the service ----------------------------------------------------------------------------------------------

static void service_is_done(struct tcp_link *link) {
  link->service_done = true;
  conn_pause(&link->conn);
  if (link->told_done)
    link_over(link);
  else
    link->exchange->ops->finish(link->exchange);
}

// What was handed over is written; a client that does not keep up stops the reading here.
static void link_settle(struct tcp_link *link) {
  struct exchange *exchange = link->exchange;
  if (!exchange || !exchange->stream) return;
  exchange->ops->flush(exchange);
  if (link->exchange != exchange || !exchange->stream || !exchange->ops->is_congested(exchange)) return;
  link->paused = true;
  conn_pause(&link->conn);
  link_timeout(link, 0); // it is the client who makes us wait
}

static void take_bytes(struct tcp_link *link) {
  struct slice input = conn_input(&link->conn);
  link->exchange->try->response_seen = true;
  link_await(link);
  exchange_on_service_body(link->exchange, link->conn.in, input);
  if (link->conn.closed) return;
  conn_consume(&link->conn, input.len);
  conn_release_input(&link->conn);
  link_settle(link);
}

static void link_on_read(struct conn *conn) {
  struct tcp_link *link = link_of(conn);
  if (!link->exchange) return;
  if (!link->ready) {
    if (conn->failed) try_unreachable(link->exchange, conn_reason(conn));
    return;
  }
  if (link->service_done) { // only a failure brings us here
    if (conn->failed) link_broke(link, conn_reason(conn));
    return;
  }
  int64_t n = conn_fill(conn);
  if (n == CONN_AGAIN) return;
  bool cut = n == CONN_FAILED && conn->tls && tls_is_cut_off(conn->tls);
  if (n > 0)
    take_bytes(link);
  else if (n == CONN_EOF || cut)
    service_is_done(link);
  else
    link_broke(link, conn_reason(conn));
}

// ---- Connecting ----------------------------------------------------------------------------------------------------

// The service is told whom the gateway speaks for, before TLS and all else. It fits any socket's buffer.
static bool link_announce(struct tcp_link *link) {
  struct exchange *exchange = link->exchange;
  int version = exchange->service ? exchange->service->proxy_protocol : 0;
  link->announced = true;
  if (version == 0) return true;
  char header[PROXY_PROTOCOL_WRITE_MOST];
  uint32_t len = proxy_protocol_write(version, &exchange->ends->source, &exchange->ends->destination, header);
  return buffer_append(&link->conn.out, header, len) == 0 && conn_flush(&link->conn) == 0 && link->conn.out.bytes == 0;
}

static void link_start_tls(struct tcp_link *link) {
  struct exchange *exchange = link->exchange;
  const char *name = exchange->try->tls_name;
  struct tls *tls = tls_client_new(exchange->try->tls, link->conn.fd, name, name);
  if (!tls) {
    try_failed(exchange, 502, "No memory for TLS", true);
    return;
  }
  conn_start_tls(&link->conn, tls);
  ev_feed_event(link->conn.loop->ev, &link->conn.reader, EV_READ); // the client speaks first
}

static void link_on_write(struct conn *conn) {
  struct tcp_link *link = link_of(conn);
  struct exchange *exchange = link->exchange;
  if (!exchange) return;
  if (link->ready) {
    link_send(link);
    return;
  }
  if (!link->announced && !link_announce(link)) {
    try_unreachable(exchange, "the PROXY header could not be written");
  } else if (exchange->try->tls && !conn->tls) {
    link_start_tls(link);
  } else {
    link->ready = true;
    link_await(link);
    exchange_on_service_connected(exchange);
  }
}

// Whether the service takes what it is sent, however slowly.
static bool link_moves(struct tcp_link *link) {
  int64_t before = link->delivered;
  link->delivered = conn_delivered(&link->conn);
  return link->conn.out.bytes > 0 && link->delivered != before;
}

static void link_on_deadline(struct conn *conn) {
  struct tcp_link *link = link_of(conn);
  if (!link->exchange)
    link_close(link);
  else if (!link->ready)
    try_failed(link->exchange, 504, "The connection to the service timed out", true);
  else if (link_moves(link))
    link_timeout(link, link->exchange->send_timeout_ms);
  else if (conn->out.bytes > 0)
    link_broke(link, "Sending to the service timed out");
  else
    link_over(link); // nobody has had anything to say
}

static void link_resume(struct exchange *exchange) {
  struct tcp_link *link = exchange->try->tcp_link;
  if (!link || !link->paused) return;
  link->paused = false;
  link_await(link);
  if (!link->service_done) conn_resume(&link->conn);
}

static void link_abandon(struct exchange *exchange) {
  struct tcp_link *link = exchange->try->tcp_link;
  exchange->try->tcp_link = NULL;
  if (!link) return;
  link->exchange = NULL;
  link_close(link);
}

static struct tcp_link *link_new(struct worker *worker, const struct pool_key *key, struct error *error) {
  struct tcp_link *link = calloc(1, sizeof *link);
  if (!link) return NULL;
  link->worker = worker;
  link->conn.on_read = link_on_read;
  link->conn.on_write = link_on_write;
  link->conn.on_deadline = link_on_deadline;
  if (try_open(worker, &link->conn, key, error) == 0) return link;
  free(link);
  return NULL;
}

static void link_begin(struct exchange *exchange, const struct pool_key *key) {
  struct error error = {.text = "refused"};
  struct tcp_link *link = link_new(exchange->worker, key, &error);
  if (!link) {
    try_unreachable(exchange, error.text);
    return;
  }
  link->exchange = exchange;
  exchange->try->tcp_link = link;
  link_timeout(link, exchange->connect_timeout_ms);
}

const struct carrier tcp_carrier = {
    .begin = link_begin,
    .on_request = link_on_request,
    .resume = link_resume,
    .abandon = link_abandon,
};
